"""The gateway of these tests: the daemon's own parts and one of its radios on virtual time, in a process that is killed.

Real: store, trust, intake, supply, fetcher, cache, coordinator, journal, outbox, inventory, radio, and every file that
they write. Played: mesh or network server (another process), the mirror (a Unix socket in this one), MQTT (the cloud is asked once a
second). `SteadyLoop` makes the order of all that the same in every run.
"""

import asyncio
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
from radios.clock import Clock
from radios.lorawan.chirpstack import ChirpStackSettings
from radios.lorawan.driver import LorawanRadio, LorawanSettings
from radios.lorawan.keys import Key
from radios.radio import Radio
from radios.simulated.zigbee.virtual_time import LoopClock, VirtualLoop
from radios.simulated.zigbee.zigpy_radio import radio_library
from radios.wall_time import WallTime
from radios.zigbee.driver import ZigbeeRadio
from radios.zigbee.session_state import SessionLimits
from radios.zigbee.settings import ZigbeeSettings
from tests.crash.cloud import AUDIENCE, LORAWAN, ZIGBEE, Published
from tests.crash.far import FarMesh, FarNetwork
from tests.crash.lamps import BLOCK_BYTES
from tests.crash.meters import METER_DATA_RATE, SCALE, root_key

CLOUD_EVERY_S = 1.0
QUOTA_BYTES = 6_000  # the release's payload, and hardly anything beside it
SETTLED_S = 12.0  # after the end: what is written every 10 s has been written
LIMIT_S = 900.0  # virtual
_TURN_S = 1e-5  # more than the resolution of the loop's clock
MODELS = {ZIGBEE.new.spec.hardware[0]: {"delta": "detools", "ram": "8192"}}  # of one lamp wrongly

_LIMITS = SessionLimits(max_block_bytes=BLOCK_BYTES)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class SteadyLoop(VirtualLoop):
    """Does at once what it would give to a thread, so that threads never race.

    The worker of the trust repository is left alone: it waits for downloads that this loop makes.
    """

    def run_in_executor(self, executor: Any, func: Callable[[Unpack[Ts]], T], *args: *Ts) -> asyncio.Future[T]:
        if getattr(executor, "_thread_name_prefix", "") == "trust":
            return super().run_in_executor(executor, func, *args)
        done: asyncio.Future[T] = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - for whoever waits
            done.set_exception(error)
        return done


async def run(published: Published, state: Path, socket: Path, far: FarMesh | FarNetwork) -> None:
    """The daemon's core from its start until both campaigns are over and all reports acknowledged; then a clean end."""
    random.seed(1)
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SteadyLoop)
    loop.attach(far)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(_mirror(published, socket, far))
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))))
        gateway = Gateway(published, state, session, far, loop)
        stack.callback(gateway.close)
        await gateway.run()


