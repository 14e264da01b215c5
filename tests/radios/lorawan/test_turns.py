"""Nodes that always listen are asked one at a time: who goes first."""

import asyncio
from statistics import mean

import pytest

from radios.lorawan.air import Turn
from radios.lorawan.cohort import SessionSettings
from radios.lorawan.inventory import Node
from radios.lorawan.messages import Unicast
from radios.lorawan.session_node import Step
from tests.radios.lorawan.memory_site import site
from tests.radios.lorawan.world import T0, World, new_image, spec

COUNT = 50


def set_up_s(first, *, silent):
    """Until each node but the `first` ones is set up, on the mean; and how often each of the first was asked by then."""
    specs = [spec(n) for n in range(1, COUNT + 1)]
    world = World(specs, new_image(2000), settings=SessionSettings(gather_s=3600.0))
    early = [s.dev_eui for s in specs[:first]]
    world.silent.update(early if silent else ())
    others, at = [world.session.nodes[s.dev_eui] for s in specs[first:]], {}

    def all_set_up(w):
        for node in others:
            if node.step is Step.SET_UP:
                at.setdefault(node.dev_eui, w.now - T0)
        return len(at) == len(others)

    world.run(all_set_up)
    asked = [a.dev_eui for a in world.log if isinstance(a, Unicast)]
    return mean(at.values()), [asked.count(dev_eui) for dev_eui in early]


@pytest.mark.parametrize(("first", "most"), [(10, 1.1), (30, 1.2)])
def test_silent_nodes_that_joined_first_do_not_delay_the_others(first, most):
    """Or hardly: by the one question that each of them is owed, and where nobody waits."""
    silent_s, asked = set_up_s(first, silent=True)
    assert silent_s <= most * set_up_s(first, silent=False)[0]
    assert min(asked) >= 3  # nor are they forgotten


def test_no_request_is_sent_over_the_answer_to_the_one_before():
    """A gateway that sends hears nothing. Nothing else is lost here, so every node is set up by its first request."""
    world = World([spec(n) for n in range(1, COUNT + 1)], new_image(2000), settings=SessionSettings(gather_s=3600.0))
    world.run(lambda w: all(node.step is Step.SET_UP for node in w.session.nodes.values()))
    assert [node.fragment_counters.sessions_set_up for node in world.network.nodes.values()] == [1] * COUNT


def test_who_was_never_asked_goes_before_who_was_asked_in_vain():
    specs = [spec(n) for n in range(1, 31)]  # 5.5 s each: the first would be due again long before the last
    world = World(specs, new_image(2000))
    world.silent.update(s.dev_eui for s in specs)
    world.run(lambda w: len([a for a in w.log if isinstance(a, Unicast)]) >= 40)
    asked = [a.dev_eui for a in world.log if isinstance(a, Unicast)]
    assert asked[:30] == [s.dev_eui for s in specs]


async def test_a_node_that_is_found_out_about_gives_way_to_one_that_was_asked_less(monkeypatch):
    """All are silent: thirty are asked once each before any is a second time."""
    specs = [spec(n, downlink_loss=1.0) for n in range(1, 31)]
    asked, ask = [], Node.ask

    def noted(node, settings, now):
        action = ask(node, settings, now)
        asked.extend([node.node_id] if action is not None else [])
        return action

    monkeypatch.setattr(Node, "ask", noted)
    async with site(specs, new_image()) as (radio, _, _network):
        while len(asked) < 40:
            assert len(radio._cohorts.nodes) in (0, 30)
            await asyncio.sleep(0.005)
    assert len(set(asked[:30])) == 30


async def test_requests_that_wait_for_an_uplink_take_no_turn_of_the_air(monkeypatch):
    """Four seconds for each of many nodes of class A would keep fragments from the air for minutes."""
    taken, take = [], Turn.take

    def noted(turn, now, busy_s):
        taken.append(busy_s)
        take(turn, now, busy_s)

    monkeypatch.setattr(Turn, "take", noted)
    specs = [spec(n, device_class="A", uplink_interval_s=86_400.0) for n in range(1, 31)]
    async with site(specs, new_image()) as (radio, _, network):
        while not all(network.simulated.devices[s.dev_eui].queue for s in specs):
            await asyncio.sleep(0.005)
        assert taken == []
        assert radio._cohorts.turn.free_at(0.0) == 0.0
