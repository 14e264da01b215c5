"""The unmodified bellows against the dongle over TCP: start, interviews, OTA frames, hosts that die, faults."""

import asyncio
import binascii
import contextlib
import struct
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import zigpy.types as t
from bellows.ash import AshProtocol, DataFrame
from bellows.exception import EzspError
from bellows.zigbee.application import ControllerApplication
from hypothesis import given, settings
from hypothesis import strategies as st
from zigpy.exceptions import DeliveryError

from radios.clock import ScaledClock, SystemClock
from radios.simulated.zigbee.ash import AshNcp, Reset
from radios.simulated.zigbee.firmware import build_ota_file
from radios.simulated.zigbee.mesh import Mesh
from radios.simulated.zigbee.ncp import Ncp
from radios.simulated.zigbee.network_state import ready_made
from radios.simulated.zigbee.node_spec import NodeSpec
from radios.simulated.zigbee.ota_terms import OtaState, OtaTiming
from radios.simulated.zigbee.site import ZigbeeSite

EUI64 = 0x00124B00_00000001
NODE = f"zigbee:{EUI64:016x}"
IEEE = t.EUI64(EUI64.to_bytes(8, "little"))
NEW = 0x0002_0000
FAST = OtaTiming(
    think_s=0.001, verify_s=0.05, response_timeout_s=(0.4, 0.6), boot_query_delay_s=(0.1, 0.2), retry_later_s=1.0
)
QUIET = OtaTiming(boot_query_delay_s=(1e6, 1e6), response_timeout_s=(1e3, 1e3))
SPEC = NodeSpec(eui64=EUI64, timing=FAST, reboot_s=0.1, self_test_s=0.05)


class Host(ControllerApplication):  # type: ignore[misc]  # bellows has no types
    """bellows as it is, with OTA frames taken as bytes."""

    file = b""
    lost: list[Any]

    def packet_received(self, packet: Any) -> None:
        data = packet.data.serialize()
        if packet.cluster_id == 0x0019 and data[0] == 0x01:
            self.create_task(self.serve(packet, data))
        else:
            super().packet_received(packet)

    def connection_lost(self, exc: Any) -> None:
        self.lost = [exc]

    async def serve(self, packet: Any, data: bytes) -> None:
        identity = data[4:8] + struct.pack("<I", NEW)
        if data[2] == 0x01:
            new = struct.unpack_from("<I", data, 8)[0] != NEW and self.file
            answer = b"\x02\x00" + identity + struct.pack("<I", len(self.file)) if new else b"\x02\x98"
        elif data[2] == 0x03:
            (offset,) = struct.unpack_from("<I", data, 12)
            part = self.file[offset : offset + 50]
            answer = b"\x05\x00" + identity + struct.pack("<IB", offset, len(part)) + part
        else:
            answer = b"\x07" + identity + bytes(8)
        with contextlib.suppress(DeliveryError, EzspError, TimeoutError, AttributeError):
            await self.send(packet.src, bytes((0x19, data[1])) + answer)

    async def send(self, destination: Any, payload: bytes, *, options: Any = t.TransmitOptions.NONE) -> None:
        await self.send_packet(
            t.ZigbeePacket(
                src=t.AddrModeAddress(t.AddrMode.NWK, 0),
                src_ep=1,
                dst=destination,
                dst_ep=1,
                tsn=payload[1],
                profile_id=0x0104,
                cluster_id=0x0019,
                data=t.SerializableBytes(payload),
                tx_options=options,
            )
        )


@contextlib.asynccontextmanager
async def host(site: ZigbeeSite, file: bytes = b"", *, auto_form: bool = False) -> AsyncIterator[Host]:
    app = Host(
        {
            "device": {"path": site.url},
            "use_thread": False,
            "network": {"channel": 15},
            "ota": {"enabled": False},
            "backup_enabled": False,
            "topology_scan_enabled": False,
            "watchdog_enabled": False,
        }
    )
    app.file = file
    await app.startup(auto_form=auto_form)
    try:
        yield app
    finally:
        await app.shutdown()