@contextlib.asynccontextmanager
async def _mirror(published: Published, socket: Path, far: FarMesh | FarNetwork) -> AsyncIterator[None]:
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
        far.ask("asked", name.removeprefix("payloads/"), start, stop)
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
        self,
        published: Published,
        state: Path,
        session: aiohttp.ClientSession,
        far: FarMesh | FarNetwork,
        loop: SteadyLoop,
    ) -> None:
        self._far = far
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
            self._far.ask("troubled", *witness.trouble)
        self.outbox = outbox = Outbox(database, 2**20)
        authority = Authority(self._repository, database, wall, frozenset({AUDIENCE}), 3600.0)
        cache = PayloadCache(self._state / "payloads", QUOTA_BYTES, monotonic=loop.time)
        supply = Supply(cache, wall, authority.manufacturers)
        supply.fetcher = Fetcher(self._session, cache, ["http://localhost"], needed=lambda: supply.needed)
        inventory = await Inventory.load(database, monotonic=loop.time)
        intake = Intake(authority, database, outbox, wall, witness)
        radio, clock = self._radio()
        link = CloudLink(CloudSettings("localhost"), "gw-1", (), outbox, _NoHandlers())
        radios = {radio.kind: (radio, clock)}
        self.coordinator = coordinator = Coordinator(
            database, authority, intake, supply, inventory, link, outbox, radios, wall, MODELS, guard=witness
        )

        def judge_again() -> None:
            supply.judge_again()
            intake.judge_again()

        journal = RadioJournal(radio.kind, database, wall, coordinator.wake, outbox.notify)
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

    def _radio(self) -> tuple[Radio, Clock]:
        """Of the story, and its time."""
        if isinstance(self._far, FarMesh):
            library = radio_library(self._far, self._loop.time, interviewed=True)  # type: ignore[arg-type]
            clock: Clock = LoopClock(self._loop)
            return ZigbeeRadio(ZigbeeSettings("simulated", limits=_LIMITS), clock, library), clock
        chirpstack = ChirpStackSettings("127.0.0.1:1", "token", "a", "t", "127.0.0.1")
        keys = {node.removeprefix("lorawan:"): Key(root_key(node)) for node in LORAWAN.nodes}
        settings = LorawanSettings(chirpstack, keys, multicast_data_rate=METER_DATA_RATE, device_poll_s=60.0)
        clock = _FastClock(self._loop, self._published.start)
        return LorawanRadio(settings, clock, self._far), clock

    def close(self) -> None:
        self._repository.close()
        self.database.close()

    async def _cloud(self) -> None:
        """What the link does over MQTT: campaigns in, reports out, what is acknowledged forgotten. And the operator."""
        known, sent = 0, 0
        held: bool | None = None  # as this process was told
        await self.outbox.load()
        while True:
            known, campaigns, acks, hold = self._far.ask("retained", known)
            for topic, envelope in campaigns:
                await self.coordinator.campaign_message(topic, envelope)
            if hold is not None and hold is not held:
                held = hold if await self.coordinator.hold(self._published.story.held, hold) else None
                if held is not None:
                    self._far.ask("done", hold)
            if acks:
                await self.outbox.acknowledge(messages.parse(messages.Acks, acks, "acks"))
            if (batch := await self.outbox.batch(sent)) is not None:
                self._far.ask("reports", batch.payload)
                sent = batch.last
            await asyncio.sleep(CLOUD_EVERY_S)

    async def _over(self, tasks: list["asyncio.Task[None]"]) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not (await self.database.read(self._ended) and self._far.ask("at_rest")):
                await asyncio.sleep(0.5)
                for task in tasks:
                    if task.done():
                        raise AssertionError(f"{task} has ended") from task.exception()
            await asyncio.sleep(SETTLED_S)

    def _ended(self, db: sqlite3.Connection) -> bool:
        story = self._published.story
        over = {p.name: CampaignState.CANCELLED if p.cancelled else CampaignState.COMPLETED for p in story.campaigns}
        if {row.id: row.state for row in rows.campaigns(db)} != over:
            return False
        updates = [update for name in over for update in rows.updates_of_campaign(db, name).values()]
        left = db.execute("SELECT count(*) FROM outbox").fetchone()[0]
        return (
            {u.node for u in updates} == set(story.nodes) and all(u.ended and not u.want for u in updates) and not left
        )


class _FastClock:
    """The radio's time: `SCALE` times faster than the loop's since the origin."""

    scale = SCALE

    def __init__(self, loop: SteadyLoop, origin: float) -> None:
        self._loop = loop
        self._origin = origin
        self.wall = WallTime()

    def now(self) -> float:
        return self._origin + (self._loop.time() - self._origin) * self.scale

    async def sleep_until(self, when: float) -> None:
        while (left := when - self.now()) > 0:
            await asyncio.sleep(max(left / self.scale, _TURN_S))


class _NoHandlers:
    """The link only keeps what is to be published: it is never connected."""

    async def campaign(self, topic: str, payload: bytes) -> None:
        raise NotImplementedError

    async def command(self, topic: str, payload: bytes) -> None:
        raise NotImplementedError
