"""The demo's verdict: only what the scenario names passes."""

from collections.abc import Mapping
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
NOTHING: Mapping[str, int] = {}


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
    assert counts(told) == {"updated": 13, "deferred": 4, "rolled_back": 2, "skipped": 2}


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
    def fault(
        lost: Mapping[str, int] = NOTHING,
        invented: Mapping[str, int] = NOTHING,
        *,
        reported: bool = True,
        forgotten: str = "",
        unread: str = "",
    ) -> str:
        (found,) = site_faults(lost, invented, reported=reported, forgotten=forgotten, unread=unread)
        return found

    assert site_faults({}, {}, reported=True, forgotten="", unread="") == []
    assert "zigbee:1" in fault({"zigbee:1": 1})
    assert "no node has sent" in fault({}, {"zigbee:1": 1})
    assert "no node reported" in fault(reported=False)
    canary = f"lamp-canary ({scenario.ZIGBEE_NODES[0].id})"
    assert fault(forgotten="x") == f"{canary} lost its configuration with the update and was not told again: x"
    assert fault(unread="no answer") == f"{canary} was not read over MQTT: no answer"


def changed(of: Mapping[str, Mapping[str, object]], node: str, **values: object) -> dict[str, Mapping[str, object]]:
    return {**of, node: {**of[node], **values}}


NEW = next(node.id for node in scenario.ZIGBEE_NODES if node.joins)
PACED = next(node.id for node in scenario.ZIGBEE_NODES if node.offers_block_period)
CANARY, HALL = (node.id for node in scenario.ZIGBEE_NODES[:2])
SLEEPY = next(node for node in scenario.ZIGBEE_NODES if node.check_in_s is not None)
GONE = next(node.id for node in scenario.ZIGBEE_NODES if node.leaves)
OWN: dict[str, dict[str, object]] = {
    node.id: {"requests_sent": 40, "blocks_received": 600, "block_periods_taken": 2, "fast_polls": 1, "joined": True}
    for node in scenario.ZIGBEE_NODES
}
OWN[GONE]["joined"] = False
SAID: dict[str, dict[str, object]] = {
    node.id: {
        "model": node.name,
        "power": "mains" if node.battery_percent is None else "battery",
        "sleepy": node.sleepy,
        "battery_percent": None if node.battery_percent is None else node.battery_percent - 1,
        "lqi": 200,
        "rssi_dbm": -58.0,
        "last_seen": "2026-11-27T18:00:00Z",
    }
    for node in scenario.ZIGBEE_NODES
}
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
    held=OWN,
    described=SAID,
    asked_backup="aa",
    told_to_leave={GONE},
    cut_frames=60,
    headless_frames=9,
    unreadable=8,
    dropped={"radio: overflow": 0},
    exceptions=0,
    restarted=False,
)


def test_the_equipment_has_no_fault_when_all_of_it_was_used() -> None:
    assert equipment_faults(FOUND) == []


def test_every_part_of_the_equipment_that_was_not_used_is_named() -> None:
    def fault(**changes: object) -> str:
        (found,) = equipment_faults(replace(FOUND, **changes))  # type: ignore[arg-type]  # each of its own type
        return found

    assert "lamp-new" in fault(let_in=set())
    assert "lamp-new" in fault(install_codes={HALL})
    assert "lamp-far" in fault(held=changed(OWN, PACED, block_periods_taken=0))
    assert "one by one" in fault(held=changed(OWN, HALL, requests_sent=601))
    assert "poll fast" in fault(held=changed(OWN, SLEEPY.id, fast_polls=0))
    assert "plug" in fault(held=changed(OWN, GONE, joined=True))
    assert "still there" in fault(told_to_leave=set())
    assert "dongle's network" in fault(asked_backup="")
    assert "0 counted" in fault(unreadable=0)
    assert "10 counted" in fault(unreadable=10)
    assert equipment_faults(replace(FOUND, unreadable=0, restarted=True)) == []
    assert "0 cut frames" in fault(cut_frames=0)
    assert "overflow" in fault(dropped={"radio: overflow": 1})
    assert "exceptions" in fault(exceptions=1)
    assert fault(backed_up="") == "no backup"
    assert equipment_faults(replace(FOUND, backed_up="", backup_due=False)) == []
    assert "another network" in fault(backed_up="bb", backup_due=False)
    assert "nothing of the air" in fault(shares=set())
    assert "1 was in force" in fault(shares={(1.0, "free"), (0.7, "quiet hours")})
    assert "blocks alone" in fault(air_busy_s=0.0)
    assert "blocks alone" in fault(air_least_s=61.0)


def test_what_the_status_says_of_a_node_has_to_be_right() -> None:
    for name, wrong in {
        "model": "lamp-hall",
        "power": "mains",
        "sleepy": False,
        "battery_percent": SLEEPY.battery_percent + 1 if SLEEPY.battery_percent else 1,
        "lqi": None,
        "rssi_dbm": None,
        "last_seen": None,
    }.items():
        (fault,) = equipment_faults(replace(FOUND, described=changed(SAID, SLEEPY.id, **{name: wrong})))
        assert fault.startswith("sensor-sleepy")
        assert f"its {name}" in fault


def test_an_install_before_the_canary_runs_is_a_fault() -> None:
    early = [(HALL, "ready"), (HALL, "installing"), (CANARY, "installing"), (CANARY, "updated")]
    (fault,) = equipment_faults(replace(FOUND, steps=early))
    assert fault.startswith("lamp-hall")
    (fault,) = equipment_faults(replace(FOUND, steps=[(CANARY, "updated"), (HALL, "installing")]))
    assert fault == "no node was ready, so none was held"
