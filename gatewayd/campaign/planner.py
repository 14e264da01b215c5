"""What a campaign does next, from all that is known. PURE.

`decide` is called with everything it may look at and gives the rows to store and the wishes to hand to the radios; it is
called again whenever something changed, so it only ever looks at the present. The most restrictive of the cloud's desired
state, the local operator's hold and the gate wins.
"""

from collections.abc import Mapping
from dataclasses import replace

from gatewayd.campaign.gates import evidence, gate
from gatewayd.campaign.node_steps import Round, newcomers, placed, step
from gatewayd.campaign.node_update import NodeUpdate, State
from gatewayd.campaign.policy import right_hour
from gatewayd.campaign.retries import will_retry
from gatewayd.campaign.rows import CampaignRow, CampaignState
from gatewayd.campaign.situation import Decision, Situation
from gatewayd.campaign.tiers import GateResult, Tiers, Verdict
from gatewayd.cloud.messages import Desired

__all__ = ["Decision", "Situation", "decide", "wishes"]

DETAIL_EVERY_S = 60.0  # how often a mere change of words is worth a write


def decide(it: Situation) -> Decision:
    """The next rows. Deterministic, and without effect when nothing changed."""
    tiers = Tiers(it.campaign.id, it.campaign.rollout, it.site.region)
    updates = {node: placed(it, update, tiers) for node, update in it.updates.items()}
    if it.release is not None and it.campaign.desired is not Desired.CANCELLED and not it.expired:
        for update in newcomers(it, it.release, tiers):
            updates[update.node] = update
    verdict, open_tiers = gate(it, updates)
    row = _row(it, *_campaign_state(it, updates, verdict, open_tiers), verdict, open_tiers)

    proven: list[str] = []
    this = Round(it, row, tiers, updates)
    # Sorted twice, not by pairs: with 100,000 nodes the collector's walks through the pairs cost a fifth of the time.
    names = sorted(updates)
    for node in sorted(names, key=lambda n: updates[n].tier):
        before = updates[node]
        after = step(this, before)
        # Only what this system delivered raises the floor; a bare claim of a node does not.
        if after.state is State.UPDATED and before.state is not State.UPDATED and after.confirmed >= after.size:
            proven.append(node)
        updates[node] = after
    changed = tuple(updates[name] for name in names if updates[name] != it.updates.get(name))
    if row.state is CampaignState.RUNNING and _settled(it, updates, open_tiers):
        row = replace(row, state=CampaignState.COMPLETED, code="", detail="")
    breached = row.state is CampaignState.BREACHED and it.row.state is not CampaignState.BREACHED
    seen = evidence(it, updates, open_tiers) if breached else None
    return Decision(row, changed, tuple(this.superseded), tuple(proven), seen)


def wishes(updates: Mapping[str, NodeUpdate]) -> list[NodeUpdate]:
    """The updates whose want a radio has to know."""
    return [u for u in updates.values() if u.want]


def _row(
    it: Situation, state: CampaignState, code: str, detail: str, verdict: GateResult, open_tiers: int
) -> CampaignRow:
    before = it.row
    unchanged = (before.state, before.code) == (state, code) == (CampaignState.WAITING, code)
    if unchanged and 0 <= it.now - before.updated_at < DETAIL_EVERY_S:
        detail = before.detail  # some name the time of day, and would be written every second
    return replace(before, state=state, code=code, detail=detail, gate=verdict.verdict.value, open_tiers=open_tiers)


def _campaign_state(
    it: Situation, updates: Mapping[str, NodeUpdate], verdict: GateResult, open_tiers: int
) -> tuple[CampaignState, str, str]:
    if it.campaign.desired is Desired.CANCELLED:
        return CampaignState.CANCELLED, "", ""
    if verdict.verdict is Verdict.BREACH or (it.row.state is CampaignState.BREACHED and it.row.code == "gate"):
        return CampaignState.BREACHED, "gate", verdict.detail if verdict.verdict is Verdict.BREACH else it.row.detail
    if it.row.state is CampaignState.COMPLETED and _settled(it, updates, open_tiers):
        return CampaignState.COMPLETED, "", ""  # what keeps others from starting does not concern it
    if it.campaign.desired is Desired.PAUSED:
        return CampaignState.PAUSED, "", ""
    if it.row.hold:
        return CampaignState.HELD, "", ""
    if it.expired:
        return CampaignState.EXPIRED, "expired", f"expired at {it.campaign.expires.isoformat()}"
    if it.blocked is not None:
        return CampaignState.WAITING, *it.blocked
    if it.release is None:
        return CampaignState.WAITING, "release_unknown", it.campaign.release
    if (hour := right_hour(it.campaign.policy, State.PENDING, it.local)) is not None:
        return CampaignState.RUNNING, hour.code, hour.detail  # who has not begun need not be told one by one
    return CampaignState.RUNNING, "", verdict.detail


def _settled(it: Situation, updates: Mapping[str, NodeUpdate], open_tiers: int) -> bool:
    """Whether every node has its outcome, and no tier waits."""
    if open_tiers < len(it.campaign.rollout.tiers) or not updates:
        return False
    return all(u.ended and not will_retry(it, u) and u.code != "expired" for u in updates.values())
