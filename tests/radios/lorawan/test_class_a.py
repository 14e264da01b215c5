"""Nodes that can take no multicast: the whole block goes through their queue, in virtual time."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from radios.lorawan.cohort import SessionSettings
from radios.lorawan.messages import CreateGroup, Feed, Unicast
from radios.radio import Fact, Want
from radios.simulated.lorawan.packages.fragmentation import StatusStyle
from tests.radios.lorawan.world import GATEWAY, World, all_running, new_image, spec

STYLES = list(StatusStyle)


def class_a(**changes):
    return spec(1, **({"device_class": "A", "uplink_interval_s": 300.0} | changes))


def world_of(s, image=None, **changes):
    return World([s], image or new_image(), alone=True, frag_version=s.package_version(3), **changes)


def assert_delivered(world):
    assert world.violations == []
    for s in world.specs.values():
        assert world.facts(s)[-1] is Fact.RUNNING, [(e.fact, e.code, e.detail) for e in world.events]
        assert world.node(s).running_image == world.image


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("style", STYLES)
def test_a_whole_block_by_unicast_without_any_group(style, version):
    s = class_a(status_style=style, package_versions={3: version})
    world = world_of(s)
    world.run(all_running)
    assert_delivered(world)
    assert [n for _, n in world.fed][: world.cohort.nb_frag] == list(range(1, world.cohort.nb_frag + 1))
    assert len(world.fed) <= world.cohort.nb_frag + 8
    assert not [a for a in world.log if isinstance(a, CreateGroup)]
    assert not [a for a in world.log if isinstance(a, Unicast) and a.name.startswith("Mc")]


@pytest.mark.parametrize("style", STYLES)
def test_lost_fragments_are_made_up_by_coded_ones(style):
    world = world_of(class_a(status_style=style, downlink_loss=0.2, uplink_loss=0.1), new_image(20_000))
    world.run(all_running)
    assert_delivered(world)
    counters = [n for _, n in world.fed]
    assert counters == list(range(1, len(counters) + 1))  # none twice: never a plain one again
    assert len(counters) > world.cohort.nb_frag


def test_nothing_is_queued_behind_what_waits():
    world = world_of(class_a())
    depth = []

    def watched(world):
        depth.append(len(world.network.devices[spec(1).dev_eui].queue))
        return all_running(world)

    world.run(watched)
    assert 1 < max(depth) <= world.settings.unicast_batch + 1
    assert all(a.expires > world.now - 30 * 86400 for a in world.log if isinstance(a, Feed))


@pytest.mark.parametrize("at", range(1, 60, 2))
def test_a_restart_goes_on_after_the_highest_counter_sent(at):
    world = world_of(class_a(downlink_loss=0.1))
    world.crash_at = {at}
    world.run(all_running)
    assert_delivered(world)
    counters = [n for _, n in world.fed]
    assert len(counters) - len(set(counters)) <= world.settings.unicast_batch
    assert all(b > a - world.settings.unicast_batch for a, b in pairwise(counters))


def test_a_finished_batch_is_not_sent_again_after_a_restart():
    world = world_of(class_a())
    world.run(lambda w: len(w.fed) >= 8)
    world.run(lambda w: not w.network.devices[spec(1).dev_eui].queue)
    world.restart()
    world.run(all_running)
    counters = [n for _, n in world.fed]
    assert len(counters) == len(set(counters))


def test_progress_comes_from_status_answers():
    world = world_of(class_a(), new_image(60_000))
    world.run(all_running)
    progress = [e.confirmed for e in world.events if e.fact is Fact.PROGRESS]
    assert progress == sorted(progress)
    assert len(progress) >= 2


def test_hold_stops_the_fragments_and_install_goes_on():
    s = class_a()
    world = world_of(s)
    world.run(lambda w: len(w.fed) >= 8)
    world.session.direct(world.directive(s, Want.HOLD, 2), world.now)
    sent, until = len(world.fed), world.now + 86_400
    world.run(lambda w: w.now > until)
    assert len(world.fed) == sent
    world.session.direct(world.directive(s, Want.INSTALL, 3), world.now)
    world.run(all_running)
    assert_delivered(world)


def test_fragments_that_no_longer_fit_wait_and_then_begin_anew():
    s = class_a()
    world = world_of(s, settings=SessionSettings(oversize_wait_s=3600.0))
    world.run(lambda w: len(w.fed) >= 8)
    world.node(s).spec = replace(world.node(s).spec, data_rate=0)  # its ADR steps down
    world.run(lambda w: w.released)
    sent = len(world.fed)
    assert sent <= 16
    assert [(r.again, r.reason) for r in world.released] == [(True, "data_rate")]
    assert Fact.STALLED in world.facts(s)


def test_dropping_deletes_the_session_and_asks_about_no_group():
    s = class_a()
    world = world_of(s)
    world.run(all_running)
    world.session.direct(world.directive(s, Want.DROP, 5), world.now)
    world.run(lambda w: w.session.finished)
    assert world.records == {}
    assert not [a for a in world.log if isinstance(a, Unicast) and a.name == "McGroupDeleteReq"]


def test_a_class_c_node_alone_is_fed_through_its_queue():
    world = World([spec(1, downlink_loss=0.1)], new_image(), alone=True, frag_size=48)
    world.run(all_running)
    assert_delivered(world)


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(st.data())
def test_any_loss_any_crash_by_unicast(data):
    """Image identical, or the old one runs; alone, or as one of a few under several gateways."""
    version, alone = data.draw(st.sampled_from([1, 2]), "version"), data.draw(st.booleans(), "alone")
    specs = [
        spec(
            n,
            device_class="A",
            seed=data.draw(st.integers(0, 1 << 30), "seed"),
            status_style=data.draw(st.sampled_from(STYLES), "style"),
            downlink_loss=data.draw(st.sampled_from([0.0, 0.1, 0.3, 0.5]), "down"),
            uplink_loss=data.draw(st.sampled_from([0.0, 0.2, 0.5]), "up"),
            package_versions={3: version},
            gateways=(GATEWAY,),
        )
        for n in range(1, 2 if alone else 1 + data.draw(st.integers(1, 3), "nodes"))
    ]
    gateways = (GATEWAY,) if alone else (GATEWAY, "00800000a0000002", "00800000a0000003")
    times = SessionSettings(attempts_most=99, gather_s=7200.0)
    world = World(
        specs, new_image(), frag_version=version, alone=alone, unicast=True, gateways=gateways, settings=times
    )
    world.crash_at = data.draw(st.sets(st.integers(1, 120), max_size=4), "crashes")
    world.fail_commits = data.draw(st.sets(st.integers(2, 40), max_size=2), "failed commits")

    def gone(world):
        return set(world.specs) - set(world.session.nodes)  # late, or given up for another session

    def settled(world):
        running = {e.node[-16:] for e in world.events if e.fact is Fact.RUNNING}
        return any(e.fact is Fact.FAILED for e in world.events) or not set(world.specs) - running - gone(world)

    world.run(settled, limit_s=60 * 86_400.0)
    assert world.violations == []
    assert [(e.code, e.detail) for e in world.events if e.fact is Fact.FAILED] == []
    for s in specs:
        if s.dev_eui not in gone(world):
            assert world.node(s).running_image == world.image


def confirming(style, device_class="A"):
    """A node that makes up 2 losses and loses half of its downlinks, alone, with an image of 28 fragments."""
    link = {"downlink_loss": 0.5, "uplink_interval_s": 60.0}
    node = spec(1, status_style=style, device_class=device_class, redundancy_limit=2, **link)
    world = World([node], new_image(28 * 48), alone=True, frag_size=48, settings=SessionSettings(attempts_most=1))
    held = world.session.nodes[node.dev_eui]
    held.profile = replace(held.profile, confirm_each=True)
    world.session._out.changed(held)
    return node, world


@pytest.mark.parametrize("style", list(StatusStyle))
@pytest.mark.parametrize("device_class", ["A", "C"])
def test_a_node_that_makes_up_too_little_gets_each_fragment_until_it_has_seen_it(style, device_class):
    node, world = confirming(style, device_class=device_class)
    world.run(all_running)
    assert world.facts(node)[-1] is Fact.RUNNING
    assert world.node(node).running_image == world.image
    sent = [n for _, n in world.fed]
    assert sorted(set(sent[: sent.index(28) + 1])) == list(range(1, 29))
    assert len(sent) > 40  # about two for each that arrives


def test_without_that_it_fails():
    node, world = confirming(StatusStyle.LBM)
    held = world.session.nodes[node.dev_eui]
    held.profile = replace(held.profile, confirm_each=False)
    world.run(all_running)
    assert [e.code for e in world.events if e.fact is Fact.FAILED] == ["no_space"]


@pytest.mark.parametrize("crash_at", [30, 60, 61, 90])
def test_a_pass_that_confirms_every_fragment_goes_on_after_a_crash(crash_at):
    node, world = confirming(StatusStyle.LBM)
    world.crash_at = {crash_at}
    world.run(all_running)
    assert world.restarts == 1
    assert not world.violations
    assert world.node(node).running_image == world.image
