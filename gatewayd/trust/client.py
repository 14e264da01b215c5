"""A TUF client that knows no document of ours: metadata fetched, verified, kept, and verified again. SHELL.

The metadata workflow is python-tuf's `ngclient`, in a worker thread, with a new Updater per check and the configured root
file as its bootstrap. What it accepted is kept as one bundle, and verified again by `metadata.TrustedMetadata` before
anything is told to anybody, so that the answers after a check and after an offline restart come from the same code. What
the targets say is repository.py's. Calls must not overlap.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
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
from gatewayd.folders import make_folder
from gatewayd.trust.bundle import Bundle, load_bundle, metadata_file, save_bundle, seed, sweep, sync_folder
from gatewayd.trust.fetch import LoopFetcher, download, unavailable_or_refused
from gatewayd.trust.metadata import Found, MetadataFiles, TrustedMetadata, newest_root, refusal

log = structlog.get_logger()

T = TypeVar("T")


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


class TufClient:
    """`now` is the daemon's clock; python-tuf asks the system's as well, and the stricter counts."""

    def __init__(self, settings: TrustSettings, session: aiohttp.ClientSession, now: Callable[[], float]) -> None:
        self._settings = settings
        self._session = session
        self._now = now
        self._timeout = aiohttp.ClientTimeout(
            total=settings.request_timeout_s,
            sock_connect=settings.connect_timeout_s,
            sock_read=settings.stall_timeout_s,
        )
        self.folder = settings.directory / "metadata"  # python-tuf's
        self._bundle_path = settings.directory / "trusted.json"
        self._thread = ThreadPoolExecutor(1, "trust")
        self._root: bytes | None = None
        self._fetcher: LoopFetcher | None = None  # of the check that is running
        self.trusted: TrustedMetadata | None = None
        self._documents: Mapping[str, bytes] = {}
        self.refused: Mapping[str, Refused] = {}  # by name of a probe of the last check: why its role does not count

    async def restore(self, judge: Callable[[TrustedMetadata, Bundle], T]) -> T | None:
        """What is on disk, verified again, without a network; expired is allowed. What `judge` made of it; None: nothing is there.

        Refused, by `judge` too; ConfigError when the root file is no root.
        """
        bundle = await self._in_thread(lambda: load_bundle(self._bundle_path))
        if bundle is None:
            return None
        trusted = _verify_held(await self._in_thread(self._roots), bundle.files)
        judged = judge(trusted, bundle)
        self.trusted, self._documents = trusted, bundle.documents
        return judged

    async def refresh(
        self,
        documents: Sequence[str],
        probes: Mapping[str, str],
        judge: Callable[[TrustedMetadata, Bundle], T],
    ) -> T:
        """Check with the repository: root, timestamp, snapshot, targets; the roles that are asked for a path of `probes` (by a
        name for them); and the `documents`, targets of the top-level role. What `judge` made of it: it may refuse it all.

        Unavailable for the network; Refused: expired, rolled_back, bad_signature, tampered, too_large, bad_document,
        unknown_target. StoreError when the disk fails. After each, what was trusted before still is.
        """
        fetcher = self._fetcher = LoopFetcher(self._session, self._timeout, asyncio.get_running_loop())
        files, refused = await self._in_thread(lambda: self._check(fetcher, probes), fetcher)
        self._fetcher = None
        trusted = TrustedMetadata.verify(await self._in_thread(self._roots), files)
        now = self._now()
        if trusted.expires <= now:  # python-tuf has asked the system's clock; ours may know better
            raise Refused("expired", f"metadata expired at {messages.utc(trusted.expires)}")
        bodies = {}
        for path in documents:
            target = trusted.own_target(path)
            held = self._documents.get(path)
            if held is None or not fits(target, held):
                held = await self._fetch(trusted, target, messages.DOCUMENT_MAX_BYTES)
            bodies[path] = held
        bundle = Bundle(files, bodies, now)
        judged = judge(trusted, bundle)  # before it replaces one that could be read
        await self._in_thread(lambda: save_bundle(self._bundle_path, bundle))
        self.refused, self.trusted, self._documents = refused, trusted, bodies
        return judged

    async def fetch(self, found: Found, max_bytes: int) -> bytes:
        """The bytes of a target that is held metadata's, with its length and hashes checked. Refused: expired, too_large, tampered."""
        if self.trusted is None:
            raise Unavailable("no verified metadata is held")
        if found.expires <= self._now():
            until = messages.utc(found.expires)
            raise Refused("expired", f"{found.target.path}: the role that lists it expired at {until}")
        return await self._fetch(self.trusted, found.target, max_bytes)

    def lists(self, path: str) -> bool:
        """Whether metadata that is held and in date lists the path; else only a `refresh` can help."""
        if self.trusted is None or self.trusted.expires <= self._now():
            return False
        try:
            return self.trusted.find(path) is not None
        except Refused:
            return False

    def find(self, path: str) -> Found | None:
        """The target, None when no role lists it. Refused when a role that may list it does not count; Unavailable."""
        if self.trusted is None:
            raise Unavailable("no verified metadata is held")
        try:
            return self.trusted.find(path)
        except Refused as error:
            raise next(iter(self.refused.values()), error) from None

    def close(self) -> None:
        """End the worker thread; a check that is still running there fails."""
        if self._fetcher is not None:
            self._fetcher.stop()
        self._thread.shutdown()

    def _check(self, fetcher: LoopFetcher, probes: Mapping[str, str]) -> tuple[MetadataFiles, dict[str, Refused]]:
        """python-tuf's whole workflow; in the worker thread."""
        try:
            for folder in (self._settings.directory, self.folder):
                make_folder(folder)
            sweep(self.folder)
            if (bundle := load_bundle(self._bundle_path)) is not None:
                seed(self.folder, bundle.files)
            bootstrap = self._bootstrap()
            try:
                return self._update(bootstrap, fetcher, probes)
            finally:
                sync_folder(self.folder)
        except DownloadError as error:
            raise unavailable_or_refused(error) from error
        except RepositoryError as error:
            raise refusal(error, self._settings.metadata_url) from error

    def _update(
        self, bootstrap: bytes, fetcher: LoopFetcher, probes: Mapping[str, str]
    ) -> tuple[MetadataFiles, dict[str, Refused]]:
        updater = Updater(
            str(self.folder),
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
        for name, path in probes.items():
            try:
                updater.get_targetinfo(path)
            except UnsignedMetadataError as error:
                refused[name] = refusal(error, self._settings.metadata_url)
            except ExpiredMetadataError as error:
                refused[name] = refusal(error, self._settings.metadata_url)
                roles = self._delegated_files()  # what was taken from it before may finish
            else:
                roles = self._delegated_files()
        snapshot = metadata_file(self.folder, "snapshot").read_bytes()
        targets = metadata_file(self.folder, "targets").read_bytes()
        timestamp = metadata_file(self.folder, "timestamp").read_bytes()
        return MetadataFiles(timestamp, snapshot, targets, roles), refused

    def _delegated_files(self) -> dict[str, bytes]:
        top = {"root", "timestamp", "snapshot", "targets"}
        files = [path for path in self.folder.glob("*.json") if path.stem not in top]
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
        while (path := self.folder / "root_history" / f"{version + 1}.root.json").exists():
            longer = [*roots, path.read_bytes()]
            try:
                newest_root(longer)
            except RepositoryError as error:
                log.warning("trust_root_unreadable", version=version + 1, reason=str(error))
                break
            roots, version = longer, version + 1
        return roots

    async def _fetch(self, trusted: TrustedMetadata, target: TargetFile, max_bytes: int) -> bytes:
        """The bytes of a listed target, with its length and hashes checked."""
        if target.length > max_bytes:
            raise Refused("too_large", f"{target.path}: {target.length} bytes, at most {max_bytes}")
        name = target.path
        if trusted.root.consistent_snapshot:
            folder, slash, leaf = target.path.rpartition("/")
            name = f"{folder}{slash}{next(iter(target.hashes.values()))}.{leaf}"
        url = f"{self._settings.targets_url.rstrip('/')}/{name}"
        try:
            body = await download(self._session, url, target.length, self._timeout)
        except DownloadError as error:
            raise unavailable_or_refused(error) from error
        if not fits(target, body):
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


def fits(target: TargetFile, body: bytes) -> bool:
    """Whether the bytes are what the metadata list."""
    try:
        target.verify_length_and_hashes(body)
    except RepositoryError:
        return False
    return True


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
