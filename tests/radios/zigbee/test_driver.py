"""The driver on zigpy with a radio library in this process: what is tapped, what passes through, what is committed first."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import zigpy.types as t

from radios.clock import SystemClock
from radios.errors import ContractError
from radios.radio import Fact, NodeCommand, NodeDirective, NodeId, NodeObservation, Power, TransferOrder, Want
from radios.simulated.zigbee.firmware import build_ota_file
from radios.zigbee import packets
from radios.zigbee.driver import ZigbeeRadio
from radios.zigbee.session_state import SessionLimits
from radios.zigbee.settings import ZigbeeSettings
from tests.support.zigpy_library import IEEE, NWK, FakeRadio, add_node

NODE = NodeId("zigbee:00124b0000000001")
OLD, NEW = 0x00010000, 0x00020000
IMAGE = build_ota_file(manufacturer=0x1049, image_type=1, version=NEW, size=900)


@dataclass
class Bench:
    radio: ZigbeeRadio
    library: type[FakeRadio]
    journal: Any
    images: Any
    order: TransferOrder
    observations: list[NodeObservation]

    @property
    def app(self) -> FakeRadio:
        return self.library.instances[-1]

    async def until(self, condition: Callable[[], object], what: str) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.002)

    async def up(self) -> None:
        await self.until(lambda: self.radio.status()["link"] == "up", "link up")

    async def direct(self, want: Want, generation: int = 1) -> None:
        await self.radio.put(self.order)
        await self.radio.direct([NodeDirective("t1", NODE, generation, want)])

    def receive(self, frame: bytes, cluster: int = 0x0019, nwk: int = NWK, profile: int = 0x0104) -> None:
        self.app.packet_received(packet(frame, cluster, nwk, profile))

    def ota(self) -> list[bytes]:
        """OTA cluster commands that went out, without attribute reads."""
        frames = [packet.data.serialize() for packet in self.app.sent if packet.cluster_id == 0x0019]
        return [frame for frame in frames if frame[0] & 1 or frame[2] == 0x0B]

    async def answered(self, frame: bytes) -> bytes:
        """The answer to a frame, by its sequence number."""
        self.receive(frame)
        await self.until(lambda: any(sent[1] == frame[1] and sent[2] != 0 for sent in self.ota()), "answer")
        return next(sent for sent in reversed(self.ota()) if sent[1] == frame[1] and sent[2] != 0)


def packet(frame: bytes, cluster: int = 0x0019, nwk: int = NWK, profile: int = 0x0104) -> t.ZigbeePacket:
    """From a node to us."""
    return t.ZigbeePacket(
        src=t.AddrModeAddress(addr_mode=t.AddrMode.NWK, address=t.NWK(nwk)),
        src_ep=0 if profile == 0 else 1,
        dst=t.AddrModeAddress(addr_mode=t.AddrMode.NWK, address=t.NWK(0)),
        dst_ep=0 if profile == 0 else 1,
        tsn=frame[1],
        profile_id=profile,
        cluster_id=cluster,
        data=t.SerializableBytes(frame),
        lqi=111,
        rssi=-70,
    )


class EagerRadio(FakeRadio):
    """Nodes ask while zigpy still starts."""

    answered_meanwhile: tuple[bytes, ...] = ()

    async def start_network(self) -> None:
        await super().start_network()
        self.packet_received(packet(block(77, 500)))
        async with asyncio.timeout(10):
            while not self.sent:
                await asyncio.sleep(0.002)
        self.answered_meanwhile = tuple(sent.data.serialize() for sent in self.sent)


Make = Callable[..., Awaitable[Bench]]


def query(tsn: int, version: int = OLD) -> bytes:
    return bytes((1, tsn, 1, 0)) + struct.pack("<HHL", 0x1049, 1, version)


def block(tsn: int, offset: int) -> bytes:
    return bytes((1, tsn, 3, 0)) + struct.pack("<HHLLB", 0x1049, 1, NEW, offset, 64)


def end(tsn: int) -> bytes:
    return bytes((1, tsn, 6, 0)) + struct.pack("<HHL", 0x1049, 1, NEW)


@pytest.fixture
async def make(journal: Any, images: Any) -> AsyncIterator[Make]:
    tasks: list[asyncio.Task[None]] = []

    async def make(prepare_s: float = 0.0, base: type[FakeRadio] = FakeRadio, **limits: Any) -> Bench:
        library = type("Fake", (base,), {"instances": [], "refusals": []})
        # Nodes that only a test speaks for do not say what they are bound to: no install waits for that here.
        settings = ZigbeeSettings(
            "fake", max_reconnect_wait_s=0.01, limits=SessionLimits(prepare_s=prepare_s, **limits)
        )
        radio = ZigbeeRadio(settings, SystemClock(), library)
        order = TransferOrder("t1", images.add(IMAGE, NEW), 0, 1.0, datetime.now(UTC) + timedelta(days=1))
        bench = Bench(radio, library, journal, images, order, [])

        async def observe() -> None:
            async for observation in radio.observations():
                bench.observations.append(observation)

        tasks.append(asyncio.create_task(radio.run(journal, images)))
        tasks.append(asyncio.create_task(observe()))
        return bench

    yield make
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def bench(make: Make) -> Bench:
    bench = await make()
    await bench.up()
    return bench


async def test_whole_update(bench: Bench) -> None:
    await bench.direct(Want.INSTALL)
    await bench.until(lambda: bytes((0, 100)) in [frame[3:] for frame in bench.ota() if frame[2] == 0], "notify")
    offered = await bench.answered(query(1))
    assert offered[2:] == bytes((2, 0)) + struct.pack("<HHLL", 0x1049, 1, NEW, len(IMAGE))
    got = b""
    while len(got) < len(IMAGE):
        answer = await bench.answered(block(2 + len(got) // 50, len(got)))
        assert answer[:1] == b"\x19"
        got += answer[17:]
    assert got == IMAGE
    answer = await bench.answered(end(100))
    assert answer[2:] == b"\x07" + struct.pack("<HHLLL", 0x1049, 1, NEW, 0, 0)
    bench.receive(query(101, NEW))
    await bench.until(lambda: bench.journal.facts(NODE)[-1] is Fact.RUNNING, "running")
    assert bench.journal.facts(NODE) == [Fact.PREPARING, Fact.COMPLETE, Fact.READY, Fact.INSTALLING, Fact.RUNNING]
    assert bench.journal.events[-1].version == NEW
    assert bench.radio.status()["sessions"] == {"running": 1}


async def test_no_install_frame_when_the_commit_fails(bench: Bench) -> None:
    await bench.direct(Want.INSTALL)
    await bench.until(lambda: bench.journal.facts(NODE), "preparing")
    bench.journal.broken = True
    bench.receive(end(9))
    await bench.until(lambda: bench.journal.refused, "commit refused")
    assert not [frame for frame in bench.ota() if frame[2] == 7]
    bench.journal.broken = False
    await bench.until(lambda: [frame for frame in bench.ota() if frame[2] == 7], "install")
    assert bench.journal.facts(NODE)[-1] is Fact.INSTALLING


async def test_a_node_is_asked_what_it_may_lose_before_it_installs(make: Make) -> None:
    bench = await make(prepare_s=1000.0)
    await bench.up()
    await bench.direct(Want.INSTALL)
    held = await bench.answered(end(9))
    assert held[2:] == b"\x07" + struct.pack("<HHLLL", 0x1049, 1, NEW, 0, 0xFFFFFFFF)
    await bench.until(lambda: any(p.cluster_id == 0x0033 for p in bench.app.sent), "its bindings are asked for")
    asked = next(p for p in bench.app.sent if p.cluster_id == 0x0033).data.serialize()
    bench.receive(asked[:1] + b"\0\0\0\0", cluster=0x8033, profile=0)
    await bench.until(lambda: bench.ota()[-1][2] == 7 and bench.ota()[-1][-4:] == bytes(4), "install")
    assert bench.journal.facts(NODE)[-1] is Fact.INSTALLING


async def test_blocks_go_behind_all_else(bench: Bench) -> None:
    await bench.direct(Want.DELIVER)
    bench.app.sent.clear()
    bench.app.priorities.clear()
    await bench.answered(query(1))
    await bench.answered(block(2, 0))
    ota = [p for packet, p in zip(bench.app.sent, bench.app.priorities, strict=True) if packet.data.serialize()[0] & 1]
    assert ota
    assert set(ota) == {t.PacketPriority.LOW}


async def test_repeated_bytes_are_answered_and_not_filtered(bench: Bench) -> None:
    await bench.direct(Want.DELIVER)
    for count in range(1, 4):
        bench.receive(block(7, 50))
        await bench.until(lambda: [f[1] for f in bench.ota() if f[2] == 5].count(7) == count, "repeat")  # noqa: B023


async def test_tapped_frames_still_tell_that_the_node_was_heard(bench: Bench) -> None:
    device = bench.app.devices[IEEE]
    device.last_seen, device.lqi, device.rssi = None, None, None
    bench.receive(block(7, 50))
    assert device.last_seen is not None
    assert (device.lqi, device.rssi) == (111, -70)
    await bench.until(lambda: any(o.lqi == 111 and o.rssi_dbm == -70 for o in bench.observations), "link quality")


async def test_all_else_reaches_zigpy(bench: Bench) -> None:
    device = bench.app.devices[IEEE]
    battery = bytes((0x18, 3, 0x0A)) + struct.pack("<HBB", 0x0021, 0x20, 150)
    bench.receive(battery, cluster=0x0001)
    assert device.endpoints[1].in_clusters[1].get(0x0021) == 150
    await bench.until(lambda: any(o.battery_percent == 75.0 for o in bench.observations), "battery")
    version = bytes((0x08, 4, 0x0A)) + struct.pack("<HBL", 0x0002, 0x23, NEW)
    bench.receive(version)  # a report on the OTA cluster is no command of it
    assert device.endpoints[1].out_clusters[0x19].get(0x0002) == NEW
    assert not [frame for frame in bench.ota() if frame[1] == 4 and frame[2] == 5]


async def test_unknown_battery_is_no_observation(bench: Bench) -> None:
    bench.receive(bytes((0x18, 3, 0x0A)) + struct.pack("<HBB", 0x0021, 0x20, 0xFF), cluster=0x0001)
    await asyncio.sleep(0.01)
    assert all(o.battery_percent is None for o in bench.observations)


async def test_only_a_frame_that_says_the_percentage_makes_the_battery_fresh(bench: Bench) -> None:
    def power(control: int, command: int, payload: bytes) -> None:
        bench.receive(bytes((control, 5, command)) + payload, cluster=0x0001)

    bench.app.devices[IEEE].endpoints[1].in_clusters[1].update_attribute(
        0x0021, 180
    )  # of weeks ago, from zigpy's table
    power(0x18, 0x0A, struct.pack("<HBB", 0x0020, 0x20, 29))  # the voltage
    power(0x18, 0x0B, b"\x00\x00")
    power(0x09, 0x00, b"\x10\x01\x00")  # an alarm
    bench.receive(bytes((0x1C, 0x49, 0x10, 5, 0x0A)) + struct.pack("<HBB", 0x0021, 0x20, 40), cluster=0x0001)
    power(0x10, 0x0A, struct.pack("<HBB", 0x0021, 0x20, 42))  # of the client's side, which has no battery
    power(0x18, 0x01, struct.pack("<HB", 0x0021, 0x86))  # not supported
    power(0x18, 0x0A, struct.pack("<HB", 0x0021, 0x20))  # cut off
    power(0x18, 0x01, struct.pack("<HBBBHBBB", 0x0020, 0, 0x20, 29, 0x0021, 0, 0x20, 120))
    await bench.until(lambda: any(o.battery_percent is not None for o in bench.observations), "the answer to a read")
    power(0x18, 0x0A, struct.pack("<HBBHBBHBB", 0x0020, 0x20, 29, 0x0021, 0x20, 121, 0x0031, 0x30, 4))
    await bench.until(lambda: any(o.battery_percent == 60.5 for o in bench.observations), "a report among others")
    assert [o.battery_percent for o in bench.observations if o.battery_percent is not None] == [60.0, 60.5]


async def test_a_node_that_nobody_directed_waits_at_first(bench: Bench) -> None:
    assert (await bench.answered(block(1, 50)))[2:] == b"\x05\x97" + struct.pack("<LL", 0, 5)
    assert (await bench.answered(query(2)))[2:] == b"\x02\x98"
    assert (await bench.answered(end(3)))[2:] == b"\x07" + struct.pack("<HHLLL", 0x1049, 1, NEW, 0, 0xFFFFFFFF)
    assert (await bench.answered(b"\x01\x04\x66"))[2:] == b"\x0b\x66\x81"


async def test_observations_of_a_known_node(bench: Bench) -> None:
    bench.receive(query(1))
    await bench.until(lambda: any(o.version == OLD for o in bench.observations), "query")
    said: dict[str, Any] = {}
    for observation in bench.observations:
        assert observation.node == NODE
        fields = {name: getattr(observation, name) for name in NodeObservation.__slots__}
        said |= {name: value for name, value in fields.items() if value is not None}
    assert said["hardware"] == "zigbee:1049-0001"
    assert (said["manufacturer"], said["model"]) == ("Synthetic", "SIM-1")
    assert (said["power"], said["sleepy"], said["joined"]) == (Power.MAINS, False, True)


async def test_what_the_table_knows_of_a_node_is_no_sign_of_life(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a restart a node that has been dead for weeks was not seen now."""
    await bench.until(lambda: any(o.model for o in bench.observations), "the table's")
    assert not any(o.alive for o in bench.observations)
    bench.app.fail = True
    monkeypatch.setattr("zigpy.device.DEFAULT_REQUEST_RETRIES", 0)
    bench.radio._interviews.begin(NODE)
    await asyncio.sleep(1.0)
    assert not any(o.alive for o in bench.observations), "nor is a question that it does not answer"
    bench.receive(query(1))
    await bench.until(lambda: any(o.alive and o.joined for o in bench.observations), "it is heard")


