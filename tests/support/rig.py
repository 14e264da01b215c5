"""A small world for end-to-end tests: the demo's, with a few nodes and small images, and eyes on what the cloud is told."""

import asyncio
import time
from collections.abc import Callable, Sequence

from gatewayd.cloud.messages import (
    TOPIC_ROOT,
    Campaign,
    Desired,
    Gate,
    Policy,
    Report,
    Rollout,
    Selection,
    Tier,
    campaign_topic,
)
from gatewayd.demo import scenario
from gatewayd.demo.cloud_side import GATEWAY, Firmware
from gatewayd.demo.world import World, WorldOptions
from gatewayd.publisher.broker import connected
from gatewayd.publisher.campaigns import new_campaign, sign_campaign
from gatewayd.publisher.collector import ReportStore
from gatewayd.publisher.firmware import ReleaseSpec
from gatewayd.publisher.keys import KeyKind, Role
from tests.support.log_lines import LogLines

AUDIENCE = f"gateway:{GATEWAY}"
LIMIT_S = 90.0
LAMPS = tuple(scenario.ZigbeeNode(f"lamp-{n}", 0x00124B00_00000100 + n) for n in range(1, 4))
METERS = tuple(
    scenario.LorawanNode(f"meter-{n}", 0x70B3D57E_D0000100 + n, loss=0.05 * n, package_version=1 + n % 2)
    for n in range(1, 4)
)


def lamp_firmware(version: str = "2.0.0", size: int = 6000, name: str = "lamp", security: int = 2) -> Firmware:
    """A release for the lamps; the OTA file version follows the release's."""
    major, minor, patch = (int(part) for part in version.split("."))
    number = major << 24 | minor << 16 | patch
    spec = ReleaseSpec(
        name=name,
        version=version,
        sequence=number,
        security_version=security,
        node_version=number,
        hardware=(scenario.ZIGBEE_HARDWARE,),
        container="zigbee-ota",
        self_test_s=3,
    )
    return Firmware(spec, scenario.zigbee_image(number, size=size))


def meter_firmware(size: int = 4000) -> Firmware:
    spec = ReleaseSpec(
        name="meter",
        version="1.3.0",
        sequence=130,
        security_version=1,
        node_version=scenario.LORAWAN_NEW,
        hardware=(scenario.LORAWAN_HARDWARE,),
        container="opaque",
        self_test_s=120,
    )
    return Firmware(spec, scenario.lorawan_image(scenario.LORAWAN_NEW, size))


def lamp_options(**changes: object) -> WorldOptions:
    """Three lamps, no meters."""
    values: dict[str, object] = {
        "zigbee_nodes": LAMPS,
        "lorawan_nodes": (),
        "firmware": (lamp_firmware(),),
        "manufacturer": KeyKind.ECDSA_P256,
        "trust_refresh_s": 2,
        "snapshot_s": 0.1,
    }
    return WorldOptions(**{**values, **changes})  # type: ignore[arg-type]


class ToldReports:
    """What the cloud has stored, read again only when there is more: tests ask twenty times a second."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._store: ReportStore | None = None
        self._changes = -1
        self._reports: list[Report] = []

    def now(self) -> Sequence[Report]:
        store = self._world.cloud.reports
        changes = store._db.total_changes
        if store is not self._store or changes != self._changes:
            self._store, self._changes = store, changes
            self._reports = [report for _, report in store.reports()]
        return self._reports


class Rig:
    """A world that is up, with short words for what tests do to it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.signer = world.cloud.keys.signer(Role.CAMPAIGN)
        self._lines = LogLines(world.daemon.log)
        self._told = ToldReports(world)

    # -- what the cloud does -------------------------------------------------------------------------------------------

    def campaign(self, name: str, release: str = "releases/lamp/2.0.0.json", **changes: object) -> Campaign:
        document = new_campaign(
            name,
            release,
            AUDIENCE,
            time.time(),
            selection=Selection(nodes=tuple(n.id for n in LAMPS)) if release.startswith("releases/lamp") else None,
            rollout=Rollout(tiers=(Tier(name="all", percent=100.0),), gate=Gate(failure_ratio=1.0)),
            policy=Policy(max_attempts=3, retry_after_s=1),
        )
        return document.model_copy(update=changes)

    def signed(self, document: Campaign) -> bytes:
        return sign_campaign(document, self.signer)

    async def issue(self, document: Campaign) -> bytes:
        raw = self.signed(document)
        await self.publish(document.id, raw)
        return raw

    async def publish(self, campaign: str, raw: bytes) -> None:
        """Any bytes, retained, on the topic of a campaign of this gateway."""
        async with connected(self.world.cloud_broker) as client:
            await client.publish(campaign_topic(AUDIENCE, campaign), raw, qos=1, retain=True)

    async def cancel(self, document: Campaign) -> None:
        await self.issue(document.model_copy(update={"revision": document.revision + 1, "desired": Desired.CANCELLED}))

    # -- what is seen --------------------------------------------------------------------------------------------------

    def reports(self, campaign: str | None = None) -> list[Report]:
        return [report for report in self._told.now() if campaign in (None, report.campaign)]

    def told(self, campaign: str, state: str, code: str | None = None) -> list[Report]:
        return [r for r in self.reports(campaign) if r.state == state and code in (None, r.code)]

    def updated(self, campaign: str) -> set[str]:
        return {r.node for r in self.told(campaign, "updated") if r.node is not None}

    def blocks_received(self) -> int:
        """Image blocks that reached any lamp, ever."""
        return sum(int(str(self.world.site.nodes[n.id]["blocks_received"])) for n in LAMPS)

    def log(self, event: str) -> list[dict[str, object]]:
        """The daemon's log lines of one event, over all its lives."""
        self._lines.read()
        return list(self._lines.of(event))

    async def until(self, what: Callable[[], object], limit_s: float = LIMIT_S) -> None:
        """Wait for something that real processes bring about; AssertionError with the daemon's log when it never comes."""
        end = time.monotonic() + limit_s
        while not what():
            if time.monotonic() > end or self.world.daemon.ended:
                lines = [x for x in self.world.daemon.tail(2000).splitlines() if '"trust_refreshed"' not in x]
                raise AssertionError("never came; daemon's log:\n" + "\n".join(lines[-40:]))
            await asyncio.sleep(0.05)


async def raw_publish(world: World, topic: str, payload: bytes) -> None:
    """As the cloud, on any topic."""
    async with connected(world.cloud_broker) as client:
        await client.publish(f"{TOPIC_ROOT}/{topic}", payload, qos=1, retain=True)
