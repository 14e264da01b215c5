"""Steps of the wall clock at every stage of an update: nodes get the image in their time, and the air is kept."""

import asyncio
import hashlib
import json
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from radios.lorawan.airtime import downlink_airtime
from radios.lorawan.chirpstack import ChirpStackSettings
from radios.lorawan.chirpstack_events import parse_uplink
from radios.lorawan.driver import LorawanRadio, LorawanSettings
from radios.lorawan.network_server import Queued
from radios.lorawan.regions import region
from radios.radio import Fact, ImageRef, NodeDirective, TransferOrder, Want
from radios.simulated.lorawan import firmware
from radios.simulated.zigbee.virtual_time import LoopClock, run_virtual
from tests.radios.lorawan.memory_site import MemoryJournal, Network, Store, node_id
from tests.radios.lorawan.world import T0, new_image, spec
from tests.support.machine import YEAR_S, Machine, stepped_at

HOUR_S = 3600.0
IMAGE = new_image(3000)
TO_1970 = 60.0 - T0


class Site(Network):
    """ChirpStack on the machine whose clock is stepped; nodes and gateways on the true time."""

    def __init__(self, specs, machine, image, *, has_gps):
        loop = asyncio.get_running_loop()
        super().__init__(specs, LoopClock(loop), signed=lambda held: 2 if held == image else None)
        self.machine = machine
        self.has_gps = has_gps  # the gateways
        self.sent = []  # (true time, airtime)
        self._loop = loop
        self._heard = asyncio.Queue()
        loop.attach(self)

    def next_deadline(self):
        return self.simulated.next_deadline()

    def handle_timeout(self, now):
        self.simulated.advance(now)
        while self.simulated.events:
            if (event := self.simulated.events.popleft()).kind == "up":
                uplink = parse_uplink(json.dumps(event.body).encode())
                if not self.has_gps:
                    uplink = replace(uplink, receptions=[replace(r, gps_time_s=None) for r in uplink.receptions])
                self._heard.put_nowait(replace(uplink, received_at=self._told(uplink.received_at)))

    async def uplinks(self):
        while True:
            yield await self._heard.get()

    async def enqueue(self, dev_eui, port, data, expires=None):
        true = None if expires is None else self.machine.clock.wall.unix(expires) - self.machine.ahead_s
        return await super().enqueue(dev_eui, port, data, true)

    async def queued(self, dev_eui):
        told = await super().queued(dev_eui)
        return [Queued(q.port, q.data, None if q.expires is None else self._told(q.expires)) for q in told]

    async def enqueue_multicast(self, group_id, port, data):
        rate = self.simulated.multicast.get(group_id).settings.data_rate
        self.sent.append((self._loop.time(), downlink_airtime(region("EU868").downlink(rate).modulation, len(data))))
        return await super().enqueue_multicast(group_id, port, data)

    def _told(self, true):
        """In the radio's time, as it is reckoned from the server's wall clock."""
        return None if true is None else self.machine.clock.wall.at(true + self.machine.ahead_s)

    def busiest_hour_s(self):
        hours = (sum(s for at, s in self.sent if begin <= at < begin + HOUR_S) for begin, _ in self.sent)
        return max(hours, default=0.0)


