"""What nodes send of their own accord: every report and command comes out, by zigpy's names, whatever the bytes are."""

import json
import struct
from typing import Any

import zigpy.types as t
from hypothesis import given
from hypothesis import strategies as st

from radios.radio import MessageKind, NodeId, NodeMessage
from radios.zigbee.traffic import Traffic

NODE = NodeId("zigbee:00124b0000000001")
TEMPERATURE, ON_OFF, IAS_ZONE, OTA = 0x0402, 0x0006, 0x0500, 0x0019


def packet(cluster: int, frame: bytes, *, profile: int = 0x0104, endpoint: int = 2, group: int | None = None) -> Any:
    mode = t.AddrMode.NWK if group is None else t.AddrMode.Group
    return t.ZigbeePacket(
        src=t.AddrModeAddress(addr_mode=t.AddrMode.NWK, address=t.NWK(0x1234)),
        src_ep=endpoint,
        dst=t.AddrModeAddress(addr_mode=mode, address=t.NWK(group or 0)),
        dst_ep=1,
        tsn=1,
        profile_id=profile,
        cluster_id=cluster,
        data=t.SerializableBytes(frame),
        lqi=200,
        rssi=-60,
    )


async def one(cluster: int, frame: bytes, **more: Any) -> NodeMessage:
    traffic = Traffic(10)
    answers = more.pop("answers", False)
    traffic.put(NODE, packet(cluster, frame, **more), answers=answers, at=12.5)
    message = await anext(traffic.__aiter__())
    json.dumps(dict(message.data), allow_nan=False, ensure_ascii=False).encode()
    return message


def report(*attributes: bytes, sequence: int = 7) -> bytes:
    return bytes((0x18, sequence, 0x0A)) + b"".join(attributes)


async def test_a_report_by_names() -> None:
    message = await one(TEMPERATURE, report(struct.pack("<HBh", 0x0000, 0x29, -1250)))
    assert message == NodeMessage(
        NODE,
        2,
        TEMPERATURE,
        "temperature",
        MessageKind.ATTRIBUTE_REPORT,
        {"side": "server", "sequence": 7, "attributes": {"measured_value": -1250}},
        12.5,
        200,
        -60.0,
    )


async def test_what_zigpy_does_not_know_goes_by_number() -> None:
    unknown_attribute = await one(TEMPERATURE, report(struct.pack("<HBB", 0x7777, 0x20, 9)))
    assert unknown_attribute.data["attributes"] == {"0x7777": 9}
    unknown_cluster = await one(0xABCD, report(struct.pack("<HB", 1, 0x41) + b"\x02\xca\xfe"))
    assert unknown_cluster.cluster_name == "0xabcd"
    assert unknown_cluster.data["attributes"] == {"0x0001": "cafe"}
    unknown_command = await one(ON_OFF, bytes((0x01, 3, 0xEE, 1, 2)))
    assert unknown_command.data["command"] == "0xee"
    assert unknown_command.data["payload"] == "0102"


async def test_a_manufacturers_own_is_not_taken_for_a_standard_one() -> None:
    frame = struct.pack("<BHBB", 0x1C, 0x115F, 9, 0x0A) + struct.pack("<HBh", 0x0000, 0x29, 1)
    message = await one(TEMPERATURE, frame)
    assert message.data["manufacturer"] == 0x115F
    assert message.data["attributes"] == {"0x0000": 1}
    command = await one(ON_OFF, struct.pack("<BHBB", 0x05, 0x1234, 9, 0x02))
    assert command.data["command"] == "0x02"


async def test_a_button_pressed() -> None:
    message = await one(ON_OFF, bytes((0x01, 44, 0x02)), group=0x0003)
    assert (message.kind, message.cluster_name) == (MessageKind.COMMAND, "on_off")
    assert message.data == {
        "side": "client",
        "sequence": 44,
        "command": "toggle",
        "command_id": 2,
        "arguments": {},
        "group": 3,
    }


async def test_an_alarm_with_its_flags() -> None:
    message = await one(IAS_ZONE, bytes((0x09, 5, 0x00)) + struct.pack("<HBBH", 0x0021, 0, 3, 8))
    assert message.kind is MessageKind.COMMAND
    assert message.data["command"] == "status_change_notification"
    assert message.data["arguments"] == {
        "zone_status": {"value": 0x21, "flags": ["Alarm_1", "Restore_reports"]},
        "extended_status": 0,
        "zone_id": 3,
        "delay": 8,
    }


