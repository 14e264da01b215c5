"""What the gate after the open tiers says of a campaign on this gateway, and what it has seen. PURE."""

from collections.abc import Mapping

from gatewayd.campaign.node_update import EXECUTED, NodeUpdate, State
from gatewayd.campaign.retries import will_retry
from gatewayd.campaign.rows import CampaignState
from gatewayd.campaign.situation import Situation
from gatewayd.campaign.tiers import GateResult, Verdict, judge
from gatewayd.cloud.campaign_policy import FailedNode, GateEvidence
from gatewayd.cloud.messages import Desired

EVIDENCE_NODES = 20


def gate(it: Situation, updates: Mapping[str, NodeUpdate]) -> tuple[GateResult, int]:
    """The verdict, and how many tiers are open by it."""
    rollout = it.campaign.rollout
    # A local gate that says `needs_cloud` is opened by the next revision's `open_tiers`.
    open_tiers = min(max(it.row.open_tiers, rollout.open_tiers), len(rollout.tiers))
    if rollout.gate.kind == "cloud":
        open_tiers = min(rollout.open_tiers, len(rollout.tiers))
    states: list[dict[State, int]] = [{} for _ in rollout.tiers]
    last = 0.0
    for update in updates.values():
        # A failure that will be tried again is no outcome yet.
        state = State.PENDING if update.ended and will_retry(it, update) else update.state
        tier = update.tier
        if state in EXECUTED:
            # What has happened counts, also where a later revision has closed the tier again.
            tier = min(tier, open_tiers - 1)
            last = max(last, update.since)
        states[tier][state] = states[tier].get(state, 0) + 1
    result = judge(rollout, open_tiers, states, last, it.now)
    if result.verdict is Verdict.OPEN and _may_open(it):
        open_tiers += 1
        result = judge(rollout, open_tiers, states, last, it.now)
    return result, open_tiers


def evidence(it: Situation, updates: Mapping[str, NodeUpdate], open_tiers: int) -> GateEvidence:
    """For the report of a breach: the counts that were judged, and who failed."""
    counted = [u for _, u in sorted(updates.items()) if u.state in EXECUTED and not will_retry(it, u)]
    failures = [u for u in counted if u.state is not State.UPDATED]
    rule = it.campaign.rollout.gate
    return GateEvidence(
        open_tiers=open_tiers,
        executed=len(counted),
        updated=len(counted) - len(failures),
        failed=sum(u.state is State.FAILED for u in failures),
        rolled_back=sum(u.state is State.ROLLED_BACK for u in failures),
        failure_ratio=len(failures) / len(counted) if counted else 0.0,
        failure_ratio_limit=rule.failure_ratio,
        minimum_executed=rule.minimum_executed,
        nodes=tuple(
            FailedNode(node=u.node, state=u.state.value, code=u.code, version=u.version, reset_cause=u.reset_cause)
            for u in failures[:EVIDENCE_NODES]
        ),
    )


def _may_open(it: Situation) -> bool:
    """Whether a tier may open now: the most restrictive of cloud, operator and gate; and soaking needs a believable clock."""
    return (
        it.row.state is CampaignState.RUNNING
        and it.campaign.desired is Desired.RUNNING
        and not it.row.hold
        and it.blocked is None
        and not it.expired
    )
