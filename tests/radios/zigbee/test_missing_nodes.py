"""Nodes that zigpy's table does not know are found again, and asking for them floods nothing."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest
import zigpy.types as t
import zigpy.zdo.types as zdo_t

from radios.radio import NodeObservation
from radios.simulated.zigbee.mesh import Mesh
from radios.simulated.zigbee.node import VirtualNode
from radios.simulated.zigbee.node_spec import NodeSpec
from radios.simulated.zigbee.ota_terms import OtaTiming
from radios.simulated.zigbee.virtual_time import LoopClock, VirtualLoop, run_virtual
from radios.simulated.zigbee.zdo import neighbour
from radios.simulated.zigbee.zigpy_radio import radio_library
from radios.wall_time import WallTime
from radios.zigbee.driver import ZigbeeRadio
from radios.zigbee.missing_nodes import ASK_AGAIN_AFTER_S, LOOK_AFTER_S, QUESTIONS_MOST, MissingNodes
from radios.zigbee.settings import ZigbeeSettings

EUI64 = 0x00124B00_00000100
QUIET = OtaTiming(boot_query_delay_s=(1e6, 1e6))
NEAR = NodeSpec(EUI64, timing=QUIET)
FAR = NodeSpec(EUI64 + 1, hops=2, timing=QUIET)
SLEEPER = NodeSpec(EUI64 + 2, hops=2, sleepy=True, poll_s=2.0, battery_percent=80.0, timing=QUIET)


class World:
    """A site; `forgotten` nodes are in the network, and zigpy was cut off before it wrote them down."""

    def __init__(self, specs: tuple[NodeSpec, ...], forgotten: tuple[NodeSpec, ...], loop: VirtualLoop) -> None:
        self.loop = loop
        self.mesh = Mesh(specs)
        loop.attach(self.mesh)
        library = radio_library(self.mesh, loop.time, interviewed=True)
        nobody = {spec.eui64 for spec in forgotten}
        add = library.add_interviewed

        def added(app: Any, node: VirtualNode) -> Any:
            return None if node.spec.eui64 in nobody else add(app, node)

        library.add_interviewed = added
        self.radio = ZigbeeRadio(ZigbeeSettings("simulated"), LoopClock(), library)
        self.observations: list[NodeObservation] = []
        self.questions: list[tuple[float, int, bool]] = []  # when, ZDO cluster, whether broadcast

    @property
    def app(self) -> Any:
        """zigpy's application."""
        return self.mesh.coordinator

    def node(self, spec: NodeSpec) -> VirtualNode:
        return self.mesh.nodes[spec.id]

    def knows(self, spec: NodeSpec) -> bool:
        device = self.app.devices.get(t.EUI64(spec.eui64.to_bytes(8, "little")))
        return device is not None and device.is_initialized

    async def observe(self) -> None:
        async for observation in self.radio.observations():
            self.observations.append(observation)

    async def until(self, condition: Callable[[], object], seconds: float = 300) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.1)

    def watch(self) -> None:
        """Note every ZDO request from here on."""
        app = self.app
        send = app.send_packet

        async def noted(packet: Any) -> None:
            if packet.profile_id == 0 and not packet.cluster_id & 0x8000:
                broadcast = packet.dst.addr_mode == t.AddrMode.Broadcast
                self.questions.append((self.loop.time(), int(packet.cluster_id), broadcast))
            await send(packet)

        app.send_packet = noted


Scenario = Callable[[World], Coroutine[Any, Any, None]]


@pytest.fixture
def play(journal: Any, images: Any) -> Callable[..., None]:
    def play(scenario: Scenario, specs: tuple[NodeSpec, ...], *forgotten: NodeSpec) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, VirtualLoop)
            world = World(specs, forgotten, loop)
            world.mesh.power_on(loop.time())
            await asyncio.sleep(10)  # what nodes say when they boot, nobody hears
            tasks = [asyncio.create_task(world.radio.run(journal, images)), asyncio.create_task(world.observe())]
            await world.until(lambda: world.radio.status()["link"] == "up")
            try:
                await scenario(world)
            finally:
                for task in tasks:
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task

        run_virtual(main())

    return play


