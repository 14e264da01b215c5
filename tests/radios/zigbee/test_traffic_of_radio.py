"""The radio as a whole hands on what nodes send, also of those that it hardly knows, and goes on serving zigpy."""

import asyncio
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
import zigpy.types as t

from radios.clock import SystemClock
from radios.radio import MessageKind, NodeCommand, NodeId
from radios.zigbee.driver import ZigbeeRadio
from radios.zigbee.settings import ZigbeeSettings
from tests.support.answering_radio import AnsweringRadio
from tests.support.zigpy_library import IEEE, NWK

NODE = NodeId("zigbee:00124b0000000001")
STRANGE = t.EUI64.convert("00:12:4b:00:00:00:00:33")


def receive(app: Any, cluster: int, frame: bytes, *, nwk: int = NWK, endpoint: int = 1) -> None:
    app.packet_received(
        t.ZigbeePacket(
            src=t.AddrModeAddress(addr_mode=t.AddrMode.NWK, address=t.NWK(nwk)),
            src_ep=endpoint,
            dst=t.AddrModeAddress(addr_mode=t.AddrMode.NWK, address=t.NWK(0)),
            dst_ep=1,
            tsn=7,
            profile_id=0x0104,
            cluster_id=cluster,
            data=t.SerializableBytes(frame),
            lqi=100,
            rssi=-50,
        )
    )


@pytest.fixture
def library() -> Any:
    return type("Fake", (AnsweringRadio,), {"instances": [], "refusals": [], "answer": staticmethod(lambda *_: None)})


@pytest.fixture
async def radio(library: Any, journal: Any, images: Any) -> AsyncIterator[ZigbeeRadio]:
    radio = ZigbeeRadio(ZigbeeSettings("fake", interview_timeout_s=0.1), SystemClock(), library)
    running = asyncio.create_task(radio.run(journal, images))
    async with asyncio.timeout(20):
        while not (await radio.manage(NodeCommand("list"))).ok:
            await asyncio.sleep(0.002)
    yield radio
    running.cancel()
    await asyncio.wait({running})


def battery_report(sequence: int, half_percent: int) -> bytes:
    return bytes((0x18, sequence, 0x0A)) + struct.pack("<HBB", 0x0021, 0x20, half_percent)


async def test_reports_go_out_and_zigpy_has_them_too(radio: ZigbeeRadio, library: Any) -> None:
    app = library.instances[-1]
    traffic = radio.traffic()
    for sequence in range(3):
        receive(app, 0x0001, battery_report(sequence, 100 + sequence))
    seen = [await anext(traffic) for _ in range(3)]
    assert [message.data["sequence"] for message in seen] == [0, 1, 2]
    assert {message.node for message in seen} == {NODE}
    assert app.devices[IEEE].endpoints[1].in_clusters[1].get(0x0021) == 102
    status: Any = radio.status()["traffic"]
    assert (status["received"], status["queued"]) == (3, 0)


async def test_a_report_cut_at_any_byte_is_counted_where_zigpy_cannot_read_it(radio: ZigbeeRadio, library: Any) -> None:
    app, whole = library.instances[-1], battery_report(1, 100)
    traffic, observed = radio.traffic(), radio.observations()
    for cut in range(len(whole)):
        receive(app, 0x0001, whole[:cut])
    receive(app, 0x0001, battery_report(2, 90))
    status: Any = radio.status()["traffic"]
    assert status["unreadable"] == 3, "without a whole header"
    messages = [await anext(traffic) for _ in range(status["queued"])]
    assert messages[-1].data["attributes"] == {"battery_percentage_remaining": 90}
    assert not any(message.data.get("attributes") for message in messages[:-1]), "nothing is made up"
    seen = await anext(observed)
    assert (seen.node, seen.lqi) == (NODE, 100)


