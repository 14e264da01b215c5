"""What a decision of the planner depends on, and what it is. PURE."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo

from gatewayd.campaign.node_update import NodeUpdate
from gatewayd.campaign.rows import CampaignRow, CampaignState
from gatewayd.campaign.schedule import local_time
from gatewayd.campaign.versions import Versions
from gatewayd.cloud.campaign_policy import GateEvidence
from gatewayd.cloud.messages import Campaign, Manufacturers
from gatewayd.nodes.node import Node
from gatewayd.trust.release import VerifiedRelease

DATES_IN_DOUBT = frozenset({"clock_untrusted", "trust_expired"})  # codes of `blocked` with which no date is judged


@dataclass(frozen=True, slots=True)
class Site:
    """Where the gateway stands, as its operator configured it."""

    region: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)  # of all its nodes; those that a node has itself win
    zone: tzinfo = UTC


@dataclass(frozen=True, slots=True)
class Situation:
    """All that a decision may depend on. Times are Unix seconds; `radio_now` by kind of radio."""

    campaign: Campaign
    row: CampaignRow
    release: VerifiedRelease | None
    manufacturers: Manufacturers  # for the fleet's floors
    blocked: tuple[str, str] | None  # why nothing may start now: (code, detail) of trust, clock or payload
    forbidden: bool  # the release or payload was refused: what runs is held too
    nodes: Mapping[str, Node]
    updates: Mapping[str, NodeUpdate]
    elsewhere: Mapping[str, NodeUpdate]
    now: float
    radio_now: Mapping[str, float]
    yielding: frozenset[str] = frozenset()  # other campaigns that may start nothing any more (expired, revoked)
    unusable: frozenset[str] = frozenset()  # digests of deltas that cannot be had
    refused: frozenset[str] = frozenset()  # digests of deltas that may not be had: what runs with them ends
    site: Site = Site()
    versions: Versions = field(default_factory=Versions)  # of the releases that are known here
    own_versions: Mapping[str, frozenset[int]] = field(default_factory=dict)  # see `moves.unexplained`
    doubted: frozenset[str] = frozenset()  # digests that are checked again: what runs with them is held meanwhile
    cohorts: Mapping[str, str] = field(default_factory=dict)  # by node: who would share one multicast of a payload
    listens_since: Mapping[str, float] = field(default_factory=dict)  # as `radio_now`: the start of this process

    @property
    def clock_trusted(self) -> bool:
        return self.blocked is None or self.blocked[0] != "clock_untrusted"

    @property
    def past_expiry(self) -> bool:
        return self.now > self.campaign.expires.timestamp()

    @property
    def expired(self) -> bool:
        """By a clock that can be believed: a leap into the future ends nothing.

        A synchronised one may have leapt too; then the metadata are past their date with the campaign, and only newer ones
        show that the time has really passed. Until then nothing starts anyway. What was judged before stays so.
        """
        return self.past_expiry and (self.dates_believed or self.row.state is CampaignState.EXPIRED)

    @property
    def dates_believed(self) -> bool:
        return self.blocked is None or self.blocked[0] not in DATES_IN_DOUBT

    @property
    def local(self) -> datetime | None:
        """The time on the site's wall; None when the clock cannot be believed."""
        return local_time(self.now, self.site.zone) if self.clock_trusted else None


@dataclass(frozen=True, slots=True)
class Decision:
    """`updates` are those that changed; `superseded` are updates of other campaigns that this one ends."""

    row: CampaignRow
    updates: tuple[NodeUpdate, ...]
    superseded: tuple[NodeUpdate, ...]
    proven: tuple[str, ...]  # nodes whose security floor rises to the release's
    evidence: GateEvidence | None = None  # of a campaign that a gate pauses by this decision
