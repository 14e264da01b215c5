"""Every zigpy radio library that is installed can be tapped: bellows always, the extras where they are there."""

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

INSTALLED = [
    name for name, module in RADIO_LIBRARY_MODULES.items() if importlib.util.find_spec(module.partition(".")[0])
]
BLOCK = bytes((1, 7, 3, 0)) + struct.pack("<HHLLB", 0x1049, 1, 0x20000, 100, 50)
REPORT = bytes((0x18, 3, 0x0A)) + struct.pack("<HBB", 0x0021, 0x20, 150)


class Sink:
    """Keeps what the tap says."""

    def __init__(self) -> None:
        self.ota: list[tuple[Any, Peer, bytes]] = []
        self.frames: list[tuple[Any, int]] = []
        self.names: list[tuple[Any, int]] = []
        self.announced_by: list[Any] = []
        self.site = 0

    def ota_frame(self, device: Any, peer: Peer, frame: bytes) -> None:
        self.ota.append((device.ieee, peer, frame))

    def ota_default_response(self, device: Any, command: int, status: int) -> None:
        raise AssertionError("none was sent")

    def heard(self, device: Any) -> None: ...

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


def packet(cluster: int, frame: bytes) -> t.ZigbeePacket:
    return t.ZigbeePacket(
        src=t.AddrModeAddress(addr_mode=t.AddrMode.NWK, address=t.NWK(NWK)),
        src_ep=1,
        dst=t.AddrModeAddress(addr_mode=t.AddrMode.NWK, address=t.NWK(0)),
        dst_ep=1,
        tsn=frame[1],
        profile_id=0x0104,
        cluster_id=cluster,
        data=t.SerializableBytes(frame),
    )


@pytest.fixture(params=INSTALLED)
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


def test_at_least_the_library_of_the_base_install_is_tried() -> None:
    assert "bellows" in INSTALLED


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


async def test_what_its_own_receiver_makes_of_a_frame_arrives(library: tuple[str, Any, Sink]) -> None:
    """As the library's own code hands it on. bellows and deconz: only with a dongle (`test_over_bellows`)."""
    name, app, sink = library
    match name:
        case "znp":
            from zigpy_znp import commands

            await app.on_af_message(
                commands.AF.IncomingMsg.Callback(
                    GroupId=0,
                    ClusterId=0x0019,
                    SrcAddr=NWK,
                    SrcEndpoint=1,
                    DstEndpoint=1,
                    WasBroadcast=False,
                    LQI=90,
                    SecurityUse=False,
                    TimeStamp=0,
                    TSN=7,
                    Data=BLOCK,
                    MacSrcAddr=NWK,
                    MsgResultRadius=29,
                )
            )
        case "xbee":
            app.handle_rx(IEEE, t.NWK(NWK), 1, 1, 0x0019, 0x0104, 0, BLOCK)
        case "zboss":
            app.on_apsde_indication(
                SimpleNamespace(
                    FrameFC=0,
                    GrpAddr=0,
                    SrcAddr=t.NWK(NWK),
                    SrcEndpoint=1,
                    DstEndpoint=1,
                    ProfileId=0x0104,
                    ClusterId=0x0019,
                    Payload=list(BLOCK),
                    PayloadLength=len(BLOCK),
                    LQI=90,
                    RSSI=-60,
                )
            )
        case _:
            app.packet_received(packet(0x0019, BLOCK))
    assert [(ieee, frame) for ieee, _, frame in sink.ota] == [(IEEE, BLOCK)]
