"""The cache: whole files under their digest, verified parts, a quota, and rot that is found."""

import os
import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gatewayd.cloud.messages import Payload
from gatewayd.errors import Refused, StoreError
from gatewayd.payload.cache import OPEN_FILES_MAX, RECHECK_S, PayloadCache
from gatewayd.payload.chunks import Chunk, chunk_range
from gatewayd.payload.part import Part
from radios.errors import ImageError
from tests.gatewayd.payload.conftest import BODY, CHUNK, payload_of

PAYLOAD = payload_of(BODY)


def put(part: Part, body: bytes, index: int) -> bool:
    start, stop = chunk_range(part.payload, index)
    return part.put(Chunk(index, start, body[start:stop]))


def store(cache: PayloadCache, body: bytes) -> Payload:
    payload = payload_of(body)
    part = cache.open_part(payload)
    for index in range(len(payload.chunks)):
        assert put(part, body, index)
    cache.commit(part)
    return payload


def test_a_committed_file_is_readable_in_any_range(tmp_path: Path) -> None:
    cache = PayloadCache(tmp_path / "payloads", 10**6)
    payload = store(cache, BODY)
    assert cache.has(payload.sha256, payload)
    assert cache.size(payload.sha256) == len(BODY)
    for offset, length in (
        (0, 10),
        (5000, 64),
        (len(BODY) - 3, 100),
        (len(BODY), 5),
        (len(BODY) + 9, 5),
        (0, len(BODY)),
    ):
        assert cache.read(payload.sha256, offset, length) == BODY[offset : offset + length]
    assert os.listdir(cache.folder) == [payload.sha256]
    cache.close()
    assert cache.read(payload.sha256, 1, 1) == BODY[1:2]
    cache.close()


def test_chunks_may_come_in_any_order_and_the_whole_is_still_checked(tmp_path: Path) -> None:
    cache = PayloadCache(tmp_path, 10**6)
    part = cache.open_part(PAYLOAD)
    order = list(range(len(PAYLOAD.chunks)))
    random.Random(1).shuffle(order)
    for index in order:
        assert put(part, BODY, index)
    assert part.whole
    assert part.held_bytes == len(BODY)
    cache.commit(part)
    assert cache.has(PAYLOAD.sha256, PAYLOAD)


def test_a_wrong_chunk_is_not_written(tmp_path: Path) -> None:
    cache = PayloadCache(tmp_path, 10**6)
    part = cache.open_part(PAYLOAD)
    assert not part.put(Chunk(0, 0, b"x" * CHUNK))
    assert part.path.stat().st_size == 0
    assert part.missing() == [(0, len(BODY))]
    part.close()


def test_a_part_is_verified_when_it_is_opened_again(tmp_path: Path) -> None:
    cache = PayloadCache(tmp_path, 10**6)
    part = cache.open_part(PAYLOAD)
    for index in (0, 1, 2, 5):
        put(part, BODY, index)
    part.close()
    with part.path.open("r+b") as file:  # a chunk that the disk did not keep
        file.seek(CHUNK + 7)
        file.write(b"rotten")
    again = PayloadCache(tmp_path, 10**6).open_part(PAYLOAD)
    assert again.have == {0, 2, 5}
    assert again.missing() == [(CHUNK, 2 * CHUNK), (3 * CHUNK, 5 * CHUNK), (6 * CHUNK, len(BODY))]
    again.close()


def test_a_whole_that_is_not_the_payload_is_refused_and_removed(tmp_path: Path) -> None:
    """A release whose chunk hashes and whole hash contradict each other."""
    cache = PayloadCache(tmp_path, 10**6)
    other = "ab" * 32
    lying = PAYLOAD.model_copy(update={"sha256": other, "path": f"payloads/{other}"})
    part = cache.open_part(lying)
    for index in range(len(lying.chunks)):
        put(part, BODY, index)
    with pytest.raises(Refused, match="tampered"):
        cache.commit(part)
    assert os.listdir(tmp_path) == []


