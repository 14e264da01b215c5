"""Which frame a gateway's ack is about, and whether it was sent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radios.lorawan.gateway_bus import FrameKey, GatewayBus, Transmitted, frame_key

GATEWAY = "00800000a0000001"
KEY = FrameKey(0x01020304, 0x0201)
PHY = bytes.fromhex("60 04030201 00 0102 c9 aabb 01020304")


def test_address_and_counter_are_in_clear():
    assert frame_key(PHY) == KEY


@given(st.binary(max_size=300))
def test_any_bytes_are_a_frame_or_none(phy):
    assert frame_key(phy) is None or len(phy) >= 12


@pytest.mark.parametrize("phy", [b"", PHY[:11], b"\x40" + PHY[1:], b"\x20" + bytes(16)])
def test_no_data_downlink_has_no_key(phy):
    assert frame_key(phy) is None


@pytest.mark.parametrize(
    ("statuses", "told"),
    [
        (["OK"], "OK"),
        (["TOO_LATE", "OK"], "OK"),
        (["OK", "IGNORED"], "OK"),
        (["TOO_LATE", "COLLISION_PACKET"], "COLLISION_PACKET"),
    ],
)
def test_an_ack_says_whether_the_frame_was_sent(statuses, told):
    bus = GatewayBus()
    bus.downlink(GATEWAY, 7, [PHY, PHY])
    heard = bus.ack(GATEWAY, 7, statuses)
    assert heard == Transmitted(KEY, GATEWAY, told)
    assert heard.sent == (told == "OK")


def test_an_ack_counts_once_and_only_for_its_own_gateway():
    bus = GatewayBus()
    bus.downlink(GATEWAY, 7, [PHY])
    assert bus.ack("00800000a0000002", 7, ["OK"]) is None
    assert bus.ack(GATEWAY, 8, ["OK"]) is None
    assert bus.ack(GATEWAY, 7, ["OK"]) is not None
    assert bus.ack(GATEWAY, 7, ["OK"]) is None


@pytest.mark.parametrize("statuses", [[], ["IGNORED"]])
def test_an_ack_that_says_nothing_tells_nothing(statuses):
    bus = GatewayBus()
    bus.downlink(GATEWAY, 7, [PHY])
    assert bus.ack(GATEWAY, 7, statuses) is None


def test_lost_acks_do_not_pile_up():
    bus = GatewayBus()
    for downlink_id in range(5000):
        bus.downlink(GATEWAY, downlink_id, [PHY])
    assert bus.ack(GATEWAY, 0, ["OK"]) is None
    assert bus.ack(GATEWAY, 4999, ["OK"]) is not None
