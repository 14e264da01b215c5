"""Every zigpy radio library that is installed can be tapped: bellows always, the others with the dev extra.

Frames come in by the library's own code, as far as it runs without a dongle.
"""

import asyncio
import contextlib
import importlib.util
import struct
import warnings
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
import zigpy.types as t

from radios.zigbee.green_power import Handled
from radios.zigbee.settings import RADIO_LIBRARY_MODULES, ZigbeeSettings, zigpy_config
from radios.zigbee.tap import Peer, load_application, tapped
from tests.support.zigpy_library import COORDINATOR, IEEE, NWK, add_node

LIBRARIES = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            importlib.util.find_spec(module.partition(".")[0]) is None, reason=f"gatewayd[{name}] is not installed"
        ),
    )
    for name, module in RADIO_LIBRARY_MODULES.items()
]
BLOCK = bytes((1, 7, 3, 0)) + struct.pack("<HHLLB", 0x1049, 1, 0x20000, 100, 50)
REPORT = bytes((0x18, 3, 0x0A)) + struct.pack("<HBB", 0x0021, 0x20, 150)
OTA = 0x0019
# Client's commands of the OTA cluster and general ones on it, then what other clusters send: by cluster, as on the air.
ZCL_FRAMES = {
    "block": (OTA, BLOCK),
    "block_with_address": (OTA, bytes((1, 8, 3, 1)) + BLOCK[4:] + IEEE.serialize()),
    "block_of_a_manufacturer": (OTA, b"\x05\x49\x10\x09\x03" + BLOCK[3:]),
    "query": (OTA, bytes((1, 10, 1, 1)) + struct.pack("<HHLH", 0x1049, 1, 0x10000, 3)),
    "page": (OTA, bytes((1, 11, 4, 0)) + struct.pack("<HHLLBHH", 0x1049, 1, 0x20000, 100, 50, 500, 20)),
    "end": (OTA, bytes((1, 12, 6, 0)) + struct.pack("<HHL", 0x1049, 1, 0x20000)),
    "specific_file": (OTA, bytes((1, 13, 8)) + IEEE.serialize() + struct.pack("<HHLH", 0x1049, 1, 0x20000, 2)),
    "attributes_read": (OTA, bytes((0x18, 14, 1)) + struct.pack("<HBBLHB", 1, 0, 0x23, 100, 2, 0x86)),
    "report": (1, REPORT),
    "report_of_a_manufacturer": (0, b"\x1c\x5f\x11\x0f\x0a\x01\xff\x42\x05\x01\x21\xb8\x0b\x04"),
    "command": (6, b"\x01\x10\x02"),
    "level": (8, b"\x01\x11\x04\x80\x0a\x00"),
    "default_response": (6, b"\x18\x12\x0b\x02\x81"),
    "check_in": (0x20, b"\x09\x13\x00"),
    "zone_status": (0x0500, b"\x09\x14\x00\x21\x00\x00\x01\x00\x00"),
    "reporting_read": (1, bytes((0x18, 0x15, 9)) + struct.pack("<BBHBHHB", 0, 0, 0x21, 0x20, 60, 3600, 1)),
}
# ZDO has a way of its own in most libraries; what zigpy makes of it is the same.
ZDO_FRAMES = {
    "announce": (0x0013, struct.pack("<BH", 1, NWK) + IEEE.serialize() + b"\x80"),
    "address": (0x8001, b"\x02\x00" + IEEE.serialize() + struct.pack("<H", NWK)),
    "descriptor": (0x8002, struct.pack("<BBH", 3, 0, NWK) + bytes.fromhex("01408e49105252000052 00")),
    "neighbours": (0x8031, b"\x04\x00\x01\x00\x01" + bytes(8) + IEEE.serialize() + b"\x34\x12\x25\x02\x01\xff"),
}


class Sink:
    """Keeps what the tap says."""

    def __init__(self) -> None:
        self.ota: list[tuple[Any, Peer, bytes]] = []
        self.frames: list[tuple[Any, int]] = []
        self.names: list[tuple[Any, int]] = []
        self.announced_by: list[Any] = []
        self.site = 0
        self.heard_of: list[Any] = []
        self.unread = 0

    def ota_frame(self, device: Any, peer: Peer, frame: bytes) -> None:
        self.ota.append((device.ieee, peer, frame))

    def ota_default_response(self, device: Any, command: int, status: int) -> None:
        raise AssertionError("none was sent")

    def heard(self, device: Any) -> None:
        self.heard_of.append(device.ieee)

    def unreadable(self) -> None:
        self.unread += 1

    def announced(self, ieee: Any) -> None:
        self.announced_by.append(ieee)

    def node_frame(self, device: Any, packet: Any) -> None:
        self.frames.append((None if device is None else device.ieee, packet.cluster_id))

    def named(self, ieee: Any, nwk: int) -> None:
        self.names.append((ieee, nwk))

    def green_power(self, packet: Any, handled: Handled | None) -> None:
        raise AssertionError("there is none")

    def check_in_answer(self, device: Any, frame: bytes) -> bytes:
        return frame

    def may_ask_address(self, nwk: int) -> bool:
        return False

    def foreground(self) -> None:
        self.site += 1


