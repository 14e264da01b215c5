"""The nodes as the daemon knows them: fed by the radios' observations, kept in the `node` table.

The memory is ahead of the file by at most `FLUSH_S`; what matters for decisions (version, hardware, battery, joined) is
written at once, though at most once in `TELLING_MIN_S`, so that chattering nodes do not wear out the flash. Decisions look
at the memory; a store that cannot be written stops nothing here. Nodes are never forgotten by themselves.
"""

import asyncio
import contextlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Self

import structlog

from gatewayd.errors import StoreError
from gatewayd.nodes.node import Node, merge
from gatewayd.store.database import Database
from gatewayd.store.witness import touch
from radios.radio import NodeObservation, Power, radio_of

FLUSH_S = 10.0
TELLING_MIN_S = 1.0

log = structlog.get_logger()


class Inventory:
    """All nodes by id. `changed` is called after a telling observation."""

    def __init__(
        self, database: Database, nodes: dict[str, Node], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._nodes = nodes
        self._monotonic = monotonic
        self._floors: dict[str, int] = {}  # of nodes that were proven before they were observed (again, after a crash)
        self._dirty: set[str] = set()
        self._flushed_at = float("-inf")
        self._telling = asyncio.Event()
        self.changed: Callable[[], None] = lambda: None

    @classmethod
    async def load(cls, database: Database, monotonic: Callable[[], float] = time.monotonic) -> Self:
        rows = await database.read(lambda db: db.execute("SELECT * FROM node").fetchall())
        return cls(database, {row["id"]: _from_row(row) for row in rows}, monotonic)

    def get(self, node: str) -> Node | None:
        return self._nodes.get(node)

    def all(self) -> list[Node]:
        """Every node, ordered by id."""
        return [self._nodes[key] for key in sorted(self._nodes)]

    async def observe(self, seen: NodeObservation) -> None:
        """Take an observation in; never raises for the store. Durable on return when telling, or within `TELLING_MIN_S`."""
        before = self._nodes.get(seen.node) or Node(
            seen.node, radio_of(seen.node), first_seen=seen.at, security_version=self._floors.pop(seen.node, 0)
        )
        after, telling = merge(before, seen)
        new = seen.node not in self._nodes
        self._nodes[seen.node] = after
        self._dirty.add(seen.node)
        if telling or new:
            if after.version != before.version:
                log.info("node_version", node=seen.node, version=after.version, before=before.version)
            self.changed()
            if self._monotonic() - self._flushed_at >= TELLING_MIN_S:
                await self._try_flush()
            else:
                self._telling.set()

    def raise_floor(self, db: sqlite3.Connection, node: str, security_version: int) -> None:
        """Inside the transaction that confirms an update: the node never goes below this security version again."""
        touch(db)
        # The node's row may not have been written yet.
        db.execute(
            "INSERT INTO node (id, radio, first_seen, last_seen, security_version) VALUES (?, ?, 0, 0, ?)"
            " ON CONFLICT (id) DO UPDATE SET security_version = max(security_version, excluded.security_version)",
            (node, radio_of(node), security_version),
        )

    def floor_raised(self, node: str, security_version: int) -> None:
        """After that transaction: the memory follows."""
        known = self._nodes.get(node)
        if known is None:
            self._floors[node] = max(self._floors.get(node, 0), security_version)
        else:
            self._nodes[node] = replace(known, security_version=max(known.security_version, security_version))

    def moved(self, moves: Mapping[str, Callable[[float], float]]) -> None:
        """The clocks of these kinds of radio were stepped, and the store has followed: so does the memory."""
        for name, node in self._nodes.items():
            if (move := moves.get(node.radio)) is not None:
                after = node.moved(move)
                if after != node:
                    self._nodes[name] = after
                    self._dirty.add(name)  # what was on its way into the store has the old times

    async def flush(self) -> None:
        """Write what changed since the last time, in one transaction."""
        dirty, self._dirty = self._dirty, set()
        self._flushed_at = self._monotonic()
        if not dirty:
            return
        rows = [_to_row(self._nodes[node]) for node in sorted(dirty)]
        try:
            await self._database.write(lambda db: _write(db, rows))
        except BaseException:
            self._dirty |= dirty
            raise

    async def run(self) -> None:
        """Flush every `FLUSH_S`, sooner after something telling, until cancelled; then once more."""
        try:
            while True:
                self._telling.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(FLUSH_S):
                        await self._telling.wait()
                await asyncio.sleep(max(0.0, self._flushed_at + TELLING_MIN_S - self._monotonic()))
                await self._try_flush()
        finally:
            await self._try_flush()

    async def _try_flush(self) -> None:
        try:
            await self.flush()
        except StoreError as error:
            log.error("nodes_not_stored", error=str(error))


_OBJECTS = ("tags", "details")
# `security_version` is not among them: only `raise_floor` writes it.
_COLUMNS = tuple(name for name in Node.__slots__ if name != "security_version")


def _write(db: sqlite3.Connection, rows: Iterable[tuple[object, ...]]) -> None:
    names = ", ".join(_COLUMNS)
    marks = ", ".join("?" for _ in _COLUMNS)
    updates = ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS if name not in {"id", "first_seen"})
    db.executemany(
        f"INSERT INTO node ({names}) VALUES ({marks}) ON CONFLICT (id) DO UPDATE SET {updates}",  # noqa: S608 - own names
        rows,
    )


def _to_row(node: Node) -> tuple[object, ...]:
    def column(name: str) -> object:
        value = getattr(node, name)
        return json.dumps(value, sort_keys=True) if name in _OBJECTS else value

    return tuple(column(name) for name in _COLUMNS)


def _from_row(row: sqlite3.Row) -> Node:
    values = {name: row[name] for name in Node.__slots__}
    for name in _OBJECTS:
        values[name] = json.loads(row[name])
    values["power"] = Power(row["power"]) if row["power"] else None
    for name in ("sleepy", "joined"):
        values[name] = None if row[name] is None else bool(row[name])
    return Node(**values)
