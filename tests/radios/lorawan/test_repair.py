"""Stragglers get new coded fragments through their queue, when that takes less air or when nothing else reaches them."""

from dataclasses import replace

import pytest

from radios.lorawan.cohort import SessionSettings
from radios.lorawan.messages import CreateGroup, Multicast
from radios.lorawan.regions import EU868
from radios.lorawan.unicast_air import UnicastAir
from radios.radio import Fact, Want
from radios.simulated.lorawan.packages.fragmentation import StatusStyle
from tests.radios.lorawan.world import GATEWAY, World, all_running, new_image, spec

SECOND = "00800000a0000002"
THIRD = "00800000a0000003"


def class_a(number, **changes):
    return spec(number, **({"device_class": "A", "uplink_interval_s": 300.0} | changes))


def world_of(specs, image=None, **changes):
    values = {"gateways": (GATEWAY, SECOND, THIRD), "unicast": True, "settings": SessionSettings(gather_s=7200.0)}
    return World(specs, image or new_image(20_000), **(values | changes))


def assert_delivered(world):
    assert world.violations == []
    for s in world.specs.values():
        assert world.facts(s)[-1] is Fact.RUNNING, [(e.fact, e.code, e.detail) for e in world.events]
        assert world.node(s).running_image == world.image
        assert world.node(s).fragment_counters.sessions_set_up == 1


def near(number, **changes):
    return class_a(number, gateways=(GATEWAY,), **changes)


@pytest.mark.parametrize("style", list(StatusStyle))
def test_one_straggler_is_repaired_by_new_coded_unicast_fragments(style):
    specs = [near(1, downlink_loss=0.15, status_style=style), near(2), near(3)]
    world = world_of(specs)
    world.run(all_running)
    assert_delivered(world)
    nb_frag = world.cohort.nb_frag
    assert world.fed
    assert {dev_eui for dev_eui, _ in world.fed} <= {s.dev_eui for s in specs}
    assert all(n > nb_frag for _, n in world.fed)  # never a plain one
    every = [n for _, n in world.fed] + world.fragments()
    assert len(every) == len(set(every))  # no counter twice, whichever way


def test_the_group_goes_on_where_it_takes_less_air():
    specs = [near(n, downlink_loss=0.15) for n in range(1, 7)]
    world = world_of(specs, gateways=(GATEWAY,))
    world.run(all_running)
    assert_delivered(world)
    assert max(world.fragments()) > world.cohort.nb_frag
    assert not world.fed


def test_size_of_a_repair_follows_what_is_missing():
    world = world_of([near(1, downlink_loss=0.1), near(2)])
    world.run(lambda w: w.fed)
    node = world.session.nodes[spec(1).dev_eui]
    first_leg = node.block.need(world.cohort.nb_frag)
    world.run(all_running)
    assert first_leg <= len(world.fed) <= 2 * first_leg + 8


def test_fragments_too_large_for_unicast_stay_with_the_group():
    specs = [spec(1, downlink_loss=0.15), spec(2)]  # class C: RX2 is DR0, and takes 51 bytes
    world = world_of(specs)
    world.run(all_running)
    assert_delivered(world)
    assert not world.fed


def test_a_node_that_hears_no_window_is_repaired_by_unicast():
    """Between two rounds the group's frames stop reaching it; its own downlinks still do."""
    deaf = near(1, downlink_loss=0.3)
    others = [near(n, downlink_loss=0.25) for n in (2, 3, 4)]
    world = world_of([deaf, *others], new_image(30_000), gateways=(GATEWAY,))
    world.run(lambda w: len(w.fragments()) >= w.cohort.nb_frag)
    held = world.node(deaf).multicast
    keep = held.sessions
    held.sessions = {}  # its window is gone; it does not know of another one

    def all_but_opening(world):
        held.sessions = {}
        return all_running(world)

    world.run(all_but_opening)
    assert keep
    assert_delivered(world)
    assert deaf.dev_eui in {dev_eui for dev_eui, _ in world.fed}


