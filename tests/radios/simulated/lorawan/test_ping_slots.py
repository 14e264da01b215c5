"""Ping slots of the simulation."""

import pytest

from radios.simulated.lorawan.ping_slots import is_ping_slot, next_ping_slot


@pytest.mark.parametrize(
    ("after_s", "periodicity", "expected_s"), [(0, 7, 74.3), (120, 7, 185.62), (0, 6, 12.86), (13, 6, 74.3)]
)
def test_slots_are_where_other_implementations_have_them(after_s, periodicity, expected_s):
    """Vectors of brocaar's unit tests, DevAddr 0."""
    assert next_ping_slot(after_s, 0, periodicity) == pytest.approx(expected_s, abs=1e-9)


@pytest.mark.parametrize("periodicity", range(8))
def test_there_are_as_many_slots_in_a_beacon_period_as_the_periodicity_says(periodicity):
    at, found = 128.0 * 1000, []
    while (at := next_ping_slot(at, 0x01020304, periodicity)) < 128.0 * 1001:
        found.append(at)
        assert is_ping_slot(at, 0x01020304, periodicity)
        assert not is_ping_slot(at + 0.03, 0x01020304, periodicity)
    assert len(found) == 1 << (7 - periodicity)
    assert min(found) >= 128.0 * 1000 + 2.12
