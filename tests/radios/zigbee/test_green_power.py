"""Green Power devices are heard: through proxies and by the dongle itself, commissioned here or not, and once."""

import asyncio
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
import zigpy.device
import zigpy.types as t
import zigpy.zgp.types as zgp

from radios.clock import SystemClock
from radios.radio import GreenPowerMessage, GreenPowerSecurity, MessageKind, NodeCommand
from radios.zigbee.driver import ZigbeeRadio
from radios.zigbee.settings import ZigbeeSettings
from tests.support.zigpy_library import NWK, FakeRadio

SOURCE = 0x0171F2A3
TOGGLE, MOVE_UP, STOP, COMMISSIONING = 0x22, 0x30, 0x34, 0xE0
AUTHENTICATED = 2 << 6 | 4 << 8  # frame counter and MIC, individual key


@pytest.fixture
async def radio(journal: Any, images: Any) -> AsyncIterator[tuple[ZigbeeRadio, FakeRadio]]:
    library = type("Fake", (FakeRadio,), {"instances": [], "refusals": []})
    radio = ZigbeeRadio(ZigbeeSettings("fake"), SystemClock(), library)
    running = asyncio.create_task(radio.run(journal, images))
    async with asyncio.timeout(20):
        while not (await radio.manage(NodeCommand("list"))).ok:
            await asyncio.sleep(0.002)
    yield radio, library.instances[-1]
    running.cancel()
    await asyncio.wait({running})


def notification(counter: int, command: int, payload: bytes = b"", *, options: int = 0, proxy: int = NWK) -> Any:
    """GP Notification (A.3.3.4.1) as a proxy forwards it."""
    body = struct.pack("<HLLBB", options, SOURCE, counter, command, len(payload)) + payload
    return packet(b"\x11\x05\x00" + body, proxy)


def packet(frame: bytes, source: int) -> Any:
    return t.ZigbeePacket(
        src=t.AddrModeAddress(addr_mode=t.AddrMode.NWK, address=t.NWK(source)),
        src_ep=242,
        dst=t.AddrModeAddress(addr_mode=t.AddrMode.NWK, address=t.NWK(0)),
        dst_ep=242,
        tsn=frame[1],
        profile_id=0xA1E0,
        cluster_id=0x0021,
        data=t.SerializableBytes(frame),
    )


def direct(counter: int, command: int, payload: bytes = b"", **more: Any) -> Any:
    """As a radio library hands on what its dongle heard itself."""
    return t.ZigbeeGpPacket(
        application_id=zgp.ApplicationID.SrcID,
        src_id=zgp.SrcID(SOURCE),
        command_id=zgp.GPDCommandID(command),
        payload=t.SerializableBytes(payload),
        frame_counter=t.uint32_t(counter),
        lqi=t.uint8_t(200),
        rssi=t.int8s(-40),
        **{"security_level": zgp.SecurityLevel.NoSecurity, "security_status": zgp.SecurityStatus.NoSecurity, **more},
    )


async def heard(radio: ZigbeeRadio, count: int) -> list[GreenPowerMessage]:
    traffic = radio.traffic()
    async with asyncio.timeout(5):
        found = [await anext(traffic) for _ in range(count)]
    assert radio.status()["traffic"]["queued"] == 0  # type: ignore[call-overload,index]  # JSON
    assert all(isinstance(message, GreenPowerMessage) for message in found)
    return found  # type: ignore[return-value]  # just seen


def counters(radio: ZigbeeRadio) -> Any:
    return radio.status()["traffic"]


async def test_a_switch_that_moved_in_is_heard_through_its_proxies_once(radio: Any) -> None:
    radio, app = radio
    for proxy in (NWK, 0x7777, 0x0171):  # one that is known, one that is not, and the switch's own alias
        app.packet_received(notification(41, TOGGLE, options=AUTHENTICATED, proxy=proxy))
    app.packet_received(notification(42, MOVE_UP, b"\x20", options=AUTHENTICATED))
    toggled, moved = await heard(radio, 2)
    assert (toggled.source, toggled.sequence, toggled.endpoint) == ("0171f2a3", 41, None)
    assert (toggled.kind, toggled.security, toggled.commissioned) == (
        MessageKind.COMMAND,
        GreenPowerSecurity.PROVEN,
        False,
    )
    assert toggled.data == {"command": "Toggle", "command_id": TOGGLE, "arguments": {}}
    assert moved.data == {"command": "MoveUp", "command_id": MOVE_UP, "arguments": {"rate": 0x20}}
    assert counters(radio)["green_power_repeated"] == 2
    assert counters(radio)["held"] == 0, "a proxy is not taken for a sender without a name"


