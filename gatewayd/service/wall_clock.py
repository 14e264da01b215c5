"""Whether the wall clock can be believed, and the newest time that is known to have passed.

A gateway without a battery-backed clock starts in the past, and a broken or hostile time server can send it anywhere. So
only synchronised time is ever stored, and a clock that contradicts what is known (the last stored time, the date of this
program) is not believed. Not responsible for what is then left undone: running transfers go on, nothing new is adopted.
"""

import asyncio
import ctypes
import sqlite3
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import structlog

from gatewayd.store.database import Database

RELEASED_AT = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
"""No true clock says less: this program did not exist before."""

STORE_EVERY_S = 600.0
LOOK_EVERY_S = 5.0
STEP_LEAST_S = 1.0
BACKWARD_TOLERANCE_S = 30.0  # a time server may correct a clock that ran fast since it was stored

_META_KEY = "wall_clock.last_known"
_TIMESYNCD_MARK = Path("/run/systemd/timesync/synchronized")
_STA_UNSYNC = 0x0040  # adjtimex(2)
_TIME_ERROR = 5

log = structlog.get_logger()


class WallClock:
    """The wall clock with its doubts. `reason` says in words why `trusted()` is False; it is empty otherwise."""

    def __init__(
        self,
        last_known: float = 0.0,
        *,
        assume_synchronised: bool = False,
        now: Callable[[], float] = time.time,
        synchronised: Callable[[], bool] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.last_known = last_known  # Unix seconds; 0: none is stored
        self.stepped: Callable[[float], None] = lambda _: None  # called with the size in seconds after a step
        self._assumed = assume_synchronised
        self._now = now
        self._synchronised = synchronised or kernel_synchronised
        self._monotonic = monotonic
        self._offset_s = now() - monotonic()

    @classmethod
    async def load(
        cls,
        database: Database,
        *,
        assume_synchronised: bool = False,
        now: Callable[[], float] = time.time,
        synchronised: Callable[[], bool] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> Self:
        """With the last known time of the store."""
        return cls(
            await database.read(_stored),
            assume_synchronised=assume_synchronised,
            now=now,
            synchronised=synchronised,
            monotonic=monotonic,
        )

    def now(self) -> float:
        """Unix seconds as the system has them, believed or not."""
        return self._now()

    def synchronised(self) -> bool:
        """Whether a time server, or the operator's assumption, stands behind the clock."""
        return self._assumed or self._synchronised()

    def trusted(self) -> bool:
        """Whether dates in signed documents may be judged by this clock now."""
        return not self.reason

    @property
    def reason(self) -> str:
        if contradiction := self.contradiction():
            return contradiction
        return "" if self.synchronised() else "the clock is not synchronised with a time server yet"

    def contradiction(self) -> str:
        """What is known that this time cannot be after; empty when there is nothing."""
        now = self._now()
        if now < RELEASED_AT:
            return f"the clock says {_text(now)}, before this program was released ({_text(RELEASED_AT)})"
        if now < self.last_known - BACKWARD_TOLERANCE_S:
            return f"the clock says {_text(now)}, but {_text(self.last_known)} has already passed"
        return ""

    def rederive(self, newest_issued: float) -> bool:
        """Drop a last known time that synchronised time contradicts, for that of the newest verified document.

        `newest_issued` is Unix seconds. True when that made the clock trusted; False when nothing was changed.
        """
        now = self._now()
        if not self.synchronised() or now < max(newest_issued, RELEASED_AT) or not self.contradiction():
            return False
        log.warning("wall_clock_rederived", stored=_text(self.last_known), clock=_text(now), floor=_text(newest_issued))
        self.last_known = newest_issued
        return True

    async def store(self, database: Database) -> bool:
        """Keep the time as last known, if it is trusted; durable on return. Says whether it was kept."""
        if not self.trusted():
            return False
        now = self._now()
        await database.write(lambda db: _put(db, now))
        self.last_known = now
        return True

    def look(self) -> float:
        """Notice a step against the monotonic clock since the last look; its size in seconds, 0 when there was none."""
        offset_s = self._now() - self._monotonic()
        step_s = offset_s - self._offset_s
        if abs(step_s) < STEP_LEAST_S:
            return 0.0  # slewing adds up: the offset that steps are measured against stays
        self._offset_s = offset_s
        log.warning("wall_clock_stepped", seconds=round(step_s, 3))
        self.stepped(step_s)
        return step_s

    async def run(self, database: Database) -> None:
        """Look for steps and changes of trust, and store the time every 10 minutes, until cancelled."""
        said: str | None = None
        next_store = 0.0
        while True:
            self.look()
            if (reason := self.reason) != said:
                said = reason
                next_store = 0.0
                log.log(30 if reason else 20, "wall_clock", trusted=not reason, reason=reason)
            if not reason and self._monotonic() >= next_store:
                await self.store(database)
                next_store = self._monotonic() + STORE_EVERY_S
            await asyncio.sleep(LOOK_EVERY_S)


def kernel_synchronised() -> bool:
    """What the kernel says (chrony, ntpd, timesyncd tell it), or the mark of systemd-timesyncd."""
    return _adjtimex_synchronised() or _TIMESYNCD_MARK.exists()


class _Timex(ctypes.Structure):
    """The head of struct timex; what follows is not looked at, but the kernel fills it."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 512),
    )


def _adjtimex_synchronised() -> bool:
    try:
        adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return False
    buffer = _Timex(modes=0)  # modes 0 only reads, and needs no privilege
    state = adjtimex(ctypes.byref(buffer))
    return 0 <= state < _TIME_ERROR and not buffer.status & _STA_UNSYNC


def _stored(db: sqlite3.Connection) -> float:
    row = db.execute("SELECT value FROM meta WHERE key = ?", (_META_KEY,)).fetchone()
    return float(row[0]) if row else 0.0


def _put(db: sqlite3.Connection, now: float) -> None:
    db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (_META_KEY, repr(now)))


def _text(when: float) -> str:
    try:
        return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{when:.0f} s"
