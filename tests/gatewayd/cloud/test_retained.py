"""Retained documents: the latest per topic, bounded."""

from gatewayd.cloud.retained import Retained


def drain(retained: Retained) -> list[tuple[str, bytes]]:
    taken = []
    while (one := retained.take()) is not None:
        taken.append(one)
        retained.published(*one)
    return taken


def test_only_the_latest_of_a_topic_is_published() -> None:
    retained = Retained()
    assert retained.put("a", b"1")
    assert retained.put("a", b"2")
    assert retained.put("b", b"1")
    assert drain(retained) == [("a", b"2"), ("b", b"1")]
    assert not retained.put("a", b"2")
    assert drain(retained) == []


def test_everything_again_for_a_broker_that_forgot() -> None:
    retained = Retained()
    retained.put("a", b"1")
    drain(retained)
    retained.all_again()
    assert drain(retained) == [("a", b"1")]


def test_what_was_not_published_is_tried_again_with_the_newest() -> None:
    retained = Retained()
    retained.put("a", b"1")
    assert retained.take() == ("a", b"1")
    retained.put("a", b"2")
    retained.give_back("a")
    assert drain(retained) == [("a", b"2")]


def test_a_cleared_topic_is_forgotten_once_published() -> None:
    retained = Retained()
    retained.put("a", b"")
    assert drain(retained) == [("a", b"")]
    retained.all_again()
    assert drain(retained) == []


def test_it_is_bounded_and_prefers_what_still_waits() -> None:
    retained = Retained(max_topics=2, max_bytes=100)
    retained.put("a", b"1")
    drain(retained)
    retained.put("b", b"1")
    retained.put("c", b"1")
    assert drain(retained) == [("b", b"1"), ("c", b"1")]
    retained.put("d", b"x" * 99)
    retained.all_again()
    assert sum(len(payload) for _, payload in drain(retained)) <= 100
