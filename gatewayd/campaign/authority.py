"""What this gateway may believe now: the trust view, the verified campaigns and the verified releases.

Everything here came through trust/. It is kept in the store as it was signed, and verified again after a restart, offline
too; the rest of the daemon sees only `VerifiedCampaign` and `VerifiedRelease`.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable

import structlog

from gatewayd.campaign import rows
from gatewayd.errors import Refused, Unavailable
from gatewayd.service.wall_clock import WallClock
from gatewayd.store.database import Database
from gatewayd.trust.envelope import VerifiedCampaign, reverify_campaign, verify_campaign
from gatewayd.trust.release import VerifiedRelease
from gatewayd.trust.repository import TrustRepository, TrustView

RETRY_MIN_S = 5.0

log = structlog.get_logger()


class Authority:
    """`changed` is called when there is something new to believe."""

    def __init__(
        self,
        repository: TrustRepository,
        database: Database,
        wall: WallClock,
        audiences: frozenset[str],
        refresh_s: float,
    ) -> None:
        self._repository = repository
        self._database = database
        self._wall = wall
        self._audiences = audiences
        self._refresh_s = refresh_s
        self._lock = asyncio.Lock()
        self._wake = asyncio.Event()
        self.changed: Callable[[], None] = lambda: None
        self.view_changed: Callable[[], None] = lambda: None
        self.view: TrustView | None = None
        self.problem: tuple[str, str] | None = ("trust_unknown", "the repository has not been read yet")
        self.campaigns: dict[str, VerifiedCampaign] = {}
        self.releases: dict[str, VerifiedRelease] = {}
        self._release_problems: dict[str, tuple[str, str]] = {}
        self._logged_problems: dict[str, str] = {}

    def blocked(self) -> tuple[str, str] | None:
        """Why nothing new may start: (code, detail); None when trust is fresh and the clock can be believed."""
        if not self._wall.trusted():
            self._rederive_clock()
        if not self._wall.trusted():
            return "clock_untrusted", self._wall.reason
        if self.view is None:
            return self.problem or ("trust_unknown", "")
        if self._wall.now() > self.view.expires:
            return "trust_expired", "the signed metadata has expired and no newer could be had: " + (
                self.problem[1] if self.problem else ""
            )
        return None

    def _rederive_clock(self) -> None:
        """Synchronised time against a stored one that contradicts it: the newest signed `issued` decides."""
        issued = [campaign.document.issued.timestamp() for campaign in self.campaigns.values()]
        self._wall.rederive(max(issued, default=0.0))

    def release_problem(self, path: str) -> tuple[str, str]:
        return self._release_problems.get(path, ("release_unknown", f"{path} is not verified yet"))

    def release_refused(self, path: str) -> bool:
        """Whether the release was refused (withdrawn, say), not merely out of reach."""
        code = self._release_problems.get(path, ("", ""))[0]
        return code not in ("", "release_unavailable")

    async def restore(self) -> None:
        """At start: verify again what is stored. What does not verify is left aside and said so."""
        self.view = await self._repository.restore()
        if self.view is None:
            return
        stored = await self._database.read(lambda db: (rows.campaigns(db), rows.releases(db)))
        for row in stored[0]:
            try:
                keys = self.view.campaign_keys
                self.campaigns[row.id] = reverify_campaign(row.envelope, keys, self._audiences, row.topic)
            except Refused as error:
                log.error("stored_campaign_refused", campaign=row.id, code=error.code, detail=error.detail)
        for path, body in stored[1].items():
            try:
                self.releases[path] = await self._repository.reverify_release(path, body)
            except Refused as error:
                log.error("stored_release_refused", release=path, code=error.code, detail=error.detail)
                self._release_problems[path] = (error.code, error.detail)
        log.info("trust_restored", campaigns=len(self.campaigns), releases=len(self.releases))

    def verify(self, envelope: bytes, topic: str) -> VerifiedCampaign:
        """Refused when the envelope is not by a key listed for its audience, or not for this gateway."""
        if self.view is None:
            raise Unavailable("no trust metadata yet")
        return verify_campaign(envelope, self.view.campaign_keys, self._audiences, self._wall.now(), topic)

    async def refresh(self) -> None:
        """Ask the repository for newer metadata now; on trouble the old view stays and `problem` says why."""
        async with self._lock:
            before = self.view
            try:
                self.view = await self._repository.refresh()
                self.problem = None
            except Unavailable as error:
                self.problem = ("trust_unavailable", str(error))
                log.warning("trust_unavailable", error=str(error))
            except Refused as error:
                self.problem = (error.code, error.detail)
                log.error("trust_refused", code=error.code, detail=error.detail)
        if self.view is not None and _versions(self.view) != _versions(before):
            self._release_problems.clear()
            await self._judge_again()
            self.view_changed()
            self.changed()

    async def _judge_again(self) -> None:
        """Newer metadata may have withdrawn a release, or revoked the key of a campaign: neither is acted on any more."""
        if self.view is None:
            return
        for path, release in list(self.releases.items()):
            try:
                self.releases[path] = await self._repository.reverify_release(path, release.body)
            except Refused as error:
                del self.releases[path]
                self._release_failed(path, error.code, error.detail)
        for name, campaign in list(self.campaigns.items()):
            try:
                reverify_campaign(campaign.envelope, self.view.campaign_keys, self._audiences, None)
            except Refused as error:
                del self.campaigns[name]
                log.error("campaign_revoked", campaign=name, code=error.code, detail=error.detail)

    async def require_release(self, path: str) -> VerifiedRelease | None:
        """The verified release; None when it cannot be had now (`release_problem` says why)."""
        if path in self.releases:
            return self.releases[path]
        if path in self._release_problems or self.view is None:
            return None
        try:
            release = await self._repository.release(path)
        except Unavailable as error:
            self._release_failed(path, "release_unavailable", str(error))
            self.soon()
            return None
        except Refused as error:
            self._release_failed(path, error.code, error.detail)
            return None

        def keep(db: sqlite3.Connection) -> None:
            rows.put_release(db, path, release.body, self._wall.now())

        await self._database.write(keep)
        self.releases[path] = release
        log.info("release_verified", release=path, version=release.document.version)
        return release

    def _release_failed(self, path: str, code: str, detail: str) -> None:
        self._release_problems[path] = (code, detail)
        if self._logged_problems.get(path) != code:  # it is asked again at every refresh
            self._logged_problems[path] = code
            log.error("release_refused", release=path, code=code, detail=detail)

    def soon(self) -> None:
        """Refresh before the regular time: something could not be had or was not known."""
        self._wake.set()

    async def run(self) -> None:
        """Refresh every `refresh_s`, sooner while there is trouble, until cancelled."""
        pause = RETRY_MIN_S
        while True:
            await self.refresh()
            if self.problem is None and not self._release_problems:
                pause = RETRY_MIN_S
                wait = self._refresh_s
            else:
                wait = min(pause, self._refresh_s)
                pause *= 2
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            if self._wake.is_set():
                await asyncio.sleep(min(1.0, wait))  # a burst of requests is one refresh
            self._release_problems.clear()
            self.changed()


def _versions(view: TrustView | None) -> tuple[object, ...]:
    """What tells one set of metadata from another; the time of the check does not."""
    if view is None:
        return ()
    return view.root_version, view.targets_version, view.snapshot_version, tuple(sorted(view.problems.items()))
