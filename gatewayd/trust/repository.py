"""The daemon's side of the TUF repository: what is trusted now, and releases by path. SHELL.

Says which documents the metadata must list and what they mean; fetching, verifying and keeping the metadata is client.py's.
Firmware is not fetched here.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import aiohttp
import structlog

from gatewayd.cloud import messages
from gatewayd.errors import Refused
from gatewayd.trust.bundle import Bundle
from gatewayd.trust.client import TrustSettings, TufClient, fits
from gatewayd.trust.metadata import Found, TrustedMetadata
from gatewayd.trust.release import RELEASE_PATH, VerifiedRelease, verify_release

log = structlog.get_logger()

CAMPAIGN_KEYS = "trust/campaign-keys.json"
MANUFACTURERS = "trust/manufacturers.json"
_DOCUMENTS = (CAMPAIGN_KEYS, MANUFACTURERS)
_ANY_RELEASE = "releases/-/-.json"  # asking python-tuf for it loads every role that releases are delegated to


@dataclass(frozen=True, slots=True)
class TrustView:
    """What the verified metadata says. Times are Unix seconds."""

    campaign_keys: messages.CampaignKeys
    manufacturers: messages.Manufacturers
    expires: float  # the earliest date of root, timestamp, snapshot and targets
    checked_at: float  # last complete check with the repository
    fresh: bool  # nothing in it had expired when this view was made
    root_version: int
    timestamp_version: int
    snapshot_version: int
    targets_version: int
    problems: Mapping[str, str] = field(default_factory=dict)  # delegated role -> why its releases are refused

    def expired(self, now: float) -> bool:
        """Past its date: no new transfer starts, running ones finish."""
        return now >= self.expires


class TrustRepository:
    """One per daemon. Calls may come at any time; checks are done one after the other."""

    def __init__(
        self, settings: TrustSettings, session: aiohttp.ClientSession, now: Callable[[], float] = time.time
    ) -> None:
        self._now = now
        self._client = TufClient(settings, session, now)
        self._lock = asyncio.Lock()
        self._view: TrustView | None = None

    @property
    def view(self) -> TrustView | None:
        """The last view made; None before the first `restore` or `refresh` that gave one."""
        return self._view

    async def restore(self) -> TrustView | None:
        """What is on disk, verified again, without a network; expired is allowed and told by `fresh` and `expired`.

        None when nothing is there, or it does not verify. ConfigError when the root file is no root.
        """
        async with self._lock:
            try:
                judged = await self._client.restore(self._judge)
            except Refused as error:
                log.error("trust_restore_refused", code=error.code, detail=error.detail)
                return None
            if judged is not None:
                self._view = judged
            return judged

    async def refresh(self) -> TrustView:
        """Check with the repository: root, timestamp, snapshot, targets, delegations, and the two trust documents.

        Unavailable for the network; Refused: expired, rolled_back, bad_signature, tampered, too_large, bad_document,
        unknown_target. StoreError when the disk fails. After each, what was trusted before still is.
        """
        async with self._lock:
            view = await self._client.refresh(_DOCUMENTS, {"releases": _ANY_RELEASE}, self._judge)
            self._view = view = replace(view, problems={role: str(e) for role, e in self._client.refused.items()})
        for role, reason in view.problems.items():
            log.warning("trust_role_refused", role=role, reason=reason)
        log.info(
            "trust_refreshed",
            root_version=view.root_version,
            targets_version=view.targets_version,
            timestamp_version=view.timestamp_version,
            expires=view.expires,
        )
        return view

    async def release(self, path: str) -> VerifiedRelease:
        """The release, fetched and verified against metadata that is held and not expired; see `lists`.

        Refused: unknown_release, tampered, bad_document, too_large, expired. Unavailable for the network, or without metadata.
        """
        if not RELEASE_PATH.fullmatch(path):
            raise Refused("unknown_release", f"{path!r} is no path of a release")
        async with self._lock:
            found = self._listed(path)
            body = await self._client.fetch(found, messages.RELEASE_MAX_BYTES)
            return verify_release(path, body, found.target, found.expires, self._now())

    def reverify_release(self, path: str, body: bytes) -> VerifiedRelease:
        """A release that was kept, against what is trusted at this moment; see `VerifiedRelease.expired`.

        Refused: unknown_release when it was withdrawn, tampered when it was replaced. Unavailable before `restore`.
        """
        found = self._listed(path)
        return verify_release(path, body, found.target, found.expires, self._now())

    def lists(self, path: str) -> bool:
        """Whether metadata that is held and in date lists the path; else only a `refresh` can help."""
        return self._client.lists(path)

    def close(self) -> None:
        """End the worker thread; a check that is still running there fails."""
        self._client.close()

    def _listed(self, path: str) -> Found:
        found = self._client.find(path)
        if found is None:
            raise Refused("unknown_release", f"{path} is not listed by the signed metadata")
        return found

    def _judge(self, trusted: TrustedMetadata, bundle: Bundle) -> TrustView:
        for path in _DOCUMENTS:
            if not fits(trusted.own_target(path), bundle.documents.get(path, b"")):
                raise Refused("tampered", f"{path}: the copy held is not the one listed")
        return TrustView(
            campaign_keys=messages.parse(messages.CampaignKeys, bundle.documents[CAMPAIGN_KEYS], CAMPAIGN_KEYS),
            manufacturers=messages.parse(messages.Manufacturers, bundle.documents[MANUFACTURERS], MANUFACTURERS),
            expires=trusted.expires,
            checked_at=bundle.checked_at,
            fresh=trusted.expires > self._now(),
            root_version=trusted.root.version,
            timestamp_version=trusted.timestamp.version,
            snapshot_version=trusted.snapshot.version,
            targets_version=trusted.targets.version,
        )
