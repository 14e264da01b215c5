"""What sessions stand on while the radio is open: the journal, the images, and a group for their tasks. SHELL."""

import asyncio
from collections.abc import Sequence

from radios.errors import ContractError, ImageError
from radios.lorawan.runner import JournalFailed
from radios.radio import ImageStore, Journal, Record, TransferEvent
from radios.tasks import RadioTasks


class Ground:
    def __init__(self) -> None:
        self._opened: tuple[Journal, ImageStore] | None = None
        self._tasks = RadioTasks()
        self.spawn = self._tasks.spawn

    def open(self, journal: Journal, images: ImageStore, group: asyncio.TaskGroup) -> None:
        """Before anything else."""
        self._opened = journal, images
        self._tasks.begin(group)

    def close(self) -> None:
        self._opened = None
        self._tasks.end()

    @property
    def journal(self) -> Journal | None:
        """None: the radio is closed."""
        return self._opened[0] if self._opened else None

    def running(self) -> Journal:
        """ContractError when the radio is closed."""
        if self._opened is None:
            raise ContractError("the radio is not running")
        return self._opened[0]

    async def commit(self, records: Sequence[Record], events: Sequence[TransferEvent]) -> None:
        """JournalFailed when it could not be made durable."""
        if not records and not events:
            return
        try:
            await self.running().commit(records, events)
        except Exception as error:
            raise JournalFailed(error, ()) from error

    def read(self, digest: str, offset: int, length: int) -> bytes:
        """Of an image; ImageError."""
        if self._opened is None:
            raise ImageError("the radio is closed")
        return self._opened[1].read(digest, offset, length)
