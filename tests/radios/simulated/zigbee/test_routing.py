"""Routers that are nodes: who relays, what breaks when one dies, how another way is found, and what the host learns."""

import asyncio

import pytest
import zigpy.types as t
from bellows.zigbee.application import ControllerApplication

from radios.clock import SystemClock
from radios.simulated.zigbee.channel import Channel
from radios.simulated.zigbee.frames import ApsFrame
from radios.simulated.zigbee.mesh import Mesh
from radios.simulated.zigbee.node import VirtualNode
from radios.simulated.zigbee.node_spec import NodeSpec
from radios.simulated.zigbee.ota_terms import OtaTiming
from radios.simulated.zigbee.routing import COORDINATOR
from radios.simulated.zigbee.site import ZigbeeSite

QUIET = OtaTiming(boot_query_delay_s=(1e6, 1e6))
NEAR, OTHER, FAR = (NodeSpec(eui64=n, timing=QUIET, nwk=0x1000 + n, reboot_s=60.0) for n in (1, 2, 3))
NEIGHBOURS = {1: (COORDINATOR,), 2: (COORDINATOR,), 3: (1, 2)}


class World:
    """A mesh and its time; what the coordinator was told of routes."""

    def __init__(self, *specs: NodeSpec, channel: Channel | None = None) -> None:
        self.now = 0.0
        self.mesh = Mesh(specs, channel=channel, neighbours=NEIGHBOURS)
        self.routes: list[tuple[int, tuple[int, ...]]] = []
        self.mesh.route_recorded = lambda node, relays: self.routes.append((node.nwk, relays))
        self.mesh.power_on(0.0)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while (deadline := self.mesh.next_deadline()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.mesh.handle_timeout(self.now)
        self.now = end

    def node(self, spec: NodeSpec) -> VirtualNode:
        return self.mesh.nodes[spec.id]

    def sent(self, spec: NodeSpec, *, acknowledged: bool = True) -> bool:
        """Whether a frame to the node gets through."""
        outcome: list[bool] = []
        frame = ApsFrame(0x0104, 0x0019, 1, 1, b"\x19\x01\x0b\x00\x00", 1)
        self.mesh.unicast(self.node(spec).nwk, frame, self.now, acknowledged=acknowledged, done=outcome.append)
        self.run(10.0)
        (through,) = outcome
        return through


@pytest.mark.parametrize("on_air", [False, True])
def test_a_node_finds_another_way_when_its_router_dies(on_air: bool) -> None:
    world = World(NEAR, OTHER, FAR, channel=Channel(1) if on_air else None)
    assert world.sent(FAR)
    assert world.routes[-1:] in ([], [(FAR.nwk, (NEAR.nwk,))])
    world.mesh.reboot(world.node(NEAR), world.now)
    assert not world.sent(FAR, acknowledged=False), "the first frame meets a dead router"
    assert world.sent(FAR)
    world.mesh.uplink(world.node(FAR), ApsFrame(0x0104, 0, 1, 1, b"\x18\x01\x0a", 1), world.now)
    world.run(1.0)
    assert world.routes[-1] == (FAR.nwk, (OTHER.nwk,))
    assert world.mesh.routing is not None
    assert world.mesh.routing.discoveries == 1


def test_without_another_way_it_is_out_of_reach_until_the_router_is_back() -> None:
    world = World(NEAR, OTHER, FAR)
    for router in (NEAR, OTHER):
        world.mesh.reboot(world.node(router), world.now)
    assert not world.sent(FAR)
    world.run(60.0)
    assert world.sent(FAR)


def test_an_end_device_takes_longer_to_leave_its_parent() -> None:
    child = NodeSpec(eui64=3, timing=QUIET, sleepy=True, poll_s=0.5, nwk=0x1003)
    world = World(NEAR, OTHER, child)
    assert world.sent(child)
    world.mesh.reboot(world.node(NEAR), world.now)
    assert not world.sent(child, acknowledged=False)
    assert world.sent(child)


def test_relays_share_the_channel_as_themselves() -> None:
    world = World(NEAR, OTHER, FAR, channel=Channel(1))
    assert world.sent(FAR)
    channel = world.mesh.channel
    assert channel is not None
    assert channel.transmissions >= 4, "two hops there, and two back"


def air_of_a_search(spec: NodeSpec) -> int:
    """Transmissions while a node whose router died looks for another way, and nothing else is sent."""
    world = World(NEAR, OTHER, spec, channel=Channel(1))
    channel = world.mesh.channel
    assert channel is not None
    assert world.sent(spec)
    world.mesh.reboot(world.node(NEAR), world.now)
    before = channel.transmissions
    assert not world.sent(spec, acknowledged=False)
    assert world.mesh.routing is not None
    assert world.mesh.routing.discoveries == 1
    return channel.transmissions - before


def test_the_search_for_another_way_takes_its_air() -> None:
    # The node asks, the coordinator and the router that is left repeat it; the reply comes over two hops.
    assert air_of_a_search(FAR) == 1 + 2 + 2


def test_so_does_an_end_devices_search_for_a_parent() -> None:
    child = NodeSpec(eui64=3, timing=QUIET, sleepy=True, poll_s=1000.0, nwk=0x1003)
    channel = Channel(1)
    world = World(NEAR, OTHER, child, channel=channel)
    world.mesh.reboot(world.node(NEAR), world.now)
    world.run(1.0)
    before = channel.transmissions
    world.mesh.uplink(world.node(child), ApsFrame(0x0104, 0, 1, 1, b"\x18\x01\x0a", 1), world.now)
    world.run(10.0)
    # A beacon request, a beacon of the router that is left, and the rejoin both ways.
    assert channel.transmissions - before == 1 + 1 + 2


def test_so_does_the_question_for_a_node_that_is_not_there() -> None:
    channel = Channel(1)
    world = World(NEAR, OTHER, FAR, channel=channel)
    outcome: list[bool] = []
    frame = ApsFrame(0x0104, 0x0019, 1, 1, b"\x19\x01\x0b\x00\x00", 1)
    world.mesh.unicast(0x4444, frame, world.now, acknowledged=False, done=outcome.append)
    world.run(2.0)
    assert outcome == [False]
    assert channel.transmissions == 1 + 3, "the coordinator's, repeated by every router"


async def test_bellows_learns_of_the_relays() -> None:
    async with ZigbeeSite([NEAR, OTHER, FAR], SystemClock(), neighbours=NEIGHBOURS) as site:
        app = ControllerApplication(
            {"device": {"path": site.url}, "use_thread": False, "backup_enabled": False, "watchdog_enabled": False}
        )
        await app.startup(auto_form=False)
        try:
            device = app.add_device(t.EUI64((3).to_bytes(8, "little")), t.NWK(0x1003))
            site.report(FAR.id, 0x0000, 0x0005)
            async with asyncio.timeout(20):
                while device.relays != [0x1001]:
                    await asyncio.sleep(0.01)
        finally:
            await app.shutdown()