async def test_restart_goes_on_at_the_same_offset(make: Make) -> None:
    first = await make()
    await first.up()
    await first.direct(Want.DELIVER)
    await first.answered(query(1))
    await first.answered(block(2, 0))
    await first.answered(block(3, 450))
    second = await make()
    await second.up()
    waited = await second.answered(block(4, 500))
    assert waited[3] == 0x97
    await second.direct(Want.DELIVER)
    served = await second.answered(block(5, 500))
    assert served[3] == 0
    assert served[17:] == IMAGE[500:550]
    assert not [frame for frame in second.ota() if frame[2] == 0]  # no notification in mid-download


async def test_a_block_that_is_asked_while_the_radio_starts_again_is_answered_and_never_aborted(make: Make) -> None:
    first = await make()
    await first.up()
    await first.direct(Want.DELIVER)
    await first.answered(query(1))
    await first.answered(block(2, 450))
    second = await make(base=EagerRadio)
    await second.up()
    app: Any = second.app
    assert app.answered_meanwhile == (bytes((0x19, 77, 5, 0x97)) + struct.pack("<LL", 0, 5),), "told to wait"
    await second.direct(Want.DELIVER)
    assert (await second.answered(block(78, 500)))[17:] == IMAGE[500:550]


async def test_a_broadcast_goes_behind_all_else(bench: Bench) -> None:
    bench.app.sent.clear()
    bench.app.priorities.clear()
    assert await packets.broadcast(bench.app, bytes((0x09, 0, 0, 0, 50)))
    assert [sent.dst.address for sent in bench.app.sent] == [t.BroadcastAddress.RX_ON_WHEN_IDLE]
    assert bench.app.priorities == [t.PacketPriority.LOW]