def test_an_oversized_part_is_cut_to_the_payload(tmp_path: Path) -> None:
    cache = PayloadCache(tmp_path, 10**6)
    (tmp_path / f"{PAYLOAD.sha256}.part").write_bytes(BODY + b"tail")
    part = cache.open_part(PAYLOAD)
    assert part.whole
    cache.commit(part)
    assert cache.size(PAYLOAD.sha256) == len(BODY)
    cache.close()


@pytest.mark.parametrize("digest", ["", "../etc/passwd", "AB" * 32, "ab" * 32, "ab" * 32 + ".part"])
def test_what_is_not_there_is_an_image_error(tmp_path: Path, digest: str) -> None:
    cache = PayloadCache(tmp_path, 10**6)
    with pytest.raises(ImageError):
        cache.read(digest, 0, 1)
    with pytest.raises(ImageError):
        cache.size(digest)


def test_impossible_ranges_and_shrunken_files_are_image_errors(tmp_path: Path) -> None:
    cache = PayloadCache(tmp_path, 10**6)
    payload = store(cache, BODY)
    for offset, length in ((-1, 5), (0, -1)):
        with pytest.raises(ImageError):
            cache.read(payload.sha256, offset, length)
    assert cache.read(payload.sha256, 0, 1)
    os.truncate(tmp_path / payload.sha256, 10)
    with pytest.raises(ImageError, match="shrunk"):
        cache.read(payload.sha256, 5, 10)
    cache.close()
    assert not cache.has(payload.sha256, payload)


def test_more_files_than_handles(tmp_path: Path) -> None:
    cache = PayloadCache(tmp_path, 10**6)
    bodies = [random.Random(n).randbytes(100) for n in range(OPEN_FILES_MAX * 2)]
    digests = [store(cache, body).sha256 for body in bodies]
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        assert [cache.read(digest, 0, 100) for digest in digests] == bodies
    assert len(os.listdir("/proc/self/fd")) <= before + OPEN_FILES_MAX
    cache.close()


def test_larger_than_the_quota_is_refused_for_good(tmp_path: Path) -> None:
    cache = PayloadCache(tmp_path, len(BODY) - 1)
    for attempt in (lambda: cache.open_part(PAYLOAD), lambda: cache.evict(frozenset(), len(BODY))):
        with pytest.raises(Refused, match="too_large"):
            attempt()
    assert os.listdir(tmp_path) == []


def test_no_room_beside_what_is_needed_is_a_store_error(tmp_path: Path) -> None:
    cache = PayloadCache(tmp_path, 5000)
    kept = store(cache, b"k" * 3000)
    other = payload_of(b"o" * 3000)
    assert cache.evict(frozenset({kept.sha256}), other.size) == []
    with pytest.raises(StoreError, match="no room"):
        cache.open_part(other)
    assert cache.evict(frozenset(), other.size) == [kept.sha256]
    cache.open_part(other).close()


def test_the_reserve_of_the_disk_is_kept(tmp_path: Path) -> None:
    cache = PayloadCache(tmp_path, 10**6, reserve_bytes=2**60)
    with pytest.raises(StoreError, match="disk full"):
        cache.open_part(PAYLOAD)


def test_what_is_promised_to_an_open_part_is_taken(tmp_path: Path) -> None:
    """Two that fit alone and not together: the second is told before it begins, not when the disk is full."""
    cache = PayloadCache(tmp_path, 100_000)
    first, second = (payload_of(bytes([n]) * 60_000) for n in (1, 2))
    part = cache.open_part(first)
    with pytest.raises(StoreError, match="no room"):
        cache.open_part(second)
    assert not (tmp_path / f"{second.sha256}.part").exists()
    old = payload_of(b"o" * 30_000)
    (tmp_path / old.sha256).write_bytes(b"o" * 30_000)
    assert cache.evict(frozenset({first.sha256}), 30_000) == [old.sha256]
    part.close()
    cache.open_part(second).close()
    again = cache.open_part(first)  # each of them is there once, and empty
    again.close()


