"""Keeps a conversation with a broker going: again and again, with back-off, until cancelled. SHELL."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from gatewayd.backoff import backoff_s
from gatewayd.cloud.connection import CloudSettings
from gatewayd.cloud.failures import outcome_of

log = structlog.get_logger()

STABLE_S = 30.0  # a connection that held so long starts the back-off afresh


async def keep_trying(
    conversation: Callable[[], Coroutine[Any, Any, None]],
    settings: CloudSettings,
    *,
    ended: Callable[[BaseException | None], bool],
    name: str,
    rng: Callable[[], float] = random.random,
) -> None:
    """`ended` is told how a conversation ended, and says whether there had been a connection."""
    loop = asyncio.get_running_loop()
    attempt = 0
    while True:
        started = loop.time()
        was_connected = ended(await outcome_of(conversation(), name))
        if was_connected and loop.time() - started >= STABLE_S:
            attempt = 0
        wait_s = backoff_s(attempt, settings.backoff_first_s, settings.backoff_max_s, rng)
        attempt += 1
        log.info("reconnecting", task=name, wait_s=round(wait_s, 3), attempt=attempt)
        await asyncio.sleep(wait_s)