class World:
    def __init__(self, specs, image, ahead_s, data_rate, *, has_gps):
        self.specs, self.image, self.data_rate = specs, image, data_rate
        self.machine = Machine(ahead_s)
        self.network = Site(specs, self.machine, image, has_gps=has_gps)
        self.journal = MemoryJournal()
        self.directives = []

    async def start(self):
        chirpstack = ChirpStackSettings("127.0.0.1:1", "token", "a", "t", "127.0.0.1")
        settings = LorawanSettings(
            chirpstack=chirpstack,
            multicast_data_rate=self.data_rate,
            device_poll_s=300.0,
        )
        self.radio = LorawanRadio(settings, self.machine.start(), self.network)
        self.running = asyncio.create_task(self.radio.run(self.journal, Store(self.image)))
        ref = ImageRef(hashlib.sha256(self.image).hexdigest(), len(self.image), firmware.parse(self.image).version)
        expires = datetime.fromtimestamp(T0, UTC) + timedelta(days=30)
        await self.radio.put(TransferOrder("t1", ref, 1, 1.0, expires))
        await self.radio.direct(self.directives)

    async def direct(self, want, generation, install_at=None):
        at = None if install_at is None else datetime.fromtimestamp(install_at, UTC)
        self.directives = [NodeDirective("t1", node_id(s), generation, want, at) for s in self.specs]
        await self.radio.direct(self.directives)

    async def stop(self):
        self.running.cancel()
        with suppress(asyncio.CancelledError):
            await self.running
        self.machine.stop()

    async def until(self, condition, seconds):
        async with asyncio.timeout(seconds):
            while not condition():
                if self.running.done():
                    self.running.result()
                await asyncio.sleep(1.0)

    async def step(self, ahead_s, *, restart):
        """`restart`: the daemon is away meanwhile."""
        if restart:
            await self.stop()
        await self.machine.step(ahead_s)
        if restart:
            await self.start()

    def all(self, fact):
        return all(fact in self.journal.facts(node_id(s)) for s in self.specs)

    def any(self, fact):
        return any(e.fact is fact for e in self.journal.events)

    def sent(self):
        return max((cohort["sent"] for cohort in self.radio.status()["cohorts"]), default=0)

    async def ends_well(self, seconds, sessions=1):
        """`sessions` that a node may be given at most, each under a number of its own."""
        await self.until(lambda: self.all(Fact.RUNNING), seconds)
        await asyncio.sleep(2 * HOUR_S)  # nothing is said against it later
        facts = [e for e in self.journal.events if e.fact in (Fact.FAILED, Fact.RUNNING)]
        assert [e for e in facts if e.fact is Fact.FAILED] == []
        assert {e.version for e in facts} == {2}
        for s in self.specs:
            node = self.network.simulated.nodes[s.dev_eui]
            assert node.running_image == self.image
            assert not node.bootloader.rollbacks
            assert node.fragment_counters.sessions_set_up <= sessions
        assert len(set(self.network.names)) == len(self.network.names), "no group twice, and so no frame counter"
        assert self.network.busiest_hour_s() <= 0.1 * HOUR_S


STAGES = {
    "gathering": lambda world: world.any(Fact.PREPARING),
    "mid-transfer": lambda world: world.sent() > 5,
    "holding": lambda world: world.any(Fact.READY),
    "installing": lambda world: world.any(Fact.INSTALLING),
    "confirming": lambda world: world.any(Fact.RUNNING),
}
LEAPS = {
    "ten years and back": (0.0, 10 * YEAR_S, 0.0),
    "an hour on": (0.0, HOUR_S),
    "an hour back": (0.0, -HOUR_S),
    "from 1970": (TO_1970, 0.0),
}
USUAL_S = 1500.0  # without a step


def play(scenario, *, ahead_s=0.0, specs=None, image=IMAGE, data_rate=5, has_gps=True):
    async def main():
        world = World(specs or [spec(1), spec(2)], image, ahead_s, data_rate, has_gps=has_gps)
        await world.start()
        try:
            await scenario(world)
        finally:
            await world.stop()

    run_virtual(main(), start=T0)


def steps_at(stage, leap, *, restart, within_s=USUAL_S + HOUR_S, sessions=1, stages=STAGES, ends=None, **more):
    first, *steps = LEAPS[leap]

    async def scenario(world):
        begun = asyncio.get_running_loop().time()
        reached = partial(stages[stage], world)
        await stepped_at(world, reached, steps, holds=stage == "holding", restart=restart, within_s=within_s)
        await world.ends_well(begun + within_s - asyncio.get_running_loop().time(), sessions)
        if ends is not None:
            ends(world)

    play(scenario, ahead_s=first, **more)


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("leap", LEAPS)
@pytest.mark.parametrize("stage", STAGES)
def test_a_step_is_no_time_that_passed(stage, leap, restart):
    steps_at(stage, leap, restart=restart)


