"""A journal and an image store in memory, as real as the contract asks."""

import hashlib
from collections.abc import Sequence

import pytest

from radios.errors import ImageError
from radios.radio import Fact, ImageRef, Record, TransferEvent


class MemoryJournal:
    """Keeps what was committed; `broken` makes commits raise, as a full disk does."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], Record] = {}
        self.events: list[TransferEvent] = []
        self.reported: list[TransferEvent] = []
        self.broken = False
        self.refused = 0

    async def load(self) -> Sequence[Record]:
        return list(self.records.values())

    async def commit(self, records: Sequence[Record], events: Sequence[TransferEvent]) -> None:
        if self.broken:
            self.refused += 1
            raise OSError("no space left on device")
        self._keep(records)
        self.events += events

    def progress(self, events: Sequence[TransferEvent], records: Sequence[Record] = ()) -> None:
        assert all(event.fact in (Fact.PROGRESS, Fact.STALLED) for event in events)
        self._keep(records)
        self.reported += events

    def facts(self, node: str) -> list[Fact]:
        return [event.fact for event in self.events if event.node == node]

    def _keep(self, records: Sequence[Record]) -> None:
        for record in records:
            if record.value:
                self.records[record.scope, record.key] = record
            else:
                self.records.pop((record.scope, record.key), None)


class MemoryImages:
    """Files by digest."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def add(self, file: bytes, version: int) -> ImageRef:
        digest = hashlib.sha256(file).hexdigest()
        self.files[digest] = file
        return ImageRef(digest, len(file), version)

    def read(self, digest: str, offset: int, length: int) -> bytes:
        if digest not in self.files:
            raise ImageError(f"{digest} is not here")
        return self.files[digest][offset : offset + length]

    def size(self, digest: str) -> int:
        if digest not in self.files:
            raise ImageError(f"{digest} is not here")
        return len(self.files[digest])


@pytest.fixture
def journal() -> MemoryJournal:
    return MemoryJournal()


@pytest.fixture
def images() -> MemoryImages:
    return MemoryImages()
