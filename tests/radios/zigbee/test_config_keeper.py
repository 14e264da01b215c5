"""Bindings and reporting over an update: set again where the new firmware lost them, and only there."""

import asyncio
import contextlib
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import zigpy.exceptions
import zigpy.types as t

from radios.clock import SystemClock
from radios.radio import NodeId
from radios.simulated.zigbee.node_spec import NodeSpec
from radios.zigbee.config_keeper import ConfigKeeper
from radios.zigbee.node_config import Binding, NodeConfig, ReportedAttribute, ReportTerms
from radios.zigbee.nodes import eui64
from radios.zigbee.settings import ZigbeeSettings, zigpy_config
from tests.support.answering_radio import AnsweringRadio
from tests.support.manual_clock import ManualClock
from tests.support.mesh_radio import NEW, MeshRadio, mesh_radio

NODE = NodeId("zigbee:00124b0000000101")
SPEC = NodeSpec(0x00124B0000000101, battery_percent=80.0, forgets_configuration=True, reboot_s=1.0)
TERMS: Any = {"battery_percentage_remaining": {"min_s": 60, "max_s": 3600, "change": 2}}


async def configure(world: MeshRadio) -> None:
    bound = await world.ask("bind", NODE, cluster="power")
    assert bound.ok, bound.detail
    configured = await world.ask("configure_reporting", NODE, cluster="power", attributes=TERMS)
    assert configured.ok, configured.detail


def counts(world: MeshRadio) -> Any:
    return world.radio.status()["configuration"]


@pytest.mark.parametrize("sleepy", [False, True])
async def test_what_a_new_firmware_lost_is_set_again(sleepy: bool) -> None:
    async with mesh_radio([replace(SPEC, sleepy=sleepy, poll_s=2.0)]) as world:
        await configure(world)
        node = world.node(NODE)
        before = (list(node.zdo.bindings), dict(node.zcl.reporting))
        assert all(before)
        await world.update(NODE)
        await world.until(lambda: node.running_version == NEW, "the new version")
        await world.until(lambda: (node.zdo.bindings, node.zcl.reporting) == before, "the configuration is back")
        await world.until(lambda: counts(world)["due"] == 0, "it is known to be")
        assert counts(world)["bindings_restored"] == counts(world)["reporting_restored"] == 1


async def test_what_a_new_firmware_lost_of_a_type_without_amounts_is_set_again() -> None:
    async with mesh_radio([SPEC]) as world:
        terms: Any = {"power_source": {"min_s": 1, "max_s": 300}}
        configured = await world.ask("configure_reporting", NODE, cluster="basic", attributes=terms)
        assert configured.ok, configured.detail
        node = world.node(NODE)
        before = dict(node.zcl.reporting)
        await world.update(NODE)
        await world.until(lambda: node.running_version == NEW, "the new version")
        await world.until(lambda: counts(world)["compared"] and not counts(world)["due"], "compared")
        assert node.zcl.reporting == before
        assert counts(world)["reporting_restored"] == 1


async def test_what_a_new_firmware_kept_is_left_alone() -> None:
    async with mesh_radio([replace(SPEC, forgets_configuration=False)]) as world:
        await configure(world)
        await world.update(NODE)
        await world.until(lambda: world.node(NODE).running_version == NEW, "the new version")
        await world.until(lambda: counts(world)["compared"] and not counts(world)["due"], "compared")
        assert counts(world)["bindings_restored"] == counts(world)["reporting_restored"] == 0


async def test_it_is_done_when_a_node_that_was_away_is_heard() -> None:
    async with mesh_radio([SPEC]) as world:
        await configure(world)
        node = world.node(NODE)
        node.zdo.bindings.clear()
        world.library.faults.undelivered = 1000
        world.mesh.reboot(node, world.clock.now())
        await world.until(lambda: counts(world)["unanswered"], "a vain attempt")
        assert counts(world)["due"] == 1
        await world.until(lambda: node.listens, "up again")
        world.library.faults.undelivered = 0

        def heard() -> bool:
            world.report(NODE, 0x0001, 0x0021)
            return bool(node.zdo.bindings)

        await world.until(heard, "bound again")


