"""What nodes are answered that no transfer knows."""

import struct

import pytest

from radios.zigbee.session_state import SessionLimits
from radios.zigbee.strangers import RECONCILE_WITHIN_S, answer_stranger

ASKS_WITH_PERIOD = bytes((1, 7, 3, 2)) + struct.pack("<HHLLBH", 0x1049, 1, 2, 0, 50, 200)


@pytest.mark.parametrize("short", [True, False])
def test_a_node_that_takes_the_short_form_alone_gets_it_before_anything_is_known_of_it(*, short: bool) -> None:
    asked: list[tuple[int, int]] = []

    def limits_for(manufacturer: int, image_type: int) -> SessionLimits:
        asked.append((manufacturer, image_type))
        return SessionLimits(wait_short_form=short)

    answer = answer_stranger(ASKS_WITH_PERIOD, 10.0, 0.0, limits_for)
    assert answer is not None
    assert asked == [(0x1049, 1)]
    assert answer[2:4] == b"\x05\x97"
    assert len(answer) == 3 + 1 + (8 if short else 10)


def test_later_there_is_no_image_for_it() -> None:
    answer = answer_stranger(ASKS_WITH_PERIOD, RECONCILE_WITHIN_S, 0.0, lambda *_: SessionLimits())
    assert answer is not None
    assert answer[2:] == b"\x05\x98"