async def test_drop_aborts(bench: Bench) -> None:
    await bench.direct(Want.DELIVER)
    await bench.answered(block(1, 50))
    await bench.direct(Want.DROP, 2)
    assert (await bench.answered(block(2, 100)))[2:] == b"\x05\x95"
    await bench.until(lambda: bench.journal.facts(NODE)[-1] is Fact.DROPPED, "dropped")
    assert not bench.journal.records


async def test_drop_of_an_unknown_transfer_is_done(bench: Bench) -> None:
    await bench.radio.direct([NodeDirective("other", NODE, 1, Want.DROP)])
    await bench.until(lambda: bench.journal.facts(NODE) == [Fact.DROPPED], "dropped")


async def test_an_image_that_is_no_ota_file_fails(bench: Bench) -> None:
    order = replace(bench.order, image=bench.images.add(b"MCUboot" * 20, NEW))
    await bench.radio.put(order)
    await bench.radio.direct([NodeDirective("t1", NODE, 1, Want.DELIVER)])
    await bench.until(lambda: bench.journal.facts(NODE) == [Fact.FAILED], "failed")
    assert bench.journal.events[-1].code == "invalid_image"


async def test_an_image_that_cannot_be_read_now_is_waited_for(make: Make) -> None:
    """A chunk that has rotted in the cache is fetched again: no reason to give up every node that begins meanwhile."""
    bench = await make(image_unavailable_wait_s=0.05)
    await bench.up()
    file = bench.images.files.pop(bench.order.image.digest)
    await bench.direct(Want.DELIVER)
    await asyncio.sleep(0.2)
    assert Fact.FAILED not in bench.journal.facts(NODE)
    bench.images.files[bench.order.image.digest] = file
    await bench.until(lambda: bench.journal.facts(NODE)[-1:] == [Fact.PREPARING], "offered")


