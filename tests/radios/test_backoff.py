"""Waits that grow, and end."""

import pytest

from radios.backoff import growing_s


@pytest.mark.parametrize(("times", "expected"), [(-2, 60.0), (0, 60.0), (1, 90.0), (2, 135.0), (50, 900.0)])
def test_a_wait_grows_up_to_its_most(times: int, expected: float) -> None:
    assert growing_s(60.0, 1.5, times, 900.0) == expected


def test_a_node_that_is_silent_for_years_overflows_nothing() -> None:
    assert growing_s(1.0, 2.0, 10**9, 3600.0) == 3600.0
