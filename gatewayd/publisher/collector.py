"""The cloud's end of the outbox, small: stores reports and tells gateways what is safely stored. SHELL.

Reports come at least once and in order within an epoch, but the watermark may only pass what was stored. A batch is a
run of rows of the gateway's outbox, so numbers that are missing inside it were dropped there on purpose. A gap *before* a
batch may be one that we have missed: the watermark waits until the gateway goes back and sends again, which an outbox does
from its oldest row, so nothing older is left. Epochs are told apart, not ordered: a gateway uses one at a time.
"""

import asyncio
import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from gatewayd.cloud import messages
from gatewayd.cloud.messages import Acks, ReportBatch
from gatewayd.errors import Refused, StoreError, Unavailable
from gatewayd.publisher.broker import QOS, BrokerSettings, connected, payload_bytes, subscribe_all

log = structlog.get_logger()

RECONNECT_MAX_S = 30.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS report (
    gateway TEXT NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL,
    kind TEXT NOT NULL, campaign TEXT, node TEXT, state TEXT NOT NULL, body TEXT NOT NULL, received_at REAL NOT NULL,
    PRIMARY KEY (gateway, epoch, seq)
) STRICT;
CREATE INDEX IF NOT EXISTS report_by_campaign ON report (campaign, node);
CREATE TABLE IF NOT EXISTS watermark (
    gateway TEXT NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL, seen INTEGER NOT NULL,
    PRIMARY KEY (gateway, epoch)
) STRICT;
"""


class ReportStore:
    """Reports in SQLite; `path` None keeps them in memory (then gateways keep them only as long as this process lives)."""

    def __init__(self, path: Path | None = None) -> None:
        try:
            self._db = sqlite3.connect(path or ":memory:", isolation_level=None)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise StoreError(f"{path}: {error}") from error

    def store(self, gateway: str, batch: ReportBatch, now: float) -> Acks | None:
        """Keep the batch, durable on return; what may be acknowledged now, None when nothing may. StoreError."""
        rows = [(gateway, batch.epoch, n.seq, *_columns(n.report), now) for n in batch.reports]
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany("INSERT OR IGNORE INTO report VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
                held = self._db.execute(
                    "SELECT seq, seen FROM watermark WHERE gateway = ? AND epoch = ?", (gateway, batch.epoch)
                ).fetchone()
                seq, seen = _advance(held[0], held[1], batch) if held else _advance(0, 0, batch)
                mark = (gateway, batch.epoch, seq, seen)
                self._db.execute("INSERT OR REPLACE INTO watermark VALUES (?, ?, ?, ?)", mark)
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise StoreError(f"reports: {error}") from error
        return Acks(epoch=batch.epoch, seq=seq) if seq else None

    def seed(self, gateway: str, acks: Acks) -> None:
        """What the broker holds as acknowledged, for a store without history: the gateway has forgotten those. StoreError."""
        try:
            mark = (gateway, acks.epoch, acks.seq, acks.seq)
            self._db.execute("INSERT OR IGNORE INTO watermark VALUES (?, ?, ?, ?)", mark)
        except sqlite3.Error as error:
            raise StoreError(f"reports: {error}") from error

    def watermarks(self) -> list[tuple[str, Acks]]:
        """What is acknowledged, by gateway."""
        found = self._db.execute("SELECT gateway, epoch, seq FROM watermark WHERE seq > 0 ORDER BY gateway")
        return [(gateway, Acks(epoch=epoch, seq=seq)) for gateway, epoch, seq in found]

    def reports(self, campaign: str | None = None) -> list[tuple[str, messages.Report]]:
        """(gateway, report) in the order of arrival, of one campaign or all."""
        where = "" if campaign is None else "WHERE campaign = ?"
        query = f"SELECT gateway, body FROM report {where} ORDER BY received_at, epoch, seq"  # noqa: S608 - own text
        found = self._db.execute(query, () if campaign is None else (campaign,))
        return [(gateway, messages.parse(messages.Report, body.encode(), "stored report")) for gateway, body in found]

    def close(self) -> None:
        self._db.close()


async def collect(broker: BrokerSettings, store: ReportStore, clock: Callable[[], float] = time.time) -> None:
    """Store and acknowledge until cancelled; a lost broker is waited for. StoreError ends it."""
    failures = 0
    while True:
        try:
            async with connected(broker) as client:
                await subscribe_all(client, [messages.gateway_topic("+", leaf) for leaf in ("acks", "reports")])
                failures = 0
                for gateway, acks in store.watermarks():
                    # Said again, so that a gateway sends what it published while nobody listened.
                    await client.publish(
                        messages.gateway_topic(gateway, "acks"), messages.dump(acks), qos=QOS, retain=True
                    )
                async for message in client.messages:
                    *_, gateway, leaf = message.topic.value.split("/")
                    answer = _taken(store, gateway, leaf, payload_bytes(message), clock())
                    if answer is not None:
                        topic = messages.gateway_topic(gateway, "acks")
                        await client.publish(topic, messages.dump(answer), qos=QOS, retain=True)
        except Unavailable as error:
            failures += 1
            wait_s = random.uniform(0.1, min(RECONNECT_MAX_S, 2.0**failures))  # noqa: S311 - jitter, no secret
            log.warning("collector_offline", reason=str(error), retry_s=round(wait_s, 1))
            await asyncio.sleep(wait_s)


def _taken(store: ReportStore, gateway: str, leaf: str, raw: bytes, now: float) -> Acks | None:
    try:
        if leaf == "acks":
            store.seed(gateway, messages.parse(Acks, raw, f"acks of {gateway}"))
            return None
        batch = messages.parse(ReportBatch, raw, f"reports of {gateway}", messages.RELEASE_MAX_BYTES)
    except Refused as error:
        log.warning("report_refused", gateway=gateway, code=error.code, detail=error.detail)
        return None
    return store.store(gateway, batch, now)


def _columns(report: messages.Report) -> tuple[str, str | None, str | None, str, str]:
    return report.kind, report.campaign, report.node, report.state, messages.dump(report).decode()


def _advance(seq: int, seen: int, batch: ReportBatch) -> tuple[int, int]:
    """The watermark and the highest number seen, after a batch."""
    first, last = batch.reports[0].seq, batch.reports[-1].seq
    if first <= seq + 1 or first <= seen:
        seq = max(seq, last)
    return seq, max(seen, last)
