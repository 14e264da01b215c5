"""The cloud's signed commands: verified, done once, answered with a report. SHELL.

A durable mark, written in the transaction of what a command causes, keeps an old one from being done again, after a restart
too. One that cannot be judged now is refused, and whoever asked asks again; one that the store cannot take is left to the
caller (StoreError), who tries it again (cloud/kept_commands.py). The same refused bytes are reported once. Not responsible for
how reports travel (cloud/link.py).
"""

import hashlib
import json
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import structlog

from gatewayd.campaign import rows
from gatewayd.campaign.authority import Authority
from gatewayd.campaign.reports import answer_report, campaign_report, evidence_of, node_report, told_again
from gatewayd.cloud.messages import CommandKind, GatewayIdentity, Report
from gatewayd.cloud.outbox import Outbox, append, forget, newest, stored_epoch
from gatewayd.errors import Refused, StoreError
from gatewayd.service.wall_clock import WallClock
from gatewayd.store.database import Database
from gatewayd.trust.envelope import VerifiedCommand, verify_command

RESYNC_MIN_S = 60.0  # between two: one costs a report for every node update
REFUSALS_MAX = 20  # reported within REFUSALS_S: who floods us must not fill the outbox
REFUSALS_S = 3600.0
_REMEMBERED_MAX = 256

_MARK = "commands.mark"
_RESYNC = "commands.resync"

K = TypeVar("K")

log = structlog.get_logger()


