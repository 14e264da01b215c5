"""The daemon as a process, on a site that is in use: nodes report during an update, and dongles break."""

import asyncio
import contextlib
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gatewayd.demo.world import World
from tests.support.rig import LAMPS, Rig, lamp_firmware, lamp_options
from tests.support.zigbee_backups import zha

pytestmark = [pytest.mark.services, pytest.mark.timeout(180)]

ALL = {lamp.id for lamp in LAMPS}
FIRMWARE = lamp_firmware(size=4_000)


@contextlib.asynccontextmanager
async def in_mid_transfer(folder: Path, reports_per_s: float = 0.4) -> AsyncIterator[Rig]:
    """Lamps that report, and have a part of their image."""
    async with World(folder, lamp_options(firmware=(FIRMWARE,), reports_per_s=reports_per_s)) as world:
        rig = Rig(world)
        await rig.issue(rig.campaign("lamps"))
        await rig.until(lambda: rig.blocks_received() > 30)
        yield rig


async def test_every_report_during_an_update_is_published_once_as_it_was_sent(tmp_path: Path) -> None:
    async with in_mid_transfer(tmp_path, reports_per_s=1.0) as rig:
        await ends_well(rig)
        await rig.until(lambda: sum(map(len, rig.world.site.reports.values())) > 5)
        sent = rig.world.site.reports
        published = rig.world.automation.reports
        await rig.until(lambda: all(len(published.get(node, ())) >= len(sent[node]) for node in sent))
        await rig.world.site.snapshot()  # newer than all that is published by now, if reports still come
        later = rig.world.site.reports
        for node, sequences in sent.items():
            assert not Counter(sequences) - Counter(published[node])
            assert not Counter(published[node][: len(sequences)]) - Counter(later[node])
        bridge = (await status(rig))["bridge"]
        assert not any(bridge["dropped"].values())


async def test_the_ncp_resets_in_mid_transfer(tmp_path: Path) -> None:
    async with in_mid_transfer(tmp_path) as rig:
        before = rig.world.site.dongle["connections"]
        await rig.world.site.do("reset")
        await rig.until(lambda: rig.world.site.dongle["connections"] != before)
        await goes_on(rig)


async def test_the_dongle_is_unplugged_and_plugged_in_again(tmp_path: Path) -> None:
    async with in_mid_transfer(tmp_path) as rig:
        await rig.world.site.do("unplug")
        await link_is(rig, "down")
        assert rig.told("lamps", "failed") == []
        await rig.world.site.do("plug")
        await goes_on(rig)
        assert (await status(rig))["radios"]["zigbee"]["link"] == "up"


async def test_a_network_goes_from_a_broken_dongle_into_a_new_one(tmp_path: Path) -> None:
    """The backup is the daemon's own: one is made before any attempt to restore, also one that is refused then."""
    async with in_mid_transfer(tmp_path) as rig:
        site = rig.world.site
        old = site.dongle
        foreign = tmp_path / "foreign.json"
        foreign.write_text(json.dumps(zha()))
        refused, said = await gatewayd(rig, "zigbee", "restore", str(foreign), "--apply")
        assert (refused, "another network" in said) == (1, True), said
        (backup,) = (tmp_path / "state" / "backups").glob("zigbee-*-before-restore.json")

        await site.do("replace")
        await rig.until(lambda: site.dongle["eui64"] != old["eui64"])
        await link_is(rig, "down")
        await rig.until(lambda: site.dongle["connections"])
        assert site.dongle["network"] is None, "a new dongle gets no network of its own where one was"
        done, said = await gatewayd(rig, "zigbee", "restore", str(backup), "--apply", "--burn-address")
        assert done == 0, said
        await site.snapshot()
        assert (site.dongle["network"], site.dongle["eui64"]) == (old["network"], old["eui64"])
        assert int(str(site.dongle["frame_counter"])) > int(str(old["frame_counter"]))
        await goes_on(rig)


# -- words -----------------------------------------------------------------------------------------------------------


async def ends_well(rig: Rig) -> None:
    """Every lamp has the image, of one download that was never begun again."""
    await rig.until(lambda: rig.updated("lamps") == ALL, 60.0)
    await rig.world.site.snapshot()
    for lamp in LAMPS:
        node = rig.world.site.nodes[lamp.id]
        assert node["version"] == 0x02000000
        assert node["downloads_started_at_zero"] == 1
        assert node["downloads_thrown_away"] == 0


async def goes_on(rig: Rig) -> None:
    """From here on the update ends well, and each lamp is heard by programs on MQTT."""
    before = {node: len(reports) for node, reports in rig.world.automation.reports.items()}
    await ends_well(rig)
    await rig.until(lambda: all(len(rig.world.automation.reports.get(n, ())) > before.get(n, 0) for n in ALL), 60.0)


async def link_is(rig: Rig, state: str) -> None:
    async with asyncio.timeout(30):
        while (await status(rig))["radios"]["zigbee"]["link"] != state:
            await asyncio.sleep(0.1)


async def status(rig: Rig) -> dict[str, Any]:
    """Of the gateway, as its local endpoint gives it."""
    async with aiohttp.ClientSession() as session, session.get(f"{rig.world.status_url}api/v1/gateway") as answer:
        found = await answer.json()
    assert isinstance(found, dict)
    return found


async def gatewayd(rig: Rig, *arguments: str) -> tuple[int, str]:
    """The command as an operator gives it: exit status and what it says."""
    config = str(rig.world.folder / "gatewayd.toml")
    command = [sys.executable, "-m", "gatewayd", *arguments, "--config", config]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()
