"""The radio's journal: its records, what its facts do to the node updates, and the reports about that, in one transaction.

A commit that names an installation nobody ordered (any more) is refused, so the radio does not take that action. Any
other fact that has no meaning in the node's present state is logged and dropped: a late frame cannot change an outcome.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import structlog

from gatewayd.campaign.node_update import Input, NodeUpdate, State, UnknownTransition, advance
from gatewayd.campaign.radio_time import RadioTime
from gatewayd.campaign.reports import node_report, progress_report
from gatewayd.campaign.rows import put_progress, put_updates, update_of_transfer
from gatewayd.cloud import outbox
from gatewayd.errors import StoreError
from gatewayd.service.wall_clock import WallClock
from gatewayd.store.database import Database
from radios.radio import Fact, Record, TransferEvent, Want

PROGRESS_FLUSH_S = 10.0
FIRST_PROGRESS_S = 0.2
PROGRESS_REPORT_STEP = 0.1  # of the payload: how often progress is worth a report

log = structlog.get_logger()

_INPUTS = {
    Fact.PREPARING: Input.PREPARE,
    Fact.PROGRESS: Input.DATA,
    Fact.COMPLETE: Input.COMPLETE,
    Fact.READY: Input.READY,
    Fact.INSTALLING: Input.INSTALL,
    Fact.FAILED: Input.FAIL,
}
_BEFORE_ALL_BYTES = frozenset({State.PENDING, State.PREPARING, State.TRANSFERRING})


class RadioJournal:
    """`radios.radio.Journal` for one radio.

    `changed` is called after every commit that moved a node update, `reported` after every one that made a report.
    """

    def __init__(
        self,
        kind: str,
        database: Database,
        wall: WallClock,
        changed: Callable[[], None],
        reported: Callable[[], None],
        times: RadioTime | None = None,
    ) -> None:
        self._kind = kind
        self._database = database
        self._wall = wall
        self._changed = changed
        self._reported = reported
        self._times = times
        # One commit at a time: what was batched and comes back from a failed one must not be written over newer facts.
        self._turn = asyncio.Lock()
        self._pending_events: dict[tuple[str, str], TransferEvent] = {}
        self._pending_records: dict[tuple[str, str], Record] = {}
        self._moving: set[tuple[str, str]] = set()  # whose first progress is stored, or on its way there
        self._soon = asyncio.Event()

    @property
    def live(self) -> dict[tuple[str, str], int]:
        """Confirmed bytes by (transfer, node) that are not in the store yet."""
        return {key: e.confirmed for key, e in self._pending_events.items() if e.confirmed is not None}

    async def load(self) -> Sequence[Record]:
        return await self._database.read(lambda db: records_of(db, self._kind))

    async def commit(self, records: Sequence[Record], events: Sequence[TransferEvent]) -> None:
        async with self._turn, contextlib.nullcontext() if self._times is None else self._times.turn:
            changes = await self._commit(records, events)
        if any(change.told for change in changes):
            self._changed()
        if any(change.reported for change in changes):
            self._reported()

    async def _commit(self, records: Sequence[Record], events: Sequence[TransferEvent]) -> "list[Change]":
        pending_records, self._pending_records = self._pending_records, {}
        pending_events, self._pending_events = self._pending_events, {}
        self._moving.difference_update((event.transfer, event.node) for event in events)
        now = self._wall.now()
        kept = _without_undone_installs(events)

        def transaction(db: sqlite3.Connection) -> list[Change]:
            for record in (*pending_records.values(), *records):
                put_record(db, self._kind, record)
            changes = [_apply(db, self._in_time(event), now) for event in (*pending_events.values(), *kept)]
            return [change for change in changes if change is not None]

        try:
            made = await self._database.write(transaction)
        except asyncio.CancelledError:
            # The store finishes it all the same. Put back, the batch could be written once more, over what is newer.
            raise
        except BaseException:
            # What was only batched must not be lost with a commit that failed; newer progress wins.
            self._pending_records = {**pending_records, **self._pending_records}
            self._pending_events = {**pending_events, **self._pending_events}
            raise
        for change in made:
            if change.told:
                to = change.after
                log.info("node_update", node=to.node, campaign=to.campaign, state=to.state, code=to.code)
        return made

    def _in_time(self, event: TransferEvent) -> TransferEvent:
        return event if self._times is None else replace(event, at=self._times.moved(self._kind, event.at))

    def progress(self, events: Sequence[TransferEvent], records: Sequence[Record] = ()) -> None:
        for event in events:
            key = event.transfer, event.node
            self._pending_events[key] = event
            if event.fact is Fact.PROGRESS and key not in self._moving:
                self._moving.add(key)
                self._soon.set()  # that a node has begun is a change of state, which nobody should wait for
        for record in records:
            self._pending_records[record.scope, record.key] = record

    async def flush(self) -> None:
        """Write the batched progress now."""
        if self._pending_events or self._pending_records:
            await self.commit((), ())

    async def run(self) -> None:
        """Flush every `PROGRESS_FLUSH_S`, sooner for what begins, until cancelled; then once more."""
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PROGRESS_FLUSH_S):
                        await self._soon.wait()
                        await asyncio.sleep(FIRST_PROGRESS_S)  # many nodes begin together
                self._soon.clear()
                try:
                    await self.flush()
                except StoreError as error:
                    log.error("progress_not_stored", radio=self._kind, error=str(error))
        finally:
            try:
                await self.flush()
            except StoreError as error:  # progress alone may be lost, and a full disk must not spoil the stop
                log.error("progress_not_stored", radio=self._kind, error=str(error))


def records_of(db: sqlite3.Connection, kind: str) -> list[Record]:
    """All of one radio."""
    rows = db.execute("SELECT * FROM radio_record WHERE radio = ?", (kind,)).fetchall()
    return [Record(r["scope"], r["key"], r["version"], bytes(r["value"]), bool(r["secret"])) for r in rows]


def put_record(db: sqlite3.Connection, kind: str, record: Record) -> None:
    """Inside the caller's transaction."""
    if not record.value:
        db.execute(
            "DELETE FROM radio_record WHERE radio = ? AND scope = ? AND key = ?", (kind, record.scope, record.key)
        )
        return
    db.execute(
        "INSERT INTO radio_record (radio, scope, key, version, value, secret) VALUES (?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (radio, scope, key) DO UPDATE "
        "SET version = excluded.version, value = excluded.value, secret = excluded.secret",
        (kind, record.scope, record.key, record.version, record.value, record.secret),
    )


