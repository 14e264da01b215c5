"""A radio's time never leaps; what the wall clock shows at its moments does."""

from radios.clock import SystemClock
from radios.wall_time import WallTime


def test_a_step_moves_the_wall_and_nothing_else() -> None:
    steady = 500.0
    clock = SystemClock(lambda: 1_800_000_000.0, lambda: steady)
    told: list[float] = []
    clock.wall.watch(told.append)
    assert (clock.now(), clock.wall.unix(clock.now())) == (1_800_000_000.0, 1_800_000_000.0)
    clock.wall.step(3600.0)
    assert (clock.now(), clock.wall.unix(clock.now())) == (1_800_000_000.0, 1_800_003_600.0)
    assert clock.wall.at(1_800_003_700.0) == clock.now() + 100
    clock.wall.step(3600.0)
    clock.wall.step(-60.0)
    assert told == [3600.0, -3660.0]


def test_the_next_process_goes_on_with_the_time_of_the_one_before() -> None:
    steady = 500.0
    clock = SystemClock(lambda: 1_800_000_000.0, lambda: steady)
    clock.go_on(100.0, 1_799_999_400.0)
    assert (clock.now(), clock.wall.unix(clock.now())) == (600.0, 1_800_000_000.0)


def test_there_and_back() -> None:
    wall = WallTime(-86400.0)
    assert wall.at(wall.unix(5.0)) == 5.0
