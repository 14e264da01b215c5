"""A machine whose wall clock is stepped while the loop's time, the true one, goes on: what the daemon makes of it for a radio."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from gatewayd.campaign.radio_time import Era, begun, followed
from radios.clock import SystemClock
from radios.radio import Want

YEAR_S = 365 * 86400.0
NOTICED_S = 3.0  # until a step is followed
_BOOTED_AT = 1_000_000.0  # of the loop's time: monotonic clocks start anywhere


class Machine:
    """`ahead_s`: of the true time. `era` is what the store keeps from process to process."""

    def __init__(self, ahead_s: float = 0.0) -> None:
        self._loop = asyncio.get_running_loop()
        self.ahead_s = ahead_s
        self.era: Era | None = None
        self.clock: SystemClock | None = None

    def wall(self) -> float:
        return self._loop.time() + self.ahead_s

    def steady(self) -> float:
        return self._loop.time() - _BOOTED_AT

    def start(self) -> SystemClock:
        """The clock of a radio in a new process."""
        self.clock = SystemClock(self.wall, self.steady)
        self.era, _ = begun(self.era, "boot", self.wall(), self.steady(), 0.0)
        self.clock.go_on(self.era.offset_s - self.era.ahead_s, self.era.ahead_s)
        return self.clock

    def stop(self) -> None:
        self.clock = None

    async def step(self, ahead_s: float) -> None:
        """And follow it, where a daemon runs."""
        self.ahead_s = ahead_s
        if self.clock is not None:
            await asyncio.sleep(NOTICED_S)
            assert self.era is not None
            self.era, step = followed(self.era, self.wall(), self.steady())
            if step is not None:
                self.clock.wall.step(self.era.ahead_s)


async def stepped_at(
    world: Any, reached: Callable[[], bool], steps: Sequence[float], *, holds: bool, restart: bool, within_s: float
) -> None:
    """An update of the world's nodes; when it is `reached`, the clock's steps, a minute between two."""
    await world.direct(Want.DELIVER if holds else Want.INSTALL, 1)
    await world.until(reached, within_s)
    for number, ahead_s in enumerate(steps):
        if number:
            await asyncio.sleep(60)
        await world.step(ahead_s, restart=restart)
    if holds:
        await world.direct(Want.INSTALL, 2)
