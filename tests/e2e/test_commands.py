"""Signed commands through everything real: the publisher's command line, the broker, the daemon as a process, the collector."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from gatewayd.demo.cloud_side import GATEWAY
from gatewayd.demo.world import World
from gatewayd.publisher.keys import generate_all
from gatewayd.service.version import version
from tests.support.rig import LAMPS, Rig, lamp_firmware, lamp_options

pytestmark = [pytest.mark.services, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

ALL = {lamp.id for lamp in LAMPS}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    """All lamps updated by a campaign, and everything acknowledged."""
    options = lamp_options(firmware=(lamp_firmware(size=2_000),))
    async with World(tmp_path_factory.mktemp("world"), options) as world:
        rig = Rig(world)
        await rig.issue(rig.campaign("lamps"))
        await rig.until(lambda: rig.updated("lamps") == ALL and rig.told("lamps", "completed"), 90.0)
        yield rig


async def asked(rig: Rig, *arguments: str, keys: str = "") -> tuple[int, dict[str, Any], str]:
    """`gatewayd publish gateway ...`: exit status, what it says with --json, and its complaints."""
    return await published(rig, "gateway", *arguments, "--keys", keys or str(rig.world.cloud.keys.folder))


async def published(rig: Rig, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """The same of `gatewayd publish ...`."""
    broker = rig.world.cloud_broker
    command = [sys.executable, "-m", "gatewayd", "publish", *arguments, "--json"]
    command += ["--broker", broker.url, "--ca", str(broker.ca), "--cert", str(broker.cert)]
    command += ["--cert-key", str(broker.key), "--mqtt", broker.protocol]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, json.loads(out) if out else {}, err.decode()


async def test_a_collector_that_lost_everything_gets_everything_again(rig: Rig) -> None:
    before = {(r.node, r.state, r.version) for r in rig.told("lamps", "updated")}
    await rig.world.lose_reports()
    assert rig.reports() == []
    status, said, complaint = await asked(rig, "resync", GATEWAY)
    assert status == 0, complaint
    assert said["answer"]["state"] == "resync"
    await rig.until(lambda: any(r.state == "resynced" and r.command == said["command"] for r in rig.reports()))
    assert {(r.node, r.state, r.version) for r in rig.told("lamps", "updated")} == before
    assert rig.told("lamps", "completed")


async def test_identify_says_who_the_gateway_is(rig: Rig) -> None:
    status, said, complaint = await asked(rig, "identify", GATEWAY)
    assert status == 0, complaint
    identity = said["answer"]["identity"]
    assert (identity["gateway"], identity["version"]) == (GATEWAY, version())
    assert identity["radios"] == {"zigbee": {"up": True, "nodes": len(LAMPS)}}
    assert identity["health"]["zigbee"] == "ok"
    assert rig.log("identity")[-1]["gateway"] == GATEWAY


async def test_a_stranger_is_told_that_it_was_refused(rig: Rig) -> None:
    folder = rig.world.folder / "stranger"
    generate_all(folder)
    status, _, complaint = await asked(rig, "identify", GATEWAY, keys=str(folder))
    assert status == 3
    assert "unknown_key" in complaint
    assert rig.log("command_refused")[-1]["code"] == "unknown_key"


async def test_a_gateway_that_is_not_there_does_not_answer(rig: Rig) -> None:
    status, said, _ = await asked(rig, "identify", "somebody-else", "--wait-s", "0.5")
    assert (status, said["answer"]) == (2, None)


async def test_a_plan_is_made_from_what_the_gateway_says_of_its_nodes(rig: Rig) -> None:
    """All have the release by now; the gateway's pages say so within half a minute."""
    options = ("--repo", str(rig.world.cloud.repository.path), "--release", "releases/lamp/2.0.0.json")
    plan = ("campaign", "plan", "again", "--audience", f"gateway:{GATEWAY}", *options)
    async with asyncio.timeout(90):
        while True:
            status, said, complaint = await published(rig, *plan)
            assert status == 0, complaint
            (gateway,) = said["gateways"]
            (tier,) = gateway["tiers"]
            if tier["skipped"] == {"already": len(LAMPS)}:
                break
    assert (tier["nodes"], gateway["fetched_bytes"], gateway["problem"]) == (0, 0, "")
