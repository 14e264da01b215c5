"""What nodes brought along from another gateway's hands is found before their firmware changes, and set again after."""

import asyncio
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import zigpy.types as t

from radios.radio import NodeId
from radios.simulated.zigbee.node_spec import NodeSpec
from radios.zigbee.config_keeper import ConfigKeeper
from radios.zigbee.node_config import Binding, ReportedAttribute, ReportTerms
from radios.zigbee.settings import ZigbeeSettings, zigpy_config
from radios.zigbee.survey import FRESH_S, SURVEY_AFTER_S, Surveys
from tests.support.answering_radio import AnsweringRadio
from tests.support.manual_clock import ManualClock
from tests.support.mesh_radio import NEW, MeshRadio, mesh_radio
from tests.support.zigpy_library import COORDINATOR, IEEE

NODE = NodeId("zigbee:00124b0000000101")
SPEC = NodeSpec(0x00124B0000000101, battery_percent=80.0, forgets_configuration=True, reboot_s=1.0)
OTHERS = bytes.fromhex("aa00000000b12400")
MGMT_BIND, POWER, OTA = 0x0033, 0x0001, 0x0019


def moved_in(world: MeshRadio, node: NodeId = NODE) -> tuple[list[bytes], dict[Any, Any]]:
    """Bindings and reporting as another gateway made them; what they are."""
    found = world.node(node)
    own = struct.pack("<QBH", found.spec.eui64, 1, POWER)
    found.zdo.bindings += [
        own + b"\x03" + OTHERS + b"\x01",
        own + b"\x01" + struct.pack("<H", 0x1234),
        struct.pack("<QBH", found.spec.eui64, 1, 0x0006) + b"\x03" + OTHERS + b"\x02",
        struct.pack("<QBH", found.spec.eui64, 1, 0x0000) + b"\x03" + OTHERS + b"\x03",
    ]
    found.zcl.reporting[POWER, 0x0021] = (3600, 7200, b"\x02")
    return held(found)


def held(node: Any) -> tuple[list[bytes], dict[Any, Any]]:
    return sorted(node.zdo.bindings), dict(node.zcl.reporting)


def counts(world: MeshRadio) -> Any:
    return world.radio.status()["configuration"]


@pytest.mark.parametrize("sleepy", [False, True])
async def test_what_was_not_set_through_us_survives_an_update_too(sleepy: bool) -> None:
    async with mesh_radio([replace(SPEC, sleepy=sleepy, poll_s=2.0)]) as world:
        before = moved_in(world)
        node = world.node(NODE)
        await world.update(NODE)
        await world.until(lambda: node.running_version == NEW, "the new version")
        await world.until(lambda: held(node) == before, "the configuration is back")
        await world.until(lambda: counts(world)["due"] == 0, "it is known to be")
        assert (counts(world)["bindings_restored"], counts(world)["reporting_restored"]) == (4, 1)
        assert (counts(world)["found"], counts(world)["surveyed"]) == (5, 1)


async def test_nodes_are_looked_at_by_themselves_once_and_it_is_remembered() -> None:
    sleeper = replace(SPEC, eui64=0x00124B0000000102, sleepy=True, poll_s=2.0)
    async with mesh_radio([SPEC, sleeper], scale=50.0) as world:
        moved_in(world)
        moved_in(world, NodeId(sleeper.id))
        await world.until(lambda: counts(world)["surveyed"] >= 1, "the one that listens")
        world.report(NodeId(sleeper.id), POWER, 0x0021)
        await world.until(lambda: counts(world)["surveyed"] == 2, "the one that sleeps, as it was heard")
        assert (counts(world)["found"], counts(world)["surveys_due"]) == (10, 0)
        journal = world.journal
    async with mesh_radio([SPEC, sleeper], scale=50.0, journal=journal) as world:
        await world.until(lambda: world.radio.status()["link"] == "up", "up")
        assert (counts(world)["found"], counts(world)["surveyed"], counts(world)["surveys_due"]) == (10, 2, 0)


async def test_what_is_unbound_through_us_is_not_set_again() -> None:
    async with mesh_radio([SPEC], scale=50.0) as world:
        moved_in(world)
        await world.until(lambda: counts(world)["surveyed"], "surveyed")
        node = world.node(NODE)
        assert (await world.ask("unbind", NODE, cluster="power", target={"group": 0x1234})).ok
        left = sorted(node.zdo.bindings)
        await world.update(NODE)
        await world.until(lambda: node.running_version == NEW and node.zcl.reporting, "the new version")
        await world.until(lambda: counts(world)["due"] == 0, "compared")
        assert sorted(node.zdo.bindings) == left
        assert len(left) == 3


