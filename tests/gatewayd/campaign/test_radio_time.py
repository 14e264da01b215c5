"""What a step of the clock does to what is stored, and what another boot does."""

from dataclasses import replace

import pytest

from gatewayd.campaign.radio_time import Era, Step, begun, followed

NOON = 1_800_000_000.0
UP_S = 1000.0  # the machine has been up for


def era(offset_s: float = NOON - UP_S, since: float = NOON - 500, *, believed: bool = True, boot: str = "b") -> Era:
    return Era(boot, offset_s, since, believed)


def test_the_first_start_moves_nothing() -> None:
    assert begun(None, "b", NOON, UP_S, 0.0) == (Era("b", NOON - UP_S, NOON), None)


def test_a_restart_within_a_boot_follows_what_was_stepped_meanwhile() -> None:
    kept = era()
    assert begun(kept, "b", NOON + 60, UP_S + 60, 0.0) == (kept, None)
    after, step = begun(kept, "b", NOON + 3660, UP_S + 60, 0.0)
    assert step == Step(NOON - 500, NOON + 60, 3600.0)
    assert after == Era("b", NOON - UP_S + 3600, NOON - 500 + 3600, True, ahead_s=3600.0)


def test_a_restart_begins_with_the_exact_time() -> None:
    after, step = begun(era(), "b", NOON + 60.7, UP_S + 60, 0.0)
    assert (after.offset_s, after.since, step) == (pytest.approx(NOON + 0.7 - UP_S), NOON - 500, None)


def test_slewing_is_no_step_until_it_has_added_up() -> None:
    kept = era()
    assert followed(kept, NOON + 0.9, UP_S) == (kept, None)
    assert followed(kept, NOON - 1.1, UP_S)[1] is not None


@pytest.mark.parametrize("off_s", [1.0, 86400.0])
def test_after_another_boot_a_clock_that_was_believed_counts_the_time_that_the_machine_was_off(off_s: float) -> None:
    after, step = begun(era(), "other", NOON + off_s, 5.0, newest=NOON)
    assert (after.boot, after.since, after.believed, step) == ("other", NOON + off_s, False, None)


def test_after_another_boot_a_clock_that_never_was_does_not() -> None:
    held = era(since=100.0, believed=False)
    after, step = begun(held, "other", NOON, 5.0, newest=160.0)
    assert step == Step(100.0, 160.0, NOON - 160.0)
    assert step.moved(150.0) == NOON - 10.0
    assert after.since == NOON - 60.0  # and what was moved follows the next step too


def test_after_another_boot_nothing_stays_in_the_future() -> None:
    _, step = begun(era(), "other", NOON - 86400 * 3650, 5.0, newest=NOON)
    assert step is not None
    assert step.moved(NOON) == NOON - 86400 * 3650


def test_a_radios_own_time_is_moved_by_no_step() -> None:
    kept = era()
    own_s = kept.offset_s - kept.ahead_s
    for after in (
        followed(kept, NOON + 7200, UP_S)[0],
        followed(followed(kept, NOON + 7200, UP_S)[0], NOON, UP_S)[0],
        begun(kept, "b", NOON - 7200, UP_S, 0.0)[0],
    ):
        assert after.offset_s - after.ahead_s == own_s
    held = replace(era(since=100.0, believed=False), ahead_s=40.0)
    after, step = begun(held, "other", NOON, 5.0, newest=160.0)
    assert step is not None
    assert 5.0 + after.offset_s - after.ahead_s == 120.0, "as it was when the newest was written"
    off, _ = begun(replace(era(), ahead_s=40.0), "other", NOON + 100, 5.0, newest=NOON)
    assert 5.0 + off.offset_s - off.ahead_s == NOON + 60, "the time off counts"


def test_only_what_is_of_the_time_before_is_moved() -> None:
    step = Step(100.0, 200.0, 1000.0)
    assert [step.moved(at) for at in (99.0, 100.0, 200.0, 201.0, 1150.0)] == [99.0, 1100.0, 1200.0, 201.0, 1150.0]
