"""The gateway of these tests: the daemon's own parts and its Zigbee radio on virtual time, in a process that is killed.

Real: store, trust, intake, supply, fetcher, cache, coordinator, journal, outbox, inventory, radio, and every file that
they write. Played: the mesh (another process), the mirror (a Unix socket in this one), MQTT (the cloud is asked once a
second). `SteadyLoop` makes the order of all that the same in every run.
"""

import asyncio
import concurrent.futures
import contextlib
import random
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar, TypeVarTuple, Unpack

import aiohttp
from aiohttp import web

from gatewayd.campaign import rows
from gatewayd.campaign.authority import Authority
from gatewayd.campaign.coordinator import Coordinator
from gatewayd.campaign.intake import Intake
from gatewayd.campaign.journal import RadioJournal
from gatewayd.campaign.rows import CampaignState
from gatewayd.campaign.supply import Supply
from gatewayd.cloud import messages
from gatewayd.cloud.link import CloudLink, CloudSettings
from gatewayd.cloud.outbox import Outbox
from gatewayd.nodes.inventory import Inventory
from gatewayd.old_store import examined
from gatewayd.payload.cache import PayloadCache
from gatewayd.payload.fetch import Fetcher
from gatewayd.service.wall_clock import WallClock
from gatewayd.store.database import Database
from gatewayd.trust.repository import TrustRepository, TrustSettings
from radios.simulated.zigbee.virtual_time import LoopClock, VirtualLoop
from radios.simulated.zigbee.zigpy_radio import radio_library
from radios.zigbee.driver import ZigbeeRadio
from radios.zigbee.session_state import SessionLimits
from radios.zigbee.settings import ZigbeeSettings
from tests.crash.cloud import AUDIENCE, LAMPS, NODES, SPARE, Published
from tests.crash.far import FarMesh
from tests.crash.world import BLOCK_BYTES

CLOUD_EVERY_S = 1.0
QUOTA_BYTES = 6_000  # the release's payload, and hardly anything beside it
SETTLED_S = 12.0  # after the end: what is written every 10 s has been written
LIMIT_S = 900.0  # virtual

_LIMITS = SessionLimits(max_block_bytes=BLOCK_BYTES)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class SteadyLoop(VirtualLoop):
    """Waits for the end of what it gives to a thread, so that threads never race.

    The worker of the trust repository is left alone: it waits for downloads that this loop makes.
    """

    def __init__(self, start: float) -> None:
        super().__init__(start)
        self._pool = concurrent.futures.ThreadPoolExecutor(1, "default")

    def run_in_executor(self, executor: Any, func: Callable[[Unpack[Ts]], T], *args: *Ts) -> asyncio.Future[T]:
        pool = executor or self._pool
        if getattr(pool, "_thread_name_prefix", "") == "trust":
            return super().run_in_executor(pool, func, *args)
        work: concurrent.futures.Future[T] = pool.submit(func, *args)
        work.exception()
        return asyncio.wrap_future(work, loop=self)

    def close(self) -> None:
        super().close()
        self._pool.shutdown()


async def run(published: Published, state: Path, socket: Path, mesh: FarMesh) -> None:
    """The daemon's core from its start until both campaigns are over and all reports acknowledged; then a clean end."""
    random.seed(1)
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SteadyLoop)
    loop.attach(mesh)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(_mirror(published, socket, mesh))
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))))
        gateway = Gateway(published, state, session, mesh, loop)
        stack.callback(gateway.close)
        await gateway.run()


