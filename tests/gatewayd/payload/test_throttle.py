"""The operator's cap on downloads, and what changes in quiet hours."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.payload.throttle import DownloadLimits, Throttle

NIGHT = DownloadLimits(100_000, 22 * 60, 6 * 60, 10_000)


@pytest.mark.parametrize(
    ("limits", "minute", "rate"),
    [
        (DownloadLimits(), 0, None),
        (DownloadLimits(500), 0, 500),
        (NIGHT, 12 * 60, 100_000),
        (NIGHT, 22 * 60, 10_000),
        (NIGHT, 0, 10_000),
        (NIGHT, 6 * 60 - 1, 10_000),
        (NIGHT, 6 * 60, 100_000),
        (DownloadLimits(None, 60, 120, 0), 60, 0),
        (DownloadLimits(None, 60, 120, 0), 120, None),
        (DownloadLimits(5_000, 60, 120, 10_000), 60, 5_000),  # the slower one
        (DownloadLimits(5_000, 60, 60, 0), 60, 5_000),  # no quiet hours
    ],
)
def test_the_rate_at_a_time_of_day(limits: DownloadLimits, minute: int, rate: int | None) -> None:
    assert limits.rate(minute) == rate


def test_without_a_limit_nothing_waits() -> None:
    throttle = Throttle(DownloadLimits(), lambda: 0)
    assert throttle.take(10**9, 0.0) == 0
    assert throttle.piece(65536) == 65536
    assert not throttle.closed


def test_hours_in_which_nothing_comes() -> None:
    minute = 60
    throttle = Throttle(DownloadLimits(None, 60, 120, 0), lambda: minute)
    assert throttle.closed
    assert throttle.closed_s() > 0
    assert throttle.take(1, 0.0) > 0
    minute = 120
    assert throttle.closed_s() == 0
    assert throttle.take(1, 0.0) == 0


@given(st.lists(st.tuples(st.integers(1, 5_000), st.floats(0, 30)), min_size=1, max_size=60), st.integers(100, 5_000))
def test_never_more_than_a_seconds_worth_ahead_of_the_rate(reads: list[tuple[int, float]], rate: int) -> None:
    """Whatever pauses lie between the reads; and who reads without pause gets the whole rate."""
    throttle = Throttle(DownloadLimits(rate), lambda: 0)
    now, start, taken, busy_s = 0.0, 0.0, 0, 0.0
    for size, pause_s in reads:
        size = throttle.piece(size)
        taken += size
        wait = throttle.take(size, now)
        busy_s += wait
        now += wait
        assert taken <= rate * (now - start + 1.0) + 1e-6
        now += pause_s
    assert busy_s <= taken / rate
