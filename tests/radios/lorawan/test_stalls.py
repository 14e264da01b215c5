"""Sessions that stood still once, found by the search over whole sessions (`test_session_properties`); one test for each."""

from dataclasses import replace

import pytest

from radios.lorawan.cohort import SessionSettings
from radios.lorawan.inventory import InventorySettings, Node
from radios.lorawan.journal_codec import Known
from radios.lorawan.messages import Unicast
from radios.lorawan.network_server import Device, DeviceClass
from radios.lorawan.session_node import Step
from radios.radio import Fact
from radios.simulated.lorawan.packages.fragmentation import StatusStyle as Style
from tests.radios.lorawan.world import World, all_running, new_image, spec


def steps(world):
    return {node.step for node in world.session.nodes.values()}


def pass_by(world, until):
    """The daemon is away: the network goes on alone."""
    while world.now < until:
        due = world.network.next_deadline()
        world.now = until if due is None else min(until, max(due, world.now + 0.001))
        world.network.advance(world.now)
        world.network.events.clear()


@pytest.mark.parametrize("device_class", ["A", "B", "C"])
def test_a_first_window_that_went_by_without_a_fragment_is_opened_again(device_class):
    specs = [spec(n, device_class=device_class, uplink_interval_s=60.0) for n in (1, 2)]
    world = World(specs, new_image(), data_rate=3, frag_size=112)
    world.cohort.ping_periodicity = 0 if device_class == "B" else None
    world.run(lambda w: steps(w) == {Step.RECEIVING})
    assert not world.cohort.data_started
    pass_by(world, world.cohort.window_end + 60.0)
    world.restart()
    world.run(all_running)
    for s in specs:
        assert world.facts(s)[-1] is Fact.RUNNING
        assert world.node(s).running_image == world.image


@pytest.mark.parametrize("version", [1, 2])
def test_a_clock_that_was_learnt_and_then_set_by_a_reboot_is_learnt_again(version):
    """Without TS003: it was told the time by its own clock, which is right by now and calls every start missed."""
    node = spec(1, clock_error_s=-400.0, package_versions={1: 0, 2: version}, downlink_loss=0.3)
    world = World([node, spec(2)], new_image())
    timeless(world, node)
    world.run(lambda w: w.session.nodes[node.dev_eui].clock_error_s < -300 and steps(w) == {Step.RECEIVING})
    world.node(node).clock.synchronise(world.now)
    pass_by(world, world.cohort.window_end)  # and so another window has to be asked for
    world.run(all_running)
    assert world.facts(node)[-1] is Fact.RUNNING
    assert world.node(node).running_image == world.image


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("ahead_s", [700.0, 40_000.0, 1e7])
def test_a_clock_far_ahead_that_cannot_be_set_is_met(version, ahead_s):
    node = spec(1, clock_error_s=ahead_s, package_versions={1: 0, 2: version})
    world = World([node], new_image(), settings=SessionSettings(lead_s=1200.0))
    timeless(world, node)
    world.run(all_running)
    assert world.facts(node)[-1] is Fact.RUNNING


def test_a_clock_beyond_all_means_is_not_asked_for_ever():
    node = spec(1, clock_error_s=8e8, package_versions={1: 0, 2: 2})
    world = World([node, spec(2)], new_image())
    timeless(world, node)
    world.run(lambda w: w.released)
    assert (world.released[0].dev_eui, world.released[0].again) == (node.dev_eui, True)


@pytest.mark.parametrize("device_class", ["A", "B"])
def test_a_node_that_lost_its_session_is_asked_alone_until_it_tells_though_windows_are_short(device_class):
    """A version 1 node tells it only when it is asked twice, which takes its uplinks longer than a window."""
    specs = [spec(n, device_class=device_class, uplink_interval_s=120.0) for n in (1, 2)]
    world = World(specs, new_image(3000))
    world.cohort.ping_periodicity = 0 if device_class == "B" else None
    world.run(lambda w: len(w.fragments()) > 3)
    node = world.node(specs[0])
    groups = dict(node.multicast.groups)
    node.power_cycle(world.now)
    node.multicast.groups |= groups  # kept in flash, and its fragmentation session is not
    world.run(lambda w: w.released)
    assert [(r.dev_eui, r.again, r.reason) for r in world.released] == [(specs[0].dev_eui, True, "session_lost")]


def timeless(world, s):
    node = world.session.nodes[s.dev_eui]
    node.profile = replace(node.profile, clock_version=None)


@pytest.mark.parametrize("alone", [False, True])
def test_a_node_whose_ts006_was_silent_when_asked_for_is_told_to_reboot_all_the_same(alone):
    """Its answer to DevVersionReq after the block shows that the package is there."""
    node = spec(1, package_versions={3: 2})
    world = World([node], new_image(), frag_version=2, alone=alone, frag_size=48)
    held = world.session.nodes[node.dev_eui]
    held.profile = replace(held.profile, firmware_management=False)
    world.run(all_running)
    assert world.facts(node)[-1] is Fact.RUNNING
    assert world.events[-1].version == 2


def test_a_question_that_never_left_is_no_silence():
    node = Node(Device("70b3d54990000001", "", DeviceClass.C, "EU868", (1, 0), 300.0), Known("70b3d54990000001"))
    for at in range(100):
        assert node.ask(InventorySettings(), 1e6 * at) is not None
        node.postpone(0.0)
    assert not any(node.discovery.asks.values())


def test_fifteen_lost_answers_about_an_image_cost_no_second_delivery():
    node = spec(1, status_style=Style.LBM, downlink_loss=0.1)
    world = World([node], new_image())

    def asked(w):
        return sum(isinstance(action, Unicast) and action.name == "DevUpgradeImageReq" for action in w.log)

    world.run(lambda w: steps(w) == {Step.VERIFYING})
    world.silent.add(node.dev_eui)
    world.run(lambda w: asked(w) >= 15)
    world.silent.clear()
    world.run(all_running)
    assert world.facts(node)[-1] is Fact.RUNNING
    assert world.released == []
    assert world.node(node).fragment_counters.sessions_set_up == 1