async def test_directives_before_run_and_before_their_order_are_kept(make: Make) -> None:
    bench = await make()
    await bench.radio.direct([NodeDirective("t1", NODE, 1, Want.DELIVER)])
    await bench.up()
    assert (await bench.answered(query(1)))[3] == 0x98
    await bench.radio.put(bench.order)
    assert (await bench.answered(query(2)))[3] == 0


async def test_contract_errors(bench: Bench) -> None:
    with pytest.raises(ContractError):
        await bench.radio.direct([NodeDirective("t1", NodeId("lorawan:00124b0000000001"), 1, Want.DELIVER)])
    await bench.radio.put(bench.order)
    with pytest.raises(ContractError):
        await bench.radio.put(replace(bench.order, image=bench.images.add(IMAGE + b"x", NEW)))


async def test_a_lost_link_is_opened_again(bench: Bench) -> None:
    await bench.direct(Want.DELIVER)
    await bench.answered(block(1, 50))
    bench.library.refusals += ["no such device"] * 2
    first = bench.app
    first.connection_lost(OSError("unplugged"))
    await bench.until(lambda: bench.app is not first and bench.radio.status()["link"] == "up", "up again")
    assert bench.radio.status()["starts"] == 2
    assert (await bench.answered(block(2, 100)))[17:] == IMAGE[100:150]