async def eventually(condition: Callable[[], object], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def quick() -> ScaledClock:
    """For what the mesh takes its time about: joins, announces, retries."""
    return ScaledClock(5.0, time.time())


def new_file(size: int = 3_000) -> bytes:
    return build_ota_file(manufacturer=SPEC.manufacturer_code, image_type=SPEC.image_type, version=NEW, size=size)


async def test_a_network_is_formed_and_found_again_by_the_next_host() -> None:
    async with ZigbeeSite([], SystemClock(), formed=False) as site:
        async with host(site, auto_form=True) as app:
            formed = app.state.network_info
        async with host(site) as app:
            found = app.state.network_info
            assert app.state.node_info.nwk == 0
    assert (found.pan_id, found.extended_pan_id, found.channel) == (formed.pan_id, formed.extended_pan_id, 15)
    assert found.network_key.key == formed.network_key.key
    assert found.network_key.tx_counter > 0


async def test_joined_nodes_are_discovered_interviewed_and_updated() -> None:
    nodes = [
        SPEC,
        NodeSpec(
            eui64=EUI64 + 1, sleepy=True, poll_s=0.2, fast_poll_s=0.01, battery_percent=20.0, timing=FAST, reboot_s=0.1
        ),
    ]
    async with ZigbeeSite(nodes, SystemClock()) as site, host(site, new_file()) as app:
        await eventually(lambda: all(n.running_version == NEW for n in site.nodes.values()))
        assert {n.running_image for n in site.nodes.values()} == {new_file()}
        await eventually(lambda: len(app.devices) == 3 and all(d.is_initialized for d in app.devices.values()))
        device = app.devices[IEEE]
        await eventually(lambda: device.model is not None)  # zigpy says initialised when only the endpoints are known
        assert (device.manufacturer, device.model) == ("Synthetic", "SIM-1")
        assert device.node_desc.is_mains_powered
        sleeper = next(d for i, d in app.devices.items() if i not in (IEEE, app.state.node_info.ieee))
        assert sleeper.node_desc.is_end_device
        values, _ = await sleeper.endpoints[1].power.read_attributes(["battery_percentage_remaining"])
        assert values == {
            "battery_percentage_remaining": round(site.nodes[f"zigbee:{EUI64 + 1:016x}"].battery_percent * 2)
        }
        shown = site.snapshot()[NODE]
        assert isinstance(shown, dict)
        assert (shown["version"], shown["bytes_received"], shown["bytes_received_twice"]) == (NEW, len(new_file()), 0)


async def test_a_download_outlives_the_host_and_the_ncp() -> None:
    file = new_file(3_000)
    async with ZigbeeSite([SPEC], SystemClock()) as site:
        node = site.nodes[NODE]
        async with host(site, file) as app:
            await eventually(lambda: len(node.ota.staged) > 600)
            site.dongle.drop_connection()  # what the dongle sees of a SIGKILL
            await eventually(lambda: getattr(app, "lost", None))
        async with host(site, file) as app:
            await eventually(lambda: len(node.ota.staged) > 1_500)
            site.dongle.reset_ncp()
            await eventually(lambda: getattr(app, "lost", None))
        async with host(site, file):
            await eventually(lambda: node.running_version == NEW)
    assert node.running_image == file
    assert node.counters.downloads_started_at_zero == 1
    assert node.counters.bytes_received_twice == 0
    assert site.dongle.connections == 3


async def test_faults_reach_the_host_as_delivery_errors() -> None:
    far = NodeSpec(eui64=EUI64 + 1, loss=1.0, timing=QUIET)
    async with ZigbeeSite([NodeSpec(eui64=EUI64, timing=QUIET), far], quick()) as site, host(site) as app:
        # The interview ends with a notify; the query that follows is answered before anything goes wrong on purpose.
        ota = site.nodes[NODE].ota
        await eventually(lambda: app.devices[IEEE].is_initialized if IEEE in app.devices else False)
        await eventually(lambda: ota.counters.requests_sent == 1 and ota.state is OtaState.IDLE)
        near = t.AddrModeAddress(t.AddrMode.NWK, site.nodes[NODE].nwk)
        await app.send(near, b"\x19\x01\x00\x00\x01")
        await eventually(lambda: ota.counters.requests_sent == 2 and ota.state is OtaState.IDLE)
        site.dongle.faults.busy = 1
        with pytest.raises(DeliveryError, match="BUSY"):
            await app.send(near, b"\x19\x02\x00\x00\x01")
        site.dongle.faults.undelivered = 1
        with pytest.raises(DeliveryError, match="DELIVERY_FAILED"):
            await app.send(near, b"\x19\x03\x00\x00\x01")
        with pytest.raises(DeliveryError, match="DELIVERY_FAILED"):
            await app.send(
                t.AddrModeAddress(t.AddrMode.NWK, site.nodes[far.id].nwk),
                b"\x19\x04\x00\x00\x01",
                options=t.TransmitOptions.ACK,
            )
        await app.send(near, b"\x19\x05\x00\x00\x01", options=t.TransmitOptions.ACK)


async def test_reports_leaves_and_joins_reach_the_host() -> None:
    async with ZigbeeSite([SPEC], quick()) as site, host(site) as app:
        await eventually(lambda: IEEE in app.devices and app.devices[IEEE].is_initialized)
        basic = app.devices[IEEE].endpoints[1].basic
        basic.update_attribute(0x0005, "before")
        site.report(NODE, 0x0000, 0x0005)
        await eventually(lambda: basic.get("model") == "SIM-1")
        await app.remove(IEEE)
        await eventually(lambda: IEEE not in app.devices and not site.nodes[NODE].joined)
        await app.permit(30)
        await eventually(lambda: site.nodes[NODE].joined and IEEE in app.devices and app.devices[IEEE].is_initialized)


async def test_a_second_host_takes_the_line_over() -> None:
    async with ZigbeeSite([SPEC], SystemClock()) as site, host(site) as first, host(site) as second:
        await eventually(lambda: getattr(first, "lost", None))
        await second.send(t.AddrModeAddress(t.AddrMode.NWK, site.nodes[NODE].nwk), b"\x19\x01\x00\x00\x01")


def framed(frame: bytes, number: int = 0, acknowledged: int = 0) -> bytes:
    """A DATA frame as bellows would send it."""
    return bytes(AshProtocol._stuff_bytes(DataFrame(number, 0, acknowledged, frame).to_bytes())) + b"\x7e"


def test_ash_rejects_what_is_damaged_and_repeats_what_was_not_acknowledged() -> None:
    ash = AshNcp()
    whole = framed(b"\x00\x00\x00\x02")
    assert ash.receive(whole[:3], 0.0) == []
    assert ash.receive(whole[3:], 0.0) == [b"\x00\x00\x00\x02"]
    assert ash.to_send()[0] == 0x81, "an ACK of frame 0"
    damaged = bytearray(framed(b"\x01\x02\x03\x04", 1))
    damaged[2] ^= 0x01
    assert ash.receive(bytes(damaged), 0.0) == []
    assert ash.to_send()[0] & 0xE0 == 0xA0, "a NAK"
    assert ash.receive(framed(b"\x01\x02\x03\x04", 1), 0.0) == [b"\x01\x02\x03\x04"]
    ash.to_send()
    for number in range(6):
        ash.send(bytes((number,)) * 10, 1.0)
    first = ash.to_send()
    assert first.count(b"\x7e") == 4, "the window is four"
    deadline = ash.next_deadline()
    assert deadline is not None
    ash.handle_timeout(deadline)
    assert ash.to_send().count(b"\x7e") == 4
    assert ash.receive(b"\x1a\x1a" + _control(0x84), deadline) == []
    assert ash.to_send().count(b"\x7e") == 2
    assert ash.receive(_control(0xC0), deadline) == [Reset.REQUESTED]


def _control(byte: int) -> bytes:
    return bytes((byte,)) + binascii.crc_hqx(bytes((byte,)), 0xFFFF).to_bytes(2, "big") + b"\x7e"


@settings(deadline=None)
@given(st.lists(st.binary(max_size=60)))
def test_no_bytes_on_the_line_harm_the_dongle(chunks: list[bytes]) -> None:
    ash = AshNcp()
    for chunk in chunks:
        ash.receive(chunk, 0.0)
        ash.to_send()


@settings(max_examples=300, deadline=None)
@given(command=st.integers(0, 0x0100), body=st.binary(max_size=60), up=st.booleans())
def test_no_command_harms_the_ncp(command: int, body: bytes, up: bool) -> None:
    ncp = Ncp(Mesh([SPEC]), lambda: 0.0, ready_made(), 1)
    answers: list[bytes] = []
    ncp.send = answers.append
    ncp.network_is_up = up
    ncp.receive(struct.pack("<BHH", 3, 0x0100, command) + body)
    assert answers[0][0] == 3, "every command is answered, under its own sequence"
    ncp.receive(body)
