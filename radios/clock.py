"""Time for the radios: seconds as float, Unix time but for the steps of the wall clock, which it never follows.

Sessions never read a clock, they are told the time; a `Clock` belongs to the shells. Every running timer and everything
that is journalled would jump with a step, so only `wall` changes: how far the wall clock is ahead. `ScaledClock` lets
simulated hours pass in seconds; two processes given the same scale and origin agree on the time.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from radios.wall_time import WallTime

_SHORTEST_S = 1e-6  # a float of Unix time knows nothing shorter


class Clock(Protocol):
    """What a shell may ask of time."""

    @property
    def wall(self) -> WallTime:
        """From this clock's time to Unix time and back, and word of steps."""
        ...

    def now(self) -> float:
        """Seconds; never goes back and never leaps, whatever the wall clock does."""
        ...

    async def sleep_until(self, when: float) -> None:
        """Return when `now() >= when`; at once when that is past."""
        ...


class SystemClock:
    """Real time: the wall clock as it was at the start, carried on by the monotonic clock."""

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic) -> None:
        self.wall = WallTime()
        self._steady = steady
        self._offset_s = wall() - steady()

    def go_on(self, offset_s: float, ahead_s: float) -> None:
        """Before the radio runs: go on with the time of the process before, the monotonic clock and `offset_s` seconds."""
        self._offset_s, self.wall.ahead_s = offset_s, ahead_s

    def now(self) -> float:
        return self._steady() + self._offset_s

    async def sleep_until(self, when: float) -> None:
        while (left := when - self.now()) > 0:
            await asyncio.sleep(max(left, _SHORTEST_S))


class ScaledClock:
    """Time that runs `scale` times faster than real time since `origin` (Unix seconds, where both agree)."""

    def __init__(self, scale: float, origin: float) -> None:
        if scale <= 0:
            raise ValueError(f"time scale must be positive, not {scale}")
        self.wall = WallTime()
        self.scale = scale
        self.origin = origin
        self._real = SystemClock()

    def now(self) -> float:
        return self.origin + (self._real.now() - self.origin) * self.scale

    async def sleep_until(self, when: float) -> None:
        while (left := when - self.now()) > 0:
            await asyncio.sleep(left / self.scale)
