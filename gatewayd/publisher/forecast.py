"""What a campaign would do on a gateway, before it is started. PURE.

The gateway's own planner decides, on what the gateway's inventory pages say, as if every tier were open: who would be left
out and why, who could not be touched now, which payload each would get. What the planner asks for and no page says (other
campaigns, an operator's hold, trust, retries, who shares a multicast) is not in it. Times on the air are estimates (radios/estimate.py).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, tzinfo

from gatewayd.campaign.node_update import NodeUpdate, State
from gatewayd.campaign.payloads import deltas_for, full_image, payload_of
from gatewayd.campaign.planner import decide
from gatewayd.campaign.rows import CampaignRow, CampaignState
from gatewayd.campaign.situation import Site, Situation
from gatewayd.campaign.versions import Known, Versions
from gatewayd.cloud.messages import Campaign, InventoryNode, InventoryPage, InventorySite, Manufacturers, StageBy
from gatewayd.nodes.node import Node
from gatewayd.trust.release import VerifiedRelease
from radios import estimate
from radios.errors import Unsupported
from radios.estimate import Estimate
from radios.radio import Power, radio_of


@dataclass(frozen=True, slots=True)
class Air:
    """What the nodes of one radio in one tier take. `estimated` is None where `problem` says why there is none."""

    nodes: int
    estimated: Estimate | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class TierForecast:
    """`nodes` are those that would get the release: now, or (`deferred`, by code) when what keeps them is over."""

    name: str
    nodes: int
    skipped: Mapping[str, int]  # left out for good, by code
    deferred: Mapping[str, int]
    air: Mapping[str, Air]  # by kind of radio; a multicast stands in the first tier that it serves, for all


@dataclass(frozen=True, slots=True)
class GatewayForecast:
    gateway: str
    tiers: tuple[TierForecast, ...]
    fetched_bytes: int  # of payloads, once
    waits: str = ""  # why nobody would begin at this hour
    problem: str = ""  # why less is known than there is


@dataclass(frozen=True, slots=True)
class GatewayInventory:
    """A gateway as its pages tell it."""

    gateway: str
    pages: Sequence[InventoryPage] = ()
    zone: tzinfo = UTC  # of `site.timezone`

    @property
    def problem(self) -> str:
        if not self.pages:
            return "no inventory is retained"
        told = {page.page for page in self.pages}
        missing = [str(number) for number in range(self._count) if number not in told]
        return f"pages {', '.join(missing)} of the inventory are missing" if missing else ""

    @property
    def site(self) -> InventorySite:
        return min(self.pages, key=lambda page: page.page).site if self.pages else InventorySite()

    def nodes(self) -> dict[str, Node]:
        """Of the pages that are still in use."""
        used = [page for page in self.pages if page.page < self._count]
        return {said.id: _node(said) for page in used for said in page.nodes}

    @property
    def _count(self) -> int:
        return min(self.pages, key=lambda page: page.page).pages


def forecast(
    campaign: Campaign,
    release: VerifiedRelease,
    manufacturers: Manufacturers,
    releases: Sequence[Known],
    gateway: GatewayInventory,
    now: float,
) -> GatewayForecast:
    """`releases` are those that order versions; `now` in Unix seconds."""
    nodes = gateway.nodes()
    decision = decide(_situation(campaign, release, manufacturers, releases, gateway, nodes, now))
    served: dict[str, int] = {}
    for update in decision.updates:
        if update.state is not State.SKIPPED:
            served[radio_of(update.node)] = served.get(radio_of(update.node), 0) + 1
    tiers = []
    told: set[str] = set()  # radios whose one delivery to all tiers stands in an earlier one
    for index, tier in enumerate(campaign.rollout.tiers):
        here = [update for update in decision.updates if update.tier == index]
        meant = [update for update in here if update.state is not State.SKIPPED]
        air = {}
        for kind in sorted({radio_of(update.node) for update in meant} - told):
            at_once = _all_at_once(campaign, kind)
            if at_once:
                told.add(kind)
            whom = decision.updates if at_once else meant
            air[kind] = _air(
                [u for u in whom if radio_of(u.node) == kind and u.state is not State.SKIPPED],
                kind,
                release,
                gateway.site,
                campaign.policy.air_share,
            )
        tiers.append(
            TierForecast(
                name=tier.name,
                nodes=len(meant),
                skipped=dict(Counter(update.code for update in here if update.state is State.SKIPPED)),
                deferred=dict(Counter(update.code for update in here if update.state is State.DEFERRED)),
                air=air,
            )
        )
    wanted = {full_image(release).sha256: full_image(release)} if served else {}
    if served:
        wanted |= deltas_for([n for n in nodes.values() if n.hardware in release.document.hardware], release)
    return GatewayForecast(
        gateway=gateway.gateway,
        tiers=tuple(tiers),
        fetched_bytes=sum(payload.size for payload in wanted.values()),
        waits=decision.row.code,
        problem=gateway.problem,
    )


def _situation(
    campaign: Campaign,
    release: VerifiedRelease,
    manufacturers: Manufacturers,
    releases: Sequence[Known],
    gateway: GatewayInventory,
    nodes: Mapping[str, Node],
    now: float,
) -> Situation:
    rollout = campaign.rollout
    everything = rollout.model_copy(
        update={"open_tiers": len(rollout.tiers), "gate": rollout.gate.model_copy(update={"kind": "cloud"})}
    )
    policy = campaign.policy.model_copy(update={"concurrency": None})  # who waits for a place is not kept by anything
    row = CampaignRow(
        id=campaign.id,
        topic="",
        audience=campaign.audience,
        revision=campaign.revision,
        digest="",
        envelope=b"",
        release=campaign.release,
        state=CampaignState.WAITING,
        code="",
        detail="",
        hold=False,
        open_tiers=1,
        gate="",
        adopted_at=now,
        updated_at=now,
    )
    return Situation(
        campaign=campaign.model_copy(update={"rollout": everything, "policy": policy}),
        row=row,
        release=release,
        manufacturers=manufacturers,
        blocked=None,
        forbidden=False,
        nodes=nodes,
        updates={},
        elsewhere={},
        now=now,
        radio_now=dict.fromkeys(("zigbee", "lorawan"), now),
        site=Site(region=gateway.site.region, zone=gateway.zone),
        versions=Versions(releases),
    )


def _all_at_once(campaign: Campaign, kind: str) -> bool:
    """Whether the tiers hold back the installation alone."""
    return (campaign.rollout.stage_by or (StageBy.TRANSFER if kind == "zigbee" else StageBy.INSTALL)) is StageBy.INSTALL


def _air(
    updates: Sequence[NodeUpdate], kind: str, release: VerifiedRelease, site: InventorySite, air_share: float
) -> Air:
    payloads = [payload_of(update.transfer, release) or full_image(release) for update in updates]
    by_size = Counter(payload.size for payload in payloads)
    try:
        if kind == "zigbee":
            parts = [estimate.zigbee(size, count, air_share) for size, count in by_size.items()]
        else:
            region = site.lorawan_region or "EU868"
            parts = [estimate.lorawan(size, region, site.lorawan_data_rate, air_share) for size in by_size]
    except Unsupported as error:
        return Air(len(updates), None, str(error))
    return Air(len(updates), _sum(parts))


def _sum(parts: Sequence[Estimate]) -> Estimate:
    """One after the other."""
    return Estimate(
        bytes_on_air=sum(part.bytes_on_air for part in parts),
        frames=sum(part.frames for part in parts),
        airtime_s=sum(part.airtime_s for part in parts),
        fastest_s=sum(part.fastest_s for part in parts),
        slowest_s=sum(part.slowest_s for part in parts),
        assumptions=parts[0].assumptions,
    )


def _node(said: InventoryNode) -> Node:
    return Node(
        id=said.id,
        radio=radio_of(said.id),
        hardware=said.hardware,
        model=said.model,
        version=said.version,
        power=Power(said.power) if said.power in set(Power) else None,
        battery_percent=said.battery_percent,
        battery_at=None if said.battery_at is None else said.battery_at.timestamp(),
        joined=said.joined,
        lqi=said.lqi,
        rssi_dbm=said.rssi_dbm,
        snr_db=said.snr_db,
        tags=said.tags,
        last_seen=0.0 if said.last_seen is None else said.last_seen.timestamp(),
        security_version=said.security_version,
    )
