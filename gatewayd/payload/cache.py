"""Payload files on disk, named by their SHA-256; partial ones beside them as `<digest>.part`. SHELL.

A `.part` holds chunks that were verified when they were written, at their places; after a restart it is read and verified
again, so that no book is kept beside it. A file gets its final name only when it is whole, verified and on the disk.
Implements `radios.radio.ImageStore`. Not responsible for where bytes come from (fetch.py). All methods block, and may be
called from any thread.
"""

import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from gatewayd.cloud.messages import Payload
from gatewayd.errors import Refused, StoreError
from gatewayd.folders import make_folder, sync
from gatewayd.payload import chunks
from gatewayd.payload.part import Part, store_error
from radios.errors import ImageError

log = structlog.get_logger()

OPEN_FILES_MAX = 8
RECHECK_S = 3600.0  # a chunk that is read is hashed again after so long

_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"([0-9a-f]{64})(|\.part|\.etag)")


class PayloadCache:
    """At most `quota_bytes` of payloads in `folder`, which leaves `reserve_bytes` of the disk to everybody else."""

    def __init__(
        self,
        folder: Path,
        quota_bytes: int,
        reserve_bytes: int = 0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder = folder
        self.quota_bytes = quota_bytes
        self.reserve_bytes = reserve_bytes
        self._open: OrderedDict[str, tuple[int, int]] = OrderedDict()  # digest -> descriptor, size; used last is last
        self._lock = threading.Lock()
        self._monotonic = monotonic
        self._guarded: dict[str, _Guard] = {}
        self._room = threading.Lock()  # held from a look at the room until it is promised
        self._promises: set[_Promise] = set()
        self.rotten: Callable[[str], None] = lambda _: None  # called with a digest when a read met rot
        try:
            make_folder(folder)
        except OSError as error:
            raise store_error(folder, error) from error

    # -- ImageStore ----------------------------------------------------------------------------------------------------

    def read(self, digest: str, offset: int, length: int) -> bytes:
        """Bytes [offset, offset + length), shorter only at the end. ImageError when it cannot be read, or has rotted."""
        if offset < 0 or length < 0:
            raise ImageError(f"{digest}: no bytes at {offset}, length {length}")
        if (guard := self._guarded.get(digest)) is not None:
            self._check(guard, offset, length)
        return self.read_raw(digest, offset, length)

    def guard(self, payload: Payload) -> None:
        """From now on what is read of the file is compared with the chunk hashes, each chunk once in `RECHECK_S`."""
        if payload.sha256 not in self._guarded:
            self._guarded[payload.sha256] = _Guard(payload, [float("-inf")] * len(payload.chunks))

    def _check(self, guard: "_Guard", offset: int, length: int) -> None:
        payload, now = guard.payload, self._monotonic()
        last = max(offset, min(offset + length, payload.size) - 1)
        for index in range(offset // payload.chunk_size, last // payload.chunk_size + 1):
            if index >= len(guard.checked) or now - guard.checked[index] < RECHECK_S:
                continue
            start, stop = chunks.chunk_range(payload, index)
            if not chunks.is_genuine(payload, index, self.read_raw(payload.sha256, start, stop - start)):
                log.error("payload rotten", digest=payload.sha256, chunk=index)
                self.rotten(payload.sha256)
                raise ImageError(f"payload {payload.sha256}: chunk {index} has rotted in the cache")
            guard.checked[index] = now

    def read_raw(self, digest: str, offset: int, length: int) -> bytes:
        """The same as it is on the disk, for those who judge the whole themselves."""
        with self._lock:
            descriptor, size = self._descriptor(digest)
            wanted = max(0, min(length, size - offset))
            try:
                data = os.pread(descriptor, wanted, offset)
            except OSError as error:
                raise ImageError(f"{digest}: {error}") from error
        if len(data) != wanted:
            raise ImageError(f"{digest}: {len(data)} of {wanted} bytes at {offset}: the file has shrunk")
        return data

    def size(self, digest: str) -> int:
        """Size in bytes. ImageError when the file is not in the cache."""
        with self._lock:
            return self._descriptor(digest)[1]

    # -- what is there -------------------------------------------------------------------------------------------------

    def path(self, digest: str) -> Path:
        """Where the file is, or will be, for those who read it as a stream (signature check)."""
        if not _DIGEST.fullmatch(digest):
            raise ImageError(f"not a digest: {digest[:80]!r}")
        return self.folder / digest

    def has(self, digest: str, payload: Payload | None = None) -> bool:
        """Whether the whole file is here; with a payload, also of its size."""
        try:
            status = self.path(digest).stat()
        except OSError:
            return False
        return payload is None or status.st_size == payload.size

    def digests(self) -> frozenset[str]:
        """Of everything in the folder, whole and partial."""
        return frozenset(digest for digest, _, _ in self._files())

    def used_bytes(self) -> int:
        """Of everything in the folder, whole and partial."""
        return sum(size for _, size, _ in self._files())

    def rotten_chunks(self, payload: Payload) -> list[int]:
        """Read the whole file and name the chunks that are no longer what they were. ImageError when it is not here."""
        return [i for i in range(len(payload.chunks)) if not chunks.is_genuine(payload, i, self._chunk(payload, i))]

    def reopen(self, payload: Payload) -> None:
        """Turn a whole file back into a part, so that a fetch replaces what is rotten and nothing else."""
        self._guarded.pop(payload.sha256, None)
        with self._lock:
            self._close(payload.sha256)
            try:
                self.path(payload.sha256).rename(self.folder / f"{payload.sha256}.part")
            except FileNotFoundError:
                return
            except OSError as error:
                raise store_error(self.folder, error) from error

    # -- what comes and goes -------------------------------------------------------------------------------------------

    def open_part(self, payload: Payload) -> Part:
        """Open or begin the partial file and verify what it holds; reads all of it.

        Until it is closed its whole size counts as taken. Refused(too_large) when it can never fit; StoreError when there is
        no room now (see `evict`).
        """
        self._must_fit(payload.size)
        promise = _Promise(payload.sha256, payload.size)
        with self._room:
            here, coming = self._taken(promise)
            others = sum(here.values()) + sum(coming.values()) - here.get(payload.sha256, 0) - coming[payload.sha256]
            if others + payload.size > self.quota_bytes:
                raise StoreError(f"payload {payload.sha256}: no room for {payload.size} bytes: the rest is needed too")
            if coming[payload.sha256]:
                self._keep_reserve(sum(coming.values()))
            self._promises.add(promise)
        try:
            return Part(self.folder, payload, self._before_more, lambda: self._promises.discard(promise))
        except BaseException:
            self._promises.discard(promise)
            raise

    def commit(self, part: Part) -> None:
        """Verify the whole, make it durable and give it its name. Refused(tampered) removes it."""
        payload = part.payload
        with part.lock:
            if (digest := part.digest()) != payload.sha256:
                part.close()
                self.remove(payload.sha256)
                raise Refused("tampered", f"payload {payload.sha256}: every chunk fits, but the whole is {digest}")
            try:
                os.ftruncate(part.descriptor, payload.size)
                os.fsync(part.descriptor)
                part.close()
                part.path.rename(self.path(payload.sha256))
                part.etag_path.unlink(missing_ok=True)
                sync(self.folder)
            except OSError as error:
                raise store_error(part.path, error) from error
        log.info("payload cached", digest=payload.sha256, bytes=payload.size)

    def evict(self, needed: frozenset[str], room_for: int, digest_for: str = "") -> list[str]:
        """Remove what no campaign needs, least recently used first, until `room_for` bytes fit; what was removed.

        What is here already of `digest_for` is a part of them, and stays. Refused(too_large) when that many never fit. It
        removes no more than it has to, and may fail to make the room.
        """
        self._must_fit(room_for)
        needed |= {digest_for}
        removed = []
        for _, digest in sorted({(used, digest) for digest, _, used in self._files() if digest not in needed}):
            here, coming = self._taken()
            coming[digest_for] = max(0, room_for - here.get(digest_for, 0))
            wanted = sum(coming.values())
            if sum(here.values()) + wanted <= self.quota_bytes and self._free() - wanted >= self.reserve_bytes:
                break
            if digest not in removed:
                self.remove(digest)
                removed.append(digest)
        if removed:
            log.info("payloads evicted", count=len(removed), room_for=room_for)
        return removed

    def clean(self, needed: frozenset[str]) -> list[str]:
        """Remove the parts that no campaign needs; whole files stay while there is room. What was removed."""
        removed = []
        for digest in sorted({digest for digest, _, _ in self._files()} - needed):
            if not self.has(digest):
                self.remove(digest)
                removed.append(digest)
        return removed

    def remove(self, digest: str) -> None:
        """Remove the file and its part, if they are there."""
        self._guarded.pop(digest, None)
        with self._lock:
            self._close(digest)
            path = self.path(digest)
            try:
                for name in (digest, f"{digest}.part", f"{digest}.etag"):
                    path.with_name(name).unlink(missing_ok=True)
            except OSError as error:
                raise store_error(path, error) from error

    def close(self) -> None:
        """Close all files; the cache may be used again."""
        with self._lock:
            for digest in list(self._open):
                self._close(digest)

    # -- helpers -------------------------------------------------------------------------------------------------------

    def _descriptor(self, digest: str) -> tuple[int, int]:
        known = self._open.get(digest)
        if known is not None:
            self._open.move_to_end(digest)
            return known
        try:
            descriptor = os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise ImageError(f"payload {digest}: {error.strerror}") from error
        known = self._open[digest] = descriptor, os.fstat(descriptor).st_size
        self._touch(digest)
        while len(self._open) > OPEN_FILES_MAX:
            self._close(next(iter(self._open)))
        return known

    def _touch(self, digest: str) -> None:
        # Once per opening, not per read: the order of use is worth one write of metadata, no more.
        try:
            os.utime(self.path(digest))
        except OSError as error:  # a disk turned read-only still serves
            log.warning("payload not marked as used", code="store", error=str(error))

    def _close(self, digest: str) -> None:
        known = self._open.pop(digest, None)
        if known is not None:
            os.close(known[0])

    def _chunk(self, payload: Payload, index: int) -> bytes:
        start, stop = chunks.chunk_range(payload, index)
        return self.read_raw(payload.sha256, start, stop - start)

    def _files(self) -> list[tuple[str, int, float]]:
        """Digest, bytes and time of use of everything of ours in the folder; a digest may come twice."""
        files = []
        try:
            with os.scandir(self.folder) as entries:
                for entry in entries:
                    match = _NAME.fullmatch(entry.name)
                    if match is None:
                        continue
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue  # renamed or removed by another thread
                    files.append((match[1], status.st_size, status.st_mtime))
        except OSError as error:
            raise store_error(self.folder, error) from error
        return files

    def _taken(self, *more: "_Promise") -> tuple[dict[str, int], dict[str, int]]:
        """Bytes by digest: those that are here, and those that are promised to open parts and not here yet."""
        here: dict[str, int] = {}
        for digest, size, _ in self._files():
            here[digest] = here.get(digest, 0) + size
        promised = {promise.digest: promise.size for promise in (*self._promises.copy(), *more)}
        return here, {digest: max(0, size - here.get(digest, 0)) for digest, size in promised.items()}

    def _must_fit(self, size: int) -> None:
        if size > self.quota_bytes:
            raise Refused("too_large", f"payload of {size} bytes, the cache's quota is {self.quota_bytes}")

    def _free(self) -> int:
        status = os.statvfs(self.folder)
        return status.f_bavail * status.f_frsize

    def _before_more(self, more: int) -> None:
        # Others fill the disk too. Without a reserve the write itself says when it is full.
        if self.reserve_bytes:
            self._keep_reserve(more)

    def _keep_reserve(self, more: int) -> None:
        free = self._free()
        if free - more < self.reserve_bytes:
            raise StoreError(
                f"{self.folder}: disk full: {free} bytes free, {more} wanted, {self.reserve_bytes} kept in reserve"
            )


@dataclass(frozen=True, slots=True, eq=False)
class _Promise:
    """Room that is kept for an open part."""

    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class _Guard:
    payload: Payload
    checked: list[float]  # by chunk: when it was last found genuine
