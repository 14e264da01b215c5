"""The in-process zigpy radio library on the mesh, in virtual time: packets both ways, failures, interviews, foreground."""

import asyncio
import math
import struct
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import zigpy.types as t
from zigpy.exceptions import DeliveryError

from radios.clock import ScaledClock
from radios.simulated.zigbee.channel import Channel, lower_bound_s
from radios.simulated.zigbee.firmware import build_ota_file
from radios.simulated.zigbee.foreground import Direction, Foreground
from radios.simulated.zigbee.mesh import Mesh
from radios.simulated.zigbee.node_spec import NodeSpec
from radios.simulated.zigbee.ota_terms import OtaTiming
from radios.simulated.zigbee.site import MeshDriver
from radios.simulated.zigbee.virtual_time import LoopClock, Stuck, VirtualLoop, run_agenda, run_virtual
from radios.simulated.zigbee.zigpy_radio import SimulatedRadio, quiet_config, radio_library

EUI64 = 0x00124B00_00000100
NEW = 0x0002_0000
QUIET = OtaTiming(boot_query_delay_s=(1e6, 1e6))
SOON = OtaTiming(boot_query_delay_s=(0.1, 0.5))
FILE = build_ota_file(manufacturer=0x1049, image_type=1, version=NEW, size=3_000)


class Server:
    """Answers OTA frames as bytes, as whoever taps a radio library does."""

    file = FILE

    def packet_received(self, packet: Any) -> None:
        data = packet.data.serialize()
        if packet.cluster_id != 0x0019 or data[0] != 0x01:
            super().packet_received(packet)  # type: ignore[misc]  # the radio library follows
            return
        identity = data[4:8] + struct.pack("<I", NEW)
        if data[2] == 0x01:
            new = struct.unpack_from("<I", data, 8)[0] != NEW
            answer = b"\x02\x00" + identity + struct.pack("<I", len(self.file)) if new else b"\x02\x98"
        elif data[2] == 0x03:
            (offset,) = struct.unpack_from("<I", data, 12)
            part = self.file[offset : offset + 50]
            answer = b"\x05\x00" + identity + struct.pack("<IB", offset, len(part)) + part
        else:
            answer = b"\x07" + identity + bytes(8)
        asyncio.ensure_future(send(self, int(packet.src.address), bytes((0x19, data[1])) + answer))  # noqa: RUF006  # the loop of a test


async def send(app: Any, nwk: int, payload: bytes, *, ack: bool = True) -> None:
    await app.send_packet(
        t.ZigbeePacket(
            src=t.AddrModeAddress(t.AddrMode.NWK, 0),
            src_ep=1,
            dst=t.AddrModeAddress(t.AddrMode.NWK, t.NWK(nwk)),
            dst_ep=1,
            tsn=payload[1],
            profile_id=0x0104,
            cluster_id=0x0019,
            data=t.SerializableBytes(payload),
            tx_options=t.TransmitOptions.ACK if ack else t.TransmitOptions.NONE,
        )
    )


def virtually(
    specs: list[NodeSpec],
    scenario: Callable[[Any, Mesh, VirtualLoop], Coroutine[Any, Any, Any]],
    *,
    channel: Channel | None = None,
    bases: tuple[type, ...] = (),
    interviewed: bool = True,
) -> Any:
    async def main() -> Any:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        mesh = Mesh(specs, channel=channel)
        loop.attach(mesh)
        library = radio_library(mesh, loop.time, interviewed=interviewed, bases=bases)
        app = await library.new(quiet_config(), auto_form=False)
        mesh.power_on(loop.time())
        try:
            return await scenario(app, mesh, loop)
        finally:
            await app.shutdown()

    return run_virtual(main())


async def until(condition: Callable[[], object], seconds: float = 3600) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.05)


