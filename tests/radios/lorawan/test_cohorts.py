"""Who shares a cohort: by gateways, usable data rate and version; and who leaves it before the first coded fragment."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radios.lorawan.cohort import SessionSettings
from radios.lorawan.link import slower, smoothed, usable
from radios.lorawan.messages import Multicast
from radios.lorawan.placement import Candidate, Place, assign
from radios.lorawan.regions import EU868, REGIONS, US915
from radios.radio import Fact
from radios.simulated.lorawan.packages.fragmentation import StatusStyle
from tests.radios.lorawan.world import World, all_running, new_image, spec

A, B, C = "a", "b", "c"


def candidate(name, rate=5, gateways=(A,), version=1, port=201, **changes):
    return Candidate(name, version, rate, frozenset(gateways), port, **changes)


def placed(candidates, opened=(), gateways=(A, B, C)):
    return {
        (place.data_rate, place.gateways, place.unicast): names for place, names in assign(candidates, opened, gateways)
    }


def test_nodes_of_one_kind_share_a_cohort():
    assert placed([candidate("1"), candidate("2")]) == {(5, (A,), False): ["1", "2"]}


def test_data_rates_and_versions_are_apart():
    found = assign(
        [
            candidate(f"{n}", rate, version=version)
            for n, (rate, version) in enumerate([(5, 1), (5, 1), (3, 1), (3, 1), (5, 2), (5, 2)])
        ],
        (),
        (A,),
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
    found = assign([candidate("1", gateways=(A, B)), candidate("2", gateways=(B,))], [opened], (A, B))
    assert dict(found)[opened] == ["1"]
    assert [names for place, names in found if place != opened] == [["2"]]


def test_a_single_fast_node_joins_the_slow_pass_that_goes_out_anyway():
    nodes = [candidate("1", 5), *(candidate(str(n), 3) for n in (2, 3))]
    assert placed(nodes) == {(3, (A,), False): ["2", "3", "1"]}
    assert len(placed([candidate("0", 5), *nodes])) == 2  # two are worth a cohort of their own
    far = [candidate("1", 5), candidate("2", 0)]
    assert len(placed(far)) == 2  # one far node slows nobody
    apart = [candidate("1", 5, (B,)), *(candidate(str(n), 3) for n in (2, 3))]
    assert len(placed(apart)) == 2  # that pass does not reach it


def test_a_node_without_multicast_is_by_itself():
    found = assign([candidate("1", unicast=True, gateways=()), candidate("2", unicast=True, gateways=())], (), (A,))
    assert [(place.unicast, names) for place, names in found] == [(True, ["1"]), (True, ["2"])]


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.sets(st.sampled_from([A, B, C])), st.integers(1, 2), st.booleans()), max_size=30
    )
)
def test_every_node_is_placed_once_where_it_is_reached(drawn):
    nodes = {str(n): candidate(str(n), r, g, v, unicast=u) for n, (r, g, v, u) in enumerate(drawn)}
    found = assign(list(nodes.values()), (), (A, B, C))
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
