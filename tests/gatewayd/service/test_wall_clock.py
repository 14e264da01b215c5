from datetime import UTC, datetime
from pathlib import Path

import pytest

from gatewayd.service.wall_clock import RELEASED_AT, WallClock, kernel_synchronised
from gatewayd.store.database import Database

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC).timestamp()
IN_2036 = datetime(2036, 2, 7, tzinfo=UTC).timestamp()


class Times:
    """Times that a test sets."""

    def __init__(self) -> None:
        self.wall = NOON
        self.steady = 100.0
        self.synchronised = True

    def pass_by(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds

    def clock(self, last_known: float = 0.0) -> WallClock:
        return WallClock(
            last_known, now=lambda: self.wall, synchronised=lambda: self.synchronised, monotonic=lambda: self.steady
        )


@pytest.fixture
def times() -> Times:
    return Times()


def test_a_synchronised_clock_is_trusted(times: Times) -> None:
    clock = times.clock(last_known=NOON - 60)
    assert (clock.trusted(), clock.reason, clock.now()) == (True, "", NOON)


def test_an_unsynchronised_one_is_not(times: Times) -> None:
    times.synchronised = False
    clock = times.clock()
    assert not clock.trusted()
    assert "not synchronised" in clock.reason


def test_it_may_be_assumed_synchronised() -> None:
    clock = WallClock(assume_synchronised=True, now=lambda: NOON, synchronised=lambda: False)
    assert clock.trusted()


def test_time_before_the_program_is_not_believed(times: Times) -> None:
    times.wall = RELEASED_AT - 1
    assert "before this program" in times.clock().reason


def test_time_before_the_last_known_is_not_believed(times: Times) -> None:
    clock = times.clock(last_known=NOON + 3600)
    assert clock.reason == "the clock says 2026-06-01 12:00:00Z, but 2026-06-01 13:00:00Z has already passed"


def test_a_small_correction_is_no_contradiction(times: Times) -> None:
    assert times.clock(last_known=NOON + 5).trusted()


async def test_only_trusted_time_is_stored(times: Times, tmp_path: Path) -> None:
    database = Database.open(tmp_path / "state.db")
    clock = times.clock()
    times.synchronised = False
    assert not await clock.store(database)
    assert (await WallClock.load(database)).last_known == 0.0
    times.synchronised = True
    assert await clock.store(database)
    assert (await WallClock.load(database)).last_known == NOON
    times.wall = NOON - 86400
    assert not await clock.store(database)
    assert (await WallClock.load(database)).last_known == NOON
    database.close()


def test_a_stored_time_that_was_wrong_is_derived_again_from_signed_documents(times: Times) -> None:
    clock = times.clock(last_known=IN_2036)
    assert not clock.trusted()
    times.synchronised = False
    assert not clock.rederive(NOON - 600)
    times.synchronised = True
    assert not clock.rederive(NOON + 600)
    assert clock.last_known == IN_2036
    assert clock.rederive(NOON - 600)
    assert clock.trusted()


def test_nothing_is_derived_again_without_a_contradiction(times: Times) -> None:
    clock = times.clock(last_known=NOON - 60)
    assert not clock.rederive(NOON - 600)
    assert clock.last_known == NOON - 60


def test_a_step_is_noticed_once(times: Times) -> None:
    clock = times.clock()
    steps: list[float] = []
    clock.stepped = steps.append
    times.pass_by(3600)
    assert clock.look() == 0.0
    times.wall += 120
    assert clock.look() == pytest.approx(120)
    assert clock.look() == 0.0
    assert steps == [pytest.approx(120)]


def test_slow_drift_is_noticed_when_it_has_added_up(times: Times) -> None:
    clock = times.clock()
    found = []
    for _ in range(3):
        times.pass_by(5)
        times.wall += 0.4
        found.append(clock.look())
    assert found == [0.0, 0.0, pytest.approx(1.2)]


def test_the_kernel_answers() -> None:
    assert kernel_synchronised() in {True, False}
