"""Reports that the cloud has not yet acknowledged: durable, numbered {epoch, seq}, bounded on disk.

A report is appended in the transaction of the change that it speaks of, so neither exists without the other. It is
forgotten only when the cloud's watermark covers it; when the bound is reached the oldest progress goes first, and an
outcome never. Not responsible for when and how reports travel (link.py).
"""

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog

from gatewayd.cloud import messages
from gatewayd.errors import Bug
from gatewayd.store.database import Database

log = structlog.get_logger()

BATCH_MAX_REPORTS = 100
REPORT_MAX_BYTES = 16 * 1024  # far above any honest report: a batch always has room for at least one
TRIM_TO_SHARE = 0.9  # trimming a little deeper than needed makes it rare

_EPOCH = "outbox_epoch"


@dataclass(frozen=True, slots=True)
class Batch:
    """Reports as they are published: `payload` is a `messages.ReportBatch` document, `last` its highest seq."""

    payload: bytes
    first: int
    last: int
    count: int


@dataclass(frozen=True, slots=True)
class Pending:
    """What waits beyond a seq; both numbers stop at the limit that was asked for."""

    reports: int
    outcomes: int  # of them, all that is not progress


@dataclass(frozen=True, slots=True)
class Depth:
    reports: int
    bytes: int


def append(db: sqlite3.Connection, reports: Sequence[messages.Report]) -> None:
    """Number and keep the reports, inside the caller's transaction. Call `Outbox.notify` after it."""
    rows = []
    for report in reports:
        body = messages.dump(report)
        if len(body) > REPORT_MAX_BYTES:
            raise Bug(f"report of {len(body)} bytes, at most {REPORT_MAX_BYTES}: {body[:200]!r}")
        rows.append((report.kind.value, body.decode(), len(body), report.at.timestamp()))
    db.executemany("INSERT INTO outbox (kind, body, bytes, at) VALUES (?, ?, ?, ?)", rows)


def newest(db: sqlite3.Connection) -> int:
    """The highest seq that was ever given in this store; 0: none."""
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'").fetchone()
    return int(row["seq"]) if row else 0


def forget(db: sqlite3.Connection, first: int, last: int) -> None:
    """Drop what is left of reports [first, last], inside the caller's transaction, which says anew what they said."""
    db.execute("DELETE FROM outbox WHERE seq BETWEEN ? AND ?", (first, last))


def stored_epoch(db: sqlite3.Connection) -> int:
    """The epoch of what is in the store; 0: none was opened yet."""
    row = db.execute("SELECT value FROM meta WHERE key = ?", (_EPOCH,)).fetchone()
    return int(row["value"]) if row else 0


def new_epoch(db: sqlite3.Connection) -> int:
    """Open an epoch above the present one, inside the caller's transaction; for a restored store.

    What the restored store holds is numbered from 1 in the new epoch, so the cloud takes it as new, and need not wait for
    numbers before it. An `Outbox` that is already loaded has to be told (`adopt`).
    """
    # The wall clock in microseconds differs from every epoch that a lost store may have used, and mostly rises.
    epoch = max(time.time_ns() // 1000, stored_epoch(db) + 1)
    db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (_EPOCH, str(epoch)))
    kept = [tuple(row) for row in db.execute("SELECT kind, body, bytes, at FROM outbox ORDER BY seq")]
    db.execute("DELETE FROM outbox")
    db.execute("DELETE FROM sqlite_sequence WHERE name = 'outbox'")
    db.executemany("INSERT INTO outbox (kind, body, bytes, at) VALUES (?, ?, ?, ?)", kept)
    return epoch


