"""A node that stops hearing its group within the plain pass, and still answers when it is asked alone."""

import pytest

from radios.lorawan.block_status import BlockStatus, StatusStyle
from radios.lorawan.packages.fragmentation import N_MAX
from radios.radio import Fact
from radios.simulated.lorawan.packages.fragmentation import StatusStyle as NodeStyle
from tests.radios.lorawan.world import World, all_running, new_image, spec

HEARD = 20


def deaf_world(style, *, unicast):
    specs = [spec(n, status_style=style, redundancy_limit=N_MAX) for n in (1, 2, 3)]
    world = World(specs, new_image(12_000), frag_size=48, data_rate=3, unicast=unicast)
    node = world.node(specs[0])
    hears = node._hears_group
    node._hears_group = lambda *at: world.session.highest_sent < HEARD and hears(*at)
    return world, specs


@pytest.mark.parametrize("style", list(NodeStyle))
def test_it_is_fed_alone_and_the_group_is_sent_nothing_for_it(style):
    """ "20 received, 0 missing" of 250 was taken for 256 missing once 230 coded fragments had changed nothing, and 1,000 were sent."""
    world, _ = deaf_world(style, unicast=True)
    world.run(all_running)
    assert {node.running_image for node in world.network.nodes.values()} == {world.image}
    assert not world.released
    assert len(world.fragments()) <= world.cohort.nb_frag + 16


@pytest.mark.parametrize("style", list(NodeStyle))
def test_where_it_cannot_be_fed_alone_it_leaves_for_another_session(style):
    world, specs = deaf_world(style, unicast=False)
    world.run(lambda w: w.released and all(Fact.RUNNING in w.facts(s) for s in specs[1:]))
    (left,) = world.released
    assert (left.dev_eui, left.again, left.reason) == (specs[0].dev_eui, True, "deaf")
    assert len(world.fragments()) <= world.cohort.nb_frag + world.settings.round_most


@pytest.mark.parametrize("style", [None, *StatusStyle])
def test_numbers_that_do_not_change_mean_that_nothing_was_heard(style):
    block = BlockStatus(nb_frag=250, style=style)
    block.take(20, 0, 250, still=True)
    for highest in range(300, 1500, 50):
        block.take(20, 0, highest, still=True)
        assert (block.missing, block.style, block.confirmed) == (230, style, 20)
    block.take(1500, 230, 1500, still=True)
    assert block.missing == 230


def test_a_node_that_has_seen_enough_may_be_complete_though_its_numbers_stay():
    """LoRaMac-node stops counting when it has the block."""
    block = BlockStatus(nb_frag=250, style=StatusStyle.LAST)
    block.take(250, 10, 250, still=True)
    block.take(262, 10, 262, still=True)
    for highest in range(270, 320, 10):
        block.take(262, 10, highest, still=True)
    assert block.doubtful(10, 320)


@pytest.mark.parametrize(("received", "goes_on"), [(280, True), (100, False)])
def test_a_node_that_may_be_complete_is_not_taken_for_deaf(received, goes_on):
    """LoRaMac-node's numbers stay as they are once it has the block; what it says of its image may be lost for long."""
    specs = [spec(1, status_style=NodeStyle.LORAMAC), spec(2, downlink_loss=0.5, redundancy_limit=N_MAX)]
    world = World(specs, new_image(12_000), frag_size=48, data_rate=3)
    world.run(lambda w: w.session.highest_sent > 5)
    world.silent.add(specs[0].dev_eui)
    world.run(lambda w: w.session.highest_sent > w.cohort.nb_frag + 120)
    node = world.session.nodes[specs[0].dev_eui]
    node.block.take(received, 10, max(received, world.cohort.nb_frag), still=True)
    rounds = world.session._rounds
    assert (rounds._stragglers.part([node], 2, 1.0, world.now) == [node]) is goes_on
    assert (node.dev_eui in world.session.nodes) is goes_on
