"""Full jitter."""

from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.backoff import backoff_s


@settings(deadline=None)
@given(st.integers(0, 10000), st.floats(0, 1, exclude_max=True))
def test_it_stays_between_zero_and_the_bounds(attempt: int, draw: float) -> None:
    assert 0 <= backoff_s(attempt, 1.0, 120.0, lambda: draw) <= min(120.0, 2.0 ** min(attempt, 100))


def test_the_upper_end_doubles_until_the_maximum() -> None:
    assert [backoff_s(n, 1.0, 10.0, lambda: 1.0) for n in range(6)] == [1, 2, 4, 8, 10, 10]