@dataclass(frozen=True, slots=True)
class Change:
    """A node update before and after a fact."""

    before: NodeUpdate
    after: NodeUpdate

    @property
    def told(self) -> bool:
        """Whether the change is more than progress."""
        return (self.before.state, self.before.resume, self.before.code) != (
            self.after.state,
            self.after.resume,
            self.after.code,
        )

    @property
    def reported(self) -> bool:
        """Whether the cloud hears of it: all but progress, and that at every tenth of the payload."""
        step = max(1.0, self.after.size * PROGRESS_REPORT_STEP)
        return self.told or int(self.before.confirmed / step) != int(self.after.confirmed / step)


def _without_undone_installs(events: Sequence[TransferEvent]) -> list[TransferEvent]:
    """Without the installations that the same commit says are dropped.

    A radio that was refused an installation says so again with the DROPPED that came meanwhile: nothing was told to the
    node, for that waits for the commit. Refused together, neither would ever become durable.
    """
    dropped = {(event.transfer, event.node) for event in events if event.fact is Fact.DROPPED}
    return [e for e in events if e.fact is not Fact.INSTALLING or (e.transfer, e.node) not in dropped]


def _apply(db: sqlite3.Connection, event: TransferEvent, now: float) -> Change | None:
    update = update_of_transfer(db, event.transfer, event.node)
    if update is None:
        if event.fact is Fact.INSTALLING:
            raise StoreError(f"{event.node}: installation in transfer {event.transfer}, which is not known")
        return None
    if event.confirmed is not None and _is_mere_progress(update, event):
        if event.confirmed == update.confirmed:
            return None
        after = replace(update, confirmed=event.confirmed)
        put_progress(db, after, now)
        return _reported(db, Change(update, after), now)
    try:
        after = _after(update, event, now)
    except UnknownTransition as error:
        if event.fact is Fact.INSTALLING:
            raise
        log.info("fact_without_meaning", node=event.node, transfer=event.transfer, error=str(error))
        return None
    if after == update:
        return None
    put_updates(db, [after], now)
    return _reported(db, Change(update, after), now)


def _reported(db: sqlite3.Connection, change: Change, now: float) -> Change:
    if change.reported:
        outbox.append(db, [(node_report if change.told else progress_report)(change.after, now)])
    return change


def _is_mere_progress(update: NodeUpdate, event: TransferEvent) -> bool:
    """What `_after` would make of it is another `confirmed` and nothing else. Most of all facts, in batches of hundreds."""
    moving = event.fact is Fact.PROGRESS and update.state is State.TRANSFERRING and not update.code
    return moving and event.version is None and not event.code and not event.detail


def _after(update: NodeUpdate, event: TransferEvent, now: float) -> NodeUpdate:
    if event.fact is Fact.DROPPED:
        # Of an older directive: something else is wanted by now, and the radio has been told, or will be.
        return (
            replace(update, want="", install_at=0.0)
            if event.generation >= update.generation or update.ended
            else update
        )
    if event.fact is Fact.STALLED:
        if event.confirmed and update.effective in _BEFORE_ALL_BYTES:
            # Of what is batched, the last word of each node alone is kept: this one may have taken the place of progress.
            update = advance(update, Input.DATA, now=now, radio_now=event.at)
            update = replace(update, confirmed=event.confirmed)
        if update.ended or update.state is State.DEFERRED:
            return update
        return replace(update, code=event.code, detail=event.detail)
    if event.fact is Fact.INSTALLING and update.want != Want.INSTALL:
        raise UnknownTransition(update.state, Input.INSTALL)
    if event.fact is Fact.RUNNING:
        what = Input.NEW_VERSION if event.version == update.target_version else Input.OLD_VERSION
    else:
        what = _INPUTS[event.fact]
    after = advance(update, what, now=now, radio_now=event.at, code=event.code, detail=event.detail)
    if event.confirmed is not None and not after.ended:
        after = replace(after, confirmed=event.confirmed)
    if event.version is not None:
        after = replace(after, version=event.version)
    if what is Input.DATA and after.code and after.state is not State.DEFERRED:
        after = replace(after, code="", detail="")  # it moves again
    return after
