"""The inventory as the cloud sees it: retained pages of up to 200 nodes, published when something telling changed.

They say what a campaign's fate on a node depends on, so that `gatewayd publish campaign plan` can tell it beforehand.

Not responsible for what is known (inventory.py) nor for the connection (cloud/link.py).
"""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from gatewayd.cloud.messages import (
    DOCUMENT_MAX_BYTES,
    Document,
    InventoryNode,
    InventoryPage,
    InventorySite,
    dump,
    utc,
)
from gatewayd.errors import StoreError
from gatewayd.nodes.inventory import Inventory
from gatewayd.nodes.node import Node
from gatewayd.store.database import Database

NODES_PER_PAGE = 200
PAGE_ROOM_BYTES = DOCUMENT_MAX_BYTES - 1024  # for the nodes; the rest is the page's head
PUBLISH_MIN_S = 30.0
REFRESH_S = 3600.0  # how old `last_seen` may become that changes alone

_META_KEY = "inventory.pages"

log = structlog.get_logger()


class Retainer(Protocol):
    """The part of the cloud link that is needed here."""

    async def publish_retained(self, topic_leaf: str, document: Document | None) -> None: ...


def pages(nodes: Sequence[Node], site: InventorySite | None = None) -> list[InventoryPage]:
    """At least one page; the nodes in the order that they come in, as many on each as fit into a document."""
    parts: list[list[InventoryNode]] = [[]]
    room = PAGE_ROOM_BYTES
    for document in map(_document, nodes):
        size = len(dump(document)) + 1
        if len(parts[-1]) == NODES_PER_PAGE or size > room:
            parts.append([])
            room = PAGE_ROOM_BYTES
        parts[-1].append(document)
        room -= size
    where = site or InventorySite()
    return [
        InventoryPage(page=number, pages=len(parts), site=where, nodes=tuple(part)) for number, part in enumerate(parts)
    ]


class InventoryPages:
    """Publishes what changed since the last time; pages that are no longer needed are cleared.

    `stated` gives a node with the tags that are stated for it here.
    """

    def __init__(
        self,
        inventory: Inventory,
        database: Database,
        link: Retainer,
        site: InventorySite | None = None,
        stated: Callable[[Node], Node] = lambda node: node,
    ) -> None:
        self._site = site
        self._stated = stated
        self._inventory = inventory
        self._database = database
        self._link = link
        self._most: int | None = None  # pages that were ever published, by earlier processes too
        self._said: list[InventoryPage] = []  # without times
        self._refreshed_at = float("-inf")

    async def run(self) -> None:
        """Look every `PUBLISH_MIN_S` until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                await self.publish(loop.time())
            except StoreError as error:
                log.error("inventory_not_published", error=str(error))
            await asyncio.sleep(PUBLISH_MIN_S)

    async def publish(self, now: float) -> int:
        """Say what is new; how many pages that were. `now` is monotonic seconds."""
        made = pages([self._stated(node) for node in self._inventory.all()], self._site)
        first = self._most is None
        known = await self._database.read(_stored) if self._most is None else self._most
        if len(made) > known:
            # Kept before the page is there: a later process must know what to clear.
            await self._database.write(lambda db: _store(db, len(made)))
        self._most = max(known, len(made))
        told = [_timeless(page) for page in made]
        refresh = now - self._refreshed_at >= REFRESH_S
        news = [p for p, t in zip(made, told, strict=True) if refresh or t not in self._said[p.page : p.page + 1]]
        for page in news:
            await self._link.publish_retained(f"inventory/{page.page}", page)
        for number in range(len(made), self._most if first else len(self._said)):
            await self._link.publish_retained(f"inventory/{number}", None)
        self._said = told
        if refresh:
            self._refreshed_at = now
        return len(news)


def _document(node: Node) -> InventoryNode:
    return InventoryNode(
        id=node.id,
        hardware=node.hardware,
        model=node.model,
        version=node.version,
        security_version=node.security_version,
        power=None if node.power is None else node.power.value,
        battery_percent=node.battery_percent,
        battery_at=None if node.battery_at is None else utc(node.battery_at),
        joined=node.joined,
        lqi=node.lqi,
        rssi_dbm=node.rssi_dbm,
        snr_db=node.snr_db,
        tags=node.tags,
        last_seen=utc(node.last_seen) if node.last_seen else None,
    )


# They change with every frame.
_FLEETING = {"last_seen": None, "battery_at": None, "lqi": None, "rssi_dbm": None, "snr_db": None}


def _timeless(page: InventoryPage) -> InventoryPage:
    return page.model_copy(update={"nodes": tuple(n.model_copy(update=_FLEETING) for n in page.nodes)})


def _stored(db: sqlite3.Connection) -> int:
    row = db.execute("SELECT value FROM meta WHERE key = ?", (_META_KEY,)).fetchone()
    return int(row["value"]) if row else 0


def _store(db: sqlite3.Connection, count: int) -> None:
    db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (_META_KEY, str(count)))
