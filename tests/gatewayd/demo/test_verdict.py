"""The demo's verdict: only what the scenario names passes."""

from gatewayd.demo import scenario
from gatewayd.demo.cloud_side import image_digests
from gatewayd.demo.verdict import (
    ALL_NODES,
    Told,
    continuity_faults,
    counts,
    faults,
    missing,
    settled,
    site_faults,
)

IMAGES = image_digests()


def as_it_should_be() -> tuple[dict[str, Told], dict[str, str]]:
    told, flash = {}, {}
    for node in ALL_NODES:
        told[node.id] = Told(node.expected, node.code)
        digests = IMAGES[node.id.partition(":")[0]]
        flash[node.id] = digests["new"] if node.expected == "updated" else digests[f"old:{node.name}"]
    return told, flash


def test_the_scenario_itself_has_no_fault() -> None:
    told, flash = as_it_should_be()
    assert settled(told)
    assert faults(told, flash, IMAGES) == []
    assert counts(told) == {"updated": 13, "deferred": 2, "rolled_back": 1, "skipped": 2}


def test_a_node_that_says_updated_with_other_bytes_in_its_flash_is_named() -> None:
    told, flash = as_it_should_be()
    node = scenario.ZIGBEE_NODES[0]
    flash[node.id] = IMAGES["zigbee"]["old"]
    assert faults(told, flash, IMAGES) == [f"lamp-canary ({node.id}): updated, but its flash holds something else"]


def test_a_node_that_should_be_left_alone_and_is_not_is_named() -> None:
    told, flash = as_it_should_be()
    weak = next(node for node in scenario.ZIGBEE_NODES if node.code == "battery_low")
    flash[weak.id] = IMAGES["zigbee"]["new"]
    assert [fault.partition(" ")[0] for fault in faults(told, flash, IMAGES)] == ["sensor-weak"]


def test_a_wrong_reason_is_a_fault_and_not_settled() -> None:
    told, flash = as_it_should_be()
    weak = next(node for node in scenario.ZIGBEE_NODES if node.code == "battery_low")
    told[weak.id] = Told("deferred", "quiet_hours")
    assert not settled(told)
    (fault,) = faults(told, flash, IMAGES)
    assert fault.endswith("the cloud was told deferred (quiet_hours), expected deferred (battery_low)")


def test_silence_about_a_node_is_a_fault() -> None:
    told, flash = as_it_should_be()
    gone = scenario.LORAWAN_NODES[0]
    del told[gone.id]
    assert not settled(told)
    (fault,) = faults(told, flash, IMAGES)
    assert fault.endswith("the cloud was told nothing, expected updated")


def test_a_zigbee_download_begun_twice_is_a_fault_and_a_second_lorawan_set_up_is_not() -> None:
    lamp, meter = scenario.ZIGBEE_NODES[0].id, scenario.LORAWAN_NODES[0].id
    nodes: dict[str, dict[str, object]] = {
        lamp: {"downloads_started_at_zero": 2},
        meter: {"counters": {"sessions_set_up": 2}},
    }
    assert continuity_faults(nodes, ()) == [f"lamp-canary ({lamp}): held a part of the image and began at 0 again"]
    assert continuity_faults({}, {meter}) == [f"meter-canary ({meter}): held a part of the image and began at 0 again"]


def test_reports_are_counted_as_often_as_they_were_sent() -> None:
    taken = {"zigbee:1": [1, 2, 2], "zigbee:2": [7]}
    assert missing(taken, {"zigbee:1": [2, 1, 2], "zigbee:2": [7]}) == {}
    assert missing(taken, {"zigbee:1": [2, 1], "zigbee:2": [8]}) == {"zigbee:1": 1, "zigbee:2": 1}
    assert missing({}, taken) == {}


def test_a_site_that_lost_something_is_a_fault() -> None:
    assert site_faults({}, {}, reported=True, forgotten="") == []
    assert "zigbee:1" in site_faults({"zigbee:1": 1}, {}, reported=True, forgotten="")[0]
    assert "no node has sent" in site_faults({}, {"zigbee:1": 1}, reported=True, forgotten="")[0]
    assert "no node reported" in site_faults({}, {}, reported=False, forgotten="")[0]
    assert site_faults({}, {}, reported=True, forgotten="no answer") == [
        f"lamp-canary ({scenario.ZIGBEE_NODES[0].id}) lost its reporting with the update and was not told again: no answer"
    ]
