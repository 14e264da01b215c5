"""Who may download now, who waits, at which share of the air, and what deliveries do to it."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from radios.quiet_hours import QuietHours
from radios.zigbee.air import BLOCK_AIR_S, ShareLimits, Why
from radios.zigbee.pacing import Pacer, PacingLimits

ALL = PacingLimits(max_active_nodes=50)


def limited(share: float, **changes: object) -> PacingLimits:
    return replace(PacingLimits(shares=ShareLimits(air_share=share)), **changes)  # type: ignore[arg-type]


def one_hop(pacer: Pacer, *nodes: str) -> None:
    for node in nodes:
        pacer.route(node, 1)


def last_of(pacer: Pacer, count: int, air_share: float = 1.0, node: str = "a") -> float:
    """When the last of so many blocks goes out, each asked for when the one before was sent."""
    now = 1000.0
    for _ in range(count):
        grant = pacer.ask(node, now, 0, air_share)
        if grant.serve_at is None:
            now += grant.come_back_s
        else:
            now = grant.serve_at
            pacer.delivered(node, True, 0.02, now)
    return now - 1000.0


# -- places ------------------------------------------------------------------------------------------------------------


def test_nodes_above_the_cap_are_told_to_come_back() -> None:
    pacer = Pacer(PacingLimits(max_active_nodes=2))
    assert pacer.ask("a", 0.0, 0, 1.0).serve_at == 0.0
    assert pacer.ask("b", 0.0, 0, 1.0).serve_at is not None
    grant = pacer.ask("c", 0.0, 0, 1.0)
    assert grant.serve_at is None
    assert grant.come_back_s >= 1
    assert (pacer.active, pacer.queued) == (2, 1)
    assert not pacer.invite("d", 0.0, 0)


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


def test_as_many_nodes_are_invited_as_there_are_places_and_the_rest_by_priority_and_age() -> None:
    pacer = Pacer(PacingLimits(max_active_nodes=2))
    assert [pacer.invite(node, 0.0, 0) for node in ("a", "b", "c", "d")] == [True, True, False, False]
    assert not pacer.invite("urgent", 1.0, 5)
    assert (pacer.invited, pacer.queued) == (2, 3)
    assert pacer.to_wake(1.0) == []
    for node in ("a", "b"):
        assert pacer.ask(node, 1.0, 0, 1.0).serve_at is not None
    assert (pacer.active, pacer.invited) == (2, 0)
    pacer.release("a")
    assert pacer.to_wake(2.0) == ["urgent"]
    assert pacer.to_wake(2.0) == []  # its place is kept
    pacer.release("b")
    assert pacer.to_wake(2.0) == ["c"]
    assert pacer.ask("d", 2.0, 0, 1.0).serve_at is None


def test_an_invited_node_that_does_not_come_loses_its_place_to_the_next() -> None:
    pacer = Pacer(PacingLimits(max_active_nodes=1, invited_for_s=8.0))
    assert pacer.invite("dead", 0.0, 0)
    assert not pacer.invite("alive", 0.0, 0)
    deadline = pacer.next_deadline()
    assert deadline == 8.0
    assert pacer.to_wake(deadline) == ["alive"]
    assert pacer.next_deadline() is None


def test_what_is_begun_is_ended_before_others_are_invited() -> None:
    pacer = Pacer(PacingLimits(max_active_nodes=1, come_back_s=5.0))
    pacer.ask("a", 0.0, 0, 1.0)
    assert not pacer.invite("new", 0.0, 0)
    pacer.ask("part-way", 1.0, 0, 1.0)
    pacer.release("a")
    assert pacer.to_wake(2.0) == []
    assert pacer.ask("part-way", 6.0, 0, 1.0).serve_at is not None


# -- shares ------------------------------------------------------------------------------------------------------------


def test_air_share_slows_the_network() -> None:
    full, quarter = Pacer(PacingLimits()), Pacer(PacingLimits())
    one_hop(quarter, "a")
    assert last_of(full, 100) == 0.0  # the channel itself is the limit
    assert 3.3 <= last_of(quarter, 100, 0.25) <= 5.3  # seconds of air: 0.96 to 1.3, by how many are acknowledged


def test_the_cap_multiplies_with_the_transfers_own_share() -> None:
    one, both = Pacer(limited(0.5)), Pacer(limited(0.5))
    one_hop(one, "a")
    one_hop(both, "a")
    assert 1.8 <= last_of(both, 100, 0.5) / last_of(one, 100) <= 2.2


def test_far_nodes_pay_for_each_hop() -> None:
    near, far = Pacer(limited(0.5)), Pacer(limited(0.5))
    near.route("a", 1)
    far.route("a", 3)
    assert 2.7 <= last_of(far, 100) / last_of(near, 100) <= 3.3


def test_hops_are_estimated_from_acknowledgements() -> None:
    pacer = Pacer(limited(0.5))
    for i in range(100):
        pacer.delivered("near", True, 0.02 + 0.001 * (i % 3), i / 10)
        pacer.delivered("far", True, 0.038 + 0.001 * (i % 3), i / 10)
    near = pacer.ask("near", 1000.0, 0, 1.0).serve_at
    after_near = pacer.ask("near", 1000.0, 0, 1.0).serve_at
    assert near == 1000.0
    assert after_near is not None
    other = Pacer(limited(0.5))
    for i in range(100):
        other.delivered("near", True, 0.02 + 0.001 * (i % 3), i / 10)
        other.delivered("far", True, 0.038 + 0.001 * (i % 3), i / 10)
    other.ask("far", 1000.0, 0, 1.0)
    after_far = other.ask("far", 1000.0, 0, 1.0).serve_at
    assert after_far is not None
    assert after_far - 1000.0 > 2 * (after_near - 1000.0)


def test_under_a_low_share_as_many_nodes_are_active_as_have_their_turn_in_time() -> None:
    pacer = Pacer(limited(0.1, max_active_nodes=20))
    for number in range(20):
        pacer.ask(f"n{number}", 100.0, 0, 1.0)
    assert pacer.places == pacer.active == 3


def test_a_node_that_lost_its_place_gets_it_back_before_those_that_had_none() -> None:
    pacer = Pacer(PacingLimits(max_active_nodes=20))
    nodes = [f"n{number:02}" for number in range(20)]
    for node in nodes:
        assert pacer.ask(node, 100.0, 0, 1.0).serve_at is not None
    assert pacer.ask("new", 100.5, 0, 1.0).serve_at is None
    for _ in range(10):
        pacer.foreground(101.0)
    for node in nodes:
        pacer.ask(node, 102.0, 0, 1.0)
    assert pacer.active == pacer.places == 12
    for node in nodes[:13]:
        pacer.ask(node, 104.0, 0, 1.0)
    pacer.release("n00")
    assert pacer.ask("new", 106.0, 0, 1.0).serve_at is None
    assert pacer.ask("n12", 107.0, 0, 1.0).serve_at is not None


def test_another_node_joins_when_those_that_are_active_cannot_fill_the_share() -> None:
    pacer = Pacer(limited(0.05))
    one_hop(pacer, "slow", "other")
    now = 100.0
    assert pacer.ask("slow", now, 0, 1.0).serve_at is not None
    assert pacer.places == 1
    for _ in range(30):  # one block a second
        assert pacer.ask("slow", now, 0, 1.0).serve_at is not None
        now += 1.0
    assert pacer.places > 1
    assert pacer.ask("other", now, 0, 1.0).serve_at is not None


def test_quiet_hours_go_over_midnight_and_the_least_share_counts() -> None:
    quiet = QuietHours(22 * 60, 6 * 60, 0.1)
    minutes = [0]
    limits = replace(PacingLimits(), shares=ShareLimits(air_share=0.8, quiet_hours=quiet))
    pacer = Pacer(limits, lambda _: minutes[0])
    now = 1000.0
    for minute, share, why in (
        (21 * 60 + 59, 0.8, Why.CAP),
        (22 * 60, 0.1, Why.QUIET_HOURS),
        (0, 0.1, Why.QUIET_HOURS),
        (5 * 60 + 59, 0.1, Why.QUIET_HOURS),
        (6 * 60, 0.8, Why.CAP),
    ):
        now += 60.0
        minutes[0] = minute
        assert pacer.share(now) == (share, why)
    assert not QuietHours(60, 120, 0.1).cover(120)
    assert QuietHours(60, 120, 0.1).cover(60)


def test_the_share_that_is_used_is_the_share_in_force() -> None:
    pacer = Pacer(limited(0.3))
    one_hop(pacer, "a")
    now = 1000.0
    while now < 1030.0:
        serve_at = pacer.ask("a", now, 0, 1.0).serve_at
        assert serve_at is not None
        now = serve_at
        pacer.delivered("a", True, 0.01, now)
    assert 0.27 <= pacer.air_used(now) <= 0.33
    assert 0.27 / BLOCK_AIR_S <= pacer.blocks_per_s(now) <= 0.33 / 0.0096


def test_an_answer_that_would_be_too_late_becomes_a_come_back_time() -> None:
    pacer = Pacer(limited(0.04, max_delay_s=0.2))
    one_hop(pacer, "a")
    grants = [pacer.ask("a", 0.0, 0, 1.0) for _ in range(4)]
    assert grants[0].serve_at == 0.0
    assert grants[-1].serve_at is None
    assert grants[-1].come_back_s >= 1


# -- deliveries --------------------------------------------------------------------------------------------------------


def test_failures_to_several_nodes_lower_the_networks_share_and_successes_raise_it_again() -> None:
    pacer = Pacer(PacingLimits(increase_share=0.1, decrease_factor=0.5))
    one_hop(pacer, "a", "b")
    for i in range(400):
        pacer.ask("ab"[i % 2], i / 40, 0, 1.0)  # 40 blocks a second really go out: about 0.4 of the air
    pacer.delivered("a", False, 0.0, 10.0)
    assert pacer.share(10.0) == (1.0, Why.FREE)  # one of several nodes: that is its own matter
    pacer.delivered("b", False, 0.0, 10.1)
    lowered, why = pacer.share(10.1)
    assert 0.15 <= lowered <= 0.27  # half of what went out, not of the ceiling
    assert why is Why.DELIVERIES
    pacer.delivered("a", False, 0.0, 10.3)
    assert pacer.share(10.3)[0] == lowered  # one loss event, not two
    for i in range(1, 20):
        pacer.delivered("a", True, 0.02, 11.0 + i)
    assert pacer.share(31.0) == (1.0, Why.FREE)


def test_blocks_of_pages_raise_the_share_again_too() -> None:
    pacer = Pacer(ALL)
    for at in range(20):
        for node in "ab":
            pacer.ask(node, at, 0, 1.0)
            pacer.delivered(node, False, 0.0, at)
    slow, why = pacer.share(20.0)
    assert why is Why.DELIVERIES
    for at in range(20, 80):
        pacer.ask("a", at, 0, 1.0, page=True)
        pacer.taken(at)
    assert pacer.share(80.0)[0] >= min(1.0, slow + 50 * PacingLimits().increase_share)


def test_the_share_never_falls_below_its_floor() -> None:
    pacer = Pacer(PacingLimits(least_share=0.05))
    for second in range(100):
        pacer.delivered("ab"[second % 2], False, 0.0, float(second))
    assert pacer.share(100.0)[0] == 0.05
    assert pacer.failures == 100


def gap(pacer: Pacer, node: str, now: float) -> float:
    """Between two answers that are asked for at once."""
    first, second = (pacer.ask(node, now, 0, 1.0).serve_at for _ in range(2))
    assert first is not None
    assert second is not None
    return second - first


def test_a_nodes_own_failures_space_its_blocks_and_no_others() -> None:
    pacer = Pacer(ALL)
    for node in "abc":
        pacer.ask(node, 0.0, 0, 1.0)
    for _ in range(3):
        pacer.delivered("a", False, 0.0, 0.1)
    assert gap(pacer, "a", 10.0) >= 0.39
    assert gap(pacer, "b", 10.0) == 0.0
    for i in range(100):
        pacer.delivered("a", True, 0.02, 11.0 + i / 100)
    assert gap(pacer, "a", 20.0) == 0.0


def test_a_lone_node_is_as_fast_as_before_soon_after_a_busy_moment() -> None:
    pacer = Pacer(PacingLimits())
    one_hop(pacer, "a")
    now = 0.0
    for _ in range(5):
        pacer.ask("a", now, 0, 1.0)
        pacer.delivered("a", False, 0.0, now)
        now += 1.1
    begun, sent = now, 0
    while now < begun + 20.0:
        grant = pacer.ask("a", now, 0, 1.0)
        if grant.serve_at is None:
            now += grant.come_back_s
            continue
        now = grant.serve_at
        pacer.delivered("a", True, 0.02, now)
        now += 0.02
        sent += now > begun + 10.0
    assert sent / 10.0 > 15.0  # blocks a second, ten seconds after it


def test_latency_far_above_a_nodes_own_habit_spaces_its_blocks() -> None:
    pacer = Pacer(ALL)
    for node in ("fast", "sleepy"):
        pacer.ask(node, 0.0, 0, 1.0)
    for i in range(50):
        pacer.delivered("fast", True, 0.02 + 0.001 * (i % 4), i / 10)
        pacer.delivered("sleepy", True, 0.02 + 0.06 * (i % 5), i / 10)
    pacer.delivered("fast", True, 0.5, 6.0)
    pacer.delivered("sleepy", True, 0.26, 6.0)
    assert gap(pacer, "fast", 10.0) > 0
    assert gap(pacer, "sleepy", 10.0) == 0


# -- acknowledgements --------------------------------------------------------------------------------------------------


def test_one_block_of_eight_asks_for_an_acknowledgement_and_all_do_after_a_loss() -> None:
    pacer = Pacer(PacingLimits(acknowledge_every=8))
    assert pacer.ask("a", 0.0, 0, 1.0).acknowledged
    pacer.delivered("a", True, 0.02, 0.0)
    assert sum(pacer.ask("a", 1.0 + i, 0, 1.0).acknowledged for i in range(80)) == 10
    assert pacer.ask("a", 100.0, 0, 1.0, again=True).acknowledged
    assert all(pacer.ask("a", 101.0 + i, 0, 1.0).acknowledged for i in range(31))
    assert sum(pacer.ask("a", 200.0 + i, 0, 1.0).acknowledged for i in range(80)) == 10


def test_status_says_the_share_and_why() -> None:
    pacer = Pacer(limited(0.05))
    pacer.ask("a", 10.0, 0, 1.0)
    pacer.invite("b", 10.0, 0)
    status = pacer.status(10.5)
    assert (status["air_share"], status["air_share_because"]) == (0.05, "cap")
    assert (status["active"], status["queued"], status["invited"], status["places"]) == (1, 1, 0, 1)
    used = status["air_used"]
    assert isinstance(used, float)
    assert used > 0


steps = st.lists(
    st.tuples(
        st.sampled_from(("ask", "release", "ok", "lost", "foreground", "invite", "wake", "page")),
        st.integers(0, 9),
        st.floats(0.0, 30.0),
    ),
    max_size=80,
)


@given(steps, st.floats(0.05, 1.0))
def test_whatever_happens_the_places_hold_and_answers_keep_their_bounds(
    script: list[tuple[str, int, float]], share: float
) -> None:
    limits = PacingLimits(max_active_nodes=3, shares=ShareLimits(air_share=share))
    pacer, now = Pacer(limits), 1000.0
    for what, number, later in script:
        node, now = f"n{number}", now + later
        if what in ("ask", "page"):
            grant = pacer.ask(node, now, number % 3, 1.0, page=what == "page")
            if grant.serve_at is None:
                assert 1 <= grant.come_back_s <= limits.max_come_back_s
            else:
                assert now <= grant.serve_at <= now + limits.max_delay_s
        elif what == "release":
            pacer.release(node)
        elif what == "foreground":
            pacer.foreground(now)
        elif what == "invite":
            pacer.invite(node, now, number % 3)
        elif what == "wake":
            pacer.to_wake(now)
        else:
            pacer.delivered(node, what == "ok", later / 100, now)
        assert pacer.active <= limits.max_active_nodes
        assert limits.least_share <= pacer.share(now)[0] <= 1.0
