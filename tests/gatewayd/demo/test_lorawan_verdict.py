"""The verdict on the LoRaWAN side: each part that was not used, or not used as it should be, is named."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from gatewayd.demo import scenario
from gatewayd.demo.lorawan_verdict import CANARY, TAKING_PART, TOLD, LorawanFindings, lorawan_faults

GATEWAY = "demo-gateway"
Document = Mapping[str, object]


def one(**wanted: object) -> scenario.LorawanNode:
    """The first node that is so."""
    return next(node for node in scenario.LORAWAN_NODES if all(getattr(node, k) == v for k, v in wanted.items()))


FAR = one(snr_db=-11.0)
BEACON = one(device_class="B")
QUIET = one(multicast=False)
NOISY = one(group_frames_most=20)
SERVED = one(app_layer=(0, 1, 1))
FOREIGN = one(tags=((scenario.OWNER_TAG, "another-gateway"),))
NEWER = one(code="newer")
PACKED = one(multi_package=True)
SECOND = one(package_version=2)


def way(node: scenario.LorawanNode) -> str:
    if not node.multicast:
        return "unicast"
    return "class B DR3" if node is BEACON else "class C DR2" if node is FAR else "class C DR3"


def own(node: scenario.LorawanNode) -> Document:
    if node not in TAKING_PART:
        return {"downlinks": {}, "counters": {}}
    asked = {f"unicast {command}": 1 for command in TOLD}
    counters = {"reboots": 1, "statuses_told": 3, "blocks_told": 2, "coded_by_unicast": 9}
    return {"groups": 0, "total": 0, "downlinks": {**asked, f"{way(node)} 201:08": 37}, "counters": counters}


def said(node: scenario.LorawanNode) -> Document:
    refused = "another gateway owns it" if node is FOREIGN else "TS004 or TS005 set" if node is SERVED else None
    return {
        "name": node.name,
        "power": "mains" if node.battery_percent is None else "battery",
        "battery_percent": None if node.battery_percent is None else node.battery_percent - 1,
        "snr_db": 8.0,
        "rssi_dbm": -80.0,
        "last_seen": "2026-11-27T18:00:00Z",
        "tags": {scenario.OWNER_TAG: GATEWAY, **dict(node.tags)},
        "details": {"class": node.device_class, "refused": refused},
    }


def plan(*parts: Document, made_at: str = "2026-11-27T18:00:00Z") -> Document:
    return {"airtime_s": 56.0, "eta_s": 300.0, "parts": list(parts), "made_at": made_at}


OWN = {node.id: own(node) for node in scenario.LORAWAN_NODES}
SAID = {node.id: said(node) for node in scenario.LORAWAN_NODES}
SLOW_PART = {"name": "DR2 multicast by 01, TS004 version 1", "nodes": 1}
FAST_PART = {"name": "DR3 multicast by 01, TS004 version 1", "nodes": 4}
SERVER = {
    "groups": 0,
    "f_cnts_reused": 0,
    "over_duty_cycle": 0,
    "multicasts_refused": 6,
}
FOUND = LorawanFindings(
    steps=[(FAR.id, "ready"), (CANARY.id, "updated"), (FAR.id, "installing")],
    held=OWN,
    described=SAID,
    plans=[plan(FAST_PART), plan(FAST_PART, SLOW_PART)],
    begun_at=1795802460.0,  # a minute after the plans
    server=SERVER,
    bus={"downlinks": 300, "acks": 290},
    ledger_s=203.0,
    budget_s=360.0,
    sent_about_then=({"air_s": 300.0, "air_of_hour_s": 200.0}, {"air_s": 310.0, "air_of_hour_s": 205.0}),
    refusals_noticed=5,
    gateway=GATEWAY,
    restarted=False,
)


def fault(**changes: object) -> str:
    (found,) = lorawan_faults(replace(FOUND, **changes))  # type: ignore[arg-type]  # each of its own type
    return found


def counted(node: scenario.LorawanNode, **counters: int) -> dict[str, Document]:
    """All nodes' own snapshots with other counters of one."""
    before = OWN[node.id]["counters"]
    assert isinstance(before, dict)
    return {**OWN, node.id: {**OWN[node.id], "counters": {**before, **counters}}}


def heard(node: scenario.LorawanNode, **downlinks: int) -> dict[str, Document]:
    """The same with other downlinks: a name's "_" is a blank, "__" the colon."""
    before = OWN[node.id]["downlinks"]
    assert isinstance(before, dict)
    changed = {name.replace("__", ":").replace("_", " "): number for name, number in downlinks.items()}
    return {**OWN, node.id: {**OWN[node.id], "downlinks": {**before, **changed}}}


def described(node: scenario.LorawanNode, **changes: object) -> dict[str, Document]:
    return {**SAID, node.id: {**SAID[node.id], **changes}}


def test_the_scenario_itself_has_no_fault() -> None:
    assert lorawan_faults(FOUND) == []


def test_fragments_have_to_come_by_the_way_of_the_node() -> None:
    assert "meter-far" in fault(held=heard(FAR, class_C_DR2_201__08=0, class_C_DR3_201__08=37))
    assert "0 of 37 fragments by multicast in class B DR3" in fault(
        held=heard(BEACON, class_B_DR3_201__08=0, class_C_DR3_201__08=37)
    )
    assert "0 of 0 fragments" in fault(held=heard(BEACON, class_B_DR3_201__08=0))  # alone by unicast
    assert "meter-quiet" in fault(held=heard(QUIET, unicast_201__08=0))
    assert "1 by multicast" in fault(held=heard(QUIET, class_C_DR3_201__08=1))
    assert "coded unicast" in fault(held=counted(NOISY, coded_by_unicast=0))