async def test_a_dongle_that_is_not_there_is_waited_for(make: Make) -> None:
    bench = await make()
    bench.library.refusals.append("no such device")
    await bench.until(lambda: "no such device" in str(bench.radio.status()["error"]), "error")
    result = await bench.radio.manage(NodeCommand("list"))
    assert not result.ok
    await bench.up()


async def test_a_node_under_a_new_short_address_goes_on(bench: Bench) -> None:
    await bench.direct(Want.DELIVER)
    await bench.answered(block(1, 50))
    bench.app.devices[IEEE].nwk = t.NWK(0x4321)
    bench.receive(block(2, 100), nwk=0x4321)
    await bench.until(lambda: any(sent[1] == 2 and sent[2] == 5 for sent in bench.ota()), "block")
    assert bench.app.sent[-1].dst.address == 0x4321


async def test_a_node_whose_object_zigpy_replaced_goes_on(bench: Bench) -> None:
    await bench.direct(Want.DELIVER)
    await bench.answered(block(1, 0))
    old = bench.app.devices.pop(IEEE)
    new = add_node(bench.app, IEEE, NWK)
    assert (await bench.answered(block(2, 50)))[2] == 5
    assert new.lqi == 111
    assert bench.app.devices[IEEE] is not old
    del bench.app.devices[IEEE]
    bench.receive(block(3, 100))  # from a node that is no more: zigpy's business, and no error