def test_threads_that_ask_at_once_are_not_promised_the_same_room(tmp_path: Path) -> None:
    cache = PayloadCache(tmp_path, 100_000)
    payloads = [payload_of(bytes([n]) * 60_000) for n in range(8)]
    together = threading.Barrier(len(payloads))

    def opened(payload: Payload) -> Part | None:
        together.wait(20)
        try:
            return cache.open_part(payload)
        except StoreError:
            return None

    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # as many turns as there can be
    try:
        with ThreadPoolExecutor(len(payloads)) as threads:
            for _ in range(600):
                parts = [part for part in threads.map(opened, payloads) if part is not None]
                assert len(parts) == 1
                parts[0].close()
    finally:
        sys.setswitchinterval(usual)


def test_the_reserve_is_kept_while_a_part_grows(tmp_path: Path) -> None:
    """Somebody else fills the disk meanwhile: what would make the file longer is not written, what mends it is."""
    cache = PayloadCache(tmp_path, 10**6)
    part = cache.open_part(PAYLOAD)
    for index in (0, 2):
        assert put(part, BODY, index)
    cache.reserve_bytes = 2**60
    with pytest.raises(StoreError, match="disk full"):
        put(part, BODY, 3)
    assert part.path.stat().st_size == 3 * CHUNK
    assert put(part, BODY, 1)
    part.close()
    whole = store(PayloadCache(tmp_path, 10**6), BODY)
    spoil(tmp_path / whole.sha256, 5)
    cache.reopen(whole)
    mended = cache.open_part(whole)  # it needs no room: the disk may be as full as it likes
    assert put(mended, BODY, 0)
    cache.commit(mended)
    assert cache.rotten_chunks(whole) == []
    cache.close()


def test_a_full_disk_is_a_store_error_and_what_is_there_stays(tmp_path: Path) -> None:
    cache = PayloadCache(tmp_path, 10**6)
    part = cache.open_part(PAYLOAD)
    assert put(part, BODY, 0)
    full = os.open("/dev/full", os.O_RDWR)
    os.dup2(full, part.descriptor)  # from here on the disk takes nothing
    os.close(full)
    with pytest.raises(StoreError, match="disk full"):
        put(part, BODY, 1)
    part.close()
    again = cache.open_part(PAYLOAD)
    assert again.have == {0}
    again.close()


def test_eviction_takes_the_least_recently_used_and_never_what_is_needed(tmp_path: Path) -> None:
    cache = PayloadCache(tmp_path, 4000)
    digests = [store(cache, bytes([n]) * 1000).sha256 for n in range(4)]
    for age, digest in enumerate(digests):
        os.utime(tmp_path / digest, (1000 + age, 1000 + age))
    cache.read(digests[0], 0, 1)  # used now
    assert cache.evict(frozenset({digests[1]}), 1500) == [digests[2], digests[3]]
    assert cache.has(digests[0])
    assert cache.has(digests[1])
    assert cache.evict(frozenset(), 2000) == []
    cache.close()


def test_what_is_here_of_a_part_that_is_resumed_needs_no_second_room(tmp_path: Path) -> None:
    cache = PayloadCache(tmp_path, 3000)
    whole = store(cache, b"w" * 1000).sha256
    resumed = payload_of(b"1" * 2000)
    (tmp_path / f"{resumed.sha256}.part").write_bytes(b"1" * 1500)
    assert cache.evict(frozenset({resumed.sha256}), resumed.size, resumed.sha256) == []
    assert cache.has(whole)
    cache.open_part(resumed).close()
    assert cache.evict(frozenset(), 2001, resumed.sha256) == [whole]  # the part itself is what room is made for
    assert (tmp_path / f"{resumed.sha256}.part").exists()


def test_an_evicted_file_is_gone_for_readers(tmp_path: Path) -> None:
    cache = PayloadCache(tmp_path, 1000)
    digest = store(cache, b"a" * 1000).sha256
    cache.read(digest, 0, 1)
    cache.evict(frozenset(), 1000)
    with pytest.raises(ImageError):
        cache.read(digest, 0, 1)


