"""Windows of class A nodes: how soon they open, how long they last, and who is waited for. Virtual time."""

import pytest

from radios.lorawan.cohort import SessionSettings
from radios.lorawan.messages import Unicast
from radios.lorawan.session_node import Step
from tests.radios.lorawan.world import World, new_image, spec

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
