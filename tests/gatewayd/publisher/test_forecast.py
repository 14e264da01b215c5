"""What a plan says, and that it is what the gateway's own planner would do."""

from dataclasses import replace
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from gatewayd.cloud.campaign_policy import Window
from gatewayd.cloud.messages import (
    Gate,
    InventoryPage,
    InventorySite,
    Manufacturers,
    Policy,
    Rollout,
    StageBy,
    Tier,
)
from gatewayd.nodes.node import Node
from gatewayd.nodes.pages import pages
from gatewayd.publisher.forecast import GatewayForecast, GatewayInventory, forecast
from gatewayd.trust.release import VerifiedRelease
from radios import estimate
from radios.radio import Power
from tests.gatewayd.campaign.test_deltas import SMALL, able, with_deltas
from tests.support.documents import IMAGE, NEW, START_S, campaign, node, release

LAB, REST = Tier(name="lab", nodes=(node(1).id,)), Tier(name="all", percent=100.0)
ROLLOUT = Rollout(tiers=(LAB, REST), gate=Gate(kind="local"))


def gateway(*nodes: Node, **site: object) -> GatewayInventory:
    made = pages(nodes, InventorySite.model_validate(site))
    return GatewayInventory("gw-1", made, ZoneInfo(str(site.get("timezone", "UTC"))))


def told(inventory: GatewayInventory, image: VerifiedRelease | None = None, **changes: object) -> GatewayForecast:
    image = image or release()
    document = campaign(**{"rollout": ROLLOUT, **changes})
    return forecast(document, image, Manufacturers(keys=()), [image.document], inventory, START_S)


def test_every_tier_tells_who_is_meant_who_is_left_out_and_who_cannot_be_touched_now() -> None:
    low = node(4, power=Power.BATTERY, battery_percent=10.0, battery_at=START_S)
    stale = node(5, power=Power.BATTERY, battery_percent=90.0, battery_at=START_S - 30 * 86400)
    lab, rest = told(
        gateway(node(1), node(2), node(3, version=NEW), low, stale, node(6, hardware="zigbee:ffff-0001"))
    ).tiers
    assert (lab.name, lab.nodes, lab.skipped, lab.deferred) == ("lab", 1, {}, {})
    assert (rest.name, rest.nodes) == ("all", 3)  # 2, and those of 4 and 5 once their batteries are known to be charged
    assert rest.skipped == {"already": 1}
    assert rest.deferred == {"battery_low": 1, "battery_stale": 1}


def test_nodes_that_are_named_are_told_of_whatever_they_are() -> None:
    other = node(6, hardware="zigbee:ffff-0001")
    (_, rest) = told(gateway(node(2), other), selection={"nodes": (other.id,)}).tiers
    assert (rest.nodes, rest.skipped) == (0, {"wrong_hardware": 1})


def test_a_nodes_own_floor_is_asked() -> None:
    (_, rest) = told(gateway(replace(node(2), security_version=9))).tiers
    assert (rest.nodes, list(rest.skipped.values())) == (0, [1])


def test_tiers_by_region_and_by_tag() -> None:
    tiers = (Tier(name="north", regions=("north",)), Tier(name="roof", tags={"place": "roof"}))
    rollout = Rollout(tiers=(*tiers, REST))
    roof = node(2, tags={"place": "roof"})
    assert [t.nodes for t in told(gateway(node(1), roof), rollout=rollout).tiers] == [0, 1, 1]
    assert [t.nodes for t in told(gateway(node(1), roof, region="north"), rollout=rollout).tiers] == [2, 0, 0]


def test_a_weak_link_and_a_node_that_has_left_are_told() -> None:
    policy = Policy(minimum_lqi=100)
    (_, rest) = told(
        gateway(node(2, lqi=50), node(3), node(4, lqi=150), node(5, lqi=150, joined=False)), policy=policy
    ).tiers
    assert rest.deferred == {"link_weak": 1, "link_unknown": 1, "not_joined": 1}


def test_at_a_quiet_hour_of_the_site_nobody_would_begin() -> None:
    hour = datetime.fromtimestamp(START_S, ZoneInfo("Asia/Tokyo")).hour
    policy = Policy(quiet_hours=(Window(start=f"{hour:02}:00", end=f"{(hour + 1) % 24:02}:00"),))
    assert told(gateway(node(1), timezone="Asia/Tokyo"), policy=policy).waits == "quiet_hours"
    elsewhere = told(gateway(node(1), timezone="UTC"), policy=policy)
    assert (elsewhere.waits, elsewhere.tiers[0].nodes) == ("", 1)


def test_payloads_are_fetched_once_however_many_nodes_take_them() -> None:
    assert told(gateway(node(1), node(2), node(3))).fetched_bytes == len(IMAGE)
    assert told(gateway(node(1, version=NEW))).fetched_bytes == 0
    image = with_deltas(SMALL)
    made = told(gateway(able(1), node(2)), image)
    assert made.fetched_bytes == len(IMAGE) + SMALL.size
    lab, rest = made.tiers
    assert lab.air["zigbee"].estimated == estimate.zigbee(SMALL.size, 1)
    assert rest.air["zigbee"].estimated == estimate.zigbee(len(IMAGE), 1)


def lorawan(number: int) -> Node:
    return node(number, id=f"lorawan:{number:016x}")


def test_a_multicast_is_told_in_the_first_tier_that_it_serves_for_all() -> None:
    inventory = gateway(node(1), *(lorawan(n) for n in range(10, 15)), lorawan_region="EU868", lorawan_data_rate=3)
    rollout = Rollout(tiers=(LAB, Tier(name="few", nodes=(lorawan(10).id,)), REST))
    lab, few, rest = told(inventory, rollout=rollout).tiers
    assert set(lab.air) == {"zigbee"}
    assert few.air["lorawan"].nodes == 5
    assert few.air["lorawan"].estimated == estimate.lorawan(len(IMAGE), "EU868", 3)
    assert (rest.nodes, rest.air) == (4, {})
    staged = rollout.model_copy(update={"stage_by": StageBy.TRANSFER})
    assert [t.air["lorawan"].nodes for t in told(inventory, rollout=staged).tiers[1:]] == [1, 4]


def test_what_no_radio_could_send_is_said_and_the_rest_is_told() -> None:
    (_, rest) = told(gateway(lorawan(10), lorawan_region="EU868", lorawan_data_rate=14)).tiers
    air = rest.air["lorawan"]
    assert (air.nodes, air.estimated) == (1, None)
    assert "data rate 14" in air.problem


@pytest.mark.parametrize(
    ("kept", "problem"), [((), "no inventory"), ((1,), "pages 0"), ((0,), "pages 1"), ((0, 1), "")]
)
def test_pages_that_are_missing_are_said(kept: tuple[int, ...], problem: str) -> None:
    both = pages([node(n) for n in range(1, 250)])
    inventory = GatewayInventory("gw-1", [both[number] for number in kept])
    made = told(inventory)
    assert problem in made.problem
    assert bool(made.problem) == bool(problem)
    assert sum(tier.nodes for tier in made.tiers) == sum(len(both[number].nodes) for number in kept)


def test_a_page_of_earlier_days_is_not_counted() -> None:
    old = InventoryPage(page=3, pages=4, nodes=pages([node(99)])[0].nodes)
    made = told(GatewayInventory("gw-1", [*pages([node(2)]), old]))
    assert (sum(tier.nodes for tier in made.tiers), made.problem) == (1, "")