def test_cleaning_removes_unneeded_parts_and_nothing_else(tmp_path: Path) -> None:
    cache = PayloadCache(tmp_path, 10**6)
    whole = store(cache, b"w" * 100).sha256
    wanted, unwanted = payload_of(b"1" * 100), payload_of(b"2" * 100)
    for payload in (wanted, unwanted):
        part = cache.open_part(payload)
        part.remember_etag("http://x/", '"tag"')
        part.close()
    (tmp_path / "notes.txt").write_text("not ours")
    assert cache.clean(frozenset({wanted.sha256})) == [unwanted.sha256]
    left = sorted(os.listdir(tmp_path))
    assert left == sorted([whole, f"{wanted.sha256}.part", f"{wanted.sha256}.etag", "notes.txt"])


def spoil(file: Path, at: int) -> None:
    with file.open("r+b") as opened:
        opened.seek(at)
        byte = opened.read(1)
        opened.seek(at)
        opened.write(bytes([byte[0] ^ 0x40]))


def test_rot_is_found_and_only_the_bad_chunks_go_missing(tmp_path: Path) -> None:
    cache = PayloadCache(tmp_path, 10**6)
    payload = store(cache, BODY)
    assert cache.rotten_chunks(payload) == []
    with (tmp_path / payload.sha256).open("r+b") as file:
        file.seek(3 * CHUNK + 5)
        file.write(b"\x00\x01\x02\x03")
    assert cache.rotten_chunks(payload) == [3]
    cache.reopen(payload)
    assert not cache.has(payload.sha256)
    part = cache.open_part(payload)
    assert part.missing() == [(3 * CHUNK, 4 * CHUNK)]
    put(part, BODY, 3)
    cache.commit(part)
    assert cache.rotten_chunks(payload) == []
    cache.reopen(payload_of(b"never there"))
    cache.close()


def test_rot_is_met_by_the_read_that_would_send_it(tmp_path: Path) -> None:
    """Each chunk is compared when it is read, and again after an hour: what rots meanwhile is found too."""
    now = 0.0
    cache = PayloadCache(tmp_path, 10**7, monotonic=lambda: now)
    payload = store(cache, BODY)
    found: list[str] = []
    cache.rotten = found.append
    cache.guard(payload)
    assert cache.read(payload.sha256, CHUNK - 10, 20) == BODY[CHUNK - 10 : CHUNK + 10]
    spoil(tmp_path / payload.sha256, 5 * CHUNK + 7)
    assert cache.read(payload.sha256, 4 * CHUNK, CHUNK) == BODY[4 * CHUNK : 5 * CHUNK]
    for offset, length in ((5 * CHUNK, 1), (6 * CHUNK - 1, 1), (5 * CHUNK - 1, 2)):
        with pytest.raises(ImageError, match="chunk 5 has rotted"):
            cache.read(payload.sha256, offset, length)
    assert found == [payload.sha256] * 3
    assert cache.read_raw(payload.sha256, 5 * CHUNK + 7, 1) != BODY[5 * CHUNK + 7 : 5 * CHUNK + 8]
    spoil(tmp_path / payload.sha256, 3)  # of a chunk that was found genuine
    now = RECHECK_S - 1
    cache.read(payload.sha256, 0, 1)
    now = RECHECK_S
    with pytest.raises(ImageError, match="chunk 0"):
        cache.read(payload.sha256, 0, 1)
    assert cache.read(payload.sha256, len(BODY), 5) == b""
    cache.close()


def test_a_closed_part_takes_nothing(tmp_path: Path) -> None:
    part = PayloadCache(tmp_path, 10**6).open_part(PAYLOAD)
    part.close()
    part.close()
    with pytest.raises(StoreError):
        put(part, BODY, 0)


def test_a_folder_that_cannot_be_made_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError):
        PayloadCache(tmp_path / "file" / "payloads", 1)
