"""Downloads that go on after anything, on the mesh as a radio library in this process, in virtual time."""

import asyncio
import contextlib
import struct
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import zigpy.types as t

from radios.radio import Fact, NodeDirective, NodeId, NodeObservation, TransferOrder, Want
from radios.simulated.zigbee import zcl_server
from radios.simulated.zigbee.firmware import build_ota_file
from radios.simulated.zigbee.frames import ApsFrame
from radios.simulated.zigbee.mesh import Mesh
from radios.simulated.zigbee.node import VirtualNode
from radios.simulated.zigbee.node_spec import NodeSpec
from radios.simulated.zigbee.ota_terms import OtaHabits, OtaState, OtaTiming
from radios.simulated.zigbee.virtual_time import LoopClock, VirtualLoop, run_virtual
from radios.simulated.zigbee.zigpy_radio import radio_library
from radios.zigbee.driver import ZigbeeRadio
from radios.zigbee.journal_codec import session_record, session_state
from radios.zigbee.ota_commands import FileId
from radios.zigbee.quirks import Quirk
from radios.zigbee.restored import after_restore
from radios.zigbee.session_state import OtaImage, SessionState, Stage
from radios.zigbee.settings import ZigbeeSettings

OLD, NEW = 0x0001_0000, 0x0002_0000
EUI64 = 0x00124B00_00000100
FILE = build_ota_file(manufacturer=0x1049, image_type=1, version=NEW, size=4000)
TIMING = OtaTiming(think_s=0.2, boot_query_delay_s=(5.0, 8.0), verify_s=1.0, retry_later_s=60.0)
SPEC = NodeSpec(EUI64, timing=TIMING)


@dataclass
class World:
    """A site of one node and the daemon's side of it; `stop` is a crash of the daemon, `start` its next process."""

    mesh: Mesh
    loop: VirtualLoop
    library: Any
    journal: Any
    images: Any
    settings: ZigbeeSettings
    want: Want = Want.INSTALL
    radio: Any = None
    observations: list[NodeObservation] = field(default_factory=list)
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)

    @property
    def node(self) -> VirtualNode:
        return next(iter(self.mesh.nodes.values()))

    @property
    def name(self) -> NodeId:
        return NodeId(self.node.id)

    @property
    def device(self) -> Any:
        return self.mesh.coordinator.devices[t.EUI64(EUI64.to_bytes(8, "little"))]

    @property
    def last(self) -> Fact | None:
        """The newest fact that was committed."""
        return (self.journal.facts(self.name) or [None])[-1]

    async def start(self) -> None:
        self.radio = radio = ZigbeeRadio(self.settings, LoopClock(), self.library)

        async def observe() -> None:
            async for observation in radio.observations():
                self.observations.append(observation)

        self.tasks = [asyncio.create_task(radio.run(self.journal, self.images)), asyncio.create_task(observe())]
        expires = datetime.fromtimestamp(self.loop.time(), UTC) + timedelta(days=30)
        await radio.put(TransferOrder("t1", self.images.add(FILE, NEW), 0, 1.0, expires))
        await self.direct(self.want)

    async def direct(self, want: Want, generation: int = 1) -> None:
        await self.radio.direct([NodeDirective("t1", self.name, generation, want)])

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def until(self, condition: Callable[[], object], seconds: float = 600) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.1)

    async def half_way(self) -> None:
        await self.until(lambda: len(self.node.ota.staged) > 1500)

    async def done(self, seconds: float = 600) -> None:
        await self.until(lambda: self.last is Fact.RUNNING, seconds)
        assert self.journal.events[-1].version == self.node.running_version == NEW
        assert self.node.running_image == FILE
        assert self.node.counters.downloads_thrown_away == 0

    def reports(self) -> None:
        """A sleeping node reports its battery, and is awake for a moment after it, as nodes are."""
        self.node.polls.fast_until = self.loop.time() + 5
        self.node.report(0x0001, 0x0021)
        self.mesh.settle(self.node, self.loop.time())

    def went_on(self) -> None:
        """Nothing was asked for twice, but for what was in the air."""
        assert self.node.counters.downloads_started_at_zero == 1
        assert self.node.counters.bytes_received_twice <= 50


