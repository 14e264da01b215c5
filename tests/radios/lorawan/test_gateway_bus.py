"""Which frame a gateway's ack is about, and whether it was sent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radios.lorawan.gateway_bus import TX_UNKNOWN, FrameKey, GatewayBus, GatewayFrame, Transmitted, frame_key

GATEWAY = "00800000a0000001"
KEY = FrameKey(0x01020304, 0x0201)
PHY = bytes.fromhex("60 04030201 00 0102 c9 aabb 01020304")
FRAME = GatewayFrame(PHY)


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
    bus.downlink(GATEWAY, 7, [FRAME, FRAME])
    heard = bus.ack(GATEWAY, 7, statuses)
    assert heard == Transmitted(KEY, GATEWAY, told)
    assert heard.sent == (told == "OK")


def test_an_ack_counts_once_and_only_for_its_own_gateway():
    bus = GatewayBus()
    bus.downlink(GATEWAY, 7, [FRAME])
    assert bus.ack("00800000a0000002", 7, ["OK"]) is None
    assert bus.ack(GATEWAY, 8, ["OK"]) is None
    assert bus.ack(GATEWAY, 7, ["OK"]) is not None
    assert bus.ack(GATEWAY, 7, ["OK"]) is None


@pytest.mark.parametrize("statuses", [[], ["IGNORED"]])
def test_an_ack_that_says_nothing_tells_nothing(statuses):
    bus = GatewayBus()
    bus.downlink(GATEWAY, 7, [FRAME])
    assert bus.ack(GATEWAY, 7, statuses) is None


def test_lost_acks_do_not_pile_up():
    bus = GatewayBus()
    for downlink_id in range(5000):
        bus.downlink(GATEWAY, downlink_id, [FRAME])
    assert bus.ack(GATEWAY, 0, ["OK"]) is None
    assert bus.ack(GATEWAY, 4999, ["OK"]) is not None


def test_an_ack_tells_the_air_that_the_frame_took():
    bus = GatewayBus()
    rx1, rx2 = GatewayFrame(PHY, 868_100_000, 7, 125_000), GatewayFrame(PHY, 869_525_000, 12, 125_000)
    bus.downlink(GATEWAY, 7, [rx1, rx2])
    heard = bus.ack(GATEWAY, 7, ["TOO_LATE", "OK"])
    assert (heard.frequency_hz, heard.airtime_s) == (869_525_000, pytest.approx(1.155, abs=0.001))


def test_a_frame_that_is_no_data_takes_air_too():
    bus = GatewayBus()
    bus.downlink(GATEWAY, 7, [GatewayFrame(b"\x20" + bytes(16), 868_100_000, 7, 125_000)])
    heard = bus.ack(GATEWAY, 7, ["OK"])
    assert heard.key is None
    assert heard.airtime_s > 0


def test_a_downlink_whose_ack_is_lost_is_told_once_as_unknown():
    bus = GatewayBus()
    bus.downlink(GATEWAY, 7, [FRAME], now=100.0)
    bus.downlink(GATEWAY, 8, [FRAME], now=150.0)
    assert bus.overdue(159.0) == []
    (word,) = bus.overdue(161.0)
    assert (word.status, word.told, word.sent) == (TX_UNKNOWN, False, False)
    assert bus.overdue(161.0) == []
    assert bus.ack(GATEWAY, 7, ["OK"]) is None
    assert bus.ack(GATEWAY, 8, ["OK"]) is not None
