"""What waits for the broker is bounded; the oldest goes, and is counted."""

from hypothesis import given
from hypothesis import strategies as st

from gatewayd.nodes.bridge_queue import BoundedQueue, Item


def items(*numbers: int) -> list[Item]:
    return [(f"t/{n}", bytes(10)) for n in numbers]


def test_the_oldest_goes_by_number_and_by_bytes() -> None:
    by_number = BoundedQueue(3, 10**6)
    by_bytes = BoundedQueue(10**6, 35)
    for queue in (by_number, by_bytes):
        for item in items(1, 2, 3, 4, 5):
            queue.put(item)
        assert queue.take(9) == items(3, 4, 5)
        assert queue.overflowed == 2
        assert (len(queue), queue.bytes) == (0, 0)


def test_what_is_given_back_is_first_again_and_the_first_to_go() -> None:
    queue = BoundedQueue(4, 10**6)
    for item in items(1, 2, 3):
        queue.put(item)
    taken = queue.take(2)
    for item in items(4, 5):
        queue.put(item)
    queue.give_back(taken)
    assert queue.take(9) == items(2, 3, 4, 5)
    assert queue.overflowed == 1


@given(st.lists(st.one_of(st.integers(0, 40), st.none()), max_size=60))
def test_it_never_grows_above_its_bounds_and_loses_nothing_uncounted(steps: list[int | None]) -> None:
    queue = BoundedQueue(5, 60)
    put = out = 0
    for step in steps:
        if step is None:
            taken = queue.take(2)
            queue.give_back(taken[1:])
            out += len(taken[:1])
        else:
            queue.put(("t", bytes(step)))
            put += 1
        assert len(queue) <= 5
        assert 0 <= queue.bytes <= 60
        assert put == out + len(queue) + queue.overflowed
