"""Smooth pacing ends nearly as early as can be, and fills its hours evenly. Virtual time."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radios.lorawan.air import AirLimits, MulticastAir, Turn
from radios.lorawan.airtime import WINDOW_S, DutyCycleLedger
from radios.lorawan.pacing import earliest_end, share_for
from radios.lorawan.regions import region

T0 = 1_800_000_000.0
EU868 = region("EU868")
BUDGET_S = 324.0


def pace(dr, ledger=None):
    modulation = EU868.downlink(dr).modulation
    ledgers = {"gateway": ledger or DutyCycleLedger(0.1)}
    return MulticastAir(ledgers, modulation, Turn(), share=1.0, gateway_gap_s=5.0, limits=AirLimits())


def send(air, frames, size=115, *, now=T0):
    """When each of so many frames goes."""
    times = []
    for done in range(frames):
        air.expect(frames - done, size)
        now = air.earliest(size, now)
        air.book(size, now)
        times.append(now)
    return times


@pytest.mark.parametrize("frames", [300, 479, 600, 915, 1200, 1316])
def test_the_end_is_near_the_earliest_that_the_budget_allows(frames):
    air = pace(3)
    times = send(air, frames)
    airtime_s = air.airtime_s(115)
    earliest_s = earliest_end(0.0, frames * airtime_s, BUDGET_S)
    hours, rest = divmod(frames * airtime_s, BUDGET_S)
    allowed_s = max(
        1.05 * earliest_s if hours else 0.0, hours * WINDOW_S * 1.03 + 2.1 * rest
    )  # half of the time on air
    assert times[-1] - T0 <= allowed_s + airtime_s
    assert max(sum(t <= u < t + WINDOW_S for u in times) for t in times) * airtime_s <= BUDGET_S + airtime_s


def test_only_what_does_not_fill_an_hour_goes_early():
    air = pace(3)
    airtime_s = air.airtime_s(115)
    rest = 120.0
    times = send(air, round((2 * BUDGET_S + rest) / airtime_s))
    on_air = [airtime_s / (b - a) for a, b in pairwise(times)]
    assert max(on_air[5:]) <= 0.51  # answers still come through
    early = sum(t < T0 + 600 for t in times) * airtime_s
    assert rest - 1 <= early <= rest + 0.09 * 600
    later = [share for share, t in zip(on_air, times, strict=False) if T0 + 700 < t < T0 + 2000]
    assert max(later) < 0.12


def test_a_few_frames_after_hours_of_silence_go_at_once():
    air = pace(5)
    send(air, 600, 222)
    later = T0 + 5 * 3600
    times = send(air, 20, 222, now=later)
    assert times[-1] - later < 20 * 2.5 * air.airtime_s(222)


def test_what_others_sent_is_waited_for():
    ledger = DutyCycleLedger(0.1)
    ledger.add(T0 - 100, 300.0)
    times = send(pace(3, ledger), 60)
    assert times[-1] > T0 + 3400


@given(st.floats(1.0, 3000.0), st.floats(1.0, 30_000.0), st.floats(1.0, 360.0))
def test_a_share_finishes_the_work_when_hours_are_filled(work_s, left_s, budget_s):
    share = share_for(work_s, left_s, budget_s)
    hours, part_s = divmod(left_s, WINDOW_S)
    assert 0 < share <= 1
    possible = work_s <= hours * budget_s + part_s
    if possible and part_s > 1:
        assert share * part_s + hours * budget_s >= work_s - 1e-6 or share * left_s >= work_s - 1e-6


@given(st.floats(1.0, 3000.0), st.lists(st.tuples(st.floats(-3600.0, 0.0), st.floats(0.1, 50.0)), max_size=6))
def test_an_earliest_end_is_never_before_the_work_could_be_done(work_s, sent):
    counting = sorted(sent)
    fresh, used = earliest_end(0.0, work_s, BUDGET_S), earliest_end(0.0, work_s, BUDGET_S, counting)
    assert work_s - 1e-6 <= fresh
    assert used >= work_s - 1e-6
    assert fresh == pytest.approx((work_s - 1e-9) // BUDGET_S * WINDOW_S + ((work_s - 1e-9) % BUDGET_S), abs=1e-3)