async def test_a_node_that_is_not_interviewed_is_heard(radio: ZigbeeRadio, library: Any) -> None:
    app = library.instances[-1]
    app.add_device(STRANGE, t.NWK(0x4321))
    receive(app, 0x0402, bytes((0x18, 9, 0x0A)) + struct.pack("<HBh", 0, 0x29, 2000), nwk=0x4321, endpoint=8)
    message = await anext(radio.traffic())
    assert (message.node, message.endpoint) == ("zigbee:00124b0000000033", 8)
    assert message.data["attributes"] == {"measured_value": 2000}


def says_who(nwk: int, ieee: t.EUI64) -> t.ZigbeePacket:
    """IEEE_addr_rsp."""
    return t.ZigbeePacket(
        src=t.AddrModeAddress(addr_mode=t.AddrMode.NWK, address=t.NWK(nwk)),
        src_ep=0,
        dst=t.AddrModeAddress(addr_mode=t.AddrMode.NWK, address=t.NWK(0)),
        dst_ep=0,
        tsn=7,
        profile_id=0,
        cluster_id=0x8001,
        data=t.SerializableBytes(b"\x07\0" + ieee.serialize() + struct.pack("<H", nwk)),
    )


async def test_what_a_sender_without_a_name_says_goes_out_when_it_has_one(radio: ZigbeeRadio, library: Any) -> None:
    app = library.instances[-1]
    traffic, observed = radio.traffic(), radio.observations()
    for sequence in range(3):
        receive(app, 0x0001, battery_report(sequence, 90 + sequence), nwk=0x7777)
    receive(app, 0x0001, bytes((0x18, 9, 0x0B, 0, 0)), nwk=0x7777)  # nothing that would be handed on
    status: Any = radio.status()["traffic"]
    assert (status["held"], status["dropped"]["unknown_node"]) == (3, 0)
    app.packet_received(says_who(0x7777, STRANGE))
    seen = [await anext(traffic) for _ in range(3)]
    assert [message.data["sequence"] for message in seen] == [0, 1, 2]
    assert {message.node for message in seen} == {"zigbee:00124b0000000033"}
    async for observation in observed:
        if observation.node == seen[0].node and observation.battery_percent is not None:
            assert observation.battery_percent == 46.0
            break
    status = radio.status()["traffic"]
    assert (status["held"], status["queued"]) == (0, 0)


async def test_a_sender_that_nobody_names_is_counted(radio: ZigbeeRadio, library: Any) -> None:
    for sequence in range(12):
        receive(library.instances[-1], 0x0001, battery_report(sequence, 90), nwk=0x7777)
    status: Any = radio.status()["traffic"]
    assert (status["held"], status["dropped"]["unknown_node"]) == (8, 4)


async def test_the_answer_to_a_command_is_marked_and_that_to_a_read_is_none(radio: ZigbeeRadio, library: Any) -> None:
    app = library.instances[-1]
    app.devices[IEEE].endpoints[1].add_input_cluster(0x0004)
    library.answer = staticmethod(lambda *_: (0x02, struct.pack("<BB", 8, 0)))
    asked = NodeCommand(
        "command", NODE, {"cluster": "groups", "command": "get_membership", "arguments": {"groups": []}}
    )
    result = await radio.manage(asked)
    assert result.value == {"command": "get_membership_response", "arguments": {"capacity": 8, "groups": []}}
    library.answer = staticmethod(lambda *_: (0x01, struct.pack("<HBBB", 0x0000, 0, 0x20, 3)))
    assert (await radio.manage(NodeCommand("read", NODE, {"cluster": "basic", "attributes": ["zcl_version"]}))).ok
    receive(app, 0x0004, bytes((0x09, 200, 0x02, 8, 0)))
    traffic = radio.traffic()
    kinds = [(await anext(traffic)).kind for _ in range(2)]
    assert kinds == [MessageKind.RESPONSE, MessageKind.COMMAND]
    status: Any = radio.status()["traffic"]
    assert status["received"] == 2