async def test_what_the_dongle_hears_itself_comes_with_its_link_and_says_what_is_proven(radio: Any) -> None:
    radio, app = radio
    app.gp_packet_received(direct(1, TOGGLE))
    app.gp_packet_received(direct(2, 0x99, b"\x01\x02"))  # nothing that zigpy knows
    ciphertext = {
        "security_level": zgp.SecurityLevel.Encrypted,
        "security_status": zgp.SecurityStatus.Unprocessed,
        "mic": t.uint32_t(7),
    }
    app.gp_packet_received(direct(3, 0x5A, b"\xbb", **ciphertext))
    app.gp_packet_received(direct(3, 0x5A, b"\xbb", **ciphertext))
    app.gp_packet_received(direct(4, TOGGLE, security_status=zgp.SecurityStatus.AuthFailure))
    app.gp_packet_received(direct(5, COMMISSIONING, b"\x02\x00"))
    plain, unknown, opaque = await heard(radio, 3)
    assert (plain.lqi, plain.rssi_dbm, plain.security) == (200, -40.0, GreenPowerSecurity.NONE)
    assert unknown.data == {"command": "0x99", "command_id": 0x99, "payload": "0102"}
    assert (opaque.kind, opaque.data, opaque.security) == (
        MessageKind.RAW,
        {"payload": "5abb"},
        GreenPowerSecurity.UNCHECKED,
    )
    assert counters(radio)["dropped"]["green_power_refused"] == 1
    assert counters(radio)["green_power_repeated"] == 1


async def test_a_device_of_ours_is_judged_by_zigpy(radio: Any) -> None:
    radio, app = radio
    device = zigpy.device.GreenPowerDevice(app, application_id=zgp.ApplicationID.SrcID, src_id=zgp.SrcID(SOURCE))
    device.security_level = zgp.SecurityLevel.FullFrameCounterAndMIC
    device.security_key_type = zgp.SecurityKeyType.IndividualKey
    device.frame_counter = t.uint32_t(10)
    app.devices[device.ieee] = device
    app.packet_received(notification(10, TOGGLE, options=AUTHENTICATED))  # played back
    app.packet_received(notification(11, TOGGLE))  # without its key
    app.packet_received(notification(12, TOGGLE, options=AUTHENTICATED))
    app.packet_received(notification(12, TOGGLE, options=AUTHENTICATED, proxy=0x7777))
    app.packet_received(notification(13, STOP, options=AUTHENTICATED))
    messages = await heard(radio, 2)
    assert [(m.sequence, m.data["command"], m.commissioned) for m in messages] == [
        (12, "Toggle", True),
        (13, "LevelControlStop", True),
    ]
    assert counters(radio)["green_power_repeated"] == 3


async def test_a_frame_that_zigpy_does_not_bear_goes_no_further_and_is_counted(radio: Any) -> None:
    radio, app = radio
    device = zigpy.device.GreenPowerDevice(app, application_id=zgp.ApplicationID.SrcID, src_id=zgp.SrcID(SOURCE))
    app.devices[device.ieee] = device
    cut = {"security_level": zgp.SecurityLevel.Encrypted, "security_status": zgp.SecurityStatus.Unprocessed}
    app.gp_packet_received(direct(11, TOGGLE, **cut))  # still encrypted, without what is needed to decrypt it
    assert (counters(radio)["unreadable"], counters(radio)["queued"]) == (1, 0)
    app.gp_packet_received(direct(12, TOGGLE))
    assert [message.sequence for message in await heard(radio, 1)] == [12]


async def test_a_green_power_device_counts_as_traffic_of_the_site(radio: Any) -> None:
    radio, app = radio
    assert radio.status()["air_share_because"] != "foreground"
    for counter in range(20):
        app.gp_packet_received(direct(counter, TOGGLE))
    assert radio.status()["air_share_because"] == "foreground"
