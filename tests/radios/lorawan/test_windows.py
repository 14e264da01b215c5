"""Windows of class A nodes: how soon they open, how long they last, and who is waited for. Virtual time."""

import pytest

from radios.lorawan.cohort import SessionSettings
from radios.lorawan.messages import Unicast
from radios.lorawan.network_server import Uplink
from radios.lorawan.questions import PROMPT_S
from radios.lorawan.session_node import Step
from tests.radios.lorawan.world import T0, World, new_image, spec

INTERVAL_S = 300.0
TIMEOUT_S = 1.5 * INTERVAL_S


def asked(world, name):
    return sum(isinstance(action, Unicast) and action.name == name for action in world.log)


def holds(world, s):
    held = world.node(s).fragmentation.session
    return held is not None and held.decoder.complete


@pytest.mark.parametrize("lost", [1, 2])
def test_a_window_that_is_opened_again_is_long_enough_for_who_hears_a_later_request(lost):
    specs = [
        spec(n, device_class="A", uplink_interval_s=INTERVAL_S, downlink_loss=0.25, redundancy_limit=2000)
        for n in (1, 2, 3)
    ]
    world = World(specs, new_image(20_000), settings=SessionSettings(gather_s=14_400.0))
    world.run(lambda w: w.session._rounds.coding)
    world.cohort.window_end = world.now + 30.0  # it ends before the first coded fragment
    late = specs[2]
    world.run(lambda w: w.session.nodes[late.dev_eui].step is Step.WINDOW)
    starts = {world.cohort.window_start}

    def done(w):
        starts.add(w.cohort.window_start)
        if w.session.nodes[late.dev_eui].asked <= lost:
            w.network.flush_queue(late.dev_eui)  # the request never leaves
        return holds(w, late)

    world.run(done)
    assert len(starts) == 1, "it needed another window"
    assert world.cohort.window_end - world.cohort.window_start >= 2 * TIMEOUT_S


def class_a(number, **changes):
    return spec(number, **{"device_class": "A", "uplink_interval_s": INTERVAL_S, **changes})


def test_requests_that_are_heard_follow_each_other_at_once():
    """Each answer is an uplink, and the next request goes down with it."""
    world = World([class_a(1), class_a(2)], new_image())
    world.run(lambda w: all(n.step not in (Step.GROUP, Step.BLOCK) for n in w.session.nodes.values()))
    assert world.now - T0 <= INTERVAL_S + 10.0
    assert len([a for a in world.log if isinstance(a, Unicast)]) <= 6
    last = max(world.session.nodes.values(), key=lambda n: n.asked_at)
    world.run(lambda w: last.step is Step.RECEIVING)
    assert world.now - T0 <= INTERVAL_S + 20.0


@pytest.mark.parametrize("name", ["McGroupSetupReq", "FragSessionSetupReq", "McClassCSessionReq"])
def test_a_request_that_was_lost_is_repeated_with_the_next_uplink(name):
    s = class_a(1)
    world = World([s, class_a(2)], new_image(), settings=SessionSettings(gather_s=7200.0))
    lost = []

    def until(w):
        queue = w.network.devices[s.dev_eui].queue
        if not lost and asked(w, name) and queue and w.session.nodes[s.dev_eui].question == name:
            lost.append(w.now)
            queue.clear()
        return w.session.nodes[s.dev_eui].step is Step.RECEIVING

    world.run(until)
    assert lost
    assert world.now - lost[0] <= 2 * INTERVAL_S + 60.0


def test_who_is_late_does_not_keep_those_waiting_who_can_be_asked_already():
    """The last of five is set up much later: the windows of the others are open by then."""
    specs = [class_a(n) for n in range(1, 6)]
    world = World(specs, new_image(), settings=SessionSettings(gather_s=7200.0))
    late = specs[4].dev_eui

    def until(w):
        if w.now < T0 + 4 * INTERVAL_S:
            w.network.flush_queue(late)
        return not any(n.step is Step.WINDOW for n in w.session.nodes.values()) and w.cohort.closed

    world.run(until)
    set_up = [n for n in world.session.nodes.values() if n.step is Step.RECEIVING]
    assert len(set_up) == 5
    assert world.now - T0 <= 6 * INTERVAL_S
    starts = [n.window_from for n in world.session.nodes.values() if n.dev_eui != late]
    assert max(starts) < world.now
    world.run(lambda w: w.fragments())
    assert world.now - T0 <= 6 * INTERVAL_S + 60.0


def test_a_node_that_did_not_agree_is_waited_for_before_the_first_fragment():
    specs = [class_a(1), class_a(2), class_a(3)]
    world = World(specs, new_image(), settings=SessionSettings(gather_s=3600.0))
    late = specs[2].dev_eui

    def until(w):
        if w.now < T0 + 5 * INTERVAL_S and asked(w, "McClassCSessionReq"):
            w.network.flush_queue(late)
        return w.fragments()

    world.run(until)
    assert world.session.nodes[late].step is Step.RECEIVING
    assert world.released == []


