"""GPS time against known moments and around every leap second."""

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radios.lorawan.gps_time import (
    GPS_EPOCH_UNIX_S,
    LEAP_SECONDS_UNIX_S,
    WRAP_S,
    GpsTime,
    gps_from_unix,
    unix_from_gps,
    unwrap,
)
from radios.wall_time import WallTime


def utc(*moment: int) -> float:
    return dt.datetime(*moment, tzinfo=dt.UTC).timestamp()


@pytest.mark.parametrize(
    ("unix", "gps"),
    [
        (utc(1980, 1, 6), 0),
        (utc(1981, 6, 30, 23, 59, 59), 46_828_799),
        (utc(1981, 7, 1), 46_828_801),
        (utc(2016, 12, 31, 23, 59, 59), 1_167_264_016),
        (utc(2017, 1, 1), 1_167_264_018),
        (utc(2026, 11, 22), 1_479_340_800 + 18 - 0),
    ],
)
def test_known_moments(unix, gps):
    assert gps_from_unix(unix) == gps
    assert unix_from_gps(gps) == unix


def test_leap_seconds_end_at_the_first_of_january_or_july():
    assert len(LEAP_SECONDS_UNIX_S) == 18
    moments = [dt.datetime.fromtimestamp(unix, dt.UTC) for unix in LEAP_SECONDS_UNIX_S]
    assert all((m.month, m.day, m.hour, m.minute, m.second) in {(1, 1, 0, 0, 0), (7, 1, 0, 0, 0)} for m in moments)
    years = ["81", "82", "83", "85", "88", "90", "91", "92", "93", "94", "96", "97", "99", "06", "09", "12", "15", "17"]
    assert [f"{m:%y}" for m in moments] == years
    assert moments == sorted(moments)


@pytest.mark.parametrize("unix", LEAP_SECONDS_UNIX_S)
def test_leap_second_stands_still(unix):
    gps = gps_from_unix(unix)
    assert gps - gps_from_unix(unix - 1) == 2
    assert [unix_from_gps(gps + at) for at in (-2, -1, -0.5, 0, 1)] == [unix - 1, unix, unix, unix, unix + 1]


@given(st.integers(int(utc(1980, 1, 6)), int(utc(2100, 1, 1))))
def test_there_and_back(unix):
    assert unix_from_gps(gps_from_unix(unix)) == unix


def test_fractions_are_kept():
    assert gps_from_unix(utc(2020, 1, 1) + 0.25) % 1 == 0.25
    assert unix_from_gps(1_300_000_000.5) % 1 == 0.5


def test_before_the_epoch_a_clock_that_was_never_set_still_counts():
    assert gps_from_unix(utc(1980, 1, 6) - 1) == -1
    assert gps_from_unix(60.0) % WRAP_S == WRAP_S - GPS_EPOCH_UNIX_S + 60
    with pytest.raises(ValueError, match="negative"):
        unix_from_gps(-1)


@given(st.integers(0, 1 << 34), st.integers(-(1 << 31) + 1, (1 << 31) - 1))
def test_unwrap_finds_the_nearest_second(near, away):
    assert unwrap((near + away) % (1 << 32), near) == near + away


def test_gateways_with_gps_know_better_than_a_wrong_wall_clock():
    wall = WallTime()
    gps, now = GpsTime(wall), utc(2027, 1, 1)
    assert gps.at(now) == gps_from_unix(now)
    wall.step(10 * 365 * 86400.0)
    assert gps.at(now) == gps_from_unix(wall.unix(now))
    gps.heard(gps_from_unix(now) - 2.0, now)  # it was on its way for so long
    assert gps.at(now + 100) == gps_from_unix(now) + 98
    wall.step(0.0)
    assert gps.at(now + 100) == gps_from_unix(now + 100), "as exact as it was before"


def test_one_gateway_without_a_fix_and_an_uplink_that_comes_late_move_no_time():
    gps, now = GpsTime(WallTime()), utc(2027, 1, 1)
    for wrong_s in (0.0, -300.0, 0.0, -1024 * 7 * 86400.0, 0.0):
        gps.heard(gps_from_unix(now) + wrong_s, now)
    assert gps.at(now) == gps_from_unix(now)
