"""The demo's verdict: only what the scenario names passes."""

from dataclasses import replace

from gatewayd.demo import scenario
from gatewayd.demo.cloud_side import image_digests
from gatewayd.demo.verdict import (
    ALL_NODES,
    Findings,
    Told,
    continuity_faults,
    counts,
    equipment_faults,
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
    assert counts(told) == {"updated": 14, "deferred": 2, "rolled_back": 1, "skipped": 2}


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


NEW = next(node.id for node in scenario.ZIGBEE_NODES if node.joins)
PACED = next(node.id for node in scenario.ZIGBEE_NODES if node.offers_block_period)
CANARY, HALL = (node.id for node in scenario.ZIGBEE_NODES[:2])
FOUND = Findings(
    steps=[(HALL, "ready"), (CANARY, "installing"), (CANARY, "updated"), (HALL, "installing"), (HALL, "updated")],
    let_in={NEW},
    install_codes={NEW},
    shares={(0.7, "quiet hours"), (0.5, "foreground")},
    network="aa",
    backed_up="aa",
    backup_due=True,
    air_busy_s=60.0,
    air_least_s=30.0,
    block_periods={PACED: 2},
)


def test_the_equipment_has_no_fault_when_all_of_it_was_used() -> None:
    assert equipment_faults(FOUND) == []


def test_every_part_of_the_equipment_that_was_not_used_is_named() -> None:
    def fault(**changes: object) -> str:
        (found,) = equipment_faults(replace(FOUND, **changes))  # type: ignore[arg-type]  # each of its own type
        return found

    assert "lamp-new" in fault(let_in=set())
    assert "lamp-new" in fault(install_codes={HALL})
    assert "lamp-far" in fault(block_periods={PACED: 0})
    assert fault(backed_up="") == "no backup"
    assert equipment_faults(replace(FOUND, backed_up="", backup_due=False)) == []
    assert "another network" in fault(backed_up="bb", backup_due=False)
    assert "nothing of the air" in fault(shares=set())
    assert "1 was in force" in fault(shares={(1.0, "free"), (0.7, "quiet hours")})
    assert "blocks alone" in fault(air_busy_s=0.0)
    assert "blocks alone" in fault(air_least_s=61.0)


def test_an_install_before_the_canary_runs_is_a_fault() -> None:
    early = [(HALL, "ready"), (HALL, "installing"), (CANARY, "installing"), (CANARY, "updated")]
    (fault,) = equipment_faults(replace(FOUND, steps=early))
    assert fault.startswith("lamp-hall")
    (fault,) = equipment_faults(replace(FOUND, steps=[(CANARY, "updated"), (HALL, "installing")]))
    assert fault == "no node was ready, so none was held"
