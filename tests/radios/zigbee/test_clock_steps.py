"""Steps of the wall clock at every stage of an update: the node gets its image in its time, and nobody gives anything up."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from radios.radio import Fact, NodeDirective, NodeId, TransferOrder, Want
from radios.simulated.zigbee.firmware import build_ota_file
from radios.simulated.zigbee.mesh import Mesh
from radios.simulated.zigbee.node import VirtualNode
from radios.simulated.zigbee.node_spec import NodeSpec
from radios.simulated.zigbee.ota_terms import OtaTiming
from radios.simulated.zigbee.virtual_time import START_S, VirtualLoop, run_virtual
from radios.simulated.zigbee.zigpy_radio import radio_library
from radios.zigbee.driver import ZigbeeRadio
from radios.zigbee.settings import ZigbeeSettings
from tests.support.machine import YEAR_S, Machine, stepped_at

HOUR_S = 3600.0
USUAL_S = 600.0
OLD, NEW = 0x0001_0000, 0x0002_0000
FILE = build_ota_file(manufacturer=0x1049, image_type=1, version=NEW, size=4000)
TIMING = OtaTiming(think_s=0.2, boot_query_delay_s=(5.0, 8.0), verify_s=1.0, retry_later_s=60.0)
SPEC = NodeSpec(0x00124B00_00000100, timing=TIMING, reboot_s=90.0)
TO_1970 = 60.0 - START_S


class World:
    """One node, and the daemon's side of it, on a machine whose clock tests step."""

    def __init__(self, mesh: Mesh, loop: VirtualLoop, journal: Any, images: Any, ahead_s: float) -> None:
        self.mesh, self.loop, self.journal, self.images = mesh, loop, journal, images
        self.machine = Machine(ahead_s)
        self.library = radio_library(mesh, loop.time, interviewed=True)
        self.directive: NodeDirective | None = None
        self.radio: Any = None
        self.running: Any = None

    @property
    def node(self) -> VirtualNode:
        return next(iter(self.mesh.nodes.values()))

    @property
    def facts(self) -> list[Fact]:
        return list(self.journal.facts(NodeId(self.node.id)))

    async def start(self) -> None:
        self.radio = ZigbeeRadio(ZigbeeSettings("simulated"), self.machine.start(), self.library)
        self.running = asyncio.create_task(self.radio.run(self.journal, self.images))
        expires = datetime.fromtimestamp(START_S, UTC) + timedelta(days=30)
        await self.radio.put(TransferOrder("t1", self.images.add(FILE, NEW), 0, 1.0, expires))
        if self.directive is not None:
            await self.radio.direct([self.directive])

    async def direct(self, want: Want, generation: int, install_at: float | None = None) -> None:
        at = None if install_at is None else datetime.fromtimestamp(install_at, UTC)
        self.directive = NodeDirective("t1", NodeId(self.node.id), generation, want, at)
        await self.radio.direct([self.directive])

    async def stop(self) -> None:
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)
        self.machine.stop()

    async def until(self, condition: Callable[[], object], seconds: float) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(1.0)

    async def step(self, ahead_s: float, *, restart: bool) -> None:
        """`restart`: the daemon is away meanwhile."""
        if restart:
            await self.stop()
        await self.machine.step(ahead_s)
        if restart:
            await self.start()

    async def ends_well(self, seconds: float = USUAL_S + HOUR_S) -> None:
        await self.until(lambda: Fact.RUNNING in self.facts, seconds)
        await asyncio.sleep(2 * HOUR_S)  # nothing is said against it later
        assert Fact.FAILED not in self.facts
        assert self.facts.count(Fact.RUNNING) == 1
        assert self.journal.events[-1].version == self.node.running_version == NEW
        assert self.node.running_image == FILE
        assert self.node.counters.bytes_received_twice <= 50


STAGES: dict[str, Callable[[World], object]] = {
    "offered": lambda world: Fact.PREPARING in world.facts,
    "half way": lambda world: len(world.node.ota.staged) > 1500,
    "holding": lambda world: Fact.READY in world.facts,
    "installing": lambda world: Fact.INSTALLING in world.facts,
    "confirming": lambda world: Fact.RUNNING in world.facts,
}
LEAPS = {
    "ten years and back": (0.0, 10 * YEAR_S, 0.0),
    "an hour on": (0.0, HOUR_S),
    "an hour back": (0.0, -HOUR_S),
    "from 1970": (TO_1970, 0.0),
}


@pytest.fixture
def play(journal: Any, images: Any) -> Callable[..., None]:
    def play(scenario: Any, ahead_s: float = 0.0, spec: NodeSpec = SPEC) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, VirtualLoop)
            mesh = Mesh([spec])
            loop.attach(mesh)
            world = World(mesh, loop, journal, images, ahead_s)
            mesh.power_on(loop.time())
            await world.start()
            try:
                await scenario(world)
            finally:
                await world.stop()

        run_virtual(main())

    return play


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("leap", LEAPS)
@pytest.mark.parametrize("stage", STAGES)
def test_a_step_is_no_time_that_passed(play: Callable[..., None], stage: str, leap: str, restart: bool) -> None:
    first, *steps = LEAPS[leap]

    async def scenario(world: World) -> None:
        reached = partial(STAGES[stage], world)
        await stepped_at(world, reached, steps, holds=stage == "holding", restart=restart, within_s=USUAL_S)
        await world.ends_well()
        assert world.node.counters.downloads_started_at_zero == 1

    play(scenario, first)


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize(("before_s", "after_s"), [(0.0, HOUR_S), (HOUR_S, 0.0), (TO_1970, 0.0), (0.0, -HOUR_S)])
def test_the_hour_of_an_installation_is_the_walls(
    play: Callable[..., None], before_s: float, after_s: float, restart: bool
) -> None:
    async def scenario(world: World) -> None:
        at = START_S + 3 * HOUR_S
        await world.direct(Want.INSTALL, 1, at)
        await world.until(lambda: STAGES["holding"](world), USUAL_S)
        await world.step(after_s, restart=restart)
        await world.until(lambda: Fact.INSTALLING in world.facts, 5 * HOUR_S)
        assert world.machine.wall() == pytest.approx(at, abs=5)
        await world.ends_well()

    play(scenario, before_s)


def test_an_order_that_expires_by_a_leap_alone_goes_on_when_the_clock_is_back(play: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        await world.step(10 * YEAR_S, restart=False)
        await world.direct(Want.INSTALL, 1)
        await asyncio.sleep(HOUR_S)
        assert world.node.ota.staged == b""
        await world.step(0.0, restart=False)
        await world.ends_well()

    play(scenario)


def test_a_node_that_was_told_its_hour_is_not_lost_by_a_step_back(play: Callable[..., None]) -> None:
    """A sleepy node is told up to five minutes before; from then on its own timer counts."""

    async def scenario(world: World) -> None:
        await world.direct(Want.INSTALL, 1, START_S + HOUR_S)
        await world.until(lambda: Fact.INSTALLING in world.facts, 2 * HOUR_S)
        await world.step(-HOUR_S, restart=False)
        await world.ends_well()

    sleepy = replace(SPEC, sleepy=True, battery_percent=80.0, poll_s=10.0)
    play(scenario, spec=sleepy)
