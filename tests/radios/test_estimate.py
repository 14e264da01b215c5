"""What planning says of radios that it cannot ask: within sight of what the radios themselves say."""

import pytest

from radios import estimate
from radios.errors import Unsupported
from radios.lorawan.airtime import downlink_airtime
from radios.lorawan.regions import region
from radios.zigbee.air import BLOCK_AIR_S


def test_zigbee_nodes_share_the_air() -> None:
    one, ten = estimate.zigbee(100_000, 1), estimate.zigbee(100_000, 10)
    assert (one.frames, ten.frames) == (2000, 20_000)
    assert (one.bytes_on_air, ten.bytes_on_air) == (100_000, 1_000_000)
    assert ten.airtime_s == pytest.approx(20_000 * BLOCK_AIR_S)
    assert one.fastest_s > one.airtime_s  # a node alone asks no faster than it can
    assert ten.fastest_s == pytest.approx(ten.airtime_s)
    assert one.fastest_s < one.slowest_s < ten.slowest_s


def test_half_of_the_air_takes_twice_as_long() -> None:
    whole, half = estimate.zigbee(100_000, 10), estimate.zigbee(100_000, 10, air_share=0.5)
    assert half.slowest_s == pytest.approx(2 * whole.slowest_s)
    assert half.airtime_s == whole.airtime_s


def test_no_nodes_take_nothing() -> None:
    none = estimate.zigbee(100_000, 0)
    assert (none.frames, none.bytes_on_air, none.fastest_s, none.slowest_s) == (0, 0, 0.0, 0.0)


def test_a_multicast_is_bound_by_the_duty_cycle_where_there_is_one() -> None:
    """EU868's RX2 is in the sub-band of 10 %: no pace sends more in hours."""
    slow = estimate.lorawan(100_000, "EU868", 3)
    assert slow.airtime_s / slow.slowest_s <= 0.1
    assert slow.fastest_s <= slow.slowest_s
    modulation = region("EU868").downlink(3).modulation
    length = slow.bytes_on_air // slow.frames
    assert slow.airtime_s == pytest.approx(slow.frames * downlink_airtime(modulation, length))
    assert slow.bytes_on_air > 100_000 * 1.15


def test_a_faster_rate_takes_fewer_frames_and_less_time() -> None:
    slow, fast = estimate.lorawan(50_000, "EU868", 0), estimate.lorawan(50_000, "EU868", 5)
    assert fast.frames < slow.frames
    assert fast.slowest_s < slow.fastest_s
    assert estimate.lorawan(50_000, "EU868").frames == slow.frames  # RX2 of the region is data rate 0


def test_what_cannot_be_sent_so_is_said() -> None:
    with pytest.raises(Unsupported, match="EU867"):
        estimate.lorawan(1000, "EU867")
    with pytest.raises(Unsupported, match="bytes in fragments of"):
        estimate.lorawan(20_000_000, "EU868", 0)
