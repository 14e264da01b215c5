"""A clock that stands still until it is moved."""

import asyncio

from radios.wall_time import WallTime


class ManualClock:
    """radios.clock.Clock."""

    def __init__(self, now: float = 1000.0) -> None:
        self.wall = WallTime()
        self.time = now
        self._moved = asyncio.Event()

    def now(self) -> float:
        return self.time

    async def sleep_until(self, when: float) -> None:
        while self.time < when:
            await self._moved.wait()

    async def move(self, seconds: float) -> None:
        """And let everybody do what is due."""
        self.time += seconds
        self._moved.set()
        self._moved = asyncio.Event()
        for _ in range(20):
            await asyncio.sleep(0)
