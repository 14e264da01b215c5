"""Sleeping until a time, or until there is news."""

import asyncio

from radios.clock import Clock


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
