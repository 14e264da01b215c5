"""A disk that fills in the middle of a download: a real small file system, and somebody else who writes to it too."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from gatewayd.errors import StoreError
from gatewayd.payload.cache import PayloadCache
from gatewayd.payload.fetch import Fetcher
from tests.gatewayd.payload.conftest import BODY, CHUNK, HostileServer, payload_of

PAYLOAD = payload_of(BODY)
SIZE = len(BODY)
DISK_BYTES = 256 * 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of `DISK_BYTES`."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not mount a file system")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


class Neighbour:
    """Another program on the same disk: writes until so many bytes are left, once the download has so many."""

    def __init__(self, disk: Path, at: int, leaves: int) -> None:
        self.file = disk / "neighbour.log"
        self.disk, self.at, self.leaves = disk, at, leaves

    def watch(self, held: int, size: int) -> None:
        if held == self.at:
            self.file.write_bytes(bytes(free(self.disk) - self.leaves))


def free(disk: Path) -> int:
    told = subprocess.run(["stat", "-f", "-c", "%a %S", disk], check=True, capture_output=True, text=True).stdout
    blocks, size = told.split()
    return int(blocks) * int(size)


@pytest.mark.parametrize(
    ("reserve", "leaves", "kept"),
    [
        pytest.param(0, 3 * CHUNK, 0, id="full to the last byte"),
        pytest.param(10 * CHUNK, 13 * CHUNK, 10 * CHUNK, id="down to the reserve"),
    ],
)
async def test_a_disk_that_fills_in_mid_download_loses_nothing_and_it_goes_on_when_there_is_room(
    session: aiohttp.ClientSession, server: HostileServer, disk: Path, reserve: int, leaves: int, kept: int
) -> None:
    cache = PayloadCache(disk / "payloads", 10**6, reserve)
    before = PayloadCache(disk / "payloads", 10**6)
    old = payload_of(b"o" * CHUNK)
    (before.folder / old.sha256).write_bytes(b"o" * CHUNK)
    fetcher = Fetcher(session, cache, [server.url], needed=lambda: frozenset({old.sha256}))
    neighbour = Neighbour(disk, 5 * CHUNK, leaves)
    with pytest.raises(StoreError, match="disk full"):
        await fetcher.fetch(PAYLOAD, neighbour.watch)
    assert free(disk) >= kept, "the reserve is everybody's"
    assert free(disk) < kept + CHUNK
    assert cache.has(old.sha256, old)
    assert not cache.has(PAYLOAD.sha256)
    with pytest.raises(StoreError, match="disk full"):
        await fetcher.fetch(PAYLOAD)
    requests = len(server.requests)
    assert requests == 1, "nobody is asked while there is no room"

    neighbour.file.unlink()
    seen: list[int] = []
    await fetcher.fetch(PAYLOAD, lambda held, _: seen.append(held))
    assert seen[0] == 8 * CHUNK, "all that fitted is still there"
    assert [request.span for request in server.requests[requests:]] == [(8 * CHUNK, SIZE)]
    assert await asyncio.to_thread(cache.read, PAYLOAD.sha256, 0, SIZE) == BODY
    cache.close()