async def test_it_is_done_after_a_restart_of_the_daemon() -> None:
    async with mesh_radio([SPEC]) as world:
        await configure(world)
        journal = world.journal
        world.library.faults.undelivered = 1000
        world.mesh.reboot(world.node(NODE), world.clock.now())
        await world.until(lambda: counts(world)["unanswered"], "a vain attempt")
    async with mesh_radio([SPEC], journal=journal) as world:
        node = world.node(NODE)
        await world.until(lambda: node.zdo.bindings and node.zcl.reporting, "set on the node that has nothing")


async def test_attempts_back_off_and_come_at_once_when_the_node_is_heard(journal: Any) -> None:
    async def unreachable(_start: int) -> None:
        raise zigpy.exceptions.DeliveryError("not acknowledged")

    clock = ManualClock()
    descriptor, zdo = SimpleNamespace(is_receiver_on_when_idle=True), SimpleNamespace(Mgmt_Bind_req=unreachable)
    device = SimpleNamespace(node_desc=descriptor, zdo=zdo)
    app = SimpleNamespace(devices={eui64(NODE): device}, request_priority=contextlib.nullcontext)
    keeper = ConfigKeeper(clock, ZigbeeSettings("none"), lambda: app)
    await keeper.load(journal)
    await keeper.keep(NODE, NodeConfig((Binding(1, 1, "00124b00000000ff", 1),)))
    running = asyncio.create_task(keeper.run())

    async def attempts_after(seconds: float) -> Any:
        await clock.move(seconds)
        return keeper.status()["unanswered"]

    keeper.check(NODE)
    assert await attempts_after(0) == 1
    assert await attempts_after(9) == 1
    assert await attempts_after(2) == 2
    keeper.heard(NODE)
    assert await attempts_after(0) == 2, "not with every frame"
    assert await attempts_after(6) == 2
    keeper.heard(NODE)
    assert await attempts_after(0) == 3, "before its time has come"
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_it_goes_behind_all_else(journal: Any) -> None:
    library = type("Fake", (AnsweringRadio,), {"instances": [], "refusals": [], "answer": staticmethod(answer)})
    settings = ZigbeeSettings("fake")
    app = await library.new(zigpy_config(settings), start_radio=False)
    await app.startup()
    keeper = ConfigKeeper(SystemClock(), settings, lambda: app)
    await keeper.load(journal)
    node = NodeId("zigbee:00124b0000000001")
    reported = {ReportedAttribute(1, 1, 0x21): ReportTerms(0x20, 60, 3600, 2)}
    await keeper.keep(node, NodeConfig((Binding(1, 1, "00124b00000000ff", 1),), reported))
    app.sent.clear()
    app.priorities.clear()
    running = asyncio.create_task(keeper.run())
    keeper.check(node)
    async with asyncio.timeout(30):
        while not keeper.status()["compared"]:
            await asyncio.sleep(0.002)
    assert [packet.cluster_id for packet in app.sent] == [0x0033, 0x0001, 0x0021, 0x0001], "read and set, of both"
    assert set(app.priorities) == {t.PacketPriority.LOW}
    running.cancel()
    await asyncio.wait({running})
    await app.shutdown()


def answer(cluster: int, frame: bytes) -> tuple[int, bytes] | None:
    """A node that has nothing, and takes all."""
    if cluster == 0x0033:
        return 0, bytes(4)
    if cluster == 0x0021:
        return 0, b"\0"
    if cluster != 0x0001:
        return None
    return (0x09, b"\x8b\0\x21\0") if frame[2] == 0x08 else (0x07, b"\0")


async def test_another_version_is_an_occasion(journal: Any) -> None:
    keeper = ConfigKeeper(ManualClock(), ZigbeeSettings("none"), lambda: None)
    await keeper.load(journal)
    keeper.version_seen(NODE, 1)
    await keeper.keep(NODE, NodeConfig((Binding(1, 1, "00124b00000000ff", 1),)))
    keeper.version_seen(NODE, 1)
    assert keeper.status()["due"] == 0
    after_a_restart = ConfigKeeper(ManualClock(), ZigbeeSettings("none"), lambda: None)
    await after_a_restart.load(journal)
    after_a_restart.version_seen(NODE, 2)
    assert after_a_restart.status()["due"] == 1


async def test_a_removed_node_leaves_nothing_behind() -> None:
    async with mesh_radio([SPEC]) as world:
        await configure(world)
        assert world.journal.records
        assert (await world.ask("remove", NODE)).ok
        await world.until(lambda: counts(world)["nodes"] == 0, "forgotten")
        assert not any(key.startswith("config/") for _, key in world.journal.records)
