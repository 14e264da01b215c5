"""The daemon's side of the TUF repository: what is trusted now, and releases by path. SHELL.

The metadata workflow is python-tuf's `ngclient`, in a worker thread, with a new Updater per check and the configured root
file as its bootstrap. What it accepted is kept as one bundle, and verified again by `metadata.TrustedMetadata` before
anything is told to the rest of the daemon, so that the answers after a check and after an offline restart come from the
same code. Firmware is not fetched here.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

import aiohttp
import structlog
from tuf.api.exceptions import DownloadError, ExpiredMetadataError, RepositoryError, UnsignedMetadataError
from tuf.api.metadata import TargetFile  # type: ignore[attr-defined] # a public name, but not in its __all__
from tuf.ngclient.config import UpdaterConfig
from tuf.ngclient.updater import Updater

from gatewayd.cloud import messages
from gatewayd.errors import ConfigError, Refused, StoreError, Unavailable
from gatewayd.trust.bundle import Bundle, load_bundle, metadata_file, save_bundle, seed, sync_folder
from gatewayd.trust.fetch import LoopFetcher, download, unavailable_or_refused
from gatewayd.trust.metadata import MetadataFiles, TrustedMetadata, newest_root, refusal
from gatewayd.trust.release import RELEASE_PATH, VerifiedRelease, verify_release

log = structlog.get_logger()

T = TypeVar("T")

CAMPAIGN_KEYS = "trust/campaign-keys.json"
MANUFACTURERS = "trust/manufacturers.json"
_ANY_RELEASE = "releases/-/-.json"  # asking python-tuf for it loads every role that releases are delegated to


@dataclass(frozen=True, slots=True)
class TrustSettings:
    """Where trust comes from. URLs are the folders `metadata/` and `targets/` of the repository."""

    root: Path  # the first root.json, put on the gateway by its owner; the bootstrap at every start
    metadata_url: str
    targets_url: str
    directory: Path  # state: ours alone
    request_timeout_s: float = 60.0
    connect_timeout_s: float = 10.0
    stall_timeout_s: float = 15.0  # without a byte


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
        self._settings = settings
        self._session = session
        self._now = now
        self._timeout = aiohttp.ClientTimeout(
            total=settings.request_timeout_s,
            sock_connect=settings.connect_timeout_s,
            sock_read=settings.stall_timeout_s,
        )
        self._folder = settings.directory / "metadata"
        self._bundle_path = settings.directory / "trusted.json"
        self._thread = ThreadPoolExecutor(1, "trust")
        self._lock = asyncio.Lock()
        self._root: bytes | None = None
        self._fetcher: LoopFetcher | None = None  # of the check that is running
        self._trusted: TrustedMetadata | None = None
        self._documents: Mapping[str, bytes] = {}
        self._view: TrustView | None = None
        self._refused: dict[str, Refused] = {}

    @property
    def view(self) -> TrustView | None:
        """The last view made; None before the first `restore` or `refresh` that gave one."""
        return self._view

    async def restore(self) -> TrustView | None:
        """What is on disk, verified again, without a network; expired is allowed and told by `fresh` and `expired`.

        None when nothing is there, or it does not verify. ConfigError when the root file is no root.
        """
        async with self._lock:
            bundle = await self._in_thread(lambda: load_bundle(self._bundle_path))
            if bundle is None:
                return None
            try:
                trusted = _verify_held(await self._in_thread(self._roots), bundle.files)
                return self._adopt(trusted, bundle)
            except Refused as error:
                log.error("trust_restore_refused", code=error.code, detail=error.detail)
                return None

    async def refresh(self) -> TrustView:
        """Check with the repository: root, timestamp, snapshot, targets, delegations, and the two trust documents.

        Unavailable for the network; Refused: expired, rolled_back, bad_signature, tampered, too_large, bad_document,
        unknown_target. StoreError when the disk fails. After each, what was trusted before still is.
        """
        async with self._lock:
            return await self._refresh()

    async def release(self, path: str) -> VerifiedRelease:
        """The release, fetched and verified against metadata that is held and not expired; see `lists`.

        Refused: unknown_release, tampered, bad_document, too_large, expired. Unavailable for the network, or without metadata.
        """
        if not RELEASE_PATH.fullmatch(path):
            raise Refused("unknown_release", f"{path!r} is no path of a release")
        async with self._lock:
            trusted, target, expires = self._authorised(path)
            if expires <= self._now():
                raise Refused("expired", f"{path}: the role that lists it expired at {messages.utc(expires)}")
            body = await self._target(trusted, target, messages.RELEASE_MAX_BYTES)
            return verify_release(path, body, target, expires, self._now())

    def reverify_release(self, path: str, body: bytes) -> VerifiedRelease:
        """A release that was kept, against what is trusted at this moment; see `VerifiedRelease.expired`.

        Refused: unknown_release when it was withdrawn, tampered when it was replaced. Unavailable before `restore`.
        """
        _, target, expires = self._authorised(path)
        return verify_release(path, body, target, expires, self._now())

    def close(self) -> None:
        """End the worker thread; a check that is still running there fails."""
        if self._fetcher is not None:
            self._fetcher.stop()
        self._thread.shutdown()

    async def _refresh(self) -> TrustView:
        fetcher = self._fetcher = LoopFetcher(self._session, self._timeout, asyncio.get_running_loop())
        files, refused = await self._in_thread(lambda: self._check(fetcher), fetcher)
        self._fetcher = None
        trusted = TrustedMetadata.verify(await self._in_thread(self._roots), files)
        now = self._now()
        if trusted.expires <= now:  # python-tuf has asked the system's clock; ours may know better
            raise Refused("expired", f"metadata expired at {messages.utc(trusted.expires)}")
        documents = {}
        for path in (CAMPAIGN_KEYS, MANUFACTURERS):
            target = trusted.own_target(path)
            held = self._documents.get(path)
            if held is None or not _is(target, held):
                held = await self._target(trusted, target, messages.DOCUMENT_MAX_BYTES)
            documents[path] = held
        bundle = Bundle(files, documents, now)
        _parse_documents(documents)  # before it replaces one that could be read
        await self._in_thread(lambda: save_bundle(self._bundle_path, bundle))
        self._refused = refused
        view = self._adopt(trusted, bundle)
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

    def _adopt(self, trusted: TrustedMetadata, bundle: Bundle) -> TrustView:
        for path in (CAMPAIGN_KEYS, MANUFACTURERS):
            if not _is(trusted.own_target(path), bundle.documents.get(path, b"")):
                raise Refused("tampered", f"{path}: the copy held is not the one listed")
        keys, manufacturers = _parse_documents(bundle.documents)
        self._trusted, self._documents = trusted, bundle.documents
        self._view = TrustView(
            campaign_keys=keys,
            manufacturers=manufacturers,
            expires=trusted.expires,
            checked_at=bundle.checked_at,
            fresh=trusted.expires > self._now(),
            root_version=trusted.root.version,
            timestamp_version=trusted.timestamp.version,
            snapshot_version=trusted.snapshot.version,
            targets_version=trusted.targets.version,
            problems={role: str(error) for role, error in self._refused.items()},
        )
        return self._view

    def _check(self, fetcher: LoopFetcher) -> tuple[MetadataFiles, dict[str, Refused]]:
        """python-tuf's whole workflow; in the worker thread."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if (bundle := load_bundle(self._bundle_path)) is not None:
                seed(self._folder, bundle.files)
            bootstrap = self._bootstrap()
            try:
                return self._update(bootstrap, fetcher)
            finally:
                sync_folder(self._folder)
        except DownloadError as error:
            raise unavailable_or_refused(error) from error
        except RepositoryError as error:
            raise refusal(error, self._settings.metadata_url) from error

    def _update(self, bootstrap: bytes, fetcher: LoopFetcher) -> tuple[MetadataFiles, dict[str, Refused]]:
        updater = Updater(
            str(self._folder),
            self._settings.metadata_url,
            fetcher=fetcher,
            config=UpdaterConfig(),
            bootstrap=bootstrap,
        )
        updater.refresh()
        refused: dict[str, Refused] = {}
        roles: dict[str, bytes] = {}
        # A revoked key or a forgotten renewal is the publisher's doing, not the mirror's (snapshot names the hash). It
        # must not keep the gateway from learning of revoked keys: new releases are refused until it is mended.
        try:
            updater.get_targetinfo(_ANY_RELEASE)
        except UnsignedMetadataError as error:
            refused["releases"] = refusal(error, self._settings.metadata_url)
        except ExpiredMetadataError as error:
            refused["releases"] = refusal(error, self._settings.metadata_url)
            roles = self._delegated_files()  # what was taken from it before may finish
        else:
            roles = self._delegated_files()
        snapshot = metadata_file(self._folder, "snapshot").read_bytes()
        targets = metadata_file(self._folder, "targets").read_bytes()
        timestamp = metadata_file(self._folder, "timestamp").read_bytes()
        return MetadataFiles(timestamp, snapshot, targets, roles), refused

    def _delegated_files(self) -> dict[str, bytes]:
        top = {"root", "timestamp", "snapshot", "targets"}
        files = [path for path in self._folder.glob("*.json") if path.stem not in top]
        return {unquote(path.stem): path.read_bytes() for path in files}

    def _bootstrap(self) -> bytes:
        """The configured root, read once: what is done to the file while we run counts at the next start."""
        if self._root is not None:
            return self._root
        try:
            bootstrap = self._settings.root.read_bytes()
            newest_root([bootstrap])
        except OSError as error:
            raise ConfigError(f"trust.root: {error}") from error
        except RepositoryError as error:
            raise ConfigError(f"trust.root: {self._settings.root} is no TUF root: {error}") from error
        self._root = bootstrap
        return bootstrap

    def _roots(self) -> list[bytes]:
        """The bootstrap and every later root that was kept and verifies; in the worker thread."""
        roots = [self._bootstrap()]
        version = newest_root(roots).version
        while (path := self._folder / "root_history" / f"{version + 1}.root.json").exists():
            longer = [*roots, path.read_bytes()]
            try:
                newest_root(longer)
            except RepositoryError as error:
                log.warning("trust_root_unreadable", version=version + 1, reason=str(error))
                break
            roots, version = longer, version + 1
        return roots

    def lists(self, path: str) -> bool:
        """Whether metadata that is held and in date lists the path; else only a `refresh` can help."""
        if self._trusted is None or self._trusted.expires <= self._now():
            return False
        try:
            return self._trusted.find(path) is not None
        except Refused:
            return False

    def _authorised(self, path: str) -> tuple[TrustedMetadata, TargetFile, float]:
        if self._trusted is None:
            raise Unavailable("no verified metadata is held")
        try:
            found = self._trusted.find(path)
        except Refused as error:
            raise next(iter(self._refused.values()), error) from None
        if found is None:
            raise Refused("unknown_release", f"{path} is not listed by the signed metadata")
        return self._trusted, found.target, found.expires

    async def _target(self, trusted: TrustedMetadata, target: TargetFile, max_bytes: int) -> bytes:
        """The bytes of a listed target, with its length and hashes checked."""
        if target.length > max_bytes:
            raise Refused("too_large", f"{target.path}: {target.length} bytes, at most {max_bytes}")
        name = target.path
        if trusted.root.consistent_snapshot:
            folder, _, leaf = target.path.rpartition("/")
            name = f"{folder}/{next(iter(target.hashes.values()))}.{leaf}"
        url = f"{self._settings.targets_url.rstrip('/')}/{name}"
        try:
            body = await download(self._session, url, target.length, self._timeout)
        except DownloadError as error:
            raise unavailable_or_refused(error) from error
        if not _is(target, body):
            raise Refused("tampered", f"{target.path}: not the bytes that the metadata lists")
        return body

    async def _in_thread(self, work: Callable[[], T], fetcher: LoopFetcher | None = None) -> T:
        """Run it in the worker thread. Cancelled: its downloads are stopped and its end awaited. OSError: StoreError."""
        future = asyncio.get_running_loop().run_in_executor(self._thread, work)
        try:
            return await asyncio.shield(future)
        except OSError as error:
            raise StoreError(f"{self._settings.directory}: {error}") from error
        except asyncio.CancelledError:
            if fetcher is not None:
                fetcher.stop()
            await asyncio.wait({future})
            if not future.cancelled():
                future.exception()  # seen: nobody else will ask
            raise


def _verify_held(roots: Sequence[bytes], files: MetadataFiles) -> TrustedMetadata:
    """The bundle, by the newest root that it was complete under.

    A newer root may have arrived, with other keys, in a check that the power cut: until the rest has followed, what was
    trusted is, as it would be without the restart. Refused as `TrustedMetadata.verify` with the newest root.
    """
    try:
        return TrustedMetadata.verify(roots, files)
    except Refused as error:
        if error.code == "bad_signature":
            for end in range(len(roots) - 1, 0, -1):
                with suppress(Refused):
                    trusted = TrustedMetadata.verify(roots[:end], files)
                    log.warning("trust_restored_by_older_root", root_version=trusted.root.version)
                    return trusted
        raise


def _is(target: TargetFile, body: bytes) -> bool:
    try:
        target.verify_length_and_hashes(body)
    except RepositoryError:
        return False
    return True


def _parse_documents(documents: Mapping[str, bytes]) -> tuple[messages.CampaignKeys, messages.Manufacturers]:
    keys = messages.parse(messages.CampaignKeys, documents[CAMPAIGN_KEYS], CAMPAIGN_KEYS)
    return keys, messages.parse(messages.Manufacturers, documents[MANUFACTURERS], MANUFACTURERS)
