"""The words of Poll Control as bytes, and who is asked to poll fast for how long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radios.radio import NodeId
from radios.zigbee.poll_control import LONGEST_S, FastPolls, decode_check_in_response, fast_poll_stop

NODE = NodeId("zigbee:00124b0000000001")
NO = bytes.fromhex("11 2a 00 00 0000")  # as zigpy sends them
YES_30_S = bytes.fromhex("11 2a 00 01 7800")


def test_golden_bytes() -> None:
    polls = FastPolls()
    assert polls.answer(NODE, NO, 90.0, 0.0) == bytes.fromhex("11 2a 00 01 6801")
    assert fast_poll_stop(0x12A) == bytes.fromhex("11 2a 01")
    assert decode_check_in_response(YES_30_S) == (True, 30.0)


def test_zigpys_own_answer_stands_while_nothing_is_wanted() -> None:
    polls = FastPolls()
    assert polls.answer(NODE, NO, None, 0.0) == NO
    assert polls.answer(NODE, YES_30_S, None, 0.0) == YES_30_S
    assert not polls.is_over(NODE, 1.0)


def test_the_longer_wish_wins_within_what_the_node_takes() -> None:
    polls = FastPolls()
    assert decode_check_in_response(polls.answer(NODE, YES_30_S, 10.0, 0.0)) == (True, 30.0)
    assert decode_check_in_response(polls.answer(NODE, NO, 1e6, 0.0)) == (True, LONGEST_S)
    polls.limit(NODE, 80)
    assert decode_check_in_response(polls.answer(NODE, NO, 1e6, 0.0)) == (True, 20.0)
    assert decode_check_in_response(polls.answer(NODE, NO, 0.01, 0.0)) == (True, 0.25)


def test_a_node_is_told_to_stop_once_and_not_after_its_time() -> None:
    polls = FastPolls()
    polls.answer(NODE, NO, 60.0, 100.0)
    assert len(polls) == 1
    assert polls.is_over(NODE, 130.0)
    assert not polls.is_over(NODE, 131.0)
    polls.answer(NODE, NO, 60.0, 200.0)
    assert not polls.is_over(NODE, 261.0)
    assert not len(polls)


@pytest.mark.parametrize(
    "golden", ["11 2a 01", "11 2a 02 04000000", "18 2a 0b 00 00", "19 2a 00 01 7800", "10 2a 00 0000"]
)
def test_other_frames_of_the_cluster_are_left_alone(golden: str) -> None:
    frame = bytes.fromhex(golden)
    assert FastPolls().answer(NODE, frame, 60.0, 0.0) == frame


@given(st.binary(max_size=10))
def test_any_bytes_give_bytes_of_the_same_length(frame: bytes) -> None:
    assert len(FastPolls().answer(NODE, frame, 60.0, 0.0)) == len(frame)


def test_a_frame_cut_at_any_byte_is_left_alone() -> None:
    for length in range(len(YES_30_S)):
        assert FastPolls().answer(NODE, YES_30_S[:length], 60.0, 0.0) == YES_30_S[:length]
