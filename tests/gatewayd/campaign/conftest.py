"""A gateway's core (trust, store, campaigns) with a real repository over HTTP and a radio that tests play."""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from gatewayd.campaign import rows
from gatewayd.campaign.authority import Authority
from gatewayd.campaign.coordinator import Coordinator
from gatewayd.campaign.intake import Intake
from gatewayd.campaign.journal import RadioJournal
from gatewayd.campaign.node_update import NodeUpdate, State
from gatewayd.campaign.radio_time import RadioTime
from gatewayd.campaign.rows import CampaignRow
from gatewayd.campaign.situation import Site as Place
from gatewayd.campaign.supply import Supply
from gatewayd.cloud.link import CloudLink, CloudSettings
from gatewayd.cloud.messages import Campaign, Gate, Payload, Policy, Report, Rollout, Tier, campaign_topic, parse
from gatewayd.cloud.outbox import Outbox
from gatewayd.nodes.inventory import Inventory
from gatewayd.old_store import examined, watch_acks
from gatewayd.payload.cache import PayloadCache
from gatewayd.payload.fetch import Fetcher, FetchSettings
from gatewayd.publisher.campaigns import new_campaign, sign_campaign
from gatewayd.publisher.keys import Role
from gatewayd.service.wall_clock import WallClock
from gatewayd.store.database import Database
from gatewayd.trust.release import VerifiedRelease
from radios.clock import SystemClock
from radios.radio import (
    CommandResult,
    Fact,
    ImageStore,
    Journal,
    Json,
    NodeCommand,
    NodeDirective,
    NodeId,
    NodeObservation,
    Power,
    Radio,
    TransferEvent,
    TransferOrder,
    TransferPlan,
    Want,
)
from tests.gatewayd.trust.conftest import gateways, publisher, session, site
from tests.gatewayd.trust.site import HARDWARE, RELEASE, Gateways, Publisher, Site

__all__ = ["gateways", "publisher", "session", "site"]

AUDIENCE = "gateway:gw-1"
METER = NodeId("lorawan:0000000000000001")
NEW = 0x01020000


@dataclass
class PlayedRadio:
    """The contract's radio: keeps what it was told."""

    kind: str = "lorawan"
    orders: list[TransferOrder] = field(default_factory=list)
    told: list[NodeDirective] = field(default_factory=list)

    async def run(self, journal: Journal, images: ImageStore) -> None:
        await journal.load()

    async def plan(self, order: TransferOrder, nodes: Sequence[NodeId]) -> TransferPlan:
        return TransferPlan(0, 0.0, 0.0)

    async def put(self, order: TransferOrder) -> None:
        self.orders.append(order)

    async def direct(self, directives: Sequence[NodeDirective]) -> None:
        self.told.extend(directives)

    async def manage(self, command: NodeCommand) -> CommandResult:
        return CommandResult(False)

    async def observations(self) -> AsyncIterator[NodeObservation]:
        return
        yield

    def status(self) -> Mapping[str, Json]:
        return {"link": "up"}

    def wants(self) -> list[Want]:
        return [directive.want for directive in self.told]


class Times:
    """Real time, which a test may pass by or set: `ahead_s` of the wall clock alone, `passed_s` of all clocks."""

    def __init__(self) -> None:
        self.ahead_s = 0.0
        self.passed_s = 0.0
        self.synchronised = True
        self.boot = "boot-1"

    def wall(self) -> float:
        return time.time() + self.passed_s + self.ahead_s

    def steady(self) -> float:
        return time.monotonic() + self.passed_s


class WatchedClock(SystemClock):
    """Counts how often it was asked: the coordinator asks once for each decision, right before it stores it."""

    asked = 0

    def now(self) -> float:
        self.asked += 1
        return super().now()


