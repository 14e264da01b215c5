"""Why a node was reset that rolled back: where its manufacturer has an attribute for it, the cloud is told."""

from dataclasses import replace
from pathlib import Path

import pytest

from gatewayd.demo import scenario
from gatewayd.demo.world import World
from tests.support.rig import LAMPS, Rig, lamp_options

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
        assert world.site.nodes[telling.id]["reset_cause"] == "watchdog"


def causes(rig: Rig) -> set[tuple[str | None, str | None]]:
    return {(report.node, report.reset_cause) for report in rig.told("lamps", "rolled_back")}
