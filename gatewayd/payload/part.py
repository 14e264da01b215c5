"""A payload that is not whole yet: verified chunks at their places in `<digest>.part`. SHELL."""

import errno
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from gatewayd.cloud.messages import Payload
from gatewayd.errors import StoreError
from gatewayd.payload import chunks

READ_PIECE_BYTES = 1 << 20


class Part:
    """Open for writing. Only verified chunks get into it.

    `before_more` is called with the bytes by which a write makes the file longer, and may raise; `closed` when it is closed.
    """

    def __init__(
        self, folder: Path, payload: Payload, before_more: Callable[[int], None], closed: Callable[[], None]
    ) -> None:
        self.payload = payload
        self._before_more = before_more
        self._closed = closed
        self._end = 0  # of the file
        self.path = folder / f"{payload.sha256}.part"
        self.etag_path = folder / f"{payload.sha256}.etag"
        self.have: set[int] = set()
        # A cancelled download may leave a thread at work: it must not write to a descriptor that is another file's by now.
        self.lock = threading.RLock()
        self.held_bytes = 0  # of verified chunks
        self._sum = hashlib.sha256()  # of the chunks [0, _summed): spares reading it all again when they come in order
        self._summed = 0
        try:
            self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise store_error(self.path, error) from error
        try:
            self._verify()
        except OSError as error:
            self.close()
            raise store_error(self.path, error) from error

    @property
    def whole(self) -> bool:
        return len(self.have) == len(self.payload.chunks)

    def missing(self) -> list[tuple[int, int]]:
        """Byte ranges of the chunks that are not here yet."""
        return chunks.missing_ranges(self.payload, self.have)

    def put(self, chunk: chunks.Chunk) -> bool:
        """Write the chunk at its place; False, and nothing written, when it is not genuine. StoreError: disk full."""
        if not chunks.is_genuine(self.payload, chunk.index, chunk.data):
            return False
        end = chunk.offset + len(chunk.data)
        with self.lock:
            if end > self._end:
                self._before_more(end - self._end)
            try:
                _write(self.descriptor, chunk.data, chunk.offset)
            except OSError as error:
                raise store_error(self.path, error) from error
            self._end = max(self._end, end)
            self._took(chunk.index, chunk.data)
        return True

    def digest(self) -> str:
        """SHA-256 of the whole file; reads what did not come in order."""
        total = self._sum.copy()
        at = self._summed * self.payload.chunk_size
        try:
            while at < self.payload.size:
                piece = os.pread(self.descriptor, min(READ_PIECE_BYTES, self.payload.size - at), at)
                if not piece:
                    break
                total.update(piece)
                at += len(piece)
        except OSError as error:
            raise store_error(self.path, error) from error
        return total.hexdigest()

    def etag(self, url: str) -> str | None:
        """The entity tag under which this URL has served the file before."""
        try:
            known, _, tag = self.etag_path.read_text().partition("\n")
        except (OSError, UnicodeDecodeError):
            return None
        return tag or None if known == url else None

    def remember_etag(self, url: str, tag: str | None) -> None:
        """Keep it beside the part, or forget it. It only saves a useless download: chunks are verified either way."""
        try:
            if tag is None:
                self.etag_path.unlink(missing_ok=True)
            elif self.etag(url) != tag:
                self.etag_path.write_text(f"{url}\n{tag}")
        except OSError as error:
            raise store_error(self.etag_path, error) from error

    def close(self) -> None:
        with self.lock:
            if self.descriptor >= 0:
                os.close(self.descriptor)
                self.descriptor = -1
            self._closed()

    def _verify(self) -> None:
        held = self._end = os.fstat(self.descriptor).st_size
        for index in range(len(self.payload.chunks)):
            start, stop = chunks.chunk_range(self.payload, index)
            if stop > held:
                break
            data = os.pread(self.descriptor, stop - start, start)
            if chunks.is_genuine(self.payload, index, data):
                self._took(index, data)

    def _took(self, index: int, data: bytes) -> None:
        if index not in self.have:
            self.have.add(index)
            self.held_bytes += len(data)
        if index == self._summed:
            self._sum.update(data)
            self._summed += 1


def _write(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:  # a disk that fills takes a part first, and says so only at the next write
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def store_error(path: Path, error: OSError) -> StoreError:
    what = "disk full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else (error.strerror or str(error))
    return StoreError(f"{path}: {what}")
