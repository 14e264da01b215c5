"""Time for the radios: Unix seconds (UTC) as float, steady within a process.

Sessions never read a clock, they are told the time; a `Clock` belongs to the shells. `SystemClock` does not follow steps
of the wall clock by itself, because every running timer would jump with it: who notices a step calls `adopt`.
`ScaledClock` lets simulated hours pass in seconds; two processes given the same scale and origin agree on the time.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """What a shell may ask of time."""

    def now(self) -> float:
        """Unix time in seconds; never goes back, unless the clock was told of a step."""
        ...

    async def sleep_until(self, when: float) -> None:
        """Return when `now() >= when`; at once when that is past."""
        ...


class SystemClock:
    """Real time: the wall clock as it was at the last `adopt`, carried on by the monotonic clock."""

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic) -> None:
        self._steady = steady
        self._offset_s = wall() - steady()

    def adopt(self, offset_s: float) -> None:
        """Take the wall clock over again after a step: it is the monotonic clock and `offset_s` seconds."""
        self._offset_s = offset_s

    def now(self) -> float:
        return self._steady() + self._offset_s

    async def sleep_until(self, when: float) -> None:
        while (left := when - self.now()) > 0:
            await asyncio.sleep(left)


class ScaledClock:
    """Time that runs `scale` times faster than real time since `origin` (Unix seconds, where both agree)."""

    def __init__(self, scale: float, origin: float) -> None:
        if scale <= 0:
            raise ValueError(f"time scale must be positive, not {scale}")
        self.scale = scale
        self.origin = origin
        self._real = SystemClock()

    def now(self) -> float:
        return self.origin + (self._real.now() - self.origin) * self.scale

    async def sleep_until(self, when: float) -> None:
        while (left := when - self.now()) > 0:
            await asyncio.sleep(left / self.scale)