class Outbox:
    """The reports in the store. `max_bytes` bounds their bodies, apart from outcomes, which are never dropped.

    `beyond(acks, sent)` is awaited when the cloud has acknowledged a report of our epoch that was not in the store when it was
    loaded, and was not sent since: it is an older copy of one that went further. Only once for each process: nobody puts a
    store back under a running one. So `load` has to come before the process makes reports of its own.
    """

    def __init__(self, database: Database, max_bytes: int) -> None:
        self._database = database
        self._max_bytes = max_bytes
        self._epoch = 0
        self._shown = 0  # the highest seq that the cloud can know of
        self._depth = Depth(0, 0)
        self._news = asyncio.Event()
        self._proof: messages.Acks | None = None  # acks beyond what the cloud can know
        self.beyond: Callable[[messages.Acks, int], Awaitable[None]] | None = None

    @property
    def epoch(self) -> int:
        """Number of this life of the store; 0 before `load`."""
        return self._epoch

    @property
    def depth(self) -> Depth:
        """Reports kept, as last counted (by load, acknowledge and trim)."""
        return self._depth

    async def load(self) -> int:
        """Read the epoch, or open the first one; returns it. Repeating it changes nothing."""
        if not self._epoch:
            self._epoch, self._shown = await self._database.write(_load)
            self._depth = await self._database.read(_count)
        return self._epoch

    async def adopt(self, epoch: int) -> None:
        """A new epoch was opened in the store: what it holds is numbered anew."""
        self._epoch, self._shown = epoch, 0
        self._depth = await self._database.read(_count)

    async def pending(self, after_seq: int, limit: int = BATCH_MAX_REPORTS) -> Pending:
        """How much waits beyond `after_seq`, counted up to `limit` reports."""
        query = (
            "SELECT count(*), coalesce(sum(kind != ?), 0)"
            " FROM (SELECT kind FROM outbox WHERE seq > ? ORDER BY seq LIMIT ?)"
        )
        arguments = (messages.ReportKind.PROGRESS.value, after_seq, limit)
        row = await self._database.read(lambda db: db.execute(query, arguments).fetchone())
        return Pending(reports=row[0], outcomes=row[1])

    async def batch(self, after_seq: int, limit: int = BATCH_MAX_REPORTS) -> Batch | None:
        """The next reports beyond `after_seq`, in order, as one document within the size limit; None when none wait."""
        await self.load()

        def held(db: sqlite3.Connection) -> tuple[list[sqlite3.Row], int, int]:
            db.execute("BEGIN")  # what is read belongs together
            try:
                return (*numbered(db), stored_epoch(db))
            finally:
                db.execute("ROLLBACK")

        def numbered(db: sqlite3.Connection) -> tuple[list[sqlite3.Row], int]:
            query = "SELECT seq, body FROM outbox WHERE seq > ? ORDER BY seq LIMIT ?"
            rows = db.execute(query, (after_seq, min(limit, BATCH_MAX_REPORTS))).fetchall()
            older = db.execute("SELECT max(seq) FROM outbox WHERE seq <= ?", (after_seq,)).fetchone()[0]
            return rows, older or 0

        rows, before, epoch = await self._database.read(held)
        # The bodies were serialised when they were appended; here they are only put together.
        head, tail = f'{{"after":{before},"epoch":{epoch},"reports":['.encode(), b"]}"
        room = messages.DOCUMENT_MAX_BYTES - len(head) - len(tail)
        parts: list[bytes] = []
        for row in rows:
            part = f'{{"report":{row["body"]},"seq":{row["seq"]}}}'.encode()
            room -= len(part) + 1
            if room < 0:
                break
            parts.append(part)
        if not parts:
            return None
        last = rows[len(parts) - 1]["seq"]
        if epoch == self._epoch:
            self._shown = max(self._shown, last)
        return Batch(head + b",".join(parts) + tail, first=rows[0]["seq"], last=last, count=len(parts))

    def heard(self, acks: messages.Acks) -> None:
        """At once when they arrive: what is sent afterwards may have their numbers, and is not what they acknowledge."""
        if acks.epoch == self._epoch and acks.seq > self._shown:
            self._proof = acks

    async def acknowledge(self, acks: messages.Acks) -> bool:
        """Forget everything up to the watermark. False, and nothing forgotten, when it is not about what we have sent."""
        epoch = await self.load()
        if acks.epoch != epoch:
            log.info("acks of another epoch", ours=epoch, theirs=acks.epoch)
            return False
        self.heard(acks)
        if self._proof is not None:
            log.warning("acks beyond what was sent", code="bad_document", seq=self._proof.seq, sent=self._shown)
            if self.beyond is not None:
                await self.beyond(self._proof, self._shown)
                self.beyond = self._proof = None
                return False  # what is held has other numbers now
            self._proof = None
        if acks.seq > self._shown:
            return False

        def forget(db: sqlite3.Connection) -> Depth:
            db.execute("DELETE FROM outbox WHERE seq <= ?", (acks.seq,))
            return _count(db)

        oldest = await self._database.read(lambda db: db.execute("SELECT min(seq) FROM outbox").fetchone()[0])
        if oldest is not None and oldest <= acks.seq:  # no write for an ack that says nothing new
            self._depth = await self._database.write(forget)
        return True

    async def trim(self) -> int:
        """Drop the oldest progress while the outbox is above its bound; returns how many reports went."""
        self._depth = await self._database.read(_count)
        if self._depth.bytes <= self._max_bytes:
            return 0
        excess = self._depth.bytes - int(self._max_bytes * TRIM_TO_SHARE)

        def drop(db: sqlite3.Connection) -> int:
            return db.execute(
                "DELETE FROM outbox WHERE seq IN (SELECT seq FROM"
                " (SELECT seq, bytes, sum(bytes) OVER (ORDER BY seq) AS upto FROM outbox WHERE kind = ?)"
                " WHERE upto - bytes < ?)",
                (messages.ReportKind.PROGRESS.value, excess),
            ).rowcount

        dropped = await self._database.write(drop)
        self._depth = await self._database.read(_count)
        log.warning(
            "outbox trimmed",
            dropped=dropped,
            reports=self._depth.reports,
            bytes=self._depth.bytes,
            max_bytes=self._max_bytes,
        )
        return dropped

    def notify(self) -> None:
        """Say that reports were appended and committed. Only from the event loop's thread."""
        self._news.set()

    async def wait(self, timeout_s: float | None) -> None:
        """Return when `notify` was called since the last wait, or after the time-out."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        except TimeoutError:
            return
        self._news.clear()


def _load(db: sqlite3.Connection) -> tuple[int, int]:
    epoch = stored_epoch(db) or new_epoch(db)
    # What was shown before a restart is not kept; it cannot be more than what was ever numbered.
    return epoch, newest(db)


def _count(db: sqlite3.Connection) -> Depth:
    row = db.execute("SELECT count(*), coalesce(sum(bytes), 0) FROM outbox").fetchone()
    return Depth(reports=row[0], bytes=row[1])
