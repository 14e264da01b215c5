"""The cloud's end of the outbox, small: stores reports and tells gateways what is safely stored. SHELL.

Reports come at least once and in order within an epoch, but the watermark may only pass what was stored. Numbers that are
missing in a batch, or between it and its `after`, were dropped by the gateway on purpose; a batch whose `after` lies above
the watermark says that we have missed some, which come again: a gateway that is told an old watermark goes back to it.

Every epoch of a gateway has a watermark of its own. A gateway uses one at a time, so what is told again after a reconnect is
the one that was heard last; reports are read in the order in which epochs were first heard of, which is that of their making:
a restored or lost store begins a new one.
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
CREATE TABLE IF NOT EXISTS epoch (
    number INTEGER PRIMARY KEY AUTOINCREMENT,  -- in the order of being heard of
    gateway TEXT NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL, heard_at REAL NOT NULL,
    UNIQUE (gateway, epoch)
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
            self._adopt_watermarks()
        except sqlite3.Error as error:
            raise StoreError(f"{path}: {error}") from error

    def _adopt_watermarks(self) -> None:
        """Of a file that was made when epochs had no order: the higher one is taken for the later."""
        if self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'watermark'").fetchone():
            self._db.executescript(
                "BEGIN; INSERT OR IGNORE INTO epoch (gateway, epoch, seq, heard_at)"
                " SELECT gateway, epoch, seq, 0.0 FROM watermark ORDER BY epoch; DROP TABLE watermark; COMMIT;"
            )

    def store(self, gateway: str, batch: ReportBatch, now: float) -> Acks:
        """Keep the batch, durable on return; what may be acknowledged now, which is told even when it is 0. StoreError."""
        rows = [(gateway, batch.epoch, n.seq, *_columns(n.report), now) for n in batch.reports]
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany("INSERT OR IGNORE INTO report VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
                held = self._db.execute(
                    "SELECT seq FROM epoch WHERE gateway = ? AND epoch = ?", (gateway, batch.epoch)
                ).fetchone()
                seq = _advance(held[0] if held else 0, batch)
                self._db.execute(
                    "INSERT INTO epoch (gateway, epoch, seq, heard_at) VALUES (?, ?, ?, ?)"
                    " ON CONFLICT DO UPDATE SET seq = excluded.seq, heard_at = excluded.heard_at",
                    (gateway, batch.epoch, seq, now),
                )
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise StoreError(f"reports: {error}") from error
        return Acks(epoch=batch.epoch, seq=seq)

    def seed(self, gateway: str, acks: Acks) -> None:
        """What the broker holds as acknowledged, for a store without history: the gateway has forgotten those. StoreError."""
        try:
            mark = (gateway, acks.epoch, acks.seq, 0.0)
            self._db.execute("INSERT OR IGNORE INTO epoch (gateway, epoch, seq, heard_at) VALUES (?, ?, ?, ?)", mark)
        except sqlite3.Error as error:
            raise StoreError(f"reports: {error}") from error

    def watermarks(self) -> list[tuple[str, Acks]]:
        """What is acknowledged, by gateway: of the epoch that was heard last."""
        found = self._db.execute("SELECT gateway, epoch, seq FROM epoch ORDER BY heard_at, number")
        return sorted({gateway: Acks(epoch=epoch, seq=seq) for gateway, epoch, seq in found}.items())

    def reports(self, campaign: str | None = None) -> list[tuple[str, messages.Report]]:
        """(gateway, report) of one campaign or all; the newest of a gateway last, in whatever order they arrived."""
        where = "" if campaign is None else "WHERE campaign = ?"
        query = (
            f"SELECT gateway, body FROM report JOIN epoch USING (gateway, epoch) {where} ORDER BY number, report.seq"  # noqa: S608 - own text
        )
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


def _advance(seq: int, batch: ReportBatch) -> int:
    """The watermark after a batch."""
    return max(seq, batch.reports[-1].seq) if batch.after <= seq else seq
