"""A fleet-wide rollout of 1 %, 10 % and 100 % over 200 gateways: real tiers, trust, payloads, link and broker."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import aiohttp
import pytest

from gatewayd.campaign.node_update import State
from gatewayd.cloud.messages import Campaign, Desired, Gate, Policy, Rollout, StageBy, Tier
from gatewayd.publisher.campaigns import new_campaign, revise
from gatewayd.publisher.firmware import ReleaseSpec
from radios.radio import NodeId
from tests.gatewayd.campaign.fleet import FLEET, Cloud, Member, PayloadServer, make_member, running, until
from tests.gatewayd.trust.site import HARDWARE, RELEASE, make_publisher
from tests.support.mosquitto import Mosquitto

pytestmark = [pytest.mark.services, pytest.mark.timeout(180)]

GATEWAYS = 200
NODES_EACH = 5
CAMPAIGN = "meters-2026-11"
TIERS = (Fraction(1, 100), Fraction(1, 10), Fraction(1))
MOST_FETCHED = 1.01  # times the payload


def nodes_of(gateway: int) -> tuple[NodeId, ...]:
    return tuple(NodeId(f"lorawan:{gateway:08x}{number:08x}") for number in range(NODES_EACH))


def below(share: Fraction) -> set[str]:
    """The nodes of the whole fleet whose place is below the share; computed from the published rule alone."""
    found = set()
    for gateway in range(GATEWAYS):
        for node in nodes_of(gateway):
            digest = hashlib.sha256(f"{CAMPAIGN}\0{node}".encode()).hexdigest()
            if int(digest[:16], 16) < share * 2**64:
                found.add(str(node))
    return found


@dataclass
class Fleet:
    members: list[Member]
    cloud: Cloud
    server: PayloadServer
    bad: set[str]
    payload_bytes: int

    def started(self) -> set[str]:
        return {node for member in self.members for node in member.radio.delivered}

    def of(self, nodes: set[str]) -> set[str]:
        """The gateways that have one of the nodes."""
        return {member.name for member in self.members if nodes & set(member.nodes)}


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    publisher = make_publisher(tmp_path)
    publisher.add(ReleaseSpec("meter", "1.2.0", 3, 2, 0x01020000, (HARDWARE,), "opaque", self_test_s=0))
    # Two nodes of the second tier, on different gateways, neither of which has a canary.
    canary_gateways = {node[8:16] for node in below(TIERS[0])}
    second = sorted(node for node in below(TIERS[1]) if node[8:16] not in canary_gateways)
    bad = {second[0], second[-1]}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=32)) as session:
        with Mosquitto(tmp_path / "broker") as broker:
            async with PayloadServer(publisher.repository.path).running() as server:
                members = [
                    await make_member(
                        f"gw-{n:03}", nodes_of(n), bad, tmp_path / f"gw-{n:03}", server, broker.port, publisher, session
                    )
                    for n in range(GATEWAYS)
                ]
                async with broker.client("cloud") as client, running(members):
                    cloud = Cloud(client, publisher)
                    reading = asyncio.create_task(cloud.read())
                    yield Fleet(members, cloud, server, bad, publisher.image.stat().st_size)
                    reading.cancel()
                    await asyncio.wait({reading})


def document() -> Campaign:
    tiers = tuple(
        Tier(name=name, percent=float(share * 100)) for name, share in zip(("one", "ten", "all"), TIERS, strict=True)
    )
    rollout = Rollout(tiers=tiers, stage_by=StageBy.TRANSFER, gate=Gate(kind="cloud"))
    return new_campaign(
        CAMPAIGN, RELEASE, f"fleet:{FLEET}", time.time() - 5, rollout=rollout, policy=Policy(max_attempts=1)
    )


async def test_a_fleet_is_updated_in_steps_and_nobody_starts_after_a_breach(fleet: Fleet) -> None:
    cloud, everybody = fleet.cloud, {member.name for member in fleet.members}
    canaries, tenth, everyone = (below(share) for share in TIERS)
    assert 0 < len(canaries) < len(tenth) / 5 < len(everyone) / 25

    one = document()
    await cloud.issue(one)
    await until(lambda: cloud.of_campaign("running").keys() == everybody)
    await until(lambda: cloud.of_nodes("updated") >= canaries)
    assert fleet.started() == canaries

    two = revise(one, time.time(), open_tiers=2)
    await cloud.issue(two)
    await until(lambda: cloud.of_nodes("updated") >= tenth - fleet.bad)
    await until(lambda: cloud.of_nodes("rolled_back") == fleet.bad)
    assert fleet.started() == tenth

    breached = fleet.of(fleet.bad)
    await until(lambda: cloud.of_campaign("breached").keys() == breached)
    for gateway, report in cloud.of_campaign("breached").items():
        assert report.evidence is not None
        assert {node.node for node in report.evidence.nodes} == fleet.bad & set(nodes_of(int(gateway[3:])))
        assert report.evidence.rolled_back == 1

    # The cloud stops everybody; that it opens the last tier by the same revision starts nobody.
    three = revise(two, time.time(), desired=Desired.PAUSED, open_tiers=3)
    await cloud.issue(three)
    await until(lambda: {g for g, r in cloud.of_campaign("paused").items() if r.revision == 3} == everybody - breached)
    assert fleet.started() == tenth

    # It goes on where nothing was wrong; the two gateways stay as they are, by their own gate.
    four = revise(three, time.time(), desired=Desired.RUNNING)
    await cloud.issue(four)
    healthy = {node for member in fleet.members if member.name not in breached for node in member.nodes}
    await until(lambda: cloud.of_nodes("updated") >= healthy)
    assert fleet.started() == healthy | (tenth - healthy)
    for member in fleet.members:
        if member.name in breached:
            states = await member.states(CAMPAIGN)
            assert {states[node] for node in set(member.nodes) - tenth} == {State.PENDING}

    assert fleet.server.bytes_to.keys() == everybody
    assert max(fleet.server.bytes_to.values()) <= MOST_FETCHED * fleet.payload_bytes
