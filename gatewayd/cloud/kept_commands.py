"""Commands that could not be taken because the store failed: kept in order, and tried again. SHELL.

A campaign is retained and can be asked for again; a command comes once, for nothing is redelivered that was acknowledged, nor
to a clean session. So it waits here, in memory, until the store takes it or its own `expires` refuses it with a report. Not
responsible for what a command means.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from gatewayd.backoff import backoff_s
from gatewayd.cloud.failures import code_of, outcome_of, text_of
from gatewayd.errors import GatewaydError, StoreError, Unavailable

KEPT_MOST = 16  # of up to 256 KiB each; nobody means so many within a full disk
FIRST_S = 1.0

log = structlog.get_logger()


class KeptCommands:
    """`handle` does a command, and is never called while another call of it runs."""

    def __init__(
        self,
        handle: Callable[[str, bytes], Coroutine[Any, Any, None]],
        longest_s: float,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self._handle = handle
        self._longest_s = longest_s
        self._rng = rng
        self._kept: deque[tuple[str, bytes]] = deque()
        self._news = asyncio.Event()

    async def take(self, topic: str, raw: bytes) -> None:
        """Do it, or keep it: StoreError and Unavailable say why it waits. Behind others it waits for its turn."""
        if self._kept:
            self._keep(topic, raw)  # `issued` must rise: an older one done after it would be refused
            return
        try:
            await self._handle(topic, raw)
        except (StoreError, Unavailable):
            self._keep(topic, raw)
            raise

    async def run(self) -> None:
        """Try what is kept again, with back-off, until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            attempt = 0
            while self._kept:
                await asyncio.sleep(backoff_s(attempt, FIRST_S, self._longest_s, self._rng))
                error = await outcome_of(self._handle(*self._kept[0]), "cloud-kept-command")
                if isinstance(error, StoreError | Unavailable):
                    attempt += 1
                    continue
                self._kept.popleft()
                attempt = 0
                if error is not None:  # one command must not stop the others
                    trace = None if isinstance(error, GatewaydError) else error
                    log.error("command failed", code=code_of(error), error=text_of(error), exc_info=trace)

    def _keep(self, topic: str, raw: bytes) -> None:
        if (topic, raw) in self._kept:
            return
        if len(self._kept) >= KEPT_MOST:
            raise Unavailable(f"{KEPT_MOST} commands wait for the store: this one is lost")
        self._kept.append((topic, raw))
        self._news.set()
