"""Who shares a cohort: by gateways, usable data rate and version; and who leaves it before the first coded fragment."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from radios.lorawan.cohort import SessionSettings
from radios.lorawan.link import slower, smoothed, usable
from radios.lorawan.messages import Multicast
from radios.lorawan.placement import Candidate, Place, assign, pass_air_s
from radios.lorawan.regions import EU868, REGIONS, US915
from radios.radio import Fact
from radios.simulated.lorawan.packages.fragmentation import StatusStyle
from tests.radios.lorawan.world import World, all_running, new_image, spec

A, B, C = "a", "b", "c"


def candidate(name, rate=5, gateways=(A,), version=1, port=201, **changes):
    return Candidate(name, version, rate, frozenset(gateways), port, **changes)


def air_s(place):
    return pass_air_s(EU868, place, 20_000)


def assigned(candidates, opened=None, gateways=(A, B, C)):
    return assign(candidates, opened or {}, gateways, air_s)


def placed(candidates, opened=None, gateways=(A, B, C)):
    found = assigned(candidates, opened, gateways)
    return {(place.data_rate, place.gateways, place.unicast): names for place, names in found}


def test_nodes_of_one_kind_share_a_cohort():
    assert placed([candidate("1"), candidate("2")]) == {(5, (A,), False): ["1", "2"]}


def test_data_rates_and_versions_are_apart():
    found = assigned(
        [
            candidate(f"{n}", rate, version=version)
            for n, (rate, version) in enumerate([(5, 1), (5, 1), (3, 1), (3, 1), (5, 2), (5, 2)])
        ]
    )
    assert sorted((p.data_rate, p.frag_version, len(names)) for p, names in found) == [(3, 1, 2), (5, 1, 2), (5, 2, 2)]


def test_the_fewest_gateways_that_reach_all():
    nodes = [candidate("1", gateways=(A, B)), candidate("2", gateways=(B,)), candidate("3", gateways=(B, C))]
    assert placed(nodes) == {(5, (B,), False): ["1", "2", "3"]}
    nodes = [*nodes, candidate("4", gateways=(A,)), candidate("5", gateways=(A,))]
    found = placed(nodes)
    assert set(found) == {(5, (A,), False), (5, (B,), False)}


def test_a_node_that_was_never_heard_needs_all_gateways():
    assert placed([candidate("1", gateways=()), candidate("2")]) == {(5, (A, B, C), False): ["1", "2"]}


def test_an_open_cohort_takes_who_it_reaches():
    opened = Place(1, 5, (A,), 201)
    found = assigned([candidate("1", gateways=(A, B)), candidate("2", gateways=(B,))], {opened: 1}, (A, B))
    assert dict(found)[opened] == ["1"]
    assert [names for place, names in found if place != opened] == [["2"]]


def near_and_far(near, far, far_rate, near_rate=5):
    return [candidate(f"n{n}", near_rate) for n in range(near)] + [candidate(f"f{n}", far_rate) for n in range(far)]


@pytest.mark.parametrize(
    ("near", "far", "far_rate", "near_rate", "cohorts"),
    [
        (20, 1, 0, 5, 2),  # one far node slows nobody
        (1, 1, 0, 5, 2),
        (1, 20, 0, 5, 2),  # a pass at DR5 is a thirtieth of one at DR0
        (1, 2, 3, 5, 2),
        (1, 3, 3, 5, 1),  # it would have the image 85 s of air sooner, and three others 34 s later
        (2, 3, 3, 5, 2),
        (1, 20, 1, 2, 1),
        (20, 20, 1, 2, 2),
        (20, 1, 3, 4, 2),
    ],
)
def test_a_cohort_is_worth_a_pass_of_its_own(near, far, far_rate, near_rate, cohorts):
    found = placed(near_and_far(near, far, far_rate, near_rate))
    assert len(found) == cohorts
    if cohorts == 1:
        assert list(found) == [(far_rate, (A,), False)]


def test_two_gateways_with_nodes_of_their_own_send_each_its_own():
    nodes = [candidate(f"a{n}", gateways=(A,)) for n in range(3)] + [
        candidate(f"b{n}", gateways=(B,)) for n in range(3)
    ]
    found = placed(nodes)
    assert {key: len(names) for key, names in found.items()} == {(5, (A,), False): 3, (5, (B,), False): 3}


def test_nodes_that_both_gateways_reach_are_sent_by_one_and_by_the_one_with_less_to_send():
    both = [candidate(str(n), gateways=(A, B)) for n in range(3)]
    assert len(placed(both)) == 1
    for busy, free in ((A, B), (B, A)):
        far = [candidate(f"far{n}", 0, gateways=(busy,)) for n in range(3)]
        assert placed([*far, *both])[5, (free,), False] == ["0", "1", "2"]


def test_a_pass_on_a_gateway_that_has_nothing_else_to_send_delays_nobody():
    fast = candidate("fast", 5, gateways=(A, B))
    slow = [candidate(str(n), 3, gateways=(A,)) for n in range(9)]
    assert placed([fast, *slow])[5, (B,), False] == ["fast"]
    assert len(placed([replace(fast, gateways=frozenset({A})), *slow])) == 1


def test_a_slower_pass_that_does_not_reach_a_node_is_no_choice():
    apart = [candidate("1", 5, (B,)), *(candidate(str(n), 3) for n in range(2, 9))]
    assert len(placed(apart)) == 2
    unheard = [candidate("1", 5, ()), *(candidate(str(n), 3) for n in range(2, 9))]
    assert len(placed(unheard)) == 2
    halves = [candidate(str(n), 3, (A if n % 2 else B,)) for n in range(2, 22)]
    one, two = candidate("x", 4, (A,)), candidate("y", 4, (B,))
    assert placed([one, two, *halves]).keys() == {(3, (A,), False), (3, (B,), False)}  # each joins its own


def test_a_late_node_joins_a_slower_cohort_that_still_gathers():
    opened = Place(1, 3, (A,), 201)
    assert placed([candidate("1", 5)], {opened: 9}) == {(3, (A,), False): ["1"]}
    assert placed([candidate("1", 5)], {opened: 1}) == {(5, (A,), False): ["1"]}


def test_an_image_that_is_too_much_at_one_data_rate_does_not_decide_for_others():
    def large(place):
        return pass_air_s(EU868, place, 500_000)

    assert large(Place(1, 0, (A,), 201)) == float("inf")
    nodes = [*near_and_far(1, 9, 3), candidate("0", 0)]
    found = {place.data_rate: len(names) for place, names in assign(nodes, {}, (A,), large)}
    assert found == {3: 10, 0: 1}
    assert len(assign(near_and_far(1, 9, 0), {}, (A,), large)) == 2


def waiting_s(found, opened):
    """As an observer would count it: on each gateway one pass after the other, the shortest first."""
    places = {place: len(names) for place, names in found if not place.unicast}
    for place, count in opened.items():
        places[place] = places.get(place, 0) + count
    free_at, total = dict.fromkeys((A, B, C), 0.0), 0.0
    for place in sorted(places, key=lambda p: (air_s(p), p.gateways, p.data_rate)):
        for gateway in place.gateways:
            free_at[gateway] += air_s(place)
        total += places[place] * max(free_at[gateway] for gateway in place.gateways)
    return total


@example([(0, {A, B}), (2, {A}), (2, {B}), (0, {A, B}), (3, {A, B})], {Place(1, 4, (A,), 201): 1})
@given(
    st.lists(st.tuples(st.integers(0, 5), st.sets(st.sampled_from([A, B, C]), min_size=1)), min_size=1, max_size=25),
    st.dictionaries(
        st.builds(Place, st.just(1), st.integers(0, 5), st.sampled_from([(A,), (B,)]), st.just(201)),
        st.integers(1, 9),
        max_size=2,
    ),
)
def test_nobody_gains_by_giving_up_one_more_cohort(drawn, opened):
    nodes = {str(n): candidate(str(n), rate, gateways) for n, (rate, gateways) in enumerate(drawn)}
    found = assigned(list(nodes.values()), opened)
    now_s = waiting_s(found, opened)
    for place, names in found:
        if place in opened:
            continue
        for other in {p for p, _ in found} | set(opened):
            if other.data_rate < place.data_rate and all(nodes[n].gateways & set(other.gateways) for n in names):
                rest = [(p, [*members, *(names if p == other else ())]) for p, members in found if p != place]
                if other not in dict(found):
                    rest.append((other, names))
                assert waiting_s(rest, opened) >= now_s - 1e-6


def test_a_node_without_multicast_is_by_itself():
    found = assigned([candidate("1", unicast=True, gateways=()), candidate("2", unicast=True, gateways=())])
    assert [(place.unicast, names) for place, names in found] == [(True, ["1"]), (True, ["2"])]


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.sets(st.sampled_from([A, B, C])), st.integers(1, 2), st.booleans()), max_size=30
    )
)
def test_every_node_is_placed_once_where_it_is_reached(drawn):
    nodes = {str(n): candidate(str(n), r, g, v, unicast=u) for n, (r, g, v, u) in enumerate(drawn)}
    found = assigned(list(nodes.values()))
    names = [name for _, members in found for name in members]
    assert sorted(names) == sorted(nodes)
    for place, members in found:
        for name in members:
            node = nodes[name]
            assert place.frag_version == node.frag_version
            assert place.data_rate <= node.data_rate
            assert place.unicast == node.unicast
            if not place.unicast:
                assert set(place.gateways) & (node.gateways or set(place.gateways))


@pytest.mark.parametrize(
    ("snr_db", "expected"), [(10.0, 5), (-4.0, 5), (-5.0, 4), (-8.0, 3), (-11.0, 2), (-14.0, 1), (-17.0, 0), (-30.0, 0)]
)
def test_usable_data_rate_follows_the_snr(snr_db, expected):
    assert usable(EU868, 5, {A: snr_db}, 5, (A,)) == (expected, frozenset({A}))


def test_the_configured_data_rate_is_the_ceiling():
    assert usable(EU868, 3, {A: 10.0}, 5, (A,))[0] == 3
    assert usable(US915, 10, {A: 10.0}, 3, (A,))[0] == 10


def test_without_snr_the_last_uplink_tells():
    assert usable(EU868, 5, {}, 2, (A,)) == (2, frozenset())
    assert usable(US915, 13, {}, 0, (A,)) == (10, frozenset())  # SF10 up, SF10 down
    assert usable(EU868, 5, {}, None, (A,)) == (5, frozenset())
    assert usable(EU868, 5, {"gone": 9.0}, 1, (A,)) == (1, frozenset())  # a gateway that is no more


def test_gateways_are_those_that_carry_the_best_rate():
    assert usable(EU868, 5, {A: 9.0, B: -14.0, C: 3.0}, 5, (A, B, C)) == (5, frozenset({A, C}))


@pytest.mark.parametrize("name", list(REGIONS))
def test_slower_goes_down_to_the_end(name):
    plan = REGIONS[name]
    rate, seen = max(plan.downlinks), []
    while rate is not None:
        seen.append(rate)
        rate = slower(plan, rate)
    assert seen == sorted(plan.downlinks, reverse=True)


def test_one_odd_uplink_does_not_move_a_node():
    value = None
    for snr in (8.0, 8.0, 8.0, -6.0):
        value = smoothed(value, snr)
    assert value > 3.0


# Limits, in virtual time.


def test_a_node_beyond_its_limit_leaves_before_the_first_coded_fragment():
    weak = spec(1, downlink_loss=0.3, redundancy_limit=5)
    world = World([weak, spec(2), spec(3)], new_image(20_000), limit=5)
    world.run(lambda w: w.released)
    decoder = world.node(weak).fragmentation.session.decoder
    assert not decoder.coding
    world.run(all_but(weak))
    assert [(r.dev_eui, r.again, r.reason) for r in world.released] == [(weak.dev_eui, True, "redundancy")]
    at = (
        next(i for i, a in enumerate(world.log) if isinstance(a, Multicast) and (a.n or 0) > world.cohort.nb_frag)
        if any(n > world.cohort.nb_frag for n in world.fragments())
        else len(world.log)
    )
    assert world.log.index(world.released[0]) <= at


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("style", list(StatusStyle))
def test_no_decoder_is_given_more_than_it_can_make_up(style, seed):
    specs = [
        spec(n, downlink_loss=0.06 * n, uplink_loss=0.2, redundancy_limit=12, status_style=style, seed=10 * seed + n)
        for n in range(1, 6)
    ]
    world = World(specs, new_image(20_000), limit=12, seed=seed)
    world.run(lambda w: len(done(w)) + len({r.dev_eui for r in w.released}) == len(specs))
    for s in specs:
        session = world.node(s).fragmentation.session
        if session is not None and s.dev_eui not in {r.dev_eui for r in world.released}:
            assert not session.decoder.overflowed


def test_a_node_within_its_limit_stays():
    world = World([spec(1, downlink_loss=0.1), spec(2)], new_image(20_000), limit=100)
    world.run(all_running)
    assert world.released == []


@pytest.mark.parametrize("loss", [0.05, 0.3, 0.6])
def test_polls_come_before_255_losses_can_pile_up(loss):
    node = spec(1, downlink_loss=loss, redundancy_limit=5000)
    world = World([node], new_image(48 * 1500), frag_size=48)
    piles, seen = [0], 0

    def watched(world):
        nonlocal seen
        session = world.node(node).fragmentation.session
        for action in world.log[seen:]:
            if isinstance(action, Multicast) and action.n is None and session is not None:
                piles.append(session.decoder.lost)
        seen = len(world.log)
        return len(world.fragments()) > world.cohort.nb_frag + 5

    world.run(watched)
    assert max(after - before for before, after in pairwise(piles)) < 255


@pytest.mark.parametrize("number", [0, 201, 256])
def test_settings_that_would_let_the_count_wrap_are_refused(number):
    with pytest.raises(ValueError, match="256"):
        SessionSettings(poll_fragments=number)


def done(world):
    return {e.node[-16:] for e in world.events if e.fact in (Fact.RUNNING, Fact.FAILED)}


def all_but(s):
    return lambda world: len(done(world)) == len(world.specs) - 1 and s.dev_eui in {r.dev_eui for r in world.released}
