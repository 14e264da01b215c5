"""Sleeping until a time, or until there is news; one timer for many deadlines. SHELL.

What is due then is the business of who sleeps.
"""

import asyncio
from typing import Final

from radios.clock import Clock

_SHORTEST_S: Final = 0.005
_NEVER: Final = float("inf")


async def sleep_until_or(clock: Clock, until: float | None, news: asyncio.Event) -> None:
    """Until the time (None: never), or until the event is set, which it may be already."""
    waits: set[asyncio.Task[object]] = {asyncio.create_task(news.wait())}
    if until is not None:
        waits.add(asyncio.create_task(clock.sleep_until(until)))
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


class Alarm:
    """One timer for many deadlines: `clear` it, `set` each deadline, `wait`. One that is set meanwhile and is earlier wakes too."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._at = _NEVER
        self._earlier = asyncio.Event()

    def clear(self) -> None:
        self._at = _NEVER

    def set(self, deadline: float | None) -> None:
        """None: there is no deadline."""
        if deadline is not None and deadline < self._at:
            self._at = deadline
            self._earlier.set()

    async def wait(self, now: float) -> None:
        """Until the earliest deadline; a moment at least, if it is past."""
        self._earlier.clear()
        until = None if self._at == _NEVER else max(self._at, now + _SHORTEST_S)
        await sleep_until_or(self._clock, until, self._earlier)
