"""A fleet in one process: cores of gateways (trust, store, campaigns, link, payloads) with radios that are played.

Everything but the radios is real: the repository and the payloads come over HTTP, campaigns and reports over a broker. The
web server counts the bytes of payloads that each gateway was sent.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import aiomqtt
from aiohttp import web

from gatewayd.campaign import rows
from gatewayd.campaign.authority import Authority
from gatewayd.campaign.coordinator import Coordinator
from gatewayd.campaign.intake import Intake
from gatewayd.campaign.journal import RadioJournal
from gatewayd.campaign.node_update import State, UnknownTransition
from gatewayd.campaign.supply import Supply
from gatewayd.cloud.link import CloudLink, CloudSettings
from gatewayd.cloud.messages import (
    RELEASE_MAX_BYTES,
    Campaign,
    Report,
    ReportBatch,
    campaign_topic,
    gateway_topic,
    parse,
)
from gatewayd.cloud.outbox import Outbox
from gatewayd.nodes.inventory import Inventory
from gatewayd.payload.cache import PayloadCache
from gatewayd.payload.fetch import Fetcher
from gatewayd.publisher.campaigns import sign_campaign
from gatewayd.publisher.keys import Role
from gatewayd.service.wall_clock import WallClock
from gatewayd.store.database import Database
from gatewayd.trust.client import TrustSettings
from gatewayd.trust.repository import TrustRepository
from radios.clock import SystemClock
from radios.radio import Fact, NodeDirective, NodeId, NodeObservation, Power, Radio, TransferEvent, Want
from tests.gatewayd.campaign.conftest import PlayedRadio
from tests.gatewayd.trust.site import HARDWARE, Publisher

FLEET = "north"
OLD = 1
STARTS_AT_ONCE = 16  # checks of the repository that run at a time


class PayloadServer:
    """The repository's folder over HTTP; below `/<gateway>/` payloads again, whose bytes are counted for that gateway."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.url = ""
        self.bytes_to: dict[str, int] = {}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["PayloadServer"]:
        application = web.Application()
        application.router.add_get("/{gateway}/payloads/{digest}", self._payload)
        application.router.add_static("/repository", self._folder)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield self
        finally:
            await runner.cleanup()

    async def _payload(self, request: web.Request) -> web.StreamResponse:
        gateway = request.match_info["gateway"]
        body = (self._folder / "payloads" / request.match_info["digest"]).read_bytes()
        part = body[request.http_range] if "Range" in request.headers else body
        self.bytes_to[gateway] = self.bytes_to.get(gateway, 0) + len(part)
        if len(part) == len(body):
            return web.Response(body=body)
        start = request.http_range.start or 0
        span = f"bytes {start}-{start + len(part) - 1}/{len(body)}"
        return web.Response(status=206, body=part, headers={"Content-Range": span})


class ActingRadio(PlayedRadio):
    """Does at once what it is told: nodes hold the image, install it and run it; those in `bad` come back with the old one."""

    def __init__(self, bad: Collection[str]) -> None:
        super().__init__()
        self._bad = bad
        self._orders: asyncio.Queue[Sequence[NodeDirective]] = asyncio.Queue()
        self.delivered: set[str] = set()  # nodes it was told to deliver to
        self.journal: RadioJournal

    async def direct(self, directives: Sequence[NodeDirective]) -> None:
        await super().direct(directives)
        self.delivered |= {d.node for d in directives if d.want is Want.DELIVER}
        self._orders.put_nowait(directives)

    async def act(self) -> None:
        while True:
            directives = await self._orders.get()
            events = [event for directive in directives for event in self._events(directive)]
            with contextlib.suppress(UnknownTransition):  # an installation that nobody wants any more
                await self.journal.commit([], events)

    def _events(self, told: NodeDirective) -> list[TransferEvent]:
        def event(fact: Fact, **more: int) -> TransferEvent:
            return TransferEvent(told.transfer, told.node, told.generation, fact, time.time(), **more)  # type: ignore[arg-type]

        order = self.orders[-1].image if self.orders else None
        if told.want is Want.DELIVER and order is not None:
            return [event(Fact.COMPLETE, confirmed=order.size), event(Fact.READY)]
        if told.want is Want.INSTALL and order is not None:
            version = OLD if told.node in self._bad else order.version
            return [event(Fact.INSTALLING), event(Fact.RUNNING, version=version)]
        return [event(Fact.DROPPED)] if told.want is Want.DROP else []


