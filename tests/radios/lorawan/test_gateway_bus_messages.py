"""The gateway bus in ChirpStack's own messages, both encodings, and in anything else."""

import pytest
from chirpstack_api import gw
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from radios.lorawan.gateway_bus import FrameKey, GatewayAck, GatewayBus, GatewayDownlink, Transmitted
from radios.lorawan.gateway_bus_messages import ack_of, downlink_of

GATEWAY = "00800000a0000001"
PHY = bytes.fromhex("60 04030201 00 0102 c9 aabb 01020304")


def encoded(message, as_json):
    return json_format.MessageToJson(message).encode() if as_json else message.SerializeToString()


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("status", ["OK", "TOO_LATE", "COLLISION_PACKET", "DUTY_CYCLE_OVERFLOW"])
def test_a_frame_and_its_ack(as_json, status):
    lora = gw.Modulation(lora=gw.LoraModulationInfo(spreading_factor=9, bandwidth=125_000))
    info = gw.DownlinkTxInfo(frequency=869_525_000, modulation=lora)
    item = gw.DownlinkFrameItem(phy_payload=PHY, tx_info=info)
    frame = gw.DownlinkFrame(downlink_id=9, gateway_id=GATEWAY, items=[item])
    ack = gw.DownlinkTxAck(downlink_id=9, gateway_id=GATEWAY, items=[gw.DownlinkTxAckItem(status=status)])
    downlink = downlink_of(GATEWAY, encoded(frame, as_json))
    assert isinstance(downlink, GatewayDownlink)
    (sent,) = downlink.frames
    assert (sent.phy, sent.frequency_hz, sent.spreading_factor, sent.bandwidth_hz) == (PHY, 869_525_000, 9, 125_000)
    told = ack_of(GATEWAY, encoded(ack, as_json))
    assert told == GatewayAck(GATEWAY, 9, (status,))
    bus = GatewayBus()
    bus.downlink(GATEWAY, downlink.downlink_id, downlink.frames)
    heard = bus.ack(GATEWAY, told.downlink_id, told.statuses)
    assert heard == Transmitted(FrameKey(0x01020304, 0x0201), GATEWAY, status, 869_525_000, sent.airtime_s)
    assert heard.sent == (status == "OK")


def test_a_status_that_is_not_known_is_not_sent():
    ack = gw.DownlinkTxAck(downlink_id=9, items=[gw.DownlinkTxAckItem(status=99)])
    heard = ack_of(GATEWAY, ack.SerializeToString())
    assert isinstance(heard, GatewayAck)
    assert heard.statuses == ("99",)


@given(st.binary() | st.text().map(str.encode), st.booleans())
def test_any_message_is_taken_or_gives_a_reason(payload, braced):
    payload = b"{" + payload if braced else payload
    downlink = downlink_of(GATEWAY, payload)
    assert isinstance(downlink, GatewayDownlink | str)
    if isinstance(downlink, GatewayDownlink):
        assert all(frame.airtime_s >= 0 for frame in downlink.frames)
    assert isinstance(ack_of(GATEWAY, payload), GatewayAck | str)


@pytest.mark.parametrize("first", [b"{", b"\x00"])
def test_a_message_too_long_is_refused(first):
    assert "more than" in downlink_of(GATEWAY, first + bytes(65536))


@pytest.mark.parametrize(
    "payload", [b'{"a":' + b"[" * 60000, b"{\xff\xfe", b'{"downlinkId":1e999}', b'{"items":[{"phyPayload":7}]}', b"{}}"]
)
def test_twisted_json_gives_a_reason(payload):
    assert isinstance(downlink_of(GATEWAY, payload), str)


def test_a_frame_without_a_readable_payload_is_about_nothing():
    downlink = downlink_of(GATEWAY, b'{"downlinkId":9,"items":[{"phyPayload":"!"}]}')
    bus = GatewayBus()
    if isinstance(downlink, GatewayDownlink):
        bus.downlink(GATEWAY, downlink.downlink_id, downlink.frames)
    ack = ack_of(GATEWAY, b'{"downlinkId":9,"items":[{"status":"OK"}]}')
    assert isinstance(ack, GatewayAck)
    assert bus.ack(GATEWAY, ack.downlink_id, ack.statuses) is None