def test_a_node_is_asked_patiently_before_the_first_coded_fragment():
    """What it lost may be more than it makes up; a few lost requests are no reason to risk its image."""
    specs = [class_a(1, downlink_loss=0.35, redundancy_limit=2), class_a(2), class_a(3)]
    world = World(specs, new_image(), settings=SessionSettings(gather_s=7200.0), limit=2)
    world.run(lambda w: w.fragments())
    weak = specs[0].dev_eui
    asked_alone = 0

    heard = world.session.receive

    def lossy(uplink, now):
        """Its status answers are lost on the way up until it was asked alone four times."""
        if uplink.dev_eui == weak and uplink.port == 201 and asked_alone <= 3:
            return False
        return heard(uplink, now)

    world.session.receive = lossy

    def until(w):
        nonlocal asked_alone
        node = w.session.nodes.get(weak)
        if node is not None and node.poll_alone and w.session.highest_sent == w.cohort.nb_frag:
            asked_alone = max(asked_alone, node.asked)
        held = w.node(specs[0]).fragmentation.session
        assert held is None or not held.decoder.coding
        return weak not in w.session.nodes

    world.run(until)
    assert [r.reason for r in world.released] == ["redundancy"]
    assert asked_alone > 3


@pytest.mark.parametrize("seed", range(3))
def test_data_follows_the_last_consent_at_once_whatever_was_lost(seed):
    """A request that is repeated goes down with an uplink and names a start soon after it, not after the latest one to come."""
    specs = [class_a(n, downlink_loss=0.3, uplink_loss=0.2, seed=100 * seed + n) for n in range(1, 7)]
    world = World(specs, new_image(), settings=SessionSettings(gather_s=14_400.0), seed=seed)
    world.run(lambda w: all(n.step is Step.RECEIVING for n in w.session.nodes.values()))
    agreed_at = world.now
    world.run(lambda w: w.session.highest_sent > 0)
    assert world.now - agreed_at <= PROMPT_S + 10.0


def test_a_node_that_does_not_speak_is_asked_through_its_queue():
    specs = [class_a(1), class_a(2)]
    world = World(specs, new_image(), settings=SessionSettings(gather_s=14_400.0))
    silent = specs[1].dev_eui
    world.run(
        lambda w: (
            w.session.nodes[silent].step is Step.WINDOW and w.session.nodes[specs[0].dev_eui].step is Step.RECEIVING
        )
    )
    node = world.session.nodes[silent]
    node.step, node.last_heard = Step.WINDOW, world.now - 10 * TIMEOUT_S
    world.session._out.ask_afresh(node)
    asked = node.asked
    world.run(lambda w: w.session.nodes[silent].asked > asked, limit_s=60.0)


def test_an_uplink_that_a_request_waits_for_wakes_the_session_whatever_it_says():
    """The shell calls `to_send` only when `receive` says so: a reading that is no answer has to be enough."""
    specs = [class_a(1), class_a(2)]
    world = World(specs, new_image(), settings=SessionSettings(gather_s=14_400.0))
    session = world.session
    world.run(lambda w: any(n.step is Step.RECEIVING for n in session.nodes.values()))
    late = next(n for n in session.nodes.values() if n.step is not Step.RECEIVING)
    session._out.ask_afresh(late)  # as after another window was planned: it was not asked for that one yet
    session.cohort.window_start = world.now
    assert not [a for a in session.to_send(world.now + 1.0) if isinstance(a, Unicast)]
    later = world.now + 60.0
    reading = Uplink(late.dev_eui, 10, b"reading", later)
    assert session.receive(reading, later)
    assert [(a.dev_eui, a.name) for a in session.to_send(later) if isinstance(a, Unicast)] == [
        (late.dev_eui, "McClassCSessionReq")
    ]
    assert not session.receive(reading, later + 1.0)


def test_where_requests_come_too_late_for_the_uplink_the_queue_is_used_again():
    """As with a network server under load: what once was in time need not stay so."""
    specs = [class_a(1), class_a(2)]
    world = World(specs, new_image(), settings=SessionSettings(gather_s=14_400.0))
    world.run(lambda w: any(n.step is Step.RECEIVING for n in w.session.nodes.values()))
    late = next(n for n in world.session.nodes.values() if n.step is not Step.RECEIVING)

    def agreed(w):
        if late.prompt:
            w.network.flush_queue(late.profile.dev_eui)
        return late.step is Step.RECEIVING

    world.run(agreed, limit_s=10 * INTERVAL_S)