@dataclass
class Member:
    """One gateway of the fleet, without its process."""

    name: str
    nodes: tuple[NodeId, ...]
    radio: ActingRadio
    database: Database
    authority: Authority
    repository: TrustRepository
    coordinator: Coordinator
    inventory: Inventory
    link: CloudLink

    async def run(self) -> None:
        now = time.time()
        for node in self.nodes:
            seen = NodeObservation(node, now, hardware=HARDWARE, version=OLD, power=Power.MAINS, joined=True)
            await self.inventory.observe(seen)
        async with asyncio.TaskGroup() as group:
            group.create_task(self.coordinator.run())
            group.create_task(self.link.run())
            group.create_task(self.radio.act())

    async def states(self, campaign: str) -> dict[str, State]:
        found = await self.database.read(lambda db: rows.updates_of_campaign(db, campaign))
        return {name: update.state for name, update in found.items()}

    async def row(self, campaign: str) -> rows.CampaignRow:
        found = await self.database.read(lambda db: rows.campaign(db, campaign))
        assert found is not None
        return found

    def close(self) -> None:
        self.repository.close()
        self.database.close()


@dataclass
class Cloud:
    """What a cloud does: issues campaigns and reads reports."""

    client: aiomqtt.Client
    publisher: Publisher
    reports: list[tuple[str, Report]] = field(default_factory=list)

    async def issue(self, document: Campaign) -> None:
        raw = sign_campaign(document, self.publisher.keys.signer(Role.CAMPAIGN))
        await self.client.publish(campaign_topic(document.audience, document.id), raw, qos=1, retain=True)

    async def read(self) -> None:
        await self.client.subscribe(gateway_topic("+", "reports"), qos=1)
        async for message in self.client.messages:
            gateway = message.topic.value.split("/")[3]
            batch = parse(ReportBatch, bytes(message.payload), "reports", RELEASE_MAX_BYTES)  # type: ignore[arg-type]
            self.reports.extend((gateway, numbered.report) for numbered in batch.reports)

    def of_nodes(self, state: str) -> set[str]:
        """Nodes that were reported in that state."""
        return {report.node for _, report in self.reports if report.node is not None and report.state == state}

    def of_campaign(self, state: str) -> dict[str, Report]:
        """The last report of that state of the campaign, by gateway."""
        return {gateway: report for gateway, report in self.reports if report.node is None and report.state == state}


class _Handlers:
    """The coordinator is made after the link."""

    coordinator: Coordinator

    async def campaign(self, topic: str, payload: bytes) -> None:
        await self.coordinator.campaign_message(topic, payload)

    async def command(self, topic: str, payload: bytes) -> None:
        raise NotImplementedError


async def make_member(
    name: str,
    nodes: tuple[NodeId, ...],
    bad: Collection[str],
    folder: Path,
    server: PayloadServer,
    port: int,
    publisher: Publisher,
    session: aiohttp.ClientSession,
) -> Member:
    database = Database.open(folder / "s.db")
    wall = WallClock(assume_synchronised=True)
    trust = TrustSettings(
        publisher.repository.root_path,
        f"{server.url}/repository/metadata/",
        f"{server.url}/repository/targets/",
        folder / "trust",
    )
    repository = TrustRepository(trust, session)
    authority = Authority(repository, database, wall, frozenset({f"gateway:{name}", f"fleet:{FLEET}"}), 3600.0)
    cache = PayloadCache(folder / "payloads", 2**24)
    supply = Supply(cache, wall, authority.manufacturers)
    supply.fetcher = Fetcher(session, cache, [f"{server.url}/{name}"], needed=lambda: supply.needed)
    outbox = Outbox(database, 2**20)
    intake = Intake(authority, database, outbox, wall)
    handlers = _Handlers()
    link = CloudLink(CloudSettings("127.0.0.1", port), name, (FLEET,), outbox, handlers)
    inventory = await Inventory.load(database)
    radio = ActingRadio(bad)
    supply.dated = authority.dated
    radios: dict[str, tuple[Radio, SystemClock]] = {"lorawan": (radio, SystemClock())}
    coordinator = Coordinator(database, authority, intake, supply, inventory, link, outbox, radios, wall)
    handlers.coordinator = coordinator

    radio.journal = RadioJournal("lorawan", database, wall, coordinator.wake, outbox.notify)
    authority.changed = supply.changed = inventory.changed = coordinator.wake
    return Member(name, nodes, radio, database, authority, repository, coordinator, inventory, link)


@contextlib.asynccontextmanager
async def running(members: Sequence[Member]) -> AsyncIterator[None]:
    """All of them, with what the repository says now."""
    limit = asyncio.Semaphore(STARTS_AT_ONCE)

    async def refreshed(member: Member) -> None:
        async with limit:
            await member.authority.refresh()
            assert member.authority.problem is None, member.authority.problem

    try:
        await asyncio.gather(*map(refreshed, members))
        tasks = [asyncio.create_task(member.run(), name=member.name) for member in members]
        try:
            yield
            for task in tasks:
                assert not task.done(), task
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        for member in members:
            member.close()


async def until(what: Callable[[], object], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not what():
            await asyncio.sleep(0.05)