# -- surveys beside a node whose answers a test makes -----------------------------------------------------------------

FAKE = NodeId("zigbee:00124b0000000001")
TO_US = Binding(1, POWER, "00124b00000000ff", 1)


class Desk:
    def __init__(self, app: Any, settings: ZigbeeSettings) -> None:
        self.app = app
        self.clock = ManualClock()
        self.told: list[NodeId] = []
        self.keeper = ConfigKeeper(self.clock, settings, lambda: app)
        self.surveys = Surveys(self.clock, settings, lambda: app, self.keeper, self.told.append)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.002)

    async def survey(self) -> None:
        """As before an update."""
        told = len(self.told)
        assert not self.surveys.before_update(FAKE)
        await self.until(lambda: len(self.told) > told)


@pytest.fixture
def request_timeout_s() -> float:
    return 15.0


@pytest.fixture
async def desk(journal: Any, request_timeout_s: float) -> Any:
    settings = ZigbeeSettings("fake", request_timeout_s=request_timeout_s)
    library = type(
        "Fake", (AnsweringRadio,), {"instances": [], "refusals": [], "answer": staticmethod(lambda *_: None)}
    )
    app = await library.new(zigpy_config(settings), start_radio=False)
    await app.startup()
    desk = Desk(app, settings)
    await desk.keeper.load(journal)
    app.sent.clear()
    app.priorities.clear()
    running = asyncio.create_task(desk.surveys.run())
    yield desk
    running.cancel()
    await asyncio.wait({running})
    await app.shutdown()


def table(*bindings: tuple[int, bytes]) -> bytes:
    rows = [IEEE.serialize() + struct.pack("<BHB", 1, cluster, 3) + target + b"\x01" for cluster, target in bindings]
    return struct.pack("<BBBB", 0, len(rows), 0, len(rows)) + b"".join(rows)


async def test_everything_goes_with_low_priority_and_only_reporting_of_what_is_bound_is_asked(desk: Desk) -> None:
    def answer(cluster: int, frame: bytes) -> tuple[int, bytes]:
        if cluster == MGMT_BIND:
            return 0, table((POWER, COORDINATOR.serialize()), (OTA, COORDINATOR.serialize()))
        asked = [number for (number,) in struct.iter_unpack("<xH", frame[3:])]
        return 0x09, b"".join(
            struct.pack("<BBHBHHB", 0, 0, number, 0x20, 60, 3600, 2)
            if number == 0x21
            else struct.pack("<BBH", 0x8B, 0, number)
            for number in asked
        )

    type(desk.app).answer = staticmethod(answer)
    await desk.survey()
    config = desk.keeper.wanted(FAKE)
    assert config.bindings == (TO_US, replace(TO_US, cluster=OTA))
    assert config.reporting == {ReportedAttribute(1, POWER, 0x21): ReportTerms(0x20, 60, 3600, 2)}
    assert config.found == {*config.bindings, *config.reporting}
    assert desk.told == [FAKE]
    assert set(desk.app.priorities) == {t.PacketPriority.LOW}
    assert {packet.cluster_id for packet in desk.app.sent} == {MGMT_BIND, POWER}
    assert len(desk.app.sent) <= 4


@pytest.mark.parametrize("request_timeout_s", [0.1])
async def test_bindings_are_kept_of_a_node_that_does_not_tell_its_reporting(desk: Desk) -> None:
    type(desk.app).answer = staticmethod(
        lambda cluster, _: (0, table((POWER, COORDINATOR.serialize()))) if cluster == MGMT_BIND else None
    )
    assert not desk.surveys.before_update(FAKE)
    async with asyncio.timeout(30):
        while not desk.told:
            await desk.clock.move(40)
            await asyncio.sleep(0.01)
    assert desk.surveys.status() == {"surveys_due": 0, "surveys_given_up": 1}
    assert desk.keeper.wanted(FAKE).bindings == (TO_US,)
    assert not desk.keeper.wanted(FAKE).surveyed


async def test_before_an_update_a_node_is_asked_again_unless_it_was_just_asked(desk: Desk) -> None:
    type(desk.app).answer = staticmethod(lambda *_: (0, table()))
    desk.surveys.look(FAKE)
    assert desk.surveys.status()["surveys_due"] == 1
    await desk.clock.move(SURVEY_AFTER_S)
    await desk.until(lambda: desk.told == [FAKE])
    assert desk.keeper.wanted(FAKE).surveyed
    desk.surveys.look(FAKE)
    assert desk.surveys.status()["surveys_due"] == 0
    assert desk.surveys.before_update(FAKE)
    await desk.clock.move(FRESH_S)
    await desk.survey()
    assert desk.surveys.before_update(FAKE)
