"""Arithmetic and verification of chunks, the unit of download. PURE.

A chunk is `chunk_size` bytes of the payload (the last one shorter) with a SHA-256 of its own in the signed release, so any
chunk can be checked alone, whoever delivered it. Ranges are [start, stop) in bytes.
"""

import hashlib
import re
from collections.abc import Container, Iterator
from dataclasses import dataclass

from gatewayd.cloud.messages import Payload

_CONTENT_RANGE = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15}|\*)")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A whole chunk as it arrived, not yet verified."""

    index: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class ContentRange:
    """The Content-Range header of a 206 response; `stop` is exclusive, `size` None when the server does not say it."""

    start: int
    stop: int
    size: int | None


def chunk_range(payload: Payload, index: int) -> tuple[int, int]:
    """Where a chunk lies in the payload. IndexError for one that it does not have."""
    if not 0 <= index < len(payload.chunks):
        raise IndexError(f"chunk {index} of {len(payload.chunks)}")
    start = index * payload.chunk_size
    return start, min(start + payload.chunk_size, payload.size)


def missing_ranges(payload: Payload, have: Container[int]) -> list[tuple[int, int]]:
    """The bytes of all chunks that are not in `have`, neighbours joined, in order."""
    ranges: list[tuple[int, int]] = []
    for index in range(len(payload.chunks)):
        if index in have:
            continue
        start, stop = chunk_range(payload, index)
        if ranges and ranges[-1][1] == start:
            ranges[-1] = (ranges[-1][0], stop)
        else:
            ranges.append((start, stop))
    return ranges


def is_genuine(payload: Payload, index: int, data: bytes) -> bool:
    """Whether these bytes are the chunk: length and SHA-256."""
    start, stop = chunk_range(payload, index)
    return len(data) == stop - start and hashlib.sha256(data).hexdigest() == payload.chunks[index]


def parse_content_range(header: str) -> ContentRange | None:
    """None for anything but one satisfied byte range."""
    match = _CONTENT_RANGE.fullmatch(header.strip())
    if match is None:
        return None
    start, last = int(match[1]), int(match[2])
    size = None if match[3] == "*" else int(match[3])
    if last < start or (size is not None and last >= size):
        return None
    return ContentRange(start, last + 1, size)


class ChunkStream:
    """Cuts a stream of bytes that starts at a chunk's border into whole chunks. Holds less than one chunk."""

    def __init__(self, payload: Payload, start: int) -> None:
        if start % payload.chunk_size:
            raise ValueError(f"{start} is not the border of a chunk of {payload.chunk_size}")
        self._payload = payload
        self._index = start // payload.chunk_size
        self._buffer = bytearray()

    @property
    def wanted(self) -> int:
        """Bytes that the chunk in hand still lacks; 0 after the last chunk."""
        if self._index >= len(self._payload.chunks):
            return 0
        start, stop = chunk_range(self._payload, self._index)
        return stop - start - len(self._buffer)

    def feed(self, data: bytes) -> Iterator[Chunk]:
        """The chunks that are whole now. Bytes beyond the payload's end are dropped."""
        view = memoryview(data)
        while view and (wanted := self.wanted):
            self._buffer += view[:wanted]
            view = view[wanted:]
            if not self.wanted:
                whole = Chunk(self._index, self._index * self._payload.chunk_size, bytes(self._buffer))
                self._buffer.clear()
                self._index += 1
                yield whole
