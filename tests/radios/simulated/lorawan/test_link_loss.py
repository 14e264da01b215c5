"""Loss of the simulated links."""

import random
from itertools import pairwise

import pytest

from radios.simulated.lorawan.link_loss import LinkLoss


def bursts(lost):
    """Lengths of the runs of lost frames."""
    found = []
    for before, now in zip([False, *lost], lost, strict=False):
        if now and not before:
            found.append(0)
        if now:
            found[-1] += 1
    return found


@pytest.mark.parametrize("probability", [0.0, 0.05, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("burst_frames", [1.0, 2.0, 8.0])
def test_as_much_is_lost_as_is_said(probability, burst_frames):
    link = LinkLoss(random.Random(1), probability, burst_frames)
    lost = [link.lost() for _ in range(40_000)]
    assert sum(lost) / len(lost) == pytest.approx(probability, rel=0.15)


def test_losses_come_in_bursts():
    link = LinkLoss(random.Random(1), 0.2, 5.0)
    found = bursts([link.lost() for _ in range(40_000)])
    assert sum(found) / len(found) == pytest.approx(5.0, rel=0.1)


def test_a_burst_is_one_frame_at_least():
    with pytest.raises(ValueError, match="1 frame"):
        LinkLoss(random.Random(1), 0.2, 0.5)


@pytest.mark.parametrize("burst_frames", [1.0, 4.0, 9.0])
def test_where_nearly_all_is_lost_a_frame_and_its_answer_come_through_now_and_then(burst_frames):
    """Bursts shorter than by chance would leave never two frames in a row, so that no question was ever answered."""
    link = LinkLoss(random.Random(1), 0.9, burst_frames)
    lost = [link.lost() for _ in range(40_000)]
    assert sum(lost) / len(lost) == pytest.approx(0.9, rel=0.01)
    both = sum(not first and not second for first, second in pairwise(lost))
    assert both / len(lost) == pytest.approx(0.01, rel=0.3)