async def test_an_answer_to_our_command_says_so() -> None:
    message = await one(0x0004, bytes((0x09, 5, 0x02, 0, 0)), answers=True)
    assert message.kind is MessageKind.RESPONSE


async def test_values_that_json_does_not_know() -> None:
    numbers = report(
        struct.pack("<HBf", 0x7001, 0x39, float("nan")),
        struct.pack("<HBf", 0x7002, 0x39, float("inf")),
        struct.pack("<HBB", 0x7003, 0x10, 1),
        struct.pack("<HB", 0x7004, 0xF0) + bytes(range(8)),
    )
    message = await one(TEMPERATURE, numbers)
    assert message.data["attributes"] == {
        "0x7001": None,
        "0x7002": None,
        "0x7003": True,
        "0x7004": "07:06:05:04:03:02:01:00",
    }


async def test_an_enumeration_keeps_number_and_name() -> None:
    message = await one(0x0000, report(struct.pack("<HBB", 0x0007, 0x30, 3), struct.pack("<HBB", 0x0006, 0x30, 0x7E)))
    attributes = message.data["attributes"]
    assert isinstance(attributes, dict)
    assert attributes["power_source"] == {"value": 3, "name": "Battery"}


async def test_a_report_that_breaks_off_gives_what_was_good() -> None:
    good = struct.pack("<HBh", 0x0000, 0x29, 1000)
    message = await one(TEMPERATURE, report(good, struct.pack("<HB", 0x0001, 0x29)))
    assert message.data["attributes"] == {"measured_value": 1000}
    assert message.data["rest"] == "010029"


async def test_a_frame_of_another_profile_is_raw() -> None:
    message = await one(0x0001, b"\x01\x02\x03", profile=0x1234)
    assert message.kind is MessageKind.RAW
    assert message.data == {"frame": "010203", "profile": 0x1234}


def test_answers_and_firmware_are_no_traffic() -> None:
    traffic = Traffic(10)
    for command in (0x01, 0x04, 0x07, 0x09, 0x0B, 0x0D, 0x00):
        traffic.put(NODE, packet(TEMPERATURE, bytes((0x18, 1, command, 0, 0))), answers=True, at=0.0)
    traffic.put(NODE, packet(OTA, bytes((0x01, 1, 0x03)) + bytes(14)), answers=False, at=0.0)
    traffic.put(NODE, packet(OTA, report(struct.pack("<HBI", 2, 0x23, 1))), answers=False, at=0.0)
    assert traffic.status(0.0) == {
        "received": 0,
        "unreadable": 0,
        "queued": 0,
        "held": 0,
        "green_power_repeated": 0,
        "dropped": {"overflow": 0, "too_large": 0, "unknown_node": 0, "green_power_refused": 0},
    }


async def test_the_oldest_goes_when_nobody_reads() -> None:
    traffic = Traffic(3)
    for number in range(5):
        traffic.put(NODE, packet(ON_OFF, bytes((0x01, number, 0x02))), answers=False, at=0.0)
    traffic.put(NODE, packet(ON_OFF, bytes((0x01, 9, 0x02)) + bytes(2000)), answers=False, at=0.0)
    assert traffic.dropped == {"overflow": 2, "too_large": 1}
    messages = traffic.__aiter__()
    assert [(await anext(messages)).data["sequence"] for _ in range(3)] == [2, 3, 4]


@given(
    cluster=st.sampled_from((0, 1, 4, 5, 6, 0x20, 0x0102, 0x0402, 0x0500, 0x0501, 0x1000, 0xFC00)), frame=st.binary()
)
def test_no_bytes_raise(cluster: int, frame: bytes) -> None:
    traffic = Traffic(1)
    traffic.put(NODE, packet(cluster, frame), answers=False, at=0.0)
    if traffic.status(0.0)["queued"]:
        iterator = traffic.__aiter__().__anext__()
        try:
            iterator.send(None)
        except StopIteration as done:
            json.dumps(dict(done.value.data), allow_nan=False, ensure_ascii=False).encode()
