"""What is made of the numbers of status answers when few of them arrive."""

import pytest

from radios.lorawan.block_status import BlockStatus, StatusStyle
from radios.radio import Fact
from radios.simulated.lorawan.packages.fragmentation import StatusStyle as Style
from tests.radios.lorawan.world import World, all_running, new_image, spec


def test_a_style_found_out_while_coded_fragments_go_on_tells_only_of_those_since_the_answer_before():
    """Three sent and two taken since 30 were missing is a good link, however many were sent before that answer."""
    block = BlockStatus(nb_frag=468)
    block.take(482, 30, 629, still=True)
    assert block.style is None
    block.take(484, 28, 632, still=True)
    assert block.style is StatusStyle.COUNT
    assert (block.missing, block.lost, block.tried) == (28, 1, 3)
    assert 29 <= block.need(632) <= 50


def test_a_node_that_is_first_heard_while_coded_fragments_go_on_costs_hardly_more_than_it_needs():
    near, late = (
        spec(n, status_style=Style.LBM, downlink_loss=loss, redundancy_limit=400) for n, loss in ((1, 0.2), (2, 0.3))
    )
    world = World([near, late], new_image(48 * 400), frag_size=48)
    needed = 0

    def delivered(w):
        nonlocal needed
        w.silent = {late.dev_eui} if w.cohort.data_started and w.session.highest_sent < 480 else set()
        held = w.node(late).fragmentation.session
        if not needed and held is not None and held.decoder.complete:
            needed = w.session.highest_sent
        return all_running(w)

    world.run(delivered)
    assert all(world.facts(s)[-1] is Fact.RUNNING for s in (near, late))
    assert needed > 520  # it was heard, and needed more, in the midst of them
    assert world.session.highest_sent <= needed + 12


def test_a_late_answer_to_an_older_poll_takes_nothing_back():
    """Asked alone at 50 it misses 6; its answer to the group's poll at 40, delayed on the way, said 4."""
    block = BlockStatus(nb_frag=100)
    block.take(44, 6, 50, still=True)
    assert (block.missing, block.at_counter, block.style) == (6, 50, StatusStyle.COUNT)
    need, loss = block.demand(100), block.loss
    block.take(36, 4, 40, still=False, sent=50)
    assert (block.missing, block.at_counter, block.told_at) == (6, 50, 50)
    assert (block.demand(100), block.loss) == (need, loss)
    block.take(53, 7, 60, still=True)
    assert (block.missing, block.at_counter) == (7, 60)


def test_a_late_answer_of_before_the_coded_fragments_takes_nothing_back():
    block = BlockStatus(nb_frag=100)
    block.take(90, 10, 100, still=True)
    block.take(95, 5, 106, still=True)
    assert (block.missing, block.at_counter) == (5, 106)
    block.take(70, 9, 80, still=False, sent=106)
    assert (block.missing, block.at_counter) == (5, 106)


def test_a_style_that_was_misread_is_doubted_when_fragments_have_no_effect():
    """It saw 19 of 22 last and lost 3 plain ones: as a count that is 3 missing of 22. It is complete, and says so no other way."""
    block = BlockStatus(nb_frag=14)
    block.take(12, 3, 15, still=True)
    block.take(19, 3, 22, still=True)
    assert block.style is StatusStyle.COUNT
    assert not block.doubtful(3, 22)
    block.take(19, 3, 30, still=True)
    assert not block.doubtful(3, 30)
    block.take(19, 3, 38, still=True)
    assert block.doubtful(3, 38)
    block.take(36, 2, 39, still=True)  # it is not, after all
    assert not block.doubtful(2, 39)


@pytest.mark.parametrize(
    "answers", [[(12, 3), (19, 3), (19, 3), (19, 3)], [(14, 3), (21, 3), (29, 3), (37, 3)], [(12, 3)]]
)
def test_an_image_that_was_refuted_is_not_asked_about_again_before_more_was_sent(answers):
    """Else a node that answers at once would be asked without end."""
    block = BlockStatus(nb_frag=14)
    for (received, missing), highest in zip(answers, (15, 22, 30, 38), strict=False):
        block.take(received, missing, highest, still=True)
    block.refuted(38)
    assert not block.doubtful(0, 38)
    assert not block.doubtful(3, 38)
