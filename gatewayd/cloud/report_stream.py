"""The reports on their way to the cloud: which go out when, and what the cloud's acknowledgements change. SHELL.

Outcomes go at once, progress in batches; what stays unacknowledged goes again. Not responsible for keeping reports
(`outbox.py`), for the connection, nor for reading what arrives (`link.py`).
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from gatewayd.cloud.connection import CloudSettings, Connection
from gatewayd.cloud.drain import Drain
from gatewayd.cloud.messages import Acks
from gatewayd.cloud.outbox import BATCH_MAX_REPORTS, Outbox
from gatewayd.errors import StoreError

log = structlog.get_logger()

POLL_S = 30.0  # how long a report can wait whose writer forgot to notify


class ReportStream:
    """One for all connections. `send` publishes a batch, and is False when the broker refused it; `failed` tells operators."""

    def __init__(
        self,
        settings: CloudSettings,
        outbox: Outbox,
        drain: Drain,
        send: Callable[[Connection, bytes], Awaitable[bool]],
        failed: Callable[[str, BaseException], None],
    ) -> None:
        self._settings = settings
        self._outbox = outbox
        self._drain = drain
        self._send = send
        self._failed = failed
        self.sent_seq = 0  # highest seq published over this connection
        self._resend_at = 0.0
        self._again = False
        self._acks: Acks | None = None
        self._acks_news = asyncio.Event()

    def all_again(self) -> None:
        """Publish every report that is kept once more."""
        self._again = True
        self._outbox.notify()

    def take_acks(self, acks: Acks) -> None:
        """The cloud says what it has; only the latest word counts."""
        self._outbox.heard(acks)
        self._acks = acks
        self._acks_news.set()

    async def apply_acks(self) -> None:
        """For ever: forget what the cloud has."""
        while True:
            await self._acks_news.wait()
            self._acks_news.clear()
            acks, self._acks = self._acks, None
            if acks is None:
                continue
            now = asyncio.get_running_loop().time()
            try:
                if await self._outbox.acknowledge(acks):
                    self._resend_at = now + self._settings.resend_after_s
                if acks.epoch == self._outbox.epoch and acks.seq < self.sent_seq:
                    # The cloud speaks, and has less than we sent: it may have come after us and missed some.
                    self._resend_at = min(self._resend_at, now + self._settings.resend_missed_s)
                    self._outbox.notify()
            except StoreError as error:
                self._failed("acks not stored", error)
                # Kept, unless there are newer ones: the cloud need not say them again.
                self._acks = self._acks or acks
                self._acks_news.set()
                await asyncio.sleep(self._settings.ask_again_s)
            await asyncio.sleep(self._settings.ack_interval_s)

    async def run(self, connection: Connection) -> None:
        """As long as the connection: from the watermark, for what lies below it is no longer in the outbox."""
        loop = asyncio.get_running_loop()
        self.sent_seq = 0
        self._again = False
        self._resend_at = loop.time() + self._settings.resend_after_s
        last_sent = loop.time() - self._settings.progress_interval_s
        while True:
            if self._again or loop.time() >= self._resend_at:
                self._again = False
                self.sent_seq = 0
                self._resend_at = loop.time() + self._settings.resend_after_s
            pending = await self._outbox.pending(self.sent_seq)
            left_s = last_sent + self._settings.progress_interval_s - loop.time()
            if not pending.reports:
                await self._outbox.wait(min(POLL_S, max(0.1, self._resend_at - loop.time())))
            elif pending.outcomes or pending.reports >= BATCH_MAX_REPORTS or left_s <= 0:
                await self._drain.turn()
                if await self._send_batch(connection):
                    last_sent = loop.time()
                else:
                    await asyncio.sleep(self._settings.refused_retry_s)
            else:
                await self._outbox.wait(left_s)

    async def _send_batch(self, connection: Connection) -> bool:
        batch = await self._outbox.batch(self.sent_seq)
        if batch is None:
            return True  # trimmed away in between
        if not await self._send(connection, batch.payload):
            return False
        if not self._again:
            self.sent_seq = batch.last
        log.debug("reports sent", first=batch.first, last=batch.last, reports=batch.count)
        return True
