"""Why a node was reset that rolled back: where it tells, in an attribute of its manufacturer or its decoded payload, the cloud knows."""

from dataclasses import replace
from pathlib import Path

import pytest

from gatewayd.cloud.messages import Selection
from gatewayd.demo import scenario
from gatewayd.demo.world import World
from tests.support.rig import LAMPS, METERS, Rig, lamp_options, meter_firmware

pytestmark = [pytest.mark.services, pytest.mark.timeout(180)]

CONFIG = f"""
[[models]]
hardware = "{scenario.ZIGBEE_HARDWARE}"
[models.reset_cause]
cluster = 0xfc01
attribute = 0x0000
manufacturer = {scenario.MANUFACTURER_CODE}
values = {{ "1" = "power_on", "2" = "watchdog", "3" = "soft" }}
"""


async def test_a_node_that_tells_why_it_was_reset_is_reported_with_it(tmp_path: Path) -> None:
    telling = replace(LAMPS[0], self_test_fails=True, tells_reset_cause=True)
    silent = replace(LAMPS[1], self_test_fails=True)
    options = lamp_options(zigbee_nodes=(telling, silent, LAMPS[2]), extra_config=CONFIG)
    async with World(tmp_path, options) as world:
        rig = Rig(world)
        await rig.issue(rig.campaign("lamps"))
        await rig.until(lambda: {r.node for r in rig.told("lamps", "rolled_back")} == {telling.id, silent.id}, 90.0)
        await rig.until(lambda: (telling.id, "watchdog") in causes(rig))
        await rig.until(lambda: LAMPS[2].id in rig.updated("lamps"), 60.0)
        assert {cause for node, cause in causes(rig) if node == silent.id} == {None}
        await world.site.snapshot()
        assert world.site.nodes[telling.id]["reset_cause"] == "watchdog"


async def test_a_lorawan_node_says_it_in_its_decoded_payload(tmp_path: Path) -> None:
    telling = replace(METERS[0], self_test_fails=True, tells_reset_cause=True)
    silent = replace(METERS[1], self_test_fails=True)
    options = lamp_options(zigbee_nodes=(), lorawan_nodes=(telling, silent), firmware=(meter_firmware(),))
    async with World(tmp_path, options) as world:
        rig = Rig(world)
        both = Selection(nodes=(telling.id, silent.id))
        await rig.issue(rig.campaign("meters", release="releases/meter/1.3.0.json", selection=both))
        told = {telling.id, silent.id}
        await rig.until(lambda: {r.node for r in rig.told("meters", "rolled_back")} == told, 120.0)
        await rig.until(lambda: (telling.id, "watchdog") in causes(rig, "meters"))
        assert {cause for node, cause in causes(rig, "meters") if node == silent.id} == {None}


def causes(rig: Rig, campaign: str = "lamps") -> set[tuple[str | None, str | None]]:
    return {(report.node, report.reset_cause) for report in rig.told(campaign, "rolled_back")}
