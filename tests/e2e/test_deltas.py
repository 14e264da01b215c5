"""Deltas through the whole system: published, chosen, sent, applied by the node, and the full image where a node cannot."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from gatewayd.cloud.messages import DeltaFormat
from gatewayd.demo import scenario
from gatewayd.demo.cloud_side import Firmware
from gatewayd.demo.world import World
from gatewayd.publisher.firmware import DeltaPlan
from tests.support.rig import LAMPS, Rig, lamp_firmware, lamp_options

pytestmark = [pytest.mark.services, pytest.mark.asyncio(loop_scope="module")]

CHANGED_AT = 5_000
MODELS = f"""
[[models]]
hardware = "{scenario.ZIGBEE_HARDWARE}"
delta = ["detools"]
ram = 8192
"""


def releases() -> tuple[Firmware, Firmware]:
    """What runs on the lamps, and a release that differs from it in a few bytes."""
    old = scenario.zigbee_image(scenario.ZIGBEE_OLD)
    base = lamp_firmware("1.0.4", security=1)
    base = replace(base, spec=replace(base.spec, node_version=scenario.ZIGBEE_OLD), image=old)
    new = lamp_firmware("2.0.0")
    head = new.image[:52] + old[52:56]  # identity and version of the new, length of the old
    image = head + old[56:CHANGED_AT] + b"a new function" + old[CHANGED_AT + 14 :]
    plan = DeltaPlan((base.spec.path,), (DeltaFormat.DETOOLS,), needs_ram=4096)
    return base, replace(new, image=image, deltas=plan)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    """Two lamps that can apply a patch, and one of which it is stated wrongly."""
    lamps = tuple(replace(lamp, delta_formats=("detools",) if lamp != LAMPS[2] else ()) for lamp in LAMPS)
    options = lamp_options(zigbee_nodes=lamps, firmware=releases(), extra_config=MODELS, zigbee_scale=12.0)
    async with World(tmp_path_factory.mktemp("world"), options) as world:
        yield Rig(world)


async def test_who_can_gets_a_delta_and_who_cannot_the_full_image_after_it(rig: Rig) -> None:
    full, delta = rig.world.cloud.repository.releases()[1].payloads
    assert delta.size < full.size / 20
    await rig.issue(rig.campaign("patch"))
    await rig.until(lambda: rig.updated("patch") == {lamp.id for lamp in LAMPS}, limit_s=60)
    for lamp in LAMPS:
        node = rig.world.site.nodes[lamp.id]
        refused = int(str(node["images_refused"]))
        assert (refused > 0) == (lamp == LAMPS[2])
        expected = delta.size * refused + full.size if refused else delta.size
        assert node["bytes_received"] == expected
    failed = [report for report in rig.reports("patch") if report.state == "failed"]
    assert [(report.node, report.code) for report in failed] == [(LAMPS[2].id, "invalid_image")]


async def test_both_payloads_were_fetched_once_and_every_lamp_runs_the_same_image(rig: Rig) -> None:
    full = rig.world.cloud.repository.releases()[1].payloads[0]
    cached = [line["digest"] for line in rig.log("payload cached")]
    assert sorted(map(str, cached)) == sorted(p.sha256 for p in rig.world.cloud.repository.releases()[1].payloads)
    await rig.world.site.finish()
    assert {rig.world.site.flash[lamp.id] for lamp in LAMPS} == {full.sha256}
