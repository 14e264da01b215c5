"""A fleet-wide rollout of 1 %, 10 % and 100 % over 200 gateways: real tiers, trust, payloads, link and broker."""

import asyncio
import contextlib
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


FEW = 20  # gateways of the fleet whose gates are their own
NODES_OF_FEW = 10


def nodes_of(gateway: int, each: int = NODES_EACH) -> tuple[NodeId, ...]:
    return tuple(NodeId(f"lorawan:{gateway:08x}{number:08x}") for number in range(each))


def below(share: Fraction, campaign: str = CAMPAIGN, gateways: int = GATEWAYS, each: int = NODES_EACH) -> set[str]:
    """The nodes of the whole fleet whose place is below the share; computed from the published rule alone."""
    found = set()
    for gateway in range(gateways):
        for node in nodes_of(gateway, each):
            digest = hashlib.sha256(f"{campaign}\0{node}".encode()).hexdigest()
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


@contextlib.asynccontextmanager
async def a_fleet(folder: Path, gateways: int, each: int, bad: set[str]) -> AsyncIterator[Fleet]:
    publisher = make_publisher(folder)
    publisher.add(ReleaseSpec("meter", "1.2.0", 3, 2, 0x01020000, (HARDWARE,), "opaque", self_test_s=0))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=32)) as session:
        with Mosquitto(folder / "broker") as broker:
            async with PayloadServer(publisher.repository.path).running() as server:
                members = [
                    await make_member(
                        f"gw-{n:03}", nodes_of(n, each), bad, folder / f"gw-{n:03}", server, broker.port, publisher,
                        session,
                    )
                    for n in range(gateways)
                ]  # fmt: skip
                async with broker.client("cloud") as client, running(members):
                    cloud = Cloud(client, publisher)
                    reading = asyncio.create_task(cloud.read())
                    yield Fleet(members, cloud, server, bad, publisher.image.stat().st_size)
                    reading.cancel()
                    await asyncio.wait({reading})


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    # Two nodes of the second tier, on different gateways, neither of which has a canary.
    canary_gateways = {node[8:16] for node in below(TIERS[0])}
    second = sorted(node for node in below(TIERS[1]) if node[8:16] not in canary_gateways)
    async with a_fleet(tmp_path, GATEWAYS, NODES_EACH, {second[0], second[-1]}) as made:
        yield made


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


async def test_gates_of_the_gateways_own_open_and_close_without_the_cloud(tmp_path: Path) -> None:
    """Tiers of 20 % and all: a gateway with two canaries judges by itself, one with fewer cannot, and waits for the cloud."""
    name, first = "meters-local", Fraction(1, 5)
    canaries = below(first, name, FEW, NODES_OF_FEW)
    of = [canaries & set(nodes_of(n, NODES_OF_FEW)) for n in range(FEW)]
    enough = {n for n in range(FEW) if len(of[n]) >= 2}
    too_few = set(range(FEW)) - enough
    assert min(len(enough), len(too_few)) >= 3
    breaking, *_ = sorted(enough)
    bad = {min(of[breaking])}
    tiers = (Tier(name="first", percent=float(first * 100)), Tier(name="all", percent=100.0))
    gate = Gate(kind="local", minimum_executed=2)
    issued = new_campaign(
        name, RELEASE, f"fleet:{FLEET}", time.time() - 5,
        rollout=Rollout(tiers=tiers, stage_by=StageBy.TRANSFER, gate=gate), policy=Policy(max_attempts=1),
    )  # fmt: skip
    async with a_fleet(tmp_path, FEW, NODES_OF_FEW, bad) as fleet:
        cloud = fleet.cloud
        await cloud.issue(issued)
        opened = {str(node) for n in enough - {breaking} for node in nodes_of(n, NODES_OF_FEW)}
        waiting = {str(node) for n in too_few for node in of[n]}
        await until(lambda: cloud.of_nodes("updated") >= opened | waiting)
        await until(lambda: cloud.of_campaign("breached"))
        (gateway, report), *more = cloud.of_campaign("breached").items()
        assert (gateway, more) == (f"gw-{breaking:03}", [])
        assert report.evidence is not None
        assert {node.node for node in report.evidence.nodes} == bad
        assert (report.evidence.rolled_back, report.evidence.minimum_executed) == (1, 2)
        assert fleet.started() == opened | waiting | of[breaking]
        for n in too_few:
            async with asyncio.timeout(20):
                while (row := await fleet.members[n].row(name)).gate != "needs_cloud":
                    await asyncio.sleep(0.05)
            assert (row.state, row.open_tiers) == ("running", 1), n

        # The next revision opens the tier for those who could not; the one that broke stays as it is.
        await cloud.issue(revise(issued, time.time(), open_tiers=2))
        others = {str(node) for n in set(range(FEW)) - {breaking} for node in nodes_of(n, NODES_OF_FEW)}
        await until(lambda: cloud.of_nodes("updated") >= others)
        assert fleet.started() == others | of[breaking]
