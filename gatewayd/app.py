"""Builds the daemon and runs it: the only module that knows every room.

One TaskGroup owns every task. SIGTERM and SIGINT cancel it; what was batched is written, the cloud is told `offline`, and
the process ends within `STOP_LIMIT_S`, whatever hangs: nothing that must be durable waits for the end.
"""

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from zoneinfo import ZoneInfo

import structlog

from gatewayd import radio_parts
from gatewayd.backup import restore
from gatewayd.backup.scheduled import ScheduledBackups
from gatewayd.campaign.authority import Authority
from gatewayd.campaign.commands import Commands
from gatewayd.campaign.coordinator import Coordinator
from gatewayd.campaign.intake import Intake
from gatewayd.campaign.payloads import FORMATS_TAG, RAM_TAG, as_stated
from gatewayd.campaign.radio_time import RadioTime
from gatewayd.campaign.situation import Site
from gatewayd.campaign.supply import Supply
from gatewayd.cloud.link import CloudLink
from gatewayd.cloud.outbox import Outbox
from gatewayd.cloud_settings import cloud_settings, inventory_site
from gatewayd.config import Config
from gatewayd.download_settings import fetch_settings, session, throttle
from gatewayd.errors import GatewaydError, StoreError
from gatewayd.health import Health
from gatewayd.identity import Identity
from gatewayd.live_view import DaemonView
from gatewayd.nodes.bridge import NodeBridge
from gatewayd.nodes.inventory import Inventory
from gatewayd.nodes.network_backup import NetworkBackups
from gatewayd.nodes.node import Node
from gatewayd.nodes.pages import InventoryPages
from gatewayd.old_store import examined, watch_acks
from gatewayd.payload.cache import PayloadCache
from gatewayd.payload.fetch import Fetcher
from gatewayd.radio_parts import RadioParts
from gatewayd.service import logging as service_logging
from gatewayd.service.sd_notify import Notifier
from gatewayd.service.version import version
from gatewayd.service.wall_clock import WallClock
from gatewayd.status.server import StatusServer
from gatewayd.store.database import Database
from gatewayd.store.lock import StateLock
from gatewayd.trust.client import TrustSettings
from gatewayd.trust.repository import TrustRepository
from radios.radio import Radio

STOP_LIMIT_S = 5.0
TASKS_LIMIT_S = 3.0  # of it, for what the tasks still have to say
STORE_RETRY_S = 10.0
OUTBOX_MAX_BYTES = 32 * 2**20
MIB = 2**20

log = structlog.get_logger()


def run(config: Config) -> int:
    """The daemon, until SIGTERM or SIGINT; the exit status."""
    service_logging.configure(config.log.format, config.log.level)
    ends: list[threading.Timer] = []
    try:
        asyncio.run(_main(config, ends))
    except GatewaydError as error:
        log.error("stopped", code=error.code, error=str(error))
        return 1
    finally:
        for end in ends:
            end.cancel()
    return 0


