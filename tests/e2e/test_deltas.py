"""Deltas through the whole system: published, chosen, sent, applied by the node, and the full image where a node cannot."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from gatewayd.cloud.messages import DeltaFormat, Payload, Selection
from gatewayd.demo import scenario
from gatewayd.demo.cloud_side import Firmware
from gatewayd.demo.world import World
from gatewayd.publisher.firmware import DeltaPlan
from tests.support.rig import LAMPS, METERS, Rig, lamp_firmware, lamp_options, meter_firmware

pytestmark = [pytest.mark.services, pytest.mark.asyncio(loop_scope="module")]

CHANGED_AT = 5_000
PATCH = b"a new function"
METER_TAGS = (("delta", "detools,vcdiff"), ("ram", "8192"))
MODELS = f"""
[[models]]
hardware = "{scenario.ZIGBEE_HARDWARE}"
delta = ["detools"]
ram = 8192
"""


def lamp_releases() -> tuple[Firmware, Firmware]:
    """What runs on the lamps, and a release that differs from it in a few bytes."""
    old = scenario.zigbee_image(scenario.ZIGBEE_OLD)
    base = lamp_firmware("1.0.4", security=1)
    base = replace(base, spec=replace(base.spec, node_version=scenario.ZIGBEE_OLD), image=old)
    new = lamp_firmware("2.0.0")
    head = new.image[:52] + old[52:56]  # identity and version of the new, length of the old
    image = head + old[56:CHANGED_AT] + PATCH + old[CHANGED_AT + len(PATCH) :]
    plan = DeltaPlan((base.spec.path,), (DeltaFormat.DETOOLS,), needs_ram=4096)
    return base, replace(new, image=image, deltas=plan)


def meter_releases() -> tuple[Firmware, Firmware]:
    new = meter_firmware()
    old = scenario.lorawan_image(scenario.LORAWAN_OLD)
    spec = replace(new.spec, version="1.2.0", sequence=120, node_version=scenario.LORAWAN_OLD, security_version=0)
    image = new.image[:12] + old[12:CHANGED_AT] + PATCH + old[CHANGED_AT + len(PATCH) :]
    image = image[:12] + len(image).to_bytes(4, "little") + image[16:]
    plan = DeltaPlan((spec.path,), (DeltaFormat.VCDIFF,))
    return replace(new, spec=spec, image=old), replace(new, image=image, deltas=plan)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    """Two lamps that can apply a patch, and one of which it is stated wrongly; two meters that can, one beside one that cannot."""
    lamps = tuple(replace(lamp, delta_formats=("detools",) if lamp != LAMPS[2] else ()) for lamp in LAMPS)
    able = [replace(meter, delta_formats=("vcdiff",), tags=METER_TAGS) for meter in METERS[:2]]
    options = lamp_options(
        zigbee_nodes=lamps,
        lorawan_nodes=(*able, METERS[2]),
        firmware=(*lamp_releases(), *meter_releases()),
        extra_config=MODELS,
        zigbee_scale=12.0,
    )
    async with World(tmp_path_factory.mktemp("world"), options) as world:
        yield Rig(world)


def payloads(rig: Rig, name: str) -> tuple[Payload, ...]:
    """The full image and the delta of the newest release."""
    return [r for r in rig.world.cloud.repository.releases() if r.name == name][-1].payloads


async def test_who_can_gets_a_delta_and_who_cannot_the_full_image(rig: Rig) -> None:
    lamp, meter = payloads(rig, "lamp"), payloads(rig, "meter")
    full, delta = lamp
    assert delta.size < full.size / 20
    await rig.issue(rig.campaign("lamps"))
    # Who tells its version later than the others begin shares nothing with them.
    await rig.until(lambda: {meter.id for meter in METERS} <= {line["node"] for line in rig.log("node_version")})
    selection = Selection(nodes=tuple(meter.id for meter in METERS))
    await rig.issue(rig.campaign("meters", release="releases/meter/1.3.0.json", selection=selection))
    await rig.until(lambda: rig.updated("lamps") == {lamp.id for lamp in LAMPS}, limit_s=60)
    await rig.until(lambda: len(rig.updated("meters")) == 3, limit_s=60)

    # The third lamp, of which it was stated wrongly, has refused the patch and then taken the full image.
    failed = [report for report in rig.reports("lamps") if report.state == "failed"]
    assert [(report.node, report.code) for report in failed] == [(LAMPS[2].id, "invalid_image")]
    await rig.world.site.finish()
    for node in LAMPS:
        said = rig.world.site.nodes[node.id]
        refused = int(str(said["images_refused"]))
        assert (refused > 0) == (node == LAMPS[2])
        assert said["bytes_received"] == (delta.size * refused + full.size if refused else delta.size)
    assert {rig.world.site.flash[node.id] for node in LAMPS} == {full.sha256}

    # The second meter is in a cohort of its own (by its version of TS004). The first shares one with the third, which needs
    # the full image: a delta beside it would only be more air.
    sizes = {r.node: r.size for r in rig.reports("meters") if r.state == "updated"}
    assert sizes == {METERS[0].id: meter[0].size, METERS[1].id: meter[1].size, METERS[2].id: meter[0].size}
    assert {rig.world.site.flash[node.id] for node in METERS} == {meter[0].sha256}

    cached = [line["digest"] for line in rig.log("payload cached")]
    assert sorted(map(str, cached)) == sorted(p.sha256 for p in lamp + meter)  # each once