def packet(cluster: int, frame: bytes, *, endpoint: int = 1, profile: int = 0x0104) -> t.ZigbeePacket:
    return t.ZigbeePacket(
        src=t.AddrModeAddress(addr_mode=t.AddrMode.NWK, address=t.NWK(NWK)),
        src_ep=endpoint,
        dst=t.AddrModeAddress(addr_mode=t.AddrMode.NWK, address=t.NWK(0)),
        dst_ep=endpoint,
        tsn=7,
        profile_id=profile,
        cluster_id=cluster,
        data=t.SerializableBytes(frame),
    )


@pytest.fixture(params=LIBRARIES)
async def library(request: pytest.FixtureRequest) -> AsyncIterator[tuple[str, Any, Sink]]:
    """Its name, an application of it that is not connected to anything, and what the tap told."""
    sink = Sink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the extras' own making, at their import
        application = tapped(load_application(request.param), sink)
    settings = ZigbeeSettings("/dev/serial/none", radio_library=request.param)
    app: Any = await application.new(zigpy_config(settings), start_radio=False)  # type: ignore[attr-defined]  # zigpy's
    app.state.node_info.ieee = COORDINATOR
    add_node(app, COORDINATOR, 0)
    add_node(app, IEEE, NWK)
    yield request.param, app, sink
    with contextlib.suppress(Exception):  # it never was connected
        await app.shutdown()


async def test_its_frames_go_through_the_tap(library: tuple[str, Any, Sink]) -> None:
    _, app, sink = library
    app.packet_received(packet(0x0019, BLOCK))
    assert sink.ota == [(IEEE, Peer(0x0104, 1, 1), BLOCK)]
    app.packet_received(packet(0x0001, REPORT))
    assert sink.frames == [(IEEE, 0x0001)]
    assert app.devices[IEEE].endpoints[1].in_clusters[1].get(0x0021) == 150, "zigpy has it too"
    assert sink.site == 1
    app.handle_join(nwk=t.NWK(0x4321), ieee=IEEE, parent_nwk=t.NWK(0))
    assert (sink.announced_by, sink.names) == ([IEEE], [(IEEE, 0x4321)])


async def test_what_it_sends_goes_through_the_tap(library: tuple[str, Any, Sink]) -> None:
    _, app, sink = library
    command = packet(0x0006, b"\x01\x05\x02").replace(
        dst=t.AddrModeAddress(addr_mode=t.AddrMode.NWK, address=t.NWK(NWK)), priority=t.PacketPriority.LOW
    )
    with contextlib.suppress(Exception):  # it is not connected
        async with asyncio.timeout(1):
            await app.send_packet(command)
    assert sink.site == 1


async def receive(name: str, app: Any, cluster: int, frame: bytes) -> None:
    """A ZCL frame of the node's by the code in which the library takes frames from its dongle."""
    match name:
        case "bellows":
            import bellows.types

            app._ezsp = SimpleNamespace(ezsp_version=8)
            aps = bellows.types.EmberApsFrame(0x0104, cluster, 1, 1, bellows.types.EmberApsOption(0), 0, 7)
            unicast = bellows.types.EmberIncomingMessageType.INCOMING_UNICAST
            app.ezsp_callback_handler("incomingMessageHandler", (unicast, aps, 90, -60, t.NWK(NWK), 0, 0, frame))
            app._ezsp = None
        case "znp":
            from zigpy_znp import commands

            await app.on_af_message(
                commands.AF.IncomingMsg.Callback(
                    GroupId=0,
                    ClusterId=cluster,
                    SrcAddr=NWK,
                    SrcEndpoint=1,
                    DstEndpoint=1,
                    WasBroadcast=False,
                    LQI=90,
                    SecurityUse=False,
                    TimeStamp=0,
                    TSN=7,
                    Data=frame,
                    MacSrcAddr=NWK,
                    MsgResultRadius=29,
                )
            )
        case "deconz":
            await _deconz_polls(app, cluster, frame)
        case "xbee":
            app.handle_rx(IEEE, t.NWK(NWK), 1, 1, cluster, 0x0104, 0, frame)
        case "zboss":
            app.on_apsde_indication(
                SimpleNamespace(
                    FrameFC=0,
                    GrpAddr=0,
                    SrcAddr=t.NWK(NWK),
                    SrcEndpoint=1,
                    DstEndpoint=1,
                    ProfileId=0x0104,
                    ClusterId=cluster,
                    Payload=list(frame),
                    PayloadLength=len(frame),
                    LQI=90,
                    RSSI=-60,
                )
            )
        case _:
            raise AssertionError(f"nothing is known of {name}")


