"""Windows in the site's time zone: over midnight, by weekday, and on the days when the clock is changed."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from gatewayd.campaign.schedule import local_time, opens_within, spoken, within
from gatewayd.cloud.campaign_policy import Weekday, Window

BERLIN = ZoneInfo("Europe/Berlin")


def window(text: str) -> Window:
    """`mon tue 22:00-06:00`"""
    *days, hours = text.split()
    start, _, end = hours.partition("-")
    return Window(start=start, end=end, days=tuple(map(Weekday, days)) or None)


def open_at(text: str, utc: str, zone: ZoneInfo = BERLIN) -> bool:
    now = datetime.fromisoformat(utc).replace(tzinfo=UTC).timestamp()
    return within([window(text)], local_time(now, zone))


@pytest.mark.parametrize(
    ("hours", "utc", "expected"),
    [
        ("09:00-17:00", "2026-11-23 08:00", True),  # 09:00 in Berlin
        ("09:00-17:00", "2026-11-23 07:59:59", False),
        ("09:00-17:00", "2026-11-23 16:00", False),  # the end is not in it
        ("22:00-06:00", "2026-11-23 21:00", True),
        ("22:00-06:00", "2026-11-23 04:59:59", True),
        ("22:00-06:00", "2026-11-23 05:00", False),
        ("00:00-00:00", "2026-11-23 12:00", True),  # the whole day
        ("mon 09:00-17:00", "2026-11-23 12:00", True),
        ("tue 09:00-17:00", "2026-11-23 12:00", False),
        ("sun 22:00-06:00", "2026-11-23 03:00", True),  # of Sunday's night, on Monday
        ("mon 22:00-06:00", "2026-11-23 03:00", False),
        ("mon 22:00-06:00", "2026-11-24 03:00", True),
        ("mon 22:00-22:00", "2026-11-24 20:59", True),
        ("mon 22:00-22:00", "2026-11-24 21:00", False),
    ],
)
def test_a_window_is_on_the_sites_wall(hours: str, utc: str, expected: bool) -> None:
    assert open_at(hours, utc) is expected


@pytest.mark.parametrize(
    ("hours", "utc", "expected"),
    [
        # 2026-03-29: 02:00 becomes 03:00 at 01:00 UTC.
        ("01:30-02:30", "2026-03-29 00:59:59", True),
        ("01:30-02:30", "2026-03-29 01:00", False),  # 03:00 on the wall
        ("02:00-03:00", "2026-03-29 00:59:59", False),
        ("02:00-03:00", "2026-03-29 01:00", False),  # an hour that does not come that day
        ("22:00-06:00", "2026-03-29 03:59:59", True),  # 05:59 in summer time
        ("22:00-06:00", "2026-03-29 04:00", False),
        # 2026-10-25: 03:00 becomes 02:00 at 01:00 UTC; 02:15 comes twice.
        ("02:00-03:00", "2026-10-25 00:15", True),
        ("02:00-03:00", "2026-10-25 01:15", True),
        ("02:00-03:00", "2026-10-25 02:00", False),
        ("02:30-02:45", "2026-10-25 00:50", False),
        ("02:30-02:45", "2026-10-25 01:40", True),
    ],
)
def test_the_days_when_the_clock_is_changed(hours: str, utc: str, expected: bool) -> None:
    assert open_at(hours, utc) is expected


def test_the_same_instant_is_another_hour_elsewhere() -> None:
    assert open_at("22:00-23:00", "2026-11-23 21:30", BERLIN)
    assert not open_at("22:00-23:00", "2026-11-23 21:30", ZoneInfo("America/New_York"))
    assert open_at("03:15-03:20", "2026-11-23 21:30", ZoneInfo("Asia/Kathmandu"))


@pytest.mark.parametrize(
    ("hours", "closed", "utc", "opens"),
    [
        ("22:00-06:00", None, "2026-11-23 20:49:59", None),  # 22:00 in Berlin is 21:00
        ("22:00-06:00", None, "2026-11-23 20:50", "2026-11-23 21:00"),
        ("22:00-06:00", None, "2026-11-23 20:59:59.5", "2026-11-23 21:00"),
        ("22:00-06:00", "21:00-22:05", "2026-11-23 20:57", "2026-11-23 21:05"),
        ("22:00-06:00", "21:00-22:30", "2026-11-23 20:57", None),
        ("tue 22:00-06:00", None, "2026-11-23 20:55", None),
        ("03:00-04:00", None, "2026-03-29 00:55", "2026-03-29 01:00"),  # 02:00 becomes 03:00
        ("02:00-03:00", None, "2026-03-29 00:55", None),  # an hour that does not come that day
        ("02:00-02:30", None, "2026-10-25 00:55", "2026-10-25 01:00"),  # which comes a second time
    ],
)
def test_when_a_window_opens_soon(hours: str, closed: str | None, utc: str, opens: str | None) -> None:
    def at(text: str) -> float:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()

    found = opens_within([window(hours)], [window(closed)] if closed else [], at(utc), BERLIN, 600.0)
    assert found == (at(opens) if opens else 0.0)


def test_windows_in_words() -> None:
    assert spoken([window("22:00-06:00"), window("sat sun 10:00-12:00")]) == "22:00-06:00, sat sun 10:00-12:00"


@pytest.mark.parametrize("hour", ["24:00", "7:00", "07:60", "noon"])
def test_what_is_no_hour_is_refused(hour: str) -> None:
    with pytest.raises(ValueError, match="start"):
        Window(start=hour, end="12:00")