async def _main(config: Config, ends: list[threading.Timer]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    notifier = Notifier.from_environ()
    async with contextlib.AsyncExitStack() as stack:
        daemon = await stack.enter_async_context(built(config))
        work = asyncio.create_task(daemon.run(notifier), name="daemon")
        waiting = asyncio.create_task(stop.wait(), name="stop")
        await asyncio.wait({work, waiting}, return_when=asyncio.FIRST_COMPLETED)
        notifier.stopping()
        waiting.cancel()
        if not work.done():
            log.info("stopping")
            ends.append(_end_within(STOP_LIMIT_S - 0.5, 0))
            work.cancel()
            _, late = await asyncio.wait({work}, timeout=TASKS_LIMIT_S)
            if late:
                log.error("stop_overdue", limit_s=TASKS_LIMIT_S)
            elif not work.cancelled() and (error := work.exception()) is not None:
                # A task that fails while it is cancelled (Python 3.11 then forgets the cancellation): we stop all the same.
                log.error("stop_failed", error=repr(_first(error)))
        elif not work.cancelled() and (error := work.exception()) is not None:
            ends.append(_end_within(STOP_LIMIT_S, 1))
            raise _first(error)
    log.info("stopped")


def _end_within(limit_s: float, status: int) -> threading.Timer:
    """The last resort: a resolver's or library's thread that hangs would keep the event loop from being closed."""
    timer = threading.Timer(limit_s, os._exit, (status,))
    timer.daemon = True
    timer.start()
    return timer


def _first(error: BaseException) -> BaseException:
    """The first real error in nested groups: what an operator has to read."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@dataclass(slots=True)
class Daemon:
    """Everything, built and not yet running."""

    config: Config
    database: Database
    wall: WallClock
    authority: Authority
    coordinator: Coordinator
    inventory: Inventory
    link: CloudLink
    outbox: Outbox
    cache: PayloadCache
    status: StatusServer
    radios: dict[str, RadioParts]
    times: RadioTime
    pages: InventoryPages
    health: Health
    bridge: NodeBridge | None = None
    backups: dict[str, NetworkBackups] = field(default_factory=dict)
    scheduled: ScheduledBackups | None = None

    async def run(self, notifier: Notifier) -> None:
        """Until cancelled, or until a task that must not end has ended."""
        if (aside := self.database.set_aside) is not None:
            log.error("store_corrupt", set_aside=str(aside))
        await self.times.start()
        await self.authority.restore()
        await self.status.start()
        try:
            async with asyncio.TaskGroup() as group:
                start = group.create_task
                start(_despite_the_store(lambda: self.wall.run(self.database)), name="wall-clock")
                start(self.times.run(), name="radio-time")
                start(self.link.run(), name="cloud")
                start(self.authority.run(), name="trust")
                start(self.inventory.run(), name="inventory")
                start(self.pages.run(), name="inventory-pages")
                start(self.health.run(), name="health")
                start(self.coordinator.run(), name="coordinator")
                if self.bridge is not None:
                    start(self.bridge.run(), name="bridge")
                for kind, parts in self.radios.items():
                    start(parts.radio.run(parts.journal, self.cache), name=f"radio-{kind}")
                    start(parts.journal.run(), name=f"journal-{kind}")
                    start(self._observe(parts.radio), name=f"observations-{kind}")
                for kind, backups in self.backups.items():
                    start(backups.run(), name=f"backups-{kind}")
                if self.scheduled is not None:
                    start(self.scheduled.run(), name="backup")
                start(notifier.run_watchdog(self.coordinator.alive), name="watchdog")
                notifier.ready(f"gateway {self.config.gateway.id}")
                log.info("started", gateway=self.config.gateway.id, version=version(), radios=sorted(self.radios))
        finally:
            await self.status.close()

    async def _observe(self, radio: Radio) -> None:
        async for seen in radio.observations():
            await self.inventory.observe(replace(seen, at=self.times.moved(radio.kind, seen.at)))
            if (backups := self.backups.get(radio.kind)) is not None:
                backups.observe(seen)


async def _despite_the_store(work: Callable[[], Awaitable[None]]) -> None:
    """Begin again when the store fails: a full disk ends no task that can wait."""
    while True:
        try:
            await work()
        except StoreError as error:
            log.error("store_failed", error=str(error))
            await asyncio.sleep(STORE_RETRY_S)
        else:
            return


@contextlib.asynccontextmanager
async def built(config: Config) -> AsyncIterator[Daemon]:
    """The daemon with all that must be closed again."""
    state = config.gateway.state_dir
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(StateLock(state))
        restore.finish(state)
        database = Database.open(state / "gatewayd.db")
        stack.callback(database.close)
        wall = await WallClock.load(database, assume_synchronised=config.gateway.assume_synchronised)
        witness = await examined(database, state / "gatewayd.witness", wall)
        outbox = Outbox(database, OUTBOX_MAX_BYTES)
        await outbox.load()
        trust_session = await stack.enter_async_context(
            session(config.trust.ca, config.trust.cert, config.trust.key, config.proxy)
        )
        payload_session = await stack.enter_async_context(
            session(config.payload.ca, config.payload.cert, config.payload.key, config.proxy)
        )
        repository = TrustRepository(
            TrustSettings(
                root=config.trust.root,
                metadata_url=config.trust.metadata_url,
                targets_url=config.trust.targets,
                directory=state / "trust",
            ),
            trust_session,
            wall.now,
        )
        stack.callback(repository.close)
        audiences = frozenset({f"gateway:{config.gateway.id}", *(f"fleet:{f}" for f in config.gateway.fleets)})
        authority = Authority(repository, database, wall, audiences, config.trust.refresh_s)
        cache = PayloadCache(state / "payloads", config.payload.quota_mb * MIB, config.payload.reserve_mb * MIB)
        supply = Supply(cache, wall, authority.manufacturers)
        supply.fetcher = Fetcher(
            payload_session,
            cache,
            config.payload.urls,
            fetch_settings(config),
            needed=lambda: supply.needed,
            throttle=throttle(config, wall),
        )
        inventory = await Inventory.load(database)
        times = RadioTime(database, wall, inventory)
        intake = Intake(authority, database, outbox, wall, witness)
        doorbell = _Doorbell()
        radios = radio_parts.built(config, database, wall, times, doorbell.ring, outbox.notify, state)
        handlers = _Handlers()
        settings, gateway = cloud_settings(config.cloud), config.gateway
        link = CloudLink(settings, gateway.id, gateway.fleets, outbox, handlers, version=version())
        watch_acks(outbox, database, link, witness, wall)
        models = {m.hardware: {FORMATS_TAG: ",".join(m.delta), RAM_TAG: str(m.ram)} for m in config.models if m.delta}
        place = Site(gateway.region, gateway.tags, ZoneInfo(gateway.timezone))
        coordinator = Coordinator(
            database,
            authority,
            intake,
            supply,
            inventory,
            link,
            outbox,
            {kind: (parts.radio, parts.clock) for kind, parts in radios.items()},
            wall,
            models,
            place,
            times,
            witness,
        )
        handlers.coordinator = coordinator
        doorbell.listener = coordinator.wake
        supply.dated = authority.dated
        authority.changed = supply.changed = inventory.changed = coordinator.wake

        def judge_again() -> None:
            supply.judge_again()
            intake.judge_again()

        authority.view_changed = judge_again
        wall.stepped = lambda _: times.wake()
        bridge = radio_parts.bridge(config, radios, times)
        from_backup = await database.read(restore.restored)
        if from_backup:
            log.info("store_restored", **from_backup)
        backups = radio_parts.network_backups(config, radios, wall, state)
        scheduled = ScheduledBackups.configured(config, wall.now, lambda: _each_taken(backups))
        view = DaemonView(
            config.gateway.id,
            authority,
            coordinator,
            link,
            radio_parts.radios_of(radios),
            radio_parts.journals_of(radios),
            wall,
            database.set_aside,
            bridge,
            backups,
            supply,
            witness,
            from_backup,
            scheduled,
        )
        identity = Identity(config.gateway, version(), tuple(radios), authority, inventory, outbox, view.troubles)
        handlers.commands = Commands(authority, database, outbox, link, wall, config.gateway.id, identity)

        def stated(node: Node) -> Node:
            node = as_stated(node, models)
            return replace(node, tags={**place.tags, **node.tags})

        pages = InventoryPages(inventory, database, link, inventory_site(config), stated)
        health = Health(view.troubles, database, outbox, link, wall.now)
        status = StatusServer(config.status.listen, database, view, state)
        yield Daemon(
            config,
            database,
            wall,
            authority,
            coordinator,
            inventory,
            link,
            outbox,
            cache,
            status,
            radios,
            times,
            pages,
            health,
            bridge,
            backups,
            scheduled,
        )


class _Doorbell:
    """Lets the journals be made before the coordinator, whom they wake."""

    def __init__(self) -> None:
        self.listener: Callable[[], None] = lambda: None

    def ring(self) -> None:
        self.listener()


class _Handlers:
    """What the cloud link hands on; those who take it are made after the link."""

    coordinator: Coordinator
    commands: Commands

    async def campaign(self, topic: str, payload: bytes) -> None:
        await self.coordinator.campaign_message(topic, payload)

    async def command(self, topic: str, payload: bytes) -> None:
        await self.commands.take(topic, payload)


async def _each_taken(backups: dict[str, NetworkBackups]) -> None:
    for of_radio in backups.values():
        await of_radio.take()  # else the newest one is kept
