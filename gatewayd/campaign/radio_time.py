"""What is stored of the radios' times, kept true over steps of the clock, and over restarts.

A radio's own clock never steps: it goes on from process to process by the monotonic clock, and what the radio keeps
(`radio_record`, the timers of its sessions) is by it. Where the wall clock was stepped it differs from that by `ahead_s`.
The daemon stores a radio's stamps by the wall clock. Without a battery-backed clock a node may begin to confirm in 1970 and
time arrive a minute later: it has run for a minute then, not for half a century. So all that was stored by the wall clock as
it was before is moved with it, in the transaction after which the new time is used, and which also keeps the difference of
the clocks: a process that ends between the step and the move leaves the move to the next one. Not responsible for noticing
steps (`service/wall_clock.py`).
"""

import asyncio
import contextlib
import json
import sqlite3
import time
import uuid
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import structlog

from gatewayd.errors import StoreError
from gatewayd.nodes.inventory import Inventory
from gatewayd.service.wall_clock import STEP_LEAST_S, WallClock
from gatewayd.store.database import Database
from radios.clock import Clock, SystemClock

LOOK_EVERY_S = 5.0
STORE_RETRY_S = 10.0
LONGEST_BOOT_S = 400 * 86400.0  # what was stored later than that after a boot is none of its times

_META_KEY = "radio_time.era"
_AHEAD_KEY = "radio_time.ahead_s"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_RADIO_COLUMNS = {
    "node_update": ("radio_since", "installing_at"),
    "node": ("version_at", "battery_at", "reset_cause_at", "first_seen", "last_seen"),
}

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Era:
    """The time by which stamps are stored now: the monotonic clock of one boot plus an offset. Seconds."""

    boot: str
    offset_s: float
    since: float  # the oldest stamp that may be of this era
    believed: bool = False  # whether the clock was ever believed in this era
    ahead_s: float = 0.0  # of the radios' own time, which goes on without the steps


@dataclass(frozen=True, slots=True)
class Step:
    """Stamps in [since, until] of the time before are `by_s` more in the time after."""

    since: float
    until: float
    by_s: float

    def moved(self, at: float) -> float:
        return at + self.by_s if self.since <= at <= self.until else at


def begun(stored: Era | None, boot: str, wall: float, steady: float, newest: float) -> tuple[Era, Step | None]:
    """The era of a process that starts now, and the step that what is stored has to follow. PURE.

    `newest`: of the stamps stored that may be of the stored era. Within one boot the clocks tell how far the wall was stepped.
    After another boot nobody knows how long the machine was off: where the clock before was never believed, or was ahead, the
    stamps are taken for as old as they were when the newest was written, so that nothing is over too soon, and nothing waits for years.
    """
    if stored is None:
        return Era(boot, wall - steady, wall), None
    if stored.boot == boot:
        after, step = followed(stored, wall, steady)
        # A radio's clock is exact when it starts; what is less than a step is not worth moving what is stored.
        return (after, step) if step is not None else (replace(stored, offset_s=wall - steady), None)
    if stored.believed and newest <= wall:
        return Era(boot, wall - steady, wall, ahead_s=stored.ahead_s), None
    step = Step(stored.since, newest, wall - newest)
    return Era(boot, wall - steady, stored.since + step.by_s, ahead_s=stored.ahead_s + step.by_s), step


def followed(era: Era, wall: float, steady: float) -> tuple[Era, Step | None]:
    """The era after a look at the clocks, and the step since the last one; None when there was none. PURE."""
    by_s = wall - steady - era.offset_s
    if abs(by_s) < STEP_LEAST_S:
        return era, None
    step = Step(era.since, steady + era.offset_s, by_s)
    after = replace(era, offset_s=era.offset_s + by_s, since=era.since + by_s, ahead_s=era.ahead_s + by_s)
    return after, step