class Resender(Protocol):
    """The part of the cloud link that is needed here."""

    def resend(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Done:
    """What a command has caused, durable."""

    campaigns: int = 0
    updates: int = 0


class Commands:
    """One per daemon; `take` is the MQTT link's handler. `identity` is asked when the cloud asks."""

    def __init__(
        self,
        authority: Authority,
        database: Database,
        outbox: Outbox,
        link: Resender,
        wall: WallClock,
        gateway: str,
        identity: Callable[[], GatewayIdentity],
    ) -> None:
        self._authority = authority
        self._database = database
        self._outbox = outbox
        self._link = link
        self._wall = wall
        self._audience = f"gateway:{gateway}"
        self._identity = identity
        self._told: dict[tuple[str, str], None] = {}  # refusals that were reported
        self._refreshed_for: dict[str, None] = {}
        self._refused_at: deque[float] = deque()  # monotonic seconds, of those reported

    async def take(self, topic: str, raw: bytes) -> None:
        """Do what it says, if it may be believed. Never raises for what the document says; StoreError: nothing was done."""
        command: VerifiedCommand | None = None
        now = self._wall.now()
        try:
            command = await self._verified(topic, raw, now)
            done = await self._do(command, now)
        except Refused as error:
            await self._refuse(raw, command, error)
            return
        what = {"command": command.document.id, "kind": command.document.kind.value}
        if done is None:
            log.info("command_repeated", **what)
            return
        log.info("command_done", key=command.keyid, campaigns=done.campaigns, updates=done.updates, **what)
        self._outbox.notify()
        if command.document.kind is CommandKind.RESYNC:
            self._link.resend()

    async def _verified(self, topic: str, raw: bytes, now: float) -> VerifiedCommand:
        if (why := self._authority.blocked(now)) is not None:
            self._authority.soon()
            raise Refused(*why)
        try:
            return self._verify(topic, raw)
        except Refused as error:
            # The key may be newer than our metadata: look once, for each envelope.
            digest = hashlib.sha256(raw).hexdigest()
            if error.code != "unknown_key" or digest in self._refreshed_for:
                raise
            _remember(self._refreshed_for, digest)
            await self._authority.refresh()
            return self._verify(topic, raw)

    def _verify(self, topic: str, raw: bytes) -> VerifiedCommand:
        view = self._authority.view
        if view is None:
            raise Refused("trust_unknown", "no trust metadata yet")
        return verify_command(raw, view.campaign_keys, self._audience, topic)

    async def _do(self, command: VerifiedCommand, now: float) -> _Done | None:
        """None: it is the one that was done last, come once more."""
        await self._outbox.load()
        identity = self._identity()

        def transaction(db: sqlite3.Connection) -> _Done | None:
            if _is_mark(db, command):
                return None
            command.check_time(now)
            _put_mark(db, command)
            if command.document.kind is CommandKind.RESYNC:
                return _resync(db, command.document.id, now)
            append(db, [answer_report(command.document.id, "identity", "", now, identity)])
            return _Done()

        done = await self._database.write(transaction)
        if done is not None and command.document.kind is CommandKind.IDENTIFY:
            log.info("identity", **identity.model_dump(mode="json", exclude_none=True))
        return done

    async def _refuse(self, raw: bytes, command: VerifiedCommand | None, error: Refused) -> None:
        told = (command.digest if command is not None else hashlib.sha256(raw).hexdigest(), error.code)
        if told in self._told:
            return
        known = command.document.id if command is not None else None
        log.error("command_refused", command=known, code=error.code, detail=error.detail, bytes=len(raw))
        now = time.monotonic()
        while self._refused_at and now - self._refused_at[0] > REFUSALS_S:
            self._refused_at.popleft()
        if len(self._refused_at) < REFUSALS_MAX:
            report = answer_report(known, "refused", error.detail, self._wall.now(), code=error.code)
            try:
                await self._database.write(lambda db: append(db, [report]))
            except StoreError:
                if command is not None:
                    raise
                return  # the log has it: what nobody listed has signed is not kept until there is room for a report of it
            self._refused_at.append(now)
            self._outbox.notify()
        _remember(self._told, told)


def _resync(db: sqlite3.Connection, command: str, now: float) -> _Done:
    """Inside the transaction: a report of how everything stands, in place of those that an earlier resync has left."""
    last = _stored(db, _RESYNC)
    if last is not None:
        if 0 <= now - float(last["at"]) < RESYNC_MIN_S:
            raise Refused("too_soon", f"command {command}: one resync in {RESYNC_MIN_S:g} s")
        if last.get("epoch") == stored_epoch(db):  # else these are the numbers of other reports by now
            forget(db, int(last["first"]), int(last["last"]))
    again = [told_again(report, command) for report in standing(db, now)]
    campaigns = sum(report.node is None for report in again)
    done = _Done(campaigns, len(again) - campaigns)
    told = f"{done.campaigns} campaigns and {done.updates} node updates"
    before = newest(db)
    append(
        db,
        [
            answer_report(command, "resync", f"{told} follow", now),
            *again,
            answer_report(command, "resynced", f"{told} were told again", now),
        ],
    )
    _store(db, _RESYNC, {"at": now, "epoch": stored_epoch(db), "first": before + 1, "last": newest(db)})
    return done


def standing(db: sqlite3.Connection, now: float) -> list[Report]:
    """How every campaign and node update stands; `at` is when that came about."""
    found: list[Report] = []
    for row in rows.campaigns(db):
        found.append(campaign_report(row, row.updated_at, evidence_of(row)))
        updates = rows.updates_of_campaign(db, row.id).values()
        found += [node_report(update, update.since or now) for update in updates]
    return found


def _is_mark(db: sqlite3.Connection, command: VerifiedCommand) -> bool:
    """Whether it is the very one that was done last. Refused("replayed") when it is not newer than that."""
    mark = _stored(db, _MARK)
    if mark is None:
        return False
    if mark["digest"] == command.digest:
        return True
    if command.document.issued.timestamp() <= float(mark["issued"]):
        raise Refused("replayed", f"command {command.document.id}: not issued after {mark['id']}, which was done")
    return False


def _put_mark(db: sqlite3.Connection, command: VerifiedCommand) -> None:
    document = command.document
    _store(db, _MARK, {"issued": document.issued.timestamp(), "id": document.id, "digest": command.digest})


def _stored(db: sqlite3.Connection, key: str) -> dict[str, str | float] | None:
    row = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else dict(json.loads(row["value"]))


def _store(db: sqlite3.Connection, key: str, value: dict[str, str | float]) -> None:
    db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, json.dumps(value)))


def _remember(memory: dict[K, None], key: K) -> None:
    memory[key] = None
    if len(memory) > _REMEMBERED_MAX:
        del memory[next(iter(memory))]