async def test_announce_is_told_as_reboot(bench: Bench) -> None:
    await bench.direct(Want.INSTALL)
    await bench.answered(end(1))
    bench.receive(query(2))
    announce = b"\x01" + struct.pack("<H", NWK) + IEEE.serialize() + b"\x8e"
    bench.receive(announce, cluster=0x0013, profile=0)
    bench.receive(query(3))
    await bench.until(lambda: bench.journal.facts(NODE)[-1] is Fact.RUNNING, "running")
    assert bench.journal.events[-1].version == OLD


ANNOUNCEMENT = b"\x01" + struct.pack("<H", NWK) + IEEE.serialize() + b"\x8e"


@pytest.mark.parametrize("announced", [True, False])  # it is a broadcast: nobody repeats it when it is lost
async def test_a_version_read_before_a_reboot_is_not_taken_for_the_one_after(bench: Bench, announced: bool) -> None:
    def reads(cluster: int) -> list[bytes]:
        frames = [p.data.serialize() for p in bench.app.sent if p.cluster_id == cluster]
        return [frame for frame in frames if not frame[0] & 1 and frame[2] == 0x00]

    def answer(request: bytes, cluster: int, values: dict[int, bytes]) -> None:
        asked = struct.unpack(f"<{(len(request) - 3) // 2}H", request[3:])
        records = [struct.pack("<H", a) + (b"\0" + values[a] if a in values else b"\x86") for a in asked]
        control = 0x10 if cluster == 0x0019 else 0x18  # the OTA cluster's attributes are the client's
        bench.receive(bytes([control, request[1], 0x01]) + b"".join(records), cluster=cluster)

    def version(value: int) -> dict[int, bytes]:
        return {0x0002: b"\x23" + struct.pack("<L", value)}

    await bench.until(lambda: reads(0x0000), "the hardware version is asked")
    answer(reads(0x0000)[0], 0x0000, {})
    await bench.until(lambda: reads(0x0019), "the version is asked")
    answer(reads(0x0019)[0], 0x0019, version(OLD))
    await bench.until(lambda: reads(0x0001), "the battery is asked")
    if announced:
        bench.receive(ANNOUNCEMENT, cluster=0x0013, profile=0)
    else:
        bench.receive(query(0x60, NEW))
    answer(reads(0x0001)[0], 0x0001, {0x0021: b"\x20\x64"})

    def heard_and_asked() -> bool:
        bench.receive(bytes([0x18, 0x70, 0x0A, 0x21, 0x00, 0x20, 0x64]), cluster=0x0001)
        return len(reads(0x0000)) > 1

    await bench.until(heard_and_asked, "the hardware version is asked again")
    answer(reads(0x0000)[-1], 0x0000, {})
    await bench.until(lambda: len(reads(0x0019)) > 1, "the version is asked again")
    answer(reads(0x0019)[-1], 0x0019, version(NEW))
    await bench.until(lambda: len(reads(0x0001)) > 1, "the battery is asked again")
    answer(reads(0x0001)[-1], 0x0001, {0x0021: b"\x20\x64"})
    await bench.until(lambda: any(o.version is not None for o in bench.observations), "a version")
    assert {o.version for o in bench.observations} - {None} == {NEW}


async def test_failed_deliveries_slow_the_network_down(bench: Bench) -> None:
    await bench.direct(Want.DELIVER)
    await bench.answered(block(1, 50))
    before = bench.radio.status()["rate_limit"]
    bench.app.fail = True
    bench.receive(block(2, 100))
    await bench.until(lambda: bench.radio.status()["failed_deliveries"] == 1, "failure")
    after = bench.radio.status()["rate_limit"]
    assert isinstance(before, float)
    assert isinstance(after, float)
    assert after < before