def test_each_node_shows_what_its_packages_do() -> None:
    assert "in the style of loramac" in fault(held=counted(one(status_style="loramac"), statuses_told=0))
    assert "FragDataBlockReceivedReq" in fault(held=counted(SECOND, blocks_told=0))
    assert "TS007" in fault(held=heard(PACKED, unicast_225__01=0))
    assert "cannot read" in fault(held=counted(SECOND, malformed=1))
    assert "to reboot 2 times" in fault(held=counted(CANARY, reboots=2))
    assert "a fragment twice" in fault(held=counted(CANARY, bytes_received_twice=111))
    again = counted(CANARY, bytes_received_twice=111)
    assert lorawan_faults(replace(FOUND, held=again, restarted=True)) == []  # the last few around a crash


@pytest.mark.parametrize("name", ["groups", "total"])
def test_a_node_that_keeps_what_is_over_is_named(name: str) -> None:
    assert "still holds" in fault(held={**OWN, CANARY.id: {**OWN[CANARY.id], name: 1}})


@pytest.mark.parametrize("command", [command for command in TOLD if command != "225:01"])
def test_a_command_that_nobody_was_given_is_named(command: str) -> None:
    held = {}
    for node, snapshot in OWN.items():
        downlinks = snapshot["downlinks"]
        assert isinstance(downlinks, dict)
        held[node] = {**snapshot, "downlinks": {k: n for k, n in downlinks.items() if k != f"unicast {command}"}}
    assert TOLD[command] in fault(held=held)


def test_who_is_not_to_be_updated_is_left_alone_with_the_reason() -> None:
    assert "was set up" in fault(held=counted(NEWER, sessions_set_up=1))
    assert "asked something" in fault(held=heard(FOREIGN, unicast_203__01=1))
    assert "TS004" in fault(held=heard(SERVED, unicast_203__01=1))
    for node in (FOREIGN, SERVED):
        told = described(node, details={"class": node.device_class, "refused": None})
        assert fault(described=told).endswith("the status says nothing")


def test_what_the_status_says_of_a_node_has_to_be_right() -> None:
    for name, wrong in {
        "name": "meter-2",
        "power": "mains",
        "battery_percent": 91.0,
        "snr_db": None,
        "rssi_dbm": None,
        "last_seen": None,
    }.items():
        assert fault(described=described(QUIET, **{name: wrong})).endswith(f"its {name}")
    assert fault(described=described(QUIET, details={"class": "C"})).endswith("its class")
    assert fault(described=described(QUIET, tags={})).endswith("its owner")
    assert fault(described=described(FOREIGN, tags={scenario.OWNER_TAG: GATEWAY})).endswith("its owner")


def test_the_plan_comes_first_and_keeps_the_far_node_apart() -> None:
    late = plan(FAST_PART, made_at="2026-11-27T19:00:00Z")
    assert "had begun" in fault(plans=[late, FOUND.plans[1]])
    assert lorawan_faults(replace(FOUND, plans=[FOUND.plans[0], {**late, "parts": [SLOW_PART]}])) == []
    assert "1 plans" in fault(plans=[plan(SLOW_PART)])
    assert "2 plans" in fault(plans=[FOUND.plans[0], {**FOUND.plans[1], "airtime_s": 0.0}])
    assert "far LoRaWAN node" in fault(plans=[plan(FAST_PART), plan(FAST_PART)])
    assert "far LoRaWAN node" in fault(plans=[plan(FAST_PART), plan(FAST_PART, {**SLOW_PART, "nodes": 2})])


def test_network_server_gateway_and_ledger_have_to_agree() -> None:
    assert "1 multicast groups are left" in fault(server=SERVER | {"groups": 1})
    assert "used twice" in fault(server=SERVER | {"f_cnts_reused": 1})
    over = SERVER | {"over_duty_cycle": 1}
    assert "duty cycle" in fault(server=over)
    assert lorawan_faults(replace(FOUND, server=over, restarted=True)) == []
    for wrong in (0.0, 150.0, 250.0):
        assert "the gateway sent 195 to 210 s" in fault(ledger_s=wrong)
    assert lorawan_faults(replace(FOUND, ledger_s=150.0, restarted=True)) == []
    assert "195 to 210 s" in fault(ledger_s=250.0, restarted=True)
    assert "of 200 s" in fault(budget_s=200.0)
    assert "bus was not heard" in fault(bus={"downlinks": 300, "acks": 0})
    assert "refused 0 multicasts" in fault(server=SERVER | {"multicasts_refused": 0}, refusals_noticed=0)
    assert "0 were noticed" in fault(refusals_noticed=0)
    assert "7 were noticed" in fault(refusals_noticed=7)
    assert lorawan_faults(replace(FOUND, refusals_noticed=0, restarted=True)) == []  # while nobody listened


def test_an_install_before_the_canary_runs_is_a_fault() -> None:
    assert "meter-far" in fault(steps=[(FAR.id, "installing"), (CANARY.id, "updated")])