def lists(world: World, router: NodeSpec, *others: NodeSpec) -> None:
    """The router has these beside it."""
    pan = world.app.state.network_info.extended_pan_id.serialize()
    world.node(router).zdo.neighbours[:] = [
        neighbour(pan, other.eui64, world.node(other).nwk, sleepy=other.sleepy) for other in others
    ]


def test_silent_nodes_are_found_in_the_tables_of_coordinator_and_routers(play: Callable[..., None]) -> None:
    specs = (NEAR, replace(NEAR, eui64=EUI64 + 9), FAR, SLEEPER)

    async def scenario(world: World) -> None:
        lists(world, specs[1], specs[1], FAR, specs[0], specs[1], SLEEPER)  # more than a page
        await asyncio.sleep(LOOK_AFTER_S - 5)
        assert not any(world.knows(spec) for spec in (NEAR, FAR, SLEEPER))
        await world.until(lambda: all(world.knows(spec) for spec in (NEAR, FAR, SLEEPER)))
        assert world.radio.status()["nodes_found"] == 3
        await world.until(lambda: {NEAR.id, FAR.id, SLEEPER.id} <= {o.node for o in world.observations if o.joined})

    play(scenario, specs, NEAR, FAR, SLEEPER)


def test_what_is_of_another_network_or_has_left_its_parent_is_not_taken(play: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        router = world.node(NEAR).zdo
        pan = world.app.state.network_info.extended_pan_id.serialize()
        other = neighbour(bytes(8), 0x0123456789, 0x1111, sleepy=False)
        left = bytearray(neighbour(pan, 0x0123456790, 0x1112, sleepy=True))
        left[18] = left[18] & 0x8F | 0x04 << 4  # previous child
        nobody = neighbour(pan, 0xFFFFFFFFFFFFFFFF, 0x1113, sleepy=False)
        router.neighbours[:] = [other, bytes(left), nobody]
        known = len(world.app.devices)
        await asyncio.sleep(LOOK_AFTER_S + 60)
        assert len(world.app.devices) == known
        assert world.radio.status()["nodes_found"] == 0

    play(scenario, (NEAR,))


def test_tables_are_read_once_and_slowly(play: Callable[..., None]) -> None:
    specs = tuple(replace(NEAR, eui64=EUI64 + at) for at in range(12))

    async def scenario(world: World) -> None:
        world.watch()
        await asyncio.sleep(4 * 3600)
        asked = [at for at, cluster, _ in world.questions if cluster == zdo_t.ZDOCmd.Mgmt_Lqi_req]
        assert len(asked) == 4 + len(specs)  # the coordinator's twelve neighbours are four pages
        assert not any(broadcast for _, _, broadcast in world.questions)

    play(scenario, specs)


@pytest.mark.parametrize("spec", [FAR, SLEEPER])
def test_a_node_that_speaks_is_asked_itself_who_it_is(play: Callable[..., None], spec: NodeSpec) -> None:
    async def scenario(world: World) -> None:
        world.watch()
        node = world.node(spec)
        for _ in range(5):
            node.report(0x0000, 0x0007)
            world.mesh.settle(node, world.loop.time())
        await world.until(lambda: world.knows(spec), LOOK_AFTER_S - 10)
        asked = [broadcast for _, cluster, broadcast in world.questions if cluster == zdo_t.ZDOCmd.IEEE_addr_req]
        assert asked == [False]

    play(scenario, (spec,), spec)


class SteppedClock:
    def __init__(self) -> None:
        self.wall = WallTime()
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    async def sleep_until(self, when: float) -> None:
        self.time = max(self.time, when)


def test_questions_to_strangers_are_few() -> None:
    clock = SteppedClock()
    missing = MissingNodes(clock, lambda: None)
    assert missing.may_ask(0x1234)
    assert not missing.may_ask(0x1234)
    assert not any(missing.may_ask(nwk) for nwk in (0x0000, 0xFFF8, 0xFFFE))
    assert sum(missing.may_ask(nwk) for nwk in range(0x2000, 0x3000)) == QUESTIONS_MOST - 1
    clock.time += ASK_AGAIN_AFTER_S
    assert missing.may_ask(0x1234)
