"""The gateway's own troubles, told to the cloud: `health` in the retained state, and one report for every change.

Not per try: a trouble, and its end, is told once it has lasted. What was told is kept with the report, so that a restart
repeats nothing. Not responsible for finding troubles out (`live_view.py`).
"""

import asyncio
import json
import sqlite3
from collections.abc import Callable, Mapping
from typing import Protocol

import structlog

from gatewayd.campaign.reports import gateway_report
from gatewayd.cloud.outbox import Outbox, append
from gatewayd.errors import StoreError
from gatewayd.store.database import Database

LOOK_EVERY_S = 2.0
LASTED_S = 15.0  # a radio that is just being opened is no trouble
OK = "ok"

_META_KEY = "health.told"

Troubles = Mapping[str, tuple[str, str]]
"""Every part of the gateway with (code, detail); the code is `ok` when nothing is wrong with it."""

log = structlog.get_logger()


class HealthSink(Protocol):
    """The part of the cloud link that is needed here."""

    async def set_health(self, health: Mapping[str, str]) -> None: ...


class Health:
    """`troubles` is asked at every look."""

    def __init__(
        self,
        troubles: Callable[[], Troubles],
        database: Database,
        outbox: Outbox,
        link: HealthSink,
        wall_now: Callable[[], float],
    ) -> None:
        self._troubles = troubles
        self._database = database
        self._outbox = outbox
        self._link = link
        self._wall_now = wall_now
        self._told: dict[str, str] | None = None
        self._since: dict[str, tuple[str, float]] = {}

    async def run(self) -> None:
        """Look every `LOOK_EVERY_S` until cancelled. What cannot be stored now is told later."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                await self.look(loop.time())
            except StoreError as error:
                log.debug("health_not_stored", error=str(error))
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self, now: float) -> None:
        """`now` is monotonic seconds."""
        troubles = self._troubles()
        await self._link.set_health({part: code for part, (code, _) in troubles.items()})
        for part, (code, _) in troubles.items():
            if self._since.get(part, ("", 0.0))[0] != code:
                self._since[part] = code, now
        told = self._told if self._told is not None else await self._database.read(_stored)
        self._told = told
        news = {
            part: (code, detail)
            for part, (code, detail) in troubles.items()
            if told.get(part, OK) != code and now - self._since[part][1] >= LASTED_S
        }
        if not news:
            return
        after = told | {part: code for part, (code, _) in news.items()}
        at = self._wall_now()

        def work(db: sqlite3.Connection) -> None:
            append(db, [gateway_report(part, code, detail, at) for part, (code, detail) in sorted(news.items())])
            db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (_META_KEY, json.dumps(after)))

        await self._database.write(work)
        self._told = after
        self._outbox.notify()
        for part, (code, detail) in sorted(news.items()):
            log.log(20 if code == OK else 40, "health", part=part, code=code, detail=detail)


def tell_now(db: sqlite3.Connection, part: str, code: str, detail: str, at: float) -> None:
    """Inside a transaction: one report of a trouble that need not last to be told, and is not told again because it does."""
    append(db, [gateway_report(part, code, detail, at)])
    told = _stored(db) | {part: code}
    db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (_META_KEY, json.dumps(told)))


def _stored(db: sqlite3.Connection) -> dict[str, str]:
    row = db.execute("SELECT value FROM meta WHERE key = ?", (_META_KEY,)).fetchone()
    return dict(json.loads(row["value"])) if row else {}
