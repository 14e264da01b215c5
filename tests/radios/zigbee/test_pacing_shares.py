"""What foreground does to the share of the air and to the answers, frame by frame."""

from radios.zigbee.air import Why
from radios.zigbee.pacing import Pacer, PacingLimits


def test_foreground_takes_of_the_share_in_proportion_to_its_rate() -> None:
    left = {}
    for every_s in (20.0, 10.0, 5.0, 2.5, 1.25, 1.0):
        pacer, seen = Pacer(PacingLimits()), []
        for i in range(4000):
            now = 1000.0 + i / 4
            if now % every_s == 0:
                pacer.foreground(now)
            seen.append(pacer.share(now)[0])
        left[every_s] = sum(seen[400:]) / len(seen[400:])
    assert left[20.0] >= 0.99
    assert left[10.0] >= 0.96
    assert 0.88 <= left[5.0] <= 0.92  # 0.2 a second
    assert 0.68 <= left[2.5] <= 0.72  # 0.4
    assert left[1.25] <= 0.42
    assert left[1.0] < 0.401


def test_the_share_falls_and_rises_without_a_jump() -> None:
    pacer = Pacer(PacingLimits())
    before, now = 1.0, 1000.0
    for i in range(600):
        now += 0.25
        if i < 300 and i % 4 == 0:
            pacer.foreground(now)
        share = pacer.share(now)[0]
        assert abs(share - before) <= 0.1
        before = share
    assert pacer.share(now) == (1.0, Why.FREE)


def test_a_lone_report_costs_nothing_and_many_at_once_all_that_is_kept_for_them() -> None:
    one, many = Pacer(PacingLimits()), Pacer(PacingLimits())
    one.foreground(100.0)
    assert one.share(100.0) == (1.0, Why.FREE)
    for _ in range(10):
        many.foreground(100.0)
    assert many.share(100.0) == (0.4, Why.FOREGROUND)


def test_foreground_delays_answers_and_takes_no_nodes_place() -> None:
    pacer = Pacer(PacingLimits())
    for i in range(20):
        pacer.foreground(100.0 + i / 10)
    now, delays = 102.0, []
    for _ in range(20):
        for node in "abcdef":
            serve_at = pacer.ask(node, now, 0, 1.0).serve_at
            assert serve_at is not None
            delays.append(serve_at - now)
        now += 0.5
    assert 0.1 <= max(delays) <= PacingLimits().max_delay_s
    assert (pacer.active, pacer.places, pacer.queued) == (6, 6, 0)
