"""What the cloud is told about campaigns and node updates. PURE."""

from collections.abc import Iterable, Sequence
from typing import Literal

from gatewayd.campaign.node_update import NodeUpdate, State
from gatewayd.campaign.plan_rows import PlanRow
from gatewayd.campaign.rows import CampaignRow, CampaignState
from gatewayd.cloud.messages import (
    CampaignSummary,
    GateEvidence,
    GatewayIdentity,
    PlannedTransfer,
    Report,
    ReportKind,
    Rollout,
    parse,
    utc,
)
from gatewayd.cloud.plan import PLANS_MOST

_DETAIL_MAX = 500


def node_report(update: NodeUpdate, now: float) -> Report:
    return _of_node(ReportKind.NODE, update, now)


def progress_report(update: NodeUpdate, now: float) -> Report:
    return _of_node(ReportKind.PROGRESS, update, now)


def news_of(update: NodeUpdate) -> tuple[object, ...]:
    """What has to have changed for a report that is more than progress."""
    return update.state, update.code, update.reset_cause


def campaign_report(row: CampaignRow, now: float, evidence: GateEvidence | None = None) -> Report:
    """`evidence` is what a gate has seen that pauses the campaign by this."""
    return Report(
        kind=ReportKind.CAMPAIGN,
        at=utc(now),
        state=row.state.value,
        code=row.code,
        detail=row.detail[:_DETAIL_MAX],
        campaign=row.id,
        revision=row.revision,
        evidence=evidence,
    )


def evidence_of(row: CampaignRow) -> GateEvidence | None:
    """What paused the campaign, as it was told then; None where no gate has."""
    if row.state is not CampaignState.BREACHED or not row.evidence:
        return None
    return parse(GateEvidence, row.evidence.encode(), f"evidence of {row.id}")


def refusal_report(campaign: str | None, code: str, detail: str, now: float) -> Report:
    """A document from the cloud was refused; nothing changed because of it."""
    return Report(
        kind=ReportKind.CAMPAIGN,
        at=utc(now),
        state="refused",
        code=code,
        detail=detail[:_DETAIL_MAX],
        campaign=campaign,
    )


def gateway_report(state: str, code: str, detail: str, now: float) -> Report:
    return Report(kind=ReportKind.GATEWAY, at=utc(now), state=state, code=code, detail=detail[:_DETAIL_MAX])


def answer_report(
    command: str | None,
    state: str,
    detail: str,
    now: float,
    identity: GatewayIdentity | None = None,
    *,
    code: str = "",
) -> Report:
    """What has become of a command; `command` is None where nobody that is listed has signed it."""
    return Report(
        kind=ReportKind.GATEWAY,
        at=utc(now),
        state=state,
        code=code,
        detail=detail[:_DETAIL_MAX],
        command=command,
        identity=identity,
    )


def told_again(report: Report, command: str) -> Report:
    """The same, told because a command asked for it."""
    return report.model_copy(update={"command": command})


def summary(
    row: CampaignRow,
    rollout: Rollout | None,
    updates: Iterable[NodeUpdate],
    now: float,
    plans: Sequence[PlanRow] = (),
) -> CampaignSummary:
    """Counts per state, and per tier and state, and what was planned; without tiers when the document cannot be believed any more."""
    nodes: dict[str, int] = {}
    left_out = 0
    tiers: dict[str, dict[str, int]] = {} if rollout is None else {tier.name: {} for tier in rollout.tiers}
    for update in updates:
        nodes[update.state] = nodes.get(update.state, 0) + 1
        left_out += update.state is State.CANCELLED and update.code == "not_selected"
        if rollout is not None:
            tier = tiers[rollout.tiers[update.tier].name]
            tier[update.state] = tier.get(update.state, 0) + 1
    return CampaignSummary(
        campaign=row.id,
        revision=row.revision,
        state=row.state.value,
        code=row.code,
        detail=row.detail,
        open_tiers=row.open_tiers,
        gate=row.gate,
        nodes=nodes,
        left_out=left_out,
        tiers=tiers,
        plan=() if rollout is None else tuple(_planned(plan, rollout) for plan in plans[:PLANS_MOST]),
        updated=utc(now),
    )


def _planned(plan: PlanRow, rollout: Rollout) -> PlannedTransfer:
    kind: Literal["full", "delta"] = "delta" if plan.kind == "delta" else "full"
    return PlannedTransfer(
        tier=rollout.tiers[plan.tier].name if plan.tier < len(rollout.tiers) else "",
        radio=plan.radio,
        payload=kind,
        size=plan.size,
        nodes=len(plan.nodes),
        skipped=plan.skipped,
        frames=plan.frames,
        airtime_s=plan.airtime_s,
        eta_s=plan.eta_s,
        node_energy_j=plan.node_energy_j,
        made=utc(plan.made_at),
        problem=plan.problem,
    )


def _of_node(kind: ReportKind, update: NodeUpdate, now: float) -> Report:
    return Report(
        kind=kind,
        at=utc(now),
        state=update.state.value,
        code=update.code,
        detail=_deferral(update) or update.detail[:_DETAIL_MAX],
        campaign=update.campaign,
        node=update.node,
        version=update.version,
        attempt=update.attempt,
        confirmed=update.confirmed,
        size=update.size,
        reset_cause=update.reset_cause or None,
    )


def _deferral(update: NodeUpdate) -> str:
    if update.state is State.DEFERRED and update.resume is not State.PENDING:
        return f"{update.detail[:400]} (was {update.resume})"
    return ""