def test_a_whole_network_is_updated_through_it_in_virtual_time() -> None:
    specs = [NodeSpec(eui64=EUI64 + n, hops=1 + n % 3, mac_loss=0.02, timing=SOON) for n in range(6)]

    async def scenario(app: Any, mesh: Mesh, loop: VirtualLoop) -> float:
        begun = loop.time()
        await until(
            lambda: all(not node.ota.awaits_answer and node.running_version == NEW for node in mesh.nodes.values())
        )
        assert {node.running_image for node in mesh.nodes.values()} == {FILE}
        return loop.time() - begun

    took = virtually(specs, scenario, channel=Channel(1), bases=(Server,))
    bound = lower_bound_s([(-(-len(FILE) // 50), spec.hops) for spec in specs])
    assert bound < took < 2 * bound + 10, "transfer, verification, reboot"
    assert took == virtually(specs, scenario, channel=Channel(1), bases=(Server,)), "deterministic"


def test_what_does_not_arrive_is_a_delivery_error() -> None:
    deaf = NodeSpec(eui64=EUI64 + 1, loss=1.0, timing=QUIET)

    async def scenario(app: Any, mesh: Mesh, loop: VirtualLoop) -> None:
        near, far = (node.nwk for node in mesh.nodes.values())
        await send(app, near, b"\x18\x01\x0b\x00\x00")
        with pytest.raises(DeliveryError):
            await send(app, far, b"\x18\x02\x0b\x00\x00")
        with pytest.raises(DeliveryError):
            await send(app, 0x0BAD, b"\x18\x03\x0b\x00\x00")
        app.faults.busy, app.faults.undelivered = 1, 1
        with pytest.raises(DeliveryError, match="NETWORK_BUSY"):
            await send(app, near, b"\x18\x04\x0b\x00\x00")
        with pytest.raises(DeliveryError):
            await send(app, near, b"\x18\x05\x0b\x00\x00")
        await send(app, near, b"\x18\x06\x0b\x00\x00")
        assert app.packets_sent >= 6
        assert app.packets_failed >= 4

    virtually([NodeSpec(eui64=EUI64, timing=QUIET), deaf], scenario)


def test_zigpy_interviews_reads_removes_and_lets_join() -> None:
    spec = NodeSpec(eui64=EUI64, battery_percent=40.0, timing=QUIET)
    ieee = t.EUI64(EUI64.to_bytes(8, "little"))

    async def scenario(app: Any, mesh: Mesh, loop: VirtualLoop) -> None:
        await until(lambda: ieee in app.devices and app.devices[ieee].is_initialized)
        device = app.devices[ieee]
        assert (device.manufacturer, device.model) == ("Synthetic", "SIM-1")
        values, _ = await device.endpoints[1].power.read_attributes(["battery_percentage_remaining"])
        assert values == {"battery_percentage_remaining": 80}
        await app.remove(ieee)
        await until(lambda: ieee not in app.devices)
        await until(lambda: not next(iter(mesh.nodes.values())).joined)
        await app.permit(60)
        await until(lambda: ieee in app.devices and app.devices[ieee].is_initialized)

    virtually([spec], scenario, interviewed=False)


def test_a_dongle_that_is_pulled_out_is_a_lost_connection() -> None:
    class Listener:
        lost: BaseException | None = None

        def connection_lost(self, error: BaseException) -> None:
            self.lost = error

    async def scenario(app: Any, mesh: Mesh, loop: VirtualLoop) -> None:
        listener = Listener()
        app.add_listener(listener)
        app.faults.swallowed = 1
        waiting = asyncio.ensure_future(send(app, next(iter(mesh.by_nwk)), b"\x18\x01\x0b\x00\x00"))
        await asyncio.sleep(1)
        app.lose_connection()
        with pytest.raises(DeliveryError, match="gone"):
            await waiting
        assert isinstance(listener.lost, OSError)
        with pytest.raises(DeliveryError):
            await send(app, next(iter(mesh.by_nwk)), b"\x18\x01\x0b\x00\x00")
        assert not app.listening

    virtually([NodeSpec(eui64=EUI64, timing=QUIET)], scenario)


async def test_the_same_library_runs_on_a_real_clock() -> None:
    clock = ScaledClock(10.0, time.time())
    mesh = Mesh([NodeSpec(eui64=EUI64, timing=SOON)])
    driver = MeshDriver(mesh, clock)
    library = radio_library(mesh, clock.now, interviewed=True, bases=(Server,))
    app = await library.new(quiet_config(), auto_form=False)
    assert library.app is app
    mesh.power_on(clock.now())
    node = next(iter(mesh.nodes.values()))
    async with asyncio.timeout(20):
        while node.running_version != NEW:
            await asyncio.sleep(0.01)
    await app.shutdown()
    driver.close()
    assert issubclass(library, SimulatedRadio)


def foreground_world(loss: float = 0.0) -> tuple[Mesh, Foreground]:
    specs = [NodeSpec(eui64=EUI64 + n, hops=1 + n % 3, loss=loss, timing=QUIET) for n in range(9)]
    mesh = Mesh([*specs, NodeSpec(eui64=EUI64 + 9, sleepy=True, timing=QUIET)], channel=Channel(2))
    mesh.power_on(0.0)
    run_agenda(mesh, 0.0, 10)
    return mesh, Foreground(mesh, 2.0, seed=5)


def test_foreground_traffic_is_random_over_all_nodes_and_hops_and_timed() -> None:
    mesh, foreground = foreground_world()
    foreground.start(10.0)
    run_agenda(mesh, 10.0, 1_000)
    foreground.stop()
    run_agenda(mesh, 1_010.0, 10)
    messages = foreground.messages
    assert len(messages) == pytest.approx(2_000, rel=0.1)
    assert foreground.pending == 0
    assert {m.hops for m in messages} == {1, 2, 3}
    assert {m.direction for m in messages} == set(Direction)
    assert len({m.node for m in messages}) == 9, "not the sleeper"
    by_hops = {
        hops: sum(m.latency_s or 0 for m in messages if m.hops == hops) / sum(m.hops == hops for m in messages)
        for hops in (1, 2, 3)
    }
    assert 0.003 < by_hops[1] < by_hops[2] < by_hops[3] < 0.03
    assert by_hops[3] < foreground.percentile(100) < 0.1
    assert foreground.percentile(95, since=500.0) > 0
    assert len(foreground.latencies(until=510.0)) == pytest.approx(1_000, rel=0.2)


def test_a_foreground_message_that_never_arrives_took_for_ever() -> None:
    mesh, foreground = foreground_world(loss=0.6)
    foreground.start(10.0)
    run_agenda(mesh, 10.0, 200)
    foreground.stop()
    run_agenda(mesh, 210.0, 10)
    latencies = foreground.latencies()
    assert math.inf in latencies
    assert min(latencies) < 0.1
    assert any(0.5 < latency < 5 for latency in latencies), "some needed an APS retry"
    assert foreground.percentile(99) == math.inf
    with pytest.raises(ValueError, match="no message"):
        foreground.percentile(95, since=1e9)


def test_commands_of_the_foreground_can_start_at_the_host() -> None:
    async def scenario(app: Any, mesh: Mesh, loop: VirtualLoop) -> None:
        tasks = []

        def send_down(node: Any, message: Any) -> None:
            async def command() -> None:
                try:
                    await send(app, node.nwk, b"\x18\x01\x0b\x00\x00")
                except DeliveryError:
                    foreground.failed(message)
                else:
                    foreground.arrived(message, loop.time())

            tasks.append(asyncio.ensure_future(command()))

        foreground = Foreground(mesh, 2.0, send_down=send_down)
        reports: list[Any] = []
        app.packet_received = lambda packet, take=app.packet_received: (reports.append(packet), take(packet))
        foreground.start(loop.time())
        await asyncio.sleep(100)
        foreground.stop()
        await asyncio.sleep(5)
        down = [m for m in foreground.messages if m.direction is Direction.DOWN]
        assert len(down) == len(tasks) > 50
        up = len(foreground.messages) - len(down)
        assert sum(p.cluster_id == 0 and p.data.serialize()[2] == 0x0A for p in reports) == up, "reports reach the host"
        assert all(0 < latency < 1 for latency in foreground.latencies())

    virtually([NodeSpec(eui64=EUI64 + n, timing=QUIET) for n in range(3)], scenario, channel=Channel(1))


def test_virtual_hours_pass_at_once_and_in_order() -> None:
    seen: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float) -> None:
        clock = LoopClock()
        begun = clock.now()
        await clock.sleep_until(begun + seconds)
        seen.append((name, round(clock.now() - begun, 3)))

    async def main() -> None:
        await asyncio.gather(sleeper("day", 86_400), sleeper("hour", 3_600), sleeper("second", 1))
        async with asyncio.timeout(10):
            await asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.01)

    began = time.monotonic()
    run_virtual(main())
    assert seen == [("second", 1.0), ("hour", 3600.0), ("day", 86400.0)]
    assert time.monotonic() - began < 60


def test_a_program_that_can_never_go_on_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("radios.simulated.zigbee.virtual_time._STUCK_S", 0.1)

    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Stuck):
        run_virtual(main())
