"""SIGKILL at random moments of transfers on both radios: every node ends with the release, none starts again at 0, and
no outcome is lost or told twice under another number."""

import asyncio
import hashlib
import random
from pathlib import Path

import pytest

from gatewayd.cloud.messages import Gate, Rollout, Tier
from gatewayd.demo.world import World
from tests.support.rig import LAMPS, METERS, Rig, lamp_firmware, lamp_options, meter_firmware

pytestmark = [pytest.mark.services, pytest.mark.timeout(240)]

KILLS = 4
SEED = 20261122


def held(rig: Rig) -> float:
    """Bytes and fragments that nodes hold or have installed: it only grows while things go on."""
    total = 0.0
    for lamp in LAMPS:
        total += float(str(rig.world.site.nodes[lamp.id]["blocks_received"]))
    for meter in METERS:
        counters = rig.world.site.nodes[meter.id]["counters"]
        assert isinstance(counters, dict)
        total += counters["fragments_received"]
    return total


async def test_sigkill_at_random_moments_of_both_transfers(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    lamps, meters = lamp_firmware(size=12_000), meter_firmware(size=6_000)
    options = lamp_options(lorawan_nodes=METERS, firmware=(lamps, meters))
    async with World(tmp_path, options) as world:
        rig = Rig(world)
        await rig.issue(rig.campaign("lamps"))
        everyone = Rollout(tiers=(Tier(name="all", percent=100.0),), gate=Gate(failure_ratio=1.0))
        await rig.issue(rig.campaign("meters", release="releases/meter/1.3.0.json", rollout=everyone))
        for _ in range(KILLS):
            before = held(rig)
            more = rng.uniform(10, 60)
            await rig.until(lambda before=before, more=more: held(rig) > before + more or finished(rig))
            await world.daemon.kill()
            await world.daemon.start()
        await rig.until(lambda: finished(rig), 120.0)
        await world.daemon.stop()
        assert world.daemon.process is not None
        assert world.daemon.process.returncode == 0
        await world.site.finish()

        for lamp in LAMPS:
            assert world.site.flash[lamp.id] == hashlib.sha256(lamps.image).hexdigest()
            assert world.site.nodes[lamp.id]["downloads_started_at_zero"] == 1
            assert world.site.nodes[lamp.id]["downloads_thrown_away"] == 0
        for meter in METERS:
            assert world.site.flash[meter.id] == hashlib.sha256(meters.image).hexdigest()
        for name, nodes in (("lamps", LAMPS), ("meters", METERS)):
            outcomes = [r.node for r in rig.told(name, "updated")]
            assert sorted(outcomes, key=str) == [n.id for n in nodes]


def finished(rig: Rig) -> bool:
    return rig.updated("lamps") == {n.id for n in LAMPS} and rig.updated("meters") == {n.id for n in METERS}


async def test_a_restart_offline_goes_on_with_what_was_verified(tmp_path: Path) -> None:
    async with World(tmp_path, lamp_options(firmware=(lamp_firmware(size=12_000),))) as world:
        rig = Rig(world)
        await rig.issue(rig.campaign("lamps"))
        await rig.until(lambda: rig.blocks_received() > 30)
        await world.daemon.kill()
        await world.stop_cloud()
        await world.daemon.start()
        new = {lamp.id: 0x02000000 for lamp in LAMPS}
        await rig.until(lambda: {n.id: world.site.nodes[n.id]["version"] for n in LAMPS} == new)
        assert rig.log("trust_restored")[-1]["campaigns"] == 1
        assert rig.log("trust_restored")[-1]["releases"] == 1
        assert rig.updated("lamps") == set()
        await world.start_broker()
        await rig.until(lambda: rig.updated("lamps") == {n.id for n in LAMPS}, 90.0)
        for lamp in LAMPS:
            assert world.site.nodes[lamp.id]["downloads_started_at_zero"] == 1


async def test_sigterm_ends_the_daemon_cleanly_in_mid_transfer(tmp_path: Path) -> None:
    async with World(tmp_path, lamp_options(firmware=(lamp_firmware(size=12_000),))) as world:
        rig = Rig(world)
        await rig.issue(rig.campaign("lamps"))
        await rig.until(lambda: rig.blocks_received() > 10)
        assert world.daemon.process is not None
        world.daemon.process.terminate()
        await asyncio.wait_for(world.daemon.process.wait(), 5.0)  # the limit that systemd and the issue name
        assert world.daemon.process.returncode == 0
        assert rig.log("stopped")  # by itself, not by the last resort that ends the process after 5 s
        assert rig.log("stop_overdue") == []
