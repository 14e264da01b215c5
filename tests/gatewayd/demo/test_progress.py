"""What the demo reads from the nodes' snapshots."""

import pytest

from gatewayd.demo.progress import Continuity, Snapshot, lorawan_totals, share, zigbee_totals

LAMP, METER = "zigbee:0000000000000001", "lorawan:0000000000000001"


def lamp(offset: int, begun: int, twice: int = 0) -> Snapshot:
    return {
        "offset": offset,
        "size": 1000,
        "downloads_started_at_zero": begun,
        "bytes_received": offset + twice,
        "bytes_received_twice": twice,
        "downloads_resumed": 0,
    }


def meter(received: int, begun: int, twice: int = 0) -> Snapshot:
    counters = {"sessions_set_up": begun, "fragments_received": received, "bytes_received_twice": twice}
    return {"received": received, "total": 10, "counters": counters}


@pytest.mark.parametrize(
    ("snapshot", "expected"),
    [
        (lamp(250, 1), 0.25),
        (meter(5, 1), 0.5),
        ({"offset": 0, "size": 0}, None),  # a lamp that downloads nothing
        ({"received": 12, "total": 10}, 1.0),
        (None, None),
    ],
)
def test_share_is_of_the_image(snapshot: Snapshot | None, expected: float | None) -> None:
    assert share(snapshot) == expected


def test_a_node_that_goes_on_has_not_begun_again() -> None:
    continuity = Continuity()
    for step in range(5):
        continuity.see({LAMP: lamp(step * 100, 1), METER: meter(step, 1)})
    assert continuity.begun_again == set()


def test_a_second_set_up_before_any_data_costs_nothing() -> None:
    continuity = Continuity()
    for snapshot in (meter(0, 0), meter(0, 1), meter(0, 2), meter(3, 2)):
        continuity.see({METER: snapshot})
    assert continuity.begun_again == set()


@pytest.mark.parametrize(
    ("node", "before", "after"), [(LAMP, lamp(400, 1), lamp(50, 2)), (METER, meter(4, 1), meter(0, 2))]
)
def test_a_node_that_held_a_part_and_begins_again_is_found(node: str, before: Snapshot, after: Snapshot) -> None:
    continuity = Continuity()
    continuity.see({node: before})
    continuity.see({node: after})
    assert continuity.begun_again == {node}


def test_totals_are_summed_over_the_nodes() -> None:
    assert zigbee_totals([lamp(1000, 1, twice=64), lamp(500, 1)]) == {
        "bytes_received": 1564,
        "bytes_sent_twice": 64,
        "downloads_begun_at_zero": 2,
        "downloads_resumed": 0,
    }
    assert lorawan_totals([meter(10, 1, twice=112), meter(9, 2, twice=112)]) == {
        "fragments_received": 19,
        "bytes_sent_twice": 224,
        "sessions_set_up": 3,
    }