async def _deconz_polls(app: Any, cluster: int, frame: bytes) -> None:
    """It fetches a frame, hands it on, and fetches the confirmation of what was sent: with an exception it would not."""
    from zigpy_deconz import api

    deconz = api.Deconz(app, {})
    polled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    addresses = {side: SimpleNamespace(as_zigpy_type=lambda a=a: a) for side, a in _ADDRESSES.items()}
    state = {"status": 0, "device_state": api.DeviceStateFlags(0)}
    indication = {"src_ep": 1, "dst_ep": 1, "profile_id": 0x0104, "lqi": 90, "rssi": -60, **addresses, **state}

    async def send_command(command: Any, **_: Any) -> dict[str, Any]:
        if command == api.CommandId.aps_data_indication:
            return {**indication, "cluster_id": cluster, "asdu": frame}
        if not polled.done():
            polled.set_result(None)
        return {"request_id": 1, "confirm_status": 0, **state}

    deconz.send_command = send_command
    deconz._handle_device_state_changed = lambda **_: None
    deconz._device_state = SimpleNamespace(
        network_state=api.NetworkState2.CONNECTED,
        device_state=api.DeviceStateFlags.APSDE_DATA_INDICATION | api.DeviceStateFlags.APSDE_DATA_CONFIRM,
    )
    polling = asyncio.create_task(deconz._data_poller())
    try:
        async with asyncio.timeout(0.5):  # it begins again after a second, when something was raised
            await polled
    finally:
        polling.cancel()
        await asyncio.wait({polling})


_ADDRESSES = {
    "src_addr": t.AddrModeAddress(addr_mode=t.AddrMode.NWK, address=t.NWK(NWK)),
    "dst_addr": t.AddrModeAddress(addr_mode=t.AddrMode.NWK, address=t.NWK(0)),
}


async def test_what_its_own_receiver_makes_of_a_frame_arrives(library: tuple[str, Any, Sink]) -> None:
    name, app, sink = library
    await receive(name, app, OTA, BLOCK)
    assert [(ieee, frame) for ieee, _, frame in sink.ota] == [(IEEE, BLOCK)]


@pytest.mark.parametrize("frame", ZCL_FRAMES)
async def test_a_frame_cut_at_any_byte_raises_nothing_in_it(library: tuple[str, Any, Sink], frame: str) -> None:
    name, app, sink = library
    cluster, whole = ZCL_FRAMES[frame]
    # zigpy-zboss takes a sequence number from each frame itself, and refuses what has none before anybody hears of it.
    cuts = range(2 if name == "zboss" else 0, len(whole) + 1)
    for cut in cuts:
        before = len(sink.heard_of) + len(sink.ota)
        app.devices[IEEE].last_seen = None
        await receive(name, app, cluster, whole[:cut])
        assert len(sink.heard_of) + len(sink.ota) == before + 1, "the node counts as heard"
        assert app.devices[IEEE].last_seen is not None
    if name != "zboss":
        assert sink.unread, "an empty frame at least is nothing that zigpy can read"
    control_and_sequence = 2 if whole[0] & 4 == 0 else 4
    assert sink.unread <= control_and_sequence + 1, "only headers"


@pytest.mark.parametrize("frame", ZDO_FRAMES)
async def test_a_management_frame_cut_at_any_byte_raises_nothing(library: tuple[str, Any, Sink], frame: str) -> None:
    _, app, sink = library
    cluster, whole = ZDO_FRAMES[frame]
    for cut in range(len(whole) + 1):
        app.devices[IEEE].last_seen = None
        app.packet_received(packet(cluster, whole[:cut], endpoint=0, profile=0))
        assert len(sink.heard_of) == cut + 1
        assert app.devices[IEEE].last_seen is not None
    assert sink.unread
