"""Who may download now, who waits, and what failed deliveries do to the rate."""

from radios.zigbee.pacing import Pacer, PacingLimits


def test_nodes_above_the_cap_are_told_to_come_back() -> None:
    pacer = Pacer(PacingLimits(max_active_nodes=2))
    assert pacer.ask("a", 0.0, 0, 1.0).serve_at == 0.0
    assert pacer.ask("b", 0.0, 0, 1.0).serve_at is not None
    grant = pacer.ask("c", 0.0, 0, 1.0)
    assert grant.serve_at is None
    assert grant.come_back_s >= 1
    assert (pacer.active, pacer.queued) == (2, 1)
    assert not pacer.has_room(0.0)


def test_a_released_place_goes_to_the_longest_waiting_of_the_highest_priority() -> None:
    pacer = Pacer(PacingLimits(max_active_nodes=1, come_back_s=5.0))
    pacer.ask("a", 0.0, 0, 1.0)
    pacer.ask("b", 1.0, 0, 1.0)
    pacer.ask("urgent", 2.0, 9, 1.0)
    pacer.release("a")
    assert pacer.ask("b", 6.0, 0, 1.0).serve_at is None
    assert pacer.ask("urgent", 7.0, 9, 1.0).serve_at is not None
    pacer.release("urgent")
    assert pacer.ask("b", 11.0, 0, 1.0).serve_at is not None


def test_a_queued_node_that_does_not_come_back_loses_its_turn() -> None:
    limits = PacingLimits(max_active_nodes=1, come_back_s=5.0, overdue_after_s=5.0)
    pacer = Pacer(limits)
    pacer.ask("a", 0.0, 0, 1.0)
    pacer.ask("gone", 0.0, 0, 1.0)
    pacer.ask("here", 1.0, 0, 1.0)
    pacer.release("a")
    assert pacer.ask("here", 9.0, 0, 1.0).serve_at is None  # "gone" may still come
    assert pacer.ask("here", 14.0, 0, 1.0).serve_at is not None


def test_a_silent_node_gives_up_its_place() -> None:
    pacer = Pacer(PacingLimits(max_active_nodes=1, idle_after_s=20.0))
    pacer.ask("a", 0.0, 0, 1.0)
    assert pacer.ask("b", 19.0, 0, 1.0).serve_at is None
    assert pacer.ask("b", 25.0, 0, 1.0).serve_at is not None


def test_air_share_slows_the_network() -> None:
    def last_of(share: float) -> float:
        pacer = Pacer(PacingLimits(max_blocks_per_s=100.0, max_delay_s=10.0))
        last = 0.0
        for _ in range(100):
            last = pacer.ask("a", 0.0, 0, share).serve_at or last
        return last

    assert 0.8 <= last_of(1.0) <= 1.0
    assert 3.3 <= last_of(0.25) <= 4.0


def test_an_answer_that_would_be_too_late_becomes_a_come_back_time() -> None:
    pacer = Pacer(PacingLimits(max_blocks_per_s=1.0, min_blocks_per_s=1.0, max_delay_s=1.5))
    grants = [pacer.ask("a", 0.0, 0, 1.0) for _ in range(4)]
    assert grants[0].serve_at == 0.0
    assert grants[-1].serve_at is None
    assert grants[-1].come_back_s >= 1


def test_failures_lower_the_rate_and_successes_raise_it_again() -> None:
    limits = PacingLimits(max_blocks_per_s=100.0, increase_blocks_per_s=5.0, decrease_factor=0.5)
    pacer = Pacer(limits)
    for i in range(200):
        pacer.ask("a", i / 40, 0, 1.0)  # 40 blocks a second really go out
    pacer.delivered(False, 5.0)
    lowered = pacer.rate_limit
    assert 18.0 <= lowered <= 22.0  # half of what went out, not of the ceiling
    pacer.delivered(False, 5.2)
    assert pacer.rate_limit == lowered  # one loss event, not two
    for i in range(1, 40):
        pacer.delivered(True, 5.0 + i)
    assert pacer.rate_limit == 100.0


def test_the_rate_never_falls_below_its_floor() -> None:
    pacer = Pacer(PacingLimits(min_blocks_per_s=5.0))
    for second in range(100):
        pacer.delivered(False, float(second))
    assert pacer.rate_limit == 5.0
    assert pacer.failures == 100
