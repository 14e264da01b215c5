"""Hours of the site's day. PURE: the instant and the zone are arguments.

What counts is the clock on the site's wall: hours that a change to summer time leaves out never come that day, hours that
the change back repeats count both times.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta, tzinfo

from gatewayd.cloud.campaign_policy import Weekday, Window

_DAYS = tuple(Weekday)


def local_time(now: float, zone: tzinfo) -> datetime:
    """Unix seconds on the clock of the site's wall."""
    return datetime.fromtimestamp(now, zone)


def within(windows: Iterable[Window], local: datetime) -> bool:
    """Whether one of the windows covers the local time; a window belongs to the day on which it starts."""
    today = _DAYS[local.weekday()]
    yesterday = _DAYS[(local - timedelta(days=1)).weekday()]
    at = local.strftime("%H:%M")
    for window in windows:
        days = window.days or _DAYS
        if window.start < window.end:
            if today in days and window.start <= at < window.end:
                return True
        elif (today in days and at >= window.start) or (yesterday in days and at < window.end):
            return True
    return False


def opens_within(windows: Iterable[Window], closed: Iterable[Window], now: float, zone: tzinfo, lead_s: float) -> float:
    """The next full minute, at most `lead_s` away, at which a window is open and none of `closed` is; 0: none. Unix seconds.

    Minute by minute, because that is how windows are written, and whatever the clock on the wall does meanwhile.
    """
    windows, closed = tuple(windows), tuple(closed)
    minute = (now // 60 + 1) * 60
    while minute <= now + lead_s:
        local = local_time(minute, zone)
        if within(windows, local) and not within(closed, local):
            return minute
        minute += 60
    return 0.0


def spoken(windows: Iterable[Window]) -> str:
    """For people: `22:00-06:00, sat sun 10:00-12:00`."""
    return ", ".join(" ".join((*(window.days or ()), f"{window.start}-{window.end}")) for window in windows)
