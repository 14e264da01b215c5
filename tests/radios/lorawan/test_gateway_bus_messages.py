"""The gateway bus in ChirpStack's own messages, both encodings, and in anything else."""

import pytest
from chirpstack_api import gw
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from radios.lorawan.gateway_bus import FrameKey, GatewayBus, Transmitted
from radios.lorawan.gateway_bus_messages import hear_ack, hear_downlink

GATEWAY = "00800000a0000001"
PHY = bytes.fromhex("60 04030201 00 0102 c9 aabb 01020304")


def encoded(message, as_json):
    return json_format.MessageToJson(message).encode() if as_json else message.SerializeToString()


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("status", ["OK", "TOO_LATE", "COLLISION_PACKET", "DUTY_CYCLE_OVERFLOW"])
def test_a_frame_and_its_ack(as_json, status):
    bus = GatewayBus()
    frame = gw.DownlinkFrame(downlink_id=9, gateway_id=GATEWAY, items=[gw.DownlinkFrameItem(phy_payload=PHY)])
    ack = gw.DownlinkTxAck(downlink_id=9, gateway_id=GATEWAY, items=[gw.DownlinkTxAckItem(status=status)])
    assert hear_downlink(bus, GATEWAY, encoded(frame, as_json), as_json=as_json) == ""
    heard = hear_ack(bus, GATEWAY, encoded(ack, as_json), as_json=as_json)
    assert heard == Transmitted(FrameKey(0x01020304, 0x0201), GATEWAY, status)
    assert heard.sent == (status == "OK")


def test_a_status_that_is_not_known_is_not_sent():
    bus = GatewayBus()
    bus.downlink(GATEWAY, 9, [PHY])
    ack = gw.DownlinkTxAck(downlink_id=9, items=[gw.DownlinkTxAckItem(status=99)])
    heard = hear_ack(bus, GATEWAY, ack.SerializeToString())
    assert isinstance(heard, Transmitted)
    assert not heard.sent


@given(st.binary() | st.text().map(str.encode), st.booleans())
def test_any_message_is_taken_or_gives_a_reason(payload, as_json):
    bus = GatewayBus()
    assert isinstance(hear_downlink(bus, GATEWAY, payload, as_json=as_json), str)
    assert isinstance(hear_ack(bus, GATEWAY, payload, as_json=as_json), Transmitted | None | str)


@pytest.mark.parametrize("as_json", [False, True])
def test_a_message_too_long_is_refused(as_json):
    assert "more than" in hear_downlink(GatewayBus(), GATEWAY, bytes(65537), as_json=as_json)


@pytest.mark.parametrize("payload", [b"[" * 60000, b"\xff\xfe", b"1e999", b'{"items":[{"phyPayload":7}]}', b"null"])
def test_twisted_json_gives_a_reason(payload):
    assert hear_downlink(GatewayBus(), GATEWAY, payload, as_json=True)


def test_a_frame_without_a_readable_payload_is_about_nothing():
    bus = GatewayBus()
    hear_downlink(bus, GATEWAY, b'{"downlinkId":9,"items":[{"phyPayload":"!"}]}', as_json=True)
    assert hear_ack(bus, GATEWAY, b'{"downlinkId":9,"items":[{"status":"OK"}]}', as_json=True) is None