@pytest.mark.parametrize("at", [60, 90, 110, 115, 118, 120, 122, 124, 126, 130, 140])
def test_a_crash_during_a_repair_uses_no_counter_twice(at):
    world = world_of([near(1, downlink_loss=0.2), near(2)])
    world.crash_at = {at}
    world.run(all_running)
    assert_delivered(world)
    coded = [n for _, n in world.fed] + [n for n in world.fragments() if n > world.cohort.nb_frag]
    assert len(coded) == len(set(coded))


def test_a_straggler_whose_data_rate_falls_goes_back_to_the_group():
    slow = near(1, downlink_loss=0.2)
    world = world_of([slow, near(2)])
    world.run(lambda w: w.fed)
    world.node(slow).spec = replace(world.node(slow).spec, data_rate=0)
    world.run(all_running)
    assert world.node(slow).running_image == world.image
    sent = [a for a in world.log if isinstance(a, Multicast) and a.n is not None and a.n > world.cohort.nb_frag]
    assert sent


def test_a_cohort_of_one_needs_no_group_when_that_takes_less_air():
    lonely = class_a(1, downlink_loss=0.1, gateways=(GATEWAY,))
    world = world_of([lonely], new_image())
    world.run(all_running)
    assert_delivered(world)
    assert world.cohort.unicast
    assert not [a for a in world.log if isinstance(a, Multicast | CreateGroup)]
    world.session.direct(world.directive(lonely, Want.DROP, 5), world.now)
    world.run(lambda w: w.session.finished)
    assert not world.node(lonely).multicast.groups  # it had been told of one


def test_a_cohort_of_one_keeps_its_group_when_unicast_takes_more():
    world = world_of([class_a(1, data_rate=3, gateways=(GATEWAY,))], new_image(), gateways=(GATEWAY,), frag_size=112)
    world.run(all_running)
    assert_delivered(world)
    assert not world.cohort.unicast


def test_a_class_c_straggler_is_repaired_in_rx2():
    specs = [spec(n, downlink_loss=0.35 * (n == 1), gateways=(GATEWAY,)) for n in (1, 2, 3)]
    world = world_of(specs, new_image(), data_rate=0, frag_size=48)
    world.run(all_running)
    assert_delivered(world)
    assert {dev_eui for dev_eui, _ in world.fed} == {specs[0].dev_eui}


def test_repair_counts_on_the_air():
    world = world_of([near(1, downlink_loss=0.15), near(2), near(3)])
    world.run(all_running)
    one = UnicastAir(EU868, rx2={}).airtime_s(5, 222)
    sent = world.session.unicast_airtime_s
    assert len(world.fed) * one <= sent <= len(world.fed) * one * 1.5


def test_single_nodes_keep_the_duty_cycle_of_their_band():
    air = UnicastAir(EU868, rx2={})
    now, sent = 0.0, 0.0
    while now < 3600.0:
        now = air.earliest(2.8, now, always_on=False)
        if now < 3600.0:
            air.book(2.8, now, always_on=False)
            sent += 2.8
    assert sent <= 36.0


def test_a_straggler_that_needs_the_group_again_is_given_another_one():
    """Nobody needed the first one any more, and the network server's counter went with it: under the same key every frame would
    be an old one to the node, and the same key stream would hide other data."""
    specs = [near(1, downlink_loss=0.15), near(2), near(3)]
    world = world_of(specs, new_image(60_000))
    world.run(lambda w: w.fed and not w.network.multicast.groups)
    before = world.cohort.mc_addr
    world.node(specs[0]).spec = replace(specs[0], data_rate=0)  # fragments do not fit its downlinks any more
    world.run(all_running)
    assert_delivered(world)
    assert world.cohort.mc_addr != before
    assert world.network.multicast.f_cnts_reused == 0
