"""The rate at which a backlog goes out, by a clock that passes only by sleeping."""

from gatewayd.cloud.drain import Drain


class Clock:
    def __init__(self) -> None:
        self.at = 100.0

    def now(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += seconds


async def test_a_backlog_takes_its_size_over_the_rate_but_for_the_burst() -> None:
    clock = Clock()
    drain = Drain(1000.0, 4000, clock.now, clock.sleep)
    for _ in range(10):
        await drain.turn()
        drain.take(2000)
    await drain.turn()
    assert clock.at == 100.0 + (20_000 - 4000) / 1000


async def test_news_after_a_pause_goes_at_once_and_a_pause_saves_up_no_more_than_the_burst() -> None:
    clock = Clock()
    drain = Drain(1000.0, 4000, clock.now, clock.sleep)
    drain.take(50_000)
    clock.at += 3600.0
    at = clock.at
    for _ in range(4):
        await drain.turn()
        drain.take(1000)
    assert clock.at == at
    drain.take(1000)
    await drain.turn()
    assert clock.at == at + 1.0


async def test_a_sleep_that_ends_early_is_taken_up_again() -> None:
    clock = Clock()

    async def half(seconds: float) -> None:
        clock.at += max(seconds / 2, 0.001)

    drain = Drain(1000.0, 1000, clock.now, half)
    drain.take(3000)
    await drain.turn()
    assert clock.at >= 102.0
