"""Frames of senders without a name wait for it, in bounds."""

from radios.zigbee.unnamed import KEPT_S, MOST, MOST_OF_ONE, Unnamed


def test_what_was_held_comes_in_order_with_its_times_and_once() -> None:
    unnamed = Unnamed()
    unnamed.hold(1, "a", 10.0)
    unnamed.hold(2, "other", 10.5)
    unnamed.hold(1, "b", 11.0)
    assert len(unnamed) == 3
    assert unnamed.named(1, 12.0) == [(10.0, "a"), (11.0, "b")]
    assert unnamed.named(1, 12.0) == []
    assert (len(unnamed), unnamed.lost) == (1, 0)


def test_a_chatty_sender_loses_its_own_oldest() -> None:
    unnamed = Unnamed()
    unnamed.hold(2, "other", 0.0)
    for number in range(MOST_OF_ONE + 3):
        unnamed.hold(1, number, 0.0)
    assert unnamed.lost == 3
    assert [packet for _, packet in unnamed.named(1, 0.0)] == list(range(3, MOST_OF_ONE + 3))
    assert len(unnamed.named(2, 0.0)) == 1


def test_many_senders_are_bounded_together() -> None:
    unnamed = Unnamed()
    for nwk in range(MOST + 5):
        unnamed.hold(nwk, nwk, 0.0)
    assert (len(unnamed), unnamed.lost) == (MOST, 5)
    assert unnamed.named(0, 0.0) == []
    assert unnamed.named(MOST + 4, 0.0)


def test_what_nobody_names_is_given_up_and_counted() -> None:
    unnamed = Unnamed()
    unnamed.hold(1, "a", 0.0)
    unnamed.hold(1, "b", 5.0)
    assert unnamed.named(1, KEPT_S) == [(5.0, "b")]
    unnamed.hold(2, "c", 0.0)
    unnamed.expire(1000.0)
    assert (len(unnamed), unnamed.lost) == (0, 2)