async def test_plan_counts_blocks_and_skips_strangers(bench: Bench) -> None:
    stranger = NodeId("zigbee:00124b0000000077")
    plan = await bench.radio.plan(bench.order, [NODE, stranger])
    assert plan.frames == -(-len(IMAGE) // 50)
    assert plan.skipped == {stranger: "not in this network"}


async def test_a_node_that_is_interviewed_after_it_was_directed_is_told_where_its_client_is(bench: Bench) -> None:
    device = bench.app.devices[IEEE]
    del device.endpoints[1].out_clusters[0x0019]
    await bench.direct(Want.DELIVER)
    await bench.until(lambda: bench.journal.facts(NODE), "preparing")
    endpoint = device.add_endpoint(11)
    endpoint.status = device.endpoints[1].status
    endpoint.add_output_cluster(0x0019)
    bench.radio.device_initialized(device)
    bench.radio.announced(device.ieee)

    def notified() -> list[t.ZigbeePacket]:
        return [p for p in bench.app.sent if p.cluster_id == 0x0019 and p.data.serialize()[2:] == b"\0\0\x64"]

    await bench.until(lambda: notified() and notified()[-1].dst_ep == 11, "a notification to the client's endpoint")


async def test_a_node_that_could_not_be_asked_is_asked_when_it_is_heard(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many reboot together after a power cut, and what they are asked then gets lost."""
    monkeypatch.setattr("zigpy.device.DEFAULT_REQUEST_RETRIES", 0)

    class BusyRadio(FakeRadio):
        async def send_packet(self, packet: t.ZigbeePacket) -> None:
            if packet.dst.address == NWK:
                self.tries = getattr(self, "tries", 0) + 1
                self.fail = self.tries < 40
            await super().send_packet(packet)

    bench = await make(base=BusyRadio)
    await bench.up()
    bench.radio.announced(IEEE)

    def heard_and_asked() -> bool:
        bench.receive(bytes([0x18, 0x70, 0x0A, 0x21, 0x00, 0x20, 0x64]), cluster=0x0001)
        return any(p.cluster_id == 0x0019 and p.data.serialize()[2] == 0 for p in bench.app.sent)

    await bench.until(heard_and_asked, "the version is asked")


class DeadRadio(FakeRadio):
    """More lamps that are switched off than are asked at the same time."""

    nodes = tuple((t.EUI64.convert(f"00:12:4b:00:00:00:00:0{n}"), 0x2000 + n) for n in range(1, 9))


async def test_nodes_that_do_not_answer_keep_no_sleepy_node_waiting_that_is_awake(make: Make) -> None:
    bench = await make(base=DeadRadio)
    await bench.up()
    await bench.until(lambda: len([p for p in bench.app.sent if p.cluster_id == 0x0000]) >= 4, "lamps are asked")
    add_node(bench.app, t.EUI64.convert("00:12:4b:00:00:00:00:aa"), 0x3000, sleepy=True)
    bench.radio.announced(t.EUI64.convert("00:12:4b:00:00:00:00:aa"))
    bench.receive(bytes([0x18, 0x70, 0x0A, 0x21, 0x00, 0x20, 0x64]), cluster=0x0001, nwk=0x3000)
    await bench.until(lambda: any(p.dst.address == 0x3000 and p.cluster_id == 0 for p in bench.app.sent), "it is asked")


async def test_management(bench: Bench) -> None:
    listed = await bench.radio.manage(NodeCommand("list"))
    assert listed.ok
    assert isinstance(listed.value, list)
    assert [entry["node"] for entry in listed.value if isinstance(entry, dict)] == [NODE]
    assert (await bench.radio.manage(NodeCommand("permit_join", arguments={"seconds": 30}))).ok
    for wrong in (
        NodeCommand("reboot"),
        NodeCommand("permit_join", arguments={"seconds": 255}),
        NodeCommand("remove"),
        NodeCommand("remove", NodeId("zigbee:00124b0000000077")),
        NodeCommand("read", NODE, {"cluster": 6, "attributes": ["on_off"]}),
        NodeCommand("write", NODE, {"cluster": 0, "attributes": []}),
    ):
        result = await bench.radio.manage(wrong)
        assert not result.ok
        assert result.detail
    backup = await bench.radio.manage(NodeCommand("backup"))
    assert backup.ok
    assert isinstance(backup.value, dict)
    assert backup.value["metadata"]


async def test_an_unreadable_record_is_left_out(make: Make, journal: Any) -> None:
    from radios.radio import Record

    await journal.commit([Record("node", "00124b0000000001", 1, b"\xff")], [])
    bench = await make()
    await bench.up()
    await bench.direct(Want.DELIVER)
    assert (await bench.answered(query(2)))[3] == 0
