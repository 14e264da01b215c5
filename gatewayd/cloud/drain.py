"""How fast what has piled up goes to the broker: a rate, so that a fleet that comes back does not flood it. SHELL.

What comes after a pause goes at once: a document's worth is always in hand. Not responsible for what is sent (link.py).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from gatewayd.cloud.messages import DOCUMENT_MAX_BYTES


class Drain:
    """One for all that a link sends. `now` is any monotonic clock in seconds, `sleep` passes on it."""

    def __init__(
        self,
        bytes_s: float,
        burst_bytes: int = DOCUMENT_MAX_BYTES,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._bytes_s = bytes_s
        self._burst_s = burst_bytes / bytes_s
        self._now = now
        self._sleep = sleep
        self._paid_at = float("-inf")  # when all that was sent is within the rate

    async def turn(self) -> None:
        """Return when more may be sent: when what was sent is paid for, but for the burst."""
        while (wait_s := self._paid_at - self._now()) > 0:
            await self._sleep(wait_s)

    def take(self, size: int) -> None:
        """So many bytes are being sent."""
        self._paid_at = max(self._paid_at, self._now() - self._burst_s) + size / self._bytes_s