class RadioTime:
    """One per daemon. While `turn` is held, no stamp is stored and no decision is made by a time that is about to change."""

    def __init__(
        self,
        database: Database,
        wall: WallClock,
        inventory: Inventory,
        *,
        steady: Callable[[], float] = time.monotonic,
        boot: str | None = None,
    ) -> None:
        self._database = database
        self._wall = wall
        self._inventory = inventory
        self._clocks: dict[str, SystemClock] = {}
        self._steady = steady
        self._boot = boot or _boot_id()
        self._wake = asyncio.Event()
        self._era: Era | None = None
        self.turn = asyncio.Lock()

    def take(self, kind: str, clock: Clock) -> None:
        """The clock of a radio, before `start`. Scaled ones (labs) stand on an origin of their own, and follow no step."""
        if isinstance(clock, SystemClock):
            self._clocks[kind] = clock

    def wake(self) -> None:
        """The wall clock was stepped: follow now."""
        self._wake.set()

    def moved(self, kind: str, at: float) -> float:
        """A radio's stamp by the wall clock, as what is stored: one that was on its way in a step is none of before."""
        clock = self._clocks.get(kind)
        return at if clock is None else clock.wall.unix(min(at, clock.now()))  # nothing comes from the future

    async def start(self) -> None:
        """Before anything else is decided or stored."""
        wall, steady = self._wall.now(), self._steady()

        def transaction(db: sqlite3.Connection) -> tuple[Era, Step | None]:
            stored = _stored(db)
            newest = 0.0 if stored is None else _newest(db, stored, self._clocks)
            era, step = begun(stored, self._boot, wall, steady, newest)
            self._move(db, era, step)
            return era, step

        era, step = await self._database.write(transaction)
        self._era = era
        for clock in self._clocks.values():
            clock.go_on(era.offset_s - era.ahead_s, era.ahead_s)
        self._told(step)

    async def follow(self) -> None:
        """A step of the wall clock since the last look, if there was one: first in the store, then used."""
        async with self.turn:
            if self._era is None:
                return
            wall, steady = self._wall.now(), self._steady()
            era, step = followed(self._era, wall, steady)
            era = replace(era, believed=era.believed or self._wall.trusted())
            if era != self._era:
                await self._database.write(lambda db: self._move(db, era, step))
                self._era = era  # it is stored: from now on the new time is used
                self._told(step)
                if step is not None:
                    for clock in self._clocks.values():
                        clock.wall.step(era.ahead_s)

    async def run(self) -> None:
        """Look every `LOOK_EVERY_S`, or when woken, until cancelled. A store that cannot be written keeps the time as it is."""
        while True:
            pause = LOOK_EVERY_S
            self._wake.clear()
            try:
                await self.follow()
            except StoreError as error:
                log.error("radio_time_not_stored", error=str(error))
                pause = STORE_RETRY_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    def _move(self, db: sqlite3.Connection, era: Era, step: Step | None) -> None:
        if step is not None:
            _move_stamps(db, step, self._clocks)
        stored = asdict(era)
        ahead_s = stored.pop("ahead_s")  # apart, so that programs before this one can read the rest
        db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (_META_KEY, json.dumps(stored)))
        db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (_AHEAD_KEY, json.dumps(ahead_s)))

    def _told(self, step: Step | None) -> None:
        if step is not None:
            self._inventory.moved(dict.fromkeys(self._clocks, step.moved))
            log.warning("radio_time_moved", seconds=round(step.by_s, 3))


def _move_stamps(db: sqlite3.Connection, step: Step, kinds: Collection[str]) -> None:
    where = {"since": step.since, "until": step.until, "by": step.by_s}
    for kind in kinds:
        for table, columns in _RADIO_COLUMNS.items():
            key = "id" if table == "node" else "node"
            for column in columns:
                db.execute(
                    f"UPDATE {table} SET {column} = {column} + :by "  # noqa: S608 - own names
                    f"WHERE {column} BETWEEN :since AND :until AND {key} LIKE :kind",
                    {**where, "kind": f"{kind}:%"},
                )
    # On the wall clock itself, which has stepped before we look: after a step back only what lies ahead is surely of before.
    least = step.since if step.by_s > 0 else max(step.since, step.until + step.by_s)
    db.execute(
        "UPDATE node_update SET since = since + :by WHERE since BETWEEN :since AND :until", {**where, "since": least}
    )


def _newest(db: sqlite3.Connection, era: Era, kinds: Collection[str]) -> float:
    """The newest stamp that is not older than the era, nor far too young for it."""
    last = era.since + LONGEST_BOOT_S
    (found,) = db.execute(
        "SELECT max(since) FROM node_update WHERE since BETWEEN ? AND ?", (era.since, last)
    ).fetchone()
    newest = max(era.since, found or 0.0)
    for table, columns in _RADIO_COLUMNS.items():
        key = "id" if table == "node" else "node"
        for kind in kinds:
            for column in columns:
                (found,) = db.execute(
                    f"SELECT max({column}) FROM {table} "  # noqa: S608 - own names
                    f"WHERE {column} BETWEEN ? AND ? AND {key} LIKE ?",
                    (era.since, last, f"{kind}:%"),
                ).fetchone()
                newest = max(newest, found or 0.0)
    return newest


def _stored(db: sqlite3.Connection) -> Era | None:
    row = db.execute("SELECT value FROM meta WHERE key = ?", (_META_KEY,)).fetchone()
    return replace(Era(**json.loads(row["value"])), ahead_s=stored_ahead_s(db)) if row else None


def stored_ahead_s(db: sqlite3.Connection) -> float:
    """How far the wall clock was ahead of the radios' own when the store was last written."""
    row = db.execute("SELECT value FROM meta WHERE key = ?", (_AHEAD_KEY,)).fetchone()
    return float(json.loads(row[0])) if row else 0.0


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return str(uuid.uuid4())  # every start is another boot then
