"""A gateway breaks in mid-transfer on both radios, after its backup became stale; new hardware takes over from that backup."""

import asyncio
import hashlib
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gatewayd.cloud.messages import Gate, ReportKind, Rollout, Tier
from gatewayd.demo.world import World
from tests.support import rig as rigs
from tests.support.rig import LAMPS, Rig, lamp_firmware, lamp_options, meter_firmware

pytestmark = [pytest.mark.services, pytest.mark.timeout(420)]

METERS = tuple(replace(meter, loss=0.02 * n) for n, meter in enumerate(rigs.METERS, 1))
EVERYONE = Rollout(tiers=(Tier(name="all", percent=100.0),), gate=Gate(failure_ratio=1.0))


def counter(rig: Rig, meter: str, name: str) -> int:
    counters = rig.world.site.nodes[meter]["counters"]
    assert isinstance(counters, dict)
    return int(counters[name])


def fragments(rig: Rig) -> int:
    return sum(counter(rig, meter.id, "fragments_received") for meter in METERS)


def downloads(rig: Rig, lamp: str) -> tuple[object, object]:
    """Begun at 0, and thrown away."""
    node = rig.world.site.nodes[lamp]
    return node["downloads_started_at_zero"], node["downloads_thrown_away"]


def finished(rig: Rig) -> bool:
    return rig.updated("lamps") == {n.id for n in LAMPS} and rig.updated("meters") == {n.id for n in METERS}


def epoch(rig: Rig) -> int:
    """Of the reports that the cloud has acknowledged last."""
    return max((acks.epoch for _, acks in rig.world.cloud.reports.watermarks()), default=0)


async def gatewayd(rig: Rig, *arguments: str) -> tuple[int, str]:
    """The command as an operator gives it: exit status and what it says."""
    command = [sys.executable, "-m", "gatewayd", *arguments, "--config", str(rig.world.folder / "gatewayd.toml")]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


def cut_short(state: Path) -> None:
    """As if the power had gone when the restore was decided and not yet done: the daemon's start does the rest."""
    names = [path.name for path in state.iterdir() if path.name != "lock"]
    (state / "restore.ready").mkdir()
    for name in names:
        (state / name).rename(state / "restore.ready" / name)


async def running_is_not_disturbed(rig: Rig) -> None:
    await rig.until(lambda: rig.log("started"))
    early = str(rig.world.folder / "early.backup")
    done, said = await gatewayd(rig, "backup", "--out", early)
    assert done == 0, said
    refused, said = await gatewayd(rig, "restore", early, "--old-hardware-is-off", "--force")
    assert (refused, "in use by another gatewayd" in said) == (1, True), said


async def test_new_hardware_takes_over_in_mid_transfer(tmp_path: Path) -> None:
    lamps, meters = lamp_firmware(size=30_000), meter_firmware(size=40_000)
    options = lamp_options(lorawan_nodes=METERS, firmware=(lamps, meters))
    state, backup, passphrase = tmp_path / "state", tmp_path / "gw.backup", tmp_path / "passphrase"
    passphrase.write_text("correct horse battery staple\n")
    sealed = ("--passphrase-file", str(passphrase))
    async with World(tmp_path, options) as world:
        rig = Rig(world)
        await running_is_not_disturbed(rig)
        await rig.issue(rig.campaign("lamps"))
        await rig.until(lambda: rig.blocks_received() > 60)
        await rig.issue(rig.campaign("meters", release="releases/meter/1.3.0.json", rollout=EVERYONE))
        await rig.until(lambda: fragments(rig) > 10, 90.0)
        done, said = await gatewayd(rig, "backup", "--out", str(backup), *sealed)
        assert done == 0, said
        assert "none was made now" not in said, "the daemon was asked for a fresh backup of the network"

        blocks_then, fragments_then, reports_then = rig.blocks_received(), fragments(rig), len(rig.reports())
        await rig.until(lambda: rig.blocks_received() > blocks_then + 60 and fragments(rig) > fragments_then + 10)
        await world.daemon.kill()
        await world.site.snapshot()
        assert rig.updated("lamps") == rig.updated("meters") == set(), "both transfers are in their middle"
        old, first = world.site.dongle, epoch(rig)
        assert first > 0
        begun = {n.id: downloads(rig, n.id) for n in LAMPS}
        set_up = {n.id: counter(rig, n.id, "sessions_set_up") for n in METERS}
        shutil.rmtree(state)
        await world.site.do("replace")
        await world.site.snapshot()
        assert (world.site.dongle["eui64"] != old["eui64"], world.site.dongle["network"]) == (True, None)

        looked, said = await gatewayd(rig, "restore", str(backup), *sealed)
        assert (looked, "Nothing is done yet" in said, state.exists()) == (0, True, False), said
        done, said = await gatewayd(rig, "restore", str(backup), *sealed, "--old-hardware-is-off", "--burn-address")
        assert done == 0, said
        cut_short(state)
        await world.daemon.start()
        await rig.until(lambda: finished(rig), 240.0)
        assert rig.log("store_restored")[-1]["gateway"] == world.cloud.reports.watermarks()[0][0]
        await world.site.snapshot()
        new = world.site.dongle
        assert (new["network"], new["eui64"]) == (old["network"], old["eui64"])
        assert int(str(new["frame_counter"])) > int(str(old["frame_counter"])) + 9_000
        await rig.until(lambda: epoch(rig) > first)
        assert [r.code for r in rig.reports() if r.kind is ReportKind.GATEWAY].count("restored") == 1
        await world.daemon.stop()
        await world.site.finish()

        for lamp in LAMPS:
            assert world.site.flash[lamp.id] == hashlib.sha256(lamps.image).hexdigest()
            assert downloads(rig, lamp.id) == begun[lamp.id], "none began again, and none was thrown away"
        for meter in METERS:
            assert world.site.flash[meter.id] == hashlib.sha256(meters.image).hexdigest()
            assert counter(rig, meter.id, "sessions_set_up") == set_up[meter.id], "no node was set up again"
        assert world.site.network["f_cnts_reused"] == 0
        assert len(rig.reports()) > reports_then