@pytest.mark.parametrize("leap", LEAPS)
@pytest.mark.parametrize("stage", ["gathering", "mid-transfer", "installing"])
def test_nor_where_no_gateway_knows_gps_time(stage, leap):
    """Nodes have their time from the daemon, or none that it can correct; what they say of it is enough."""
    # Set right in 1970, a node may be late for its cohort.
    steps_at(stage, leap, restart=False, has_gps=False, sessions=2 if leap == "from 1970" else 1)


@pytest.mark.parametrize("device_class", ["A", "B"])
@pytest.mark.parametrize("leap", LEAPS)
@pytest.mark.parametrize("stage", ["gathering", "mid-transfer"])
def test_nor_for_nodes_that_listen_seldom(stage, leap, device_class):
    specs = [spec(n, device_class=device_class, uplink_interval_s=120.0, package_versions={2: 1}) for n in (1, 2)]
    steps_at(stage, leap, restart=False, specs=specs, within_s=3 * HOUR_S, sessions=2)


@pytest.mark.parametrize("leap", LEAPS)
@pytest.mark.parametrize("stage", ["gathering", "mid-transfer"])
def test_nor_for_nodes_on_beacon_time_that_no_gateway_tells_us(stage, leap):
    """A window in our wrong time is refused by those that know better; the right one is asked for, or the image comes by unicast."""
    specs = [spec(n, device_class="B", uplink_interval_s=120.0, package_versions={2: 1}) for n in (1, 2)]
    steps_at(stage, leap, restart=False, specs=specs, within_s=5 * HOUR_S, sessions=3, has_gps=False)


def test_a_node_without_ts003_needs_no_other_window_after_a_step():
    """Its clock is not ours to set; ours was an hour ahead of it when it agreed."""

    async def scenario(world):
        await world.direct(Want.INSTALL, 1)
        await world.until(lambda: world.sent() > 2, 2 * HOUR_S)
        await world.step(0.0, restart=False)
        await world.ends_well(HOUR_S, sessions=2)  # one was asked for twice: its answer was lost
        assert [e.fact for e in world.journal.events].count(Fact.PREPARING) == 2

    play(scenario, ahead_s=HOUR_S, specs=[spec(n, package_versions={1: 0}) for n in (1, 2)], has_gps=False)


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("leap", LEAPS)
def test_no_hour_has_more_on_air_than_it_may(leap, restart):
    """More than an hour's worth, and the clock is stepped when most of it is used."""

    def ends(world):
        assert world.network.busiest_hour_s() > 0.05 * HOUR_S

    stages = {"used up": lambda world: world.sent() > 90}
    more = {"image": new_image(8000), "data_rate": 0, "within_s": 5 * HOUR_S}
    steps_at("used up", leap, restart=restart, stages=stages, ends=ends, **more)


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize(("before_s", "after_s"), [(0.0, HOUR_S), (HOUR_S, 0.0), (TO_1970, 0.0), (0.0, -HOUR_S)])
def test_the_hour_of_an_installation_is_the_walls(before_s, after_s, restart):
    at = T0 + 3 * HOUR_S

    async def scenario(world):
        await world.direct(Want.INSTALL, 1, at)
        await world.until(lambda: world.all(Fact.READY), 2 * HOUR_S)
        await world.step(after_s, restart=restart)
        await world.until(lambda: world.any(Fact.INSTALLING), 5 * HOUR_S)
        assert world.machine.wall() == pytest.approx(at, abs=5)
        await world.until(lambda: world.all(Fact.RUNNING), HOUR_S)

    play(scenario, ahead_s=before_s)