@contextlib.asynccontextmanager
async def _mirror(published: Published, socket: Path, mesh: FarMesh) -> AsyncIterator[None]:
    """The publisher's repository over HTTP; requests for payloads are told to the world."""

    async def answer(request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        path = published.repository / name
        if not path.is_file():
            return web.Response(status=404)
        body = path.read_bytes()
        if not name.startswith("payloads/"):
            return web.Response(body=body)
        start = request.http_range.start or 0
        stop = len(body) if request.http_range.stop is None else request.http_range.stop
        mesh.ask("asked", name.removeprefix("payloads/"), start, stop)
        if "Range" not in request.headers:
            return web.Response(body=body)
        span = {"Content-Range": f"bytes {start}-{stop - 1}/{len(body)}"}
        return web.Response(status=206, body=body[start:stop], headers=span)

    application = web.Application()
    application.router.add_get("/{name:.*}", answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    socket.unlink(missing_ok=True)
    try:
        await web.UnixSite(runner, str(socket)).start()
        yield
    finally:
        await runner.cleanup()


class Gateway:
    """As `gatewayd.app` puts it together, without what these tests have no use for."""

    def __init__(
        self, published: Published, state: Path, session: aiohttp.ClientSession, mesh: FarMesh, loop: SteadyLoop
    ) -> None:
        self._mesh = mesh
        self._state = state
        self._published = published
        self._session = session
        self._loop = loop
        self.database = Database.open(state / "gatewayd.db")
        trust = TrustSettings(
            published.root, "http://localhost/metadata/", "http://localhost/targets/", state / "trust"
        )
        self._repository = TrustRepository(trust, session, loop.time)

    async def run(self) -> None:
        loop, database = self._loop, self.database
        wall = WallClock(assume_synchronised=True, now=loop.time, monotonic=loop.time)
        witness = await examined(database, self._state / "gatewayd.witness", wall)
        if witness.trouble is not None:
            self._mesh.ask("troubled", *witness.trouble)
        self.outbox = outbox = Outbox(database, 2**20)
        authority = Authority(self._repository, database, wall, frozenset({AUDIENCE}), 3600.0)
        cache = PayloadCache(self._state / "payloads", QUOTA_BYTES, monotonic=loop.time)
        supply = Supply(cache, wall, authority.manufacturers)
        supply.fetcher = Fetcher(self._session, cache, ["http://localhost"], needed=lambda: supply.needed)
        inventory = await Inventory.load(database, monotonic=loop.time)
        intake = Intake(authority, database, outbox, wall, witness)
        clock = LoopClock(loop)
        library = radio_library(self._mesh, loop.time, interviewed=True)  # type: ignore[arg-type]
        radio = ZigbeeRadio(ZigbeeSettings("simulated", limits=_LIMITS), clock, library)
        link = CloudLink(CloudSettings("localhost"), "gw-1", (), outbox, _NoHandlers())
        radios = {"zigbee": (radio, clock)}
        self.coordinator = coordinator = Coordinator(
            database, authority, intake, supply, inventory, link, outbox, radios, wall, guard=witness
        )

        def judge_again() -> None:
            supply.judge_again()
            intake.judge_again()

        journal = RadioJournal("zigbee", database, wall, coordinator.wake, outbox.notify)
        supply.dated = authority.dated
        authority.changed = supply.changed = inventory.changed = coordinator.wake
        authority.view_changed = judge_again

        async def observe() -> None:
            async for seen in radio.observations():
                await inventory.observe(seen)

        await authority.restore()
        await authority.refresh()
        parts = (
            wall.run(database),
            inventory.run(),
            coordinator.run(),
            radio.run(journal, cache),
            journal.run(),
            observe(),
            self._cloud(),
        )
        tasks = [loop.create_task(part) for part in parts]
        try:
            await self._over(tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def close(self) -> None:
        self._repository.close()
        self.database.close()

    async def _cloud(self) -> None:
        """What the link does over MQTT: campaigns in, reports out, what is acknowledged forgotten."""
        known, sent = 0, 0
        await self.outbox.load()
        while True:
            known, campaigns, acks = self._mesh.ask("retained", known)
            for topic, envelope in campaigns:
                await self.coordinator.campaign_message(topic, envelope)
            if acks:
                await self.outbox.acknowledge(messages.parse(messages.Acks, acks, "acks"))
            if (batch := await self.outbox.batch(sent)) is not None:
                self._mesh.ask("reports", batch.payload)
                sent = batch.last
            await asyncio.sleep(CLOUD_EVERY_S)

    async def _over(self, tasks: list["asyncio.Task[None]"]) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not (await self.database.read(_over) and self._mesh.ask("at_rest")):
                await asyncio.sleep(0.5)
                for task in tasks:
                    if task.done():
                        raise AssertionError(f"{task} has ended") from task.exception()
            await asyncio.sleep(SETTLED_S)


def _over(db: sqlite3.Connection) -> bool:
    campaigns = {row.id: row.state for row in rows.campaigns(db)}
    if campaigns != {LAMPS: CampaignState.COMPLETED, SPARE: CampaignState.CANCELLED}:
        return False
    updates = [update for name in campaigns for update in rows.updates_of_campaign(db, name).values()]
    left = db.execute("SELECT count(*) FROM outbox").fetchone()[0]
    return {u.node for u in updates} == set(NODES) and all(u.ended and not u.want for u in updates) and not left


class _NoHandlers:
    """The link only keeps what is to be published: it is never connected."""

    async def campaign(self, topic: str, payload: bytes) -> None:
        raise NotImplementedError

    async def command(self, topic: str, payload: bytes) -> None:
        raise NotImplementedError