class Gateway:
    """One life of the daemon's core; the same folder is the same gateway, started again."""

    def __init__(self, gateways: Gateways, folder: Path) -> None:
        self.times = Times()
        self._gateways = gateways
        self._folder = folder
        self.release = RELEASE
        self.place = Place()
        self.quota_bytes = 2**24
        self.trust_folder = gateways.folder / "core"
        self.payload_folder = folder / "payloads"
        self.running = False
        self.node_version = 1  # that the node reports when the gateway starts

    async def start(self, *, refresh: bool = True) -> None:
        times = self.times
        self.database = Database.open(self._folder / "s.db")
        self.wall = await WallClock.load(
            self.database, now=times.wall, synchronised=lambda: times.synchronised, monotonic=times.steady
        )
        self.witness = await examined(self.database, self._folder / "s.witness", self.wall)
        self.trust = self._gateways.start("core", times.wall)
        self.authority = Authority(self.trust, self.database, self.wall, frozenset({AUDIENCE}), 3600.0)
        self.inventory = await Inventory.load(self.database)
        self.radio_time = RadioTime(self.database, self.wall, self.inventory, steady=times.steady, boot=times.boot)
        self.clock = WatchedClock(times.wall, times.steady)
        self.radio_time.take("lorawan", self.clock)
        await self.radio_time.start()
        await self.authority.restore()
        if refresh:
            await self.authority.refresh()
        cache = self.cache = PayloadCache(self._folder / "payloads", self.quota_bytes)
        self.supply = Supply(cache, self.wall, self.authority.manufacturers)
        self.supply.fetcher = Fetcher(
            self._gateways.session,
            cache,
            [self._gateways.site.url.rstrip("/")],
            FetchSettings(barren_attempts=1),
            needed=lambda: self.supply.needed,
        )
        self.outbox = Outbox(self.database, 2**20)
        await self.outbox.load()
        self.intake = Intake(self.authority, self.database, self.outbox, self.wall, self.witness)
        self.radio = PlayedRadio()
        radios: dict[str, tuple[Radio, SystemClock]] = {"lorawan": (self.radio, self.clock)}
        link = self.link = CloudLink(CloudSettings("localhost"), "gw-1", (), self.outbox, self)
        watch_acks(self.outbox, self.database, link, self.witness, self.wall)
        self.coordinator = Coordinator(
            self.database,
            self.authority,
            self.intake,
            self.supply,
            self.inventory,
            link,
            self.outbox,
            radios,
            self.wall,
            site=self.place,
            times=self.radio_time,
            guard=self.witness,
        )
        self.journal = RadioJournal(
            "lorawan", self.database, self.wall, self.coordinator.wake, self.outbox.notify, self.radio_time
        )
        self.supply.dated = self.authority.dated
        self.authority.changed = self.supply.changed = self.inventory.changed = self.coordinator.wake
        self.authority.view_changed = self._judge_again
        await self.inventory.observe(
            NodeObservation(
                METER, self.radio_now(), hardware=HARDWARE, version=self.node_version, power=Power.MAINS, joined=True
            )
        )
        self._task = asyncio.create_task(self.coordinator.run())
        self.running = True

    async def campaign(self, topic: str, payload: bytes) -> None:
        await self.coordinator.campaign_message(topic, payload)

    async def command(self, topic: str, payload: bytes) -> None:
        raise NotImplementedError

    def _judge_again(self) -> None:
        self.supply.judge_again()
        self.intake.judge_again()

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})
        self.database.close()
        self.running = False

    @property
    def store_path(self) -> Path:
        return self._folder / "s.db"

    @property
    def witness_path(self) -> Path:
        return self._folder / "s.witness"

    def tamper(self, table: str, column: str, old: bytes, new: bytes) -> None:
        """Change what is stored, while the gateway is stopped."""
        with contextlib.closing(sqlite3.connect(self._folder / "s.db")) as db, db:
            for key, value in db.execute(f"SELECT rowid, {column} FROM {table}").fetchall():
                assert old in value
                db.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (value.replace(old, new), key))

    def document(self, name: str = "meters", **changes: object) -> Campaign:
        everyone = Rollout(tiers=(Tier(name="all", percent=100.0),), gate=Gate(failure_ratio=1.0))
        made = new_campaign(
            name,
            self.release,
            AUDIENCE,
            time.time() + self.times.passed_s - 5,
            rollout=everyone,
            policy=Policy(retry_after_s=1, max_attempts=1),
        )
        return made.model_copy(update=changes)

    def signed(self, document: Campaign) -> bytes:
        return sign_campaign(document, self._gateways.publisher.keys.signer(Role.CAMPAIGN))

    async def issue(self, document: Campaign) -> None:
        await self.campaign(campaign_topic(AUDIENCE, document.id), self.signed(document))

    def payload(self) -> Payload:
        return self.authority.releases[self.release].document.payloads[0]

    def supplied(self) -> tuple[VerifiedRelease, Payload]:
        return self.authority.releases[self.release], self.payload()

    def radio_now(self) -> float:
        """By which what radios say is stored."""
        return self.radio_time.moved("lorawan", self.clock.now())

    async def event(self, fact: Fact, name: str = "meters", **more: object) -> TransferEvent:
        update = await self.update(name)
        at = self.clock.now()
        return TransferEvent(update.transfer, METER, update.generation, fact, at, **more)  # type: ignore[arg-type]

    async def fact(self, fact: Fact, name: str = "meters", **more: object) -> None:
        await self.journal.commit([], [await self.event(fact, name, **more)])

    async def row(self, name: str = "meters") -> CampaignRow:
        found = await self.database.read(lambda db: rows.campaign(db, name))
        assert found is not None
        return found

    async def update(self, name: str = "meters") -> NodeUpdate:
        found = await self.database.read(lambda db: rows.updates_of_campaign(db, name))
        return found[METER]

    async def reports(self) -> list[Report]:
        found = await self.database.read(lambda db: db.execute("SELECT body FROM outbox ORDER BY seq").fetchall())
        return [parse(Report, row[0].encode(), "report") for row in found]

    async def until_told(self, want: Want) -> None:
        await self.until(lambda: want in self.radio.wants())

    async def until_state(self, state: str, name: str = "meters") -> None:
        async with asyncio.timeout(20):
            while (await self.row(name)).state != state:
                await asyncio.sleep(0.02)

    async def until_code(self, code: str, name: str = "meters") -> None:
        async with asyncio.timeout(20):
            while (await self.row(name)).code != code:
                await asyncio.sleep(0.02)

    async def until_update(self, state: State, code: str, name: str = "meters") -> None:
        """The node's outcome, once the campaign has a row for it."""
        async with asyncio.timeout(20):
            while True:
                found = await self.database.read(lambda db: rows.updates_of_campaign(db, name))
                if METER in found and (found[METER].state, found[METER].code) == (state, code):
                    return
                await asyncio.sleep(0.02)

    async def until(self, what: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not what():
                await asyncio.sleep(0.02)


@pytest.fixture
async def gateway(
    gateways: Gateways, site: Site, publisher: Publisher, session: aiohttp.ClientSession, tmp_path: Path
) -> AsyncIterator[Gateway]:
    made = Gateway(gateways, tmp_path / "gateway")
    await made.start()
    yield made
    await made.stop()
