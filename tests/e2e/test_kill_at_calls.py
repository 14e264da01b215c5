"""The daemon as it is, ended by itself right before or after chosen commits, syncs, renames and chunks, in life after life
until both campaigns are through. `tests/crash` does the same at every call, where the order of calls is the same every time.
"""

import asyncio
import hashlib
import shutil
import signal
from pathlib import Path

import pytest

from gatewayd.cloud.messages import Gate, Rollout, Tier
from gatewayd.demo.world import World
from tests.crash import interpose
from tests.crash.interpose import How
from tests.support.rig import LAMPS, METERS, Rig, lamp_firmware, lamp_options, meter_firmware

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]

LIFE_LIMIT_S = 60.0
COMMIT, SYNC = "commit gatewayd.db-wal", "fdatasync gatewayd.db-wal"
POINTS = (
    (COMMIT, 1, How.BEFORE),  # the tables of the store
    ("fdatasync zigbee.db", 1, How.BEFORE),  # zigpy's
    ("rename trust/metadata/", 2, How.BEFORE),
    ("rename trust/trusted.json", 1, How.AFTER),
    ("chunk payloads/", 1, How.AFTER),
    ("fsync payloads/", 1, How.BEFORE),
    ("rename payloads/", 1, How.AFTER),
    (COMMIT, 14, How.BEFORE),
    (COMMIT, 17, How.AFTER),
    (SYNC, 20, How.AFTER),
)


async def test_the_daemon_ends_at_calls_that_decide_what_survives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = interpose.build(tmp_path)
    lamps, meters = lamp_firmware(size=12_000), meter_firmware(size=6_000)
    options = lamp_options(lorawan_nodes=METERS, firmware=(lamps, meters))
    async with World(tmp_path / "world", options) as world:
        rig = Rig(world)
        state = world.folder / "state"
        await world.daemon.kill()
        shutil.rmtree(state, ignore_errors=True)  # the first of our lives begins with nothing
        await rig.issue(rig.campaign("lamps"))
        everyone = Rollout(tiers=(Tier(name="all", percent=100.0),), gate=Gate(failure_ratio=1.0))
        await rig.issue(rig.campaign("meters", release="releases/meter/1.3.0.json", rollout=everyone))
        for only, at, how in POINTS:
            log = tmp_path / "calls"
            with monkeypatch.context() as environment:
                for name, value in interpose.armed_at_start(library, state, log, at, how, only).items():
                    environment.setenv(name, value)
                await world.daemon.start()
            await ended(world, f"{only} {at} {how}")
            last = interpose.calls(log)[-1]
            assert f"{last.kind} {last.path}".startswith(only)
        await world.daemon.start()
        everybody = {name: {node.id for node in nodes} for name, nodes in (("lamps", LAMPS), ("meters", METERS))}
        await rig.until(lambda: all(rig.updated(name) == nodes for name, nodes in everybody.items()), 120.0)
        await world.daemon.stop()
        await world.site.finish()

        for lamp in LAMPS:
            assert world.site.flash[lamp.id] == hashlib.sha256(lamps.image).hexdigest()
            assert world.site.nodes[lamp.id]["downloads_started_at_zero"] == 1
            assert world.site.nodes[lamp.id]["downloads_thrown_away"] == 0
        for meter in METERS:
            assert world.site.flash[meter.id] == hashlib.sha256(meters.image).hexdigest()
        for name, nodes in everybody.items():
            assert sorted(str(report.node) for report in rig.told(name, "updated")) == sorted(nodes)


async def ended(world: World, where: str) -> None:
    """Until the daemon has ended itself."""
    process = world.daemon.process
    assert process is not None
    try:
        await asyncio.wait_for(process.wait(), LIFE_LIMIT_S)
    except TimeoutError:
        raise AssertionError(f"never came to {where}; daemon's log:\n{world.daemon.tail(40)}") from None
    assert process.returncode == -signal.SIGKILL, world.daemon.tail(40)
