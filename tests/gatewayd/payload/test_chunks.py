"""Chunk arithmetic against a plain model."""

import hashlib
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.cloud.messages import Payload
from gatewayd.payload.chunks import (
    ChunkStream,
    ContentRange,
    chunk_range,
    is_genuine,
    missing_ranges,
    parse_content_range,
)
from tests.gatewayd.payload.conftest import payload_of

SIZES = st.integers(1, 60_000)


def make(size: int) -> tuple[bytes, Payload]:
    body = (hashlib.sha256(str(size).encode()).digest() * (size // 32 + 1))[:size]
    return body, payload_of(body)


@settings(deadline=None)
@given(SIZES)
def test_the_chunks_cover_the_payload_without_gap_or_overlap(size: int) -> None:
    _, payload = make(size)
    ranges = [chunk_range(payload, index) for index in range(len(payload.chunks))]
    assert ranges[0][0] == 0
    assert ranges[-1][1] == size
    assert all(before[1] == after[0] for before, after in itertools.pairwise(ranges))
    with pytest.raises(IndexError):
        chunk_range(payload, len(ranges))
    with pytest.raises(IndexError):
        chunk_range(payload, -1)


@settings(deadline=None)
@given(SIZES, st.sets(st.integers(0, 14)))
def test_missing_ranges_are_exactly_what_is_not_there(size: int, have: set[int]) -> None:
    _, payload = make(size)
    ranges = missing_ranges(payload, have)
    wanted = {at for i in range(len(payload.chunks)) if i not in have for at in chunk_range(payload, i)[:1]}
    assert {at for start, stop in ranges for at in range(start, stop, payload.chunk_size)} == wanted
    assert all(before[1] < after[0] for before, after in itertools.pairwise(ranges)), "neighbours are joined"


@settings(deadline=None)
@given(SIZES, st.lists(st.integers(50, 9000), min_size=1), st.data())
def test_a_stream_cut_anyhow_gives_the_same_chunks(size: int, cuts: list[int], data: st.DataObject) -> None:
    body, payload = make(size)
    first = data.draw(st.integers(0, len(payload.chunks) - 1))
    stream = ChunkStream(payload, first * payload.chunk_size)
    at, got, turn = first * payload.chunk_size, [], 0
    while at < size:
        piece = body[at : at + cuts[turn % len(cuts)]]
        got += list(stream.feed(piece))
        at += len(piece)
        turn += 1
    assert [chunk.index for chunk in got] == list(range(first, len(payload.chunks)))
    assert b"".join(chunk.data for chunk in got) == body[first * payload.chunk_size :]
    assert all(is_genuine(payload, chunk.index, chunk.data) for chunk in got)
    assert stream.wanted == 0
    assert list(stream.feed(b"more")) == []


def test_a_chunk_with_a_wrong_bit_or_length_is_not_genuine() -> None:
    body, payload = make(5000)
    assert is_genuine(payload, 1, body[4096:])
    assert not is_genuine(payload, 1, body[4096:-1])
    assert not is_genuine(payload, 1, b"\x00" + body[4097:])
    assert not is_genuine(payload, 0, body[4096:])


def test_a_stream_begins_at_a_border() -> None:
    with pytest.raises(ValueError, match="border"):
        ChunkStream(make(5000)[1], 1)


@pytest.mark.parametrize(
    ("header", "meaning"),
    [
        ("bytes 0-9/10", ContentRange(0, 10, 10)),
        (" bytes 5-5/* ", ContentRange(5, 6, None)),
        ("bytes */10", None),
        ("bytes 5-4/10", None),
        ("bytes 0-10/10", None),
        ("bytes 0-9", None),
        ("octets 0-9/10", None),
        ("bytes -1-9/10", None),
        ("bytes 0-" + "9" * 5000 + "/*", None),
        ("", None),
    ],
)
def test_content_range(header: str, meaning: ContentRange | None) -> None:
    assert parse_content_range(header) == meaning


@settings(deadline=None)
@given(st.text())
def test_any_content_range_is_answered(header: str) -> None:
    parse_content_range(header)