@pytest.fixture
def play(journal: Any, images: Any) -> Callable[..., None]:
    def play(
        scenario: Callable[[World], Coroutine[Any, Any, None]],
        spec: NodeSpec = SPEC,
        *,
        want: Want = Want.INSTALL,
        quirks: tuple[Quirk, ...] = (),
    ) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, VirtualLoop)
            mesh = Mesh([spec])
            loop.attach(mesh)
            library = radio_library(mesh, loop.time, interviewed=True)
            settings = ZigbeeSettings("simulated", quirks=quirks)
            world = World(mesh, loop, library, journal, images, settings, want)
            mesh.power_on(loop.time())
            await world.start()
            try:
                await scenario(world)
            finally:
                await world.stop()

        run_virtual(main())

    return play


@pytest.mark.parametrize("page_size", [None, 512])
def test_a_whole_update(play: Callable[..., None], page_size: int | None) -> None:
    async def scenario(world: World) -> None:
        await world.done()
        world.went_on()

    play(scenario, replace(SPEC, habits=OtaHabits(page_size=page_size)))


def test_a_node_that_reboots_in_mid_download_goes_on(play: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        await world.half_way()
        world.mesh.reboot(world.node, world.loop.time())
        await world.done()
        world.went_on()

    play(scenario)


def test_a_node_under_a_new_short_address_goes_on(play: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        await world.half_way()
        world.mesh.readdress(world.node, 0x4321, world.loop.time())
        await world.done()
        world.went_on()
        assert world.device.nwk == 0x4321

    play(scenario)


def test_a_node_that_zigpy_interviews_again_goes_on(play: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        await world.half_way()
        before = world.device
        await before.reinterview()
        assert world.device is not before
        await world.done()
        world.went_on()

    play(scenario)


def test_a_dongle_that_is_unplugged_and_back(play: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        await world.half_way()
        world.mesh.coordinator.lose_connection()
        await world.done()
        world.went_on()

    play(scenario)


@pytest.mark.parametrize("away_s", [1.0, 300.0])
def test_a_daemon_that_was_away(play: Callable[..., None], away_s: float) -> None:
    async def scenario(world: World) -> None:
        await world.half_way()
        await world.stop()
        await asyncio.sleep(away_s)
        await world.start()
        await world.done()
        world.went_on()

    play(scenario)


def test_a_download_that_the_node_lost_while_the_daemon_was_away_is_offered_at_once(play: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        await world.half_way()
        await world.stop()
        world.node.ota.download.forget()
        world.node.ota.state = OtaState.IDLE
        world.node.ota.start(world.loop.time(), OLD)
        world.node.ota._later(
            world.loop.time() + 1e6, world.node.ota._query, OtaState.IDLE
        )  # asks by itself much later
        await world.start()
        await world.done(60)

    play(scenario)


def test_an_image_that_the_node_completed_while_the_daemon_was_away_is_ready_by_what_it_says(
    play: Callable[..., None],
) -> None:
    async def scenario(world: World) -> None:
        await world.half_way()
        await world.stop()
        world.node.ota.download.staged += FILE[len(world.node.ota.staged) :]
        world.node.ota._later(world.loop.time() + 1e6, world.node.ota._ask_to_upgrade, OtaState.HOLDING)
        await world.start()
        await world.done(60)
        assert Fact.READY in world.journal.facts(world.name)

    play(scenario)


def test_a_held_image_is_started_after_a_restart(play: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        await world.until(lambda: Fact.READY in world.journal.facts(world.name))
        await asyncio.sleep(2 * 3600)  # it asks again every hour
        assert world.node.ota.state is OtaState.HOLDING
        await world.stop()
        await world.start()
        await asyncio.sleep(60)
        assert world.node.running_version == OLD
        await world.direct(Want.INSTALL, 2)
        await world.done(60)

    play(scenario, want=Want.DELIVER)


def test_a_rollback_is_told_as_the_old_version(play: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        await world.until(lambda: world.last is Fact.RUNNING and world.journal.events[-1].version == OLD)

    play(scenario, replace(SPEC, self_test_fails=True))


def test_a_rollback_while_the_daemon_was_away_is_seen_at_once(play: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        await world.until(lambda: Fact.INSTALLING in world.journal.facts(world.name))
        await world.stop()
        await asyncio.sleep(60)
        await world.start()
        await world.until(lambda: world.last is Fact.RUNNING, 60)
        assert world.journal.events[-1].version == OLD

    play(scenario, replace(SPEC, self_test_fails=True))


def test_a_second_mcu_that_takes_twenty_minutes_is_no_rollback(play: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        await world.until(lambda: Fact.INSTALLING in world.journal.facts(world.name))
        await world.done(2000)
        facts = world.journal.facts(world.name)
        assert facts.count(Fact.RUNNING) == 1

    play(scenario, replace(SPEC, reboot_s=1200.0))


def test_a_node_that_does_not_come_back_is_lost_until_it_does(play: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        await world.until(lambda: Fact.FAILED in world.journal.facts(world.name), 4000)
        assert world.journal.events[-1].code == "lost"
        await world.done(2000)

    play(scenario, replace(SPEC, reboot_s=4000.0))


def test_quirks_of_a_model_reach_its_session(play: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        await world.done()
        assert world.node.counters.blocks_received >= len(FILE) // 20

    play(scenario, quirks=(Quirk(model="SIM-*", max_block_bytes=20), Quirk(model="OTHER", max_block_bytes=1)))


def test_a_sleepy_node_with_poll_control_is_served_at_its_check_in(play: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        begun = world.loop.time()
        await world.until(lambda: world.node.running_version == NEW, 3 * 86400)
        await world.until(lambda: world.last is Fact.RUNNING, 86400)
        polls = world.node.polls
        assert polls.check_ins == len(polls.answers), "one answer to each"
        starts = [seconds for start, seconds in polls.answers if start]
        assert starts
        assert all(30 < seconds <= 600 for seconds in starts)
        assert world.loop.time() - begun < 2 * 86400

    sleepy = replace(TIMING, boot_query_delay_s=(1e6, 1e6))
    play(scenario, replace(SPEC, sleepy=True, battery_percent=80.0, poll_s=1800.0, check_in_s=7200.0, timing=sleepy))


def test_a_sleepy_node_that_checks_in_with_nobody_yet_is_bound_to_us(play: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        assert world.node.zdo.bindings == []  # as another coordinator let it in, that wanted no check-ins
        await world.until(lambda: world.node.polls.check_ins > 0, 2 * 3600)
        (entry,) = bound = list(world.node.zdo.bindings)
        assert entry[8:12] == b"\x01\x20\x00\x03"  # endpoint, Poll Control, to a node by EUI64
        assert entry[12:20] == world.mesh.coordinator.state.node_info.ieee.serialize()
        await world.until(lambda: world.last is Fact.RUNNING, 86400)
        await world.stop()
        world.node.zdo.bindings.clear()  # a firmware that forgets
        await world.start()
        world.node.announce()
        world.mesh.settle(world.node, world.loop.time())
        await asyncio.sleep(1)
        world.reports()
        await world.until(lambda: world.node.zdo.bindings == bound, 86400)

    quiet = replace(TIMING, boot_query_delay_s=(1e6, 1e6))
    spec = replace(SPEC, sleepy=True, battery_percent=80.0, poll_s=5.0, check_in_s=3600.0, timing=quiet)
    play(scenario, replace(spec, checks_in_unbound=False))


def test_fast_polling_is_stopped_when_the_download_is_over(play: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        await world.until(lambda: Fact.READY in world.journal.facts(world.name), 86400)
        await asyncio.sleep(30)
        assert world.node.polls.stops == 1
        assert not world.node.polls.polls_fast(world.loop.time())
        answered = len(world.node.polls.answers)
        await asyncio.sleep(7200)
        assert not any(start for start, _ in world.node.polls.answers[answered:])  # nothing is wanted any more

    sleepy = replace(TIMING, boot_query_delay_s=(1e6, 1e6))
    spec = replace(SPEC, sleepy=True, battery_percent=80.0, poll_s=1800.0, check_in_s=3600.0, timing=sleepy)
    play(scenario, spec, want=Want.DELIVER)


def test_a_sleepy_node_without_poll_control_starts_on_any_frame(play: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        await asyncio.sleep(3 * 86400)
        assert world.node.running_version == OLD, "frames expire at its parent while it sleeps"
        world.reports()
        await world.until(lambda: world.node.running_version == NEW)
        await asyncio.sleep(3600)
        world.reports()
        await world.done(60)

    deaf = replace(TIMING, boot_query_delay_s=(1e7, 1e7))
    play(scenario, replace(SPEC, sleepy=True, battery_percent=80.0, poll_s=1e7, timing=deaf))


def test_battery_and_power_source_are_what_the_node_says(play: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        await world.until(lambda: any(o.battery_percent is not None for o in world.observations))
        assert {o.battery_percent for o in world.observations} - {None} == {41.5}
        assert {str(o.power) for o in world.observations if o.power} == {"battery"}

    play(scenario, replace(SPEC, battery_percent=41.5, battery_drain_percent_per_kb=0.0))


def test_what_is_said_of_another_image_of_the_node_is_not_said_of_the_node(play: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        await world.half_way()
        query = bytes((1, 99, 1, 0)) + struct.pack("<HHL", 0x1049, 9, 7)
        world.mesh.coordinator.frame_received(world.node, ApsFrame(0x0104, 0x0019, 1, 1, query))
        await world.done()
        world.went_on()
        assert {o.hardware for o in world.observations} - {None} == {"zigbee:1049-0001"}
        assert {o.version for o in world.observations} - {None} == {OLD, NEW}

    play(scenario)


def test_a_counted_reset_proves_a_reboot_that_was_not_announced(play: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        await world.stop()
        image = OtaImage(world.images.add(FILE, NEW), FileId(0x1049, 1, NEW))
        state = SessionState(world.name, "t1", 1, Want.INSTALL, None, image, Stage.INSTALLING, len(FILE))
        await world.journal.commit([session_record(state)], [])
        resets = [7]
        world.node.zcl.clusters[0x0B05] = {0x0000: zcl_server.Attribute(zcl_server.U16, lambda: resets[0])}
        world.node.zdo.more_inputs = (0x0B05,)
        await world.start()
        await asyncio.sleep(120)
        assert world.last is not Fact.RUNNING  # it was told, and may still verify
        resets[0] += 1
        world.mesh.coordinator.lose_connection()
        await world.until(lambda: world.last is Fact.RUNNING, 60)
        assert world.journal.events[-1].version == OLD

    quiet = replace(TIMING, boot_query_delay_s=(1e6, 1e6))
    play(scenario, replace(SPEC, timing=quiet, habits=OtaHabits(absent_attributes=frozenset({6}))), want=Want.INSTALL)


@pytest.mark.parametrize("absent", [(), (1, 4, 6, 7)])  # a client that tells nothing of its download
def test_a_node_that_began_after_the_backup_does_not_begin_again(
    play: Callable[..., None], absent: tuple[int, ...]
) -> None:
    async def scenario(world: World) -> None:
        await world.until(lambda: world.journal.records)
        backup = dict(world.journal.records)
        (key,) = [key for key in backup if key == ("node", world.name.partition(":")[2])]
        backup[key] = session_record(replace(session_state(backup[key]), stage=Stage.OFFERED, confirmed=0))
        await world.until(lambda: len(world.node.ota.staged) > 200, 3600)
        await world.stop()
        world.journal.records = backup | {(r.scope, r.key): r for r in after_restore(list(backup.values()), None)}
        del world.journal.records["network", "replacement"]  # as an empty value does
        await world.start()
        await world.done(7200)
        world.went_on()

    slow = replace(TIMING, think_s=20.0)  # not heard before it could be notified
    play(scenario, replace(SPEC, timing=slow, habits=OtaHabits(absent_attributes=frozenset(absent))))
