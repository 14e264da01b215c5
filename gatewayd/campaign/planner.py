"""What a campaign does next, from all that is known. PURE.

`decide` is called with everything it may look at and gives the rows to store and the wishes to hand to the radios; it is
called again whenever something changed, so it only ever looks at the present. The most restrictive of the cloud's desired
state, the local operator's hold and the gate wins.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from gatewayd.campaign.node_update import COMMITTED, ENDED, EXECUTED, STARTED, Input, NodeUpdate, State, advance
from gatewayd.campaign.policy import Deferral, may_touch
from gatewayd.campaign.rows import CampaignRow, CampaignState
from gatewayd.campaign.selection import Skip, choose, full_image, is_meant
from gatewayd.campaign.tiers import GateResult, Verdict, judge, tier_of
from gatewayd.cloud.messages import Campaign, Desired, Manufacturers, StageBy
from gatewayd.nodes.node import Node
from gatewayd.trust.release import VerifiedRelease
from radios.radio import Want, radio_of

# Failures that another attempt cannot mend: the image or the node is wrong for the other.
FINAL_FAILURES = frozenset({"invalid_image", "wrong_hardware", "unsupported", "no_space"})
_HELD = frozenset({CampaignState.PAUSED, CampaignState.HELD, CampaignState.BREACHED})


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


@dataclass(frozen=True, slots=True)
class Decision:
    """`updates` are those that changed; `superseded` are updates of other campaigns that this one ends."""

    row: CampaignRow
    updates: tuple[NodeUpdate, ...]
    superseded: tuple[NodeUpdate, ...]
    proven: tuple[str, ...]  # nodes whose security floor rises to the release's


def decide(it: Situation) -> Decision:
    """The next rows. Deterministic, and without effect when nothing changed."""
    updates = dict(it.updates)
    if it.release is not None and it.campaign.desired is not Desired.CANCELLED and it.now <= _expires(it):
        for update in _newcomers(it, it.release):
            updates[update.node] = update
    gate, open_tiers = _gate(it, updates)
    state, code, detail = _campaign_state(it, updates, gate)
    row = replace(it.row, state=state, code=code, detail=detail, gate=gate.verdict.value, open_tiers=open_tiers)

    superseded: list[NodeUpdate] = []
    proven: list[str] = []
    slots = _free_slots(it, updates)
    for node in sorted(updates, key=lambda n: (updates[n].tier, n)):
        before = updates[node]
        after = _step(it, row, before, slots, superseded)
        if after.state is State.UPDATED and before.state is not State.UPDATED:
            proven.append(node)
        updates[node] = after
    changed = tuple(u for n, u in sorted(updates.items()) if u != it.updates.get(n))
    if (
        state is CampaignState.RUNNING
        and row.open_tiers >= len(it.campaign.rollout.tiers)
        and _all_settled(it, updates)
    ):
        row = replace(row, state=CampaignState.COMPLETED, code="", detail="")
    return Decision(row, changed, tuple(superseded), tuple(proven))


def wishes(updates: Mapping[str, NodeUpdate]) -> list[NodeUpdate]:
    """The updates whose want a radio has to know."""
    return [u for u in updates.values() if u.want]


# -- the campaign ------------------------------------------------------------------------------------------------------


def _campaign_state(
    it: Situation, updates: Mapping[str, NodeUpdate], gate: GateResult
) -> tuple[CampaignState, str, str]:
    if it.campaign.desired is Desired.CANCELLED:
        return CampaignState.CANCELLED, "", ""
    if gate.verdict is Verdict.BREACH or (it.row.state is CampaignState.BREACHED and it.row.code == "gate"):
        return CampaignState.BREACHED, "gate", gate.detail if gate.verdict is Verdict.BREACH else it.row.detail
    if it.campaign.desired is Desired.PAUSED:
        return CampaignState.PAUSED, "", ""
    if it.row.hold:
        return CampaignState.HELD, "", ""
    if it.now > _expires(it):
        return CampaignState.EXPIRED, "expired", f"expired at {it.campaign.expires.isoformat()}"
    if it.blocked is not None:
        return CampaignState.WAITING, *it.blocked
    if it.release is None:
        return CampaignState.WAITING, "release_unknown", it.campaign.release
    return CampaignState.RUNNING, "", gate.detail


def _gate(it: Situation, updates: Mapping[str, NodeUpdate]) -> tuple[GateResult, int]:
    rollout = it.campaign.rollout
    open_tiers = min(it.row.open_tiers, len(rollout.tiers))
    if rollout.gate.kind == "cloud":
        open_tiers = min(rollout.open_tiers, len(rollout.tiers))
    states: list[dict[State, int]] = [{} for _ in rollout.tiers]
    last = 0.0
    for update in updates.values():
        # A failure that will be tried again is no outcome yet.
        state = State.PENDING if _may_retry(it, update) else update.state
        states[update.tier][state] = states[update.tier].get(state, 0) + 1
        if update.state in EXECUTED and update.tier < open_tiers:
            last = max(last, update.since)
    result = judge(rollout, open_tiers, states, last, it.now)
    if result.verdict is Verdict.OPEN and it.row.state is CampaignState.RUNNING:
        open_tiers += 1
        result = judge(rollout, open_tiers, states, last, it.now)
    return result, open_tiers


def _all_settled(it: Situation, updates: Mapping[str, NodeUpdate]) -> bool:
    return all(u.state in ENDED and not _may_retry(it, u) for u in updates.values()) and bool(updates)


def _expires(it: Situation) -> float:
    return it.campaign.expires.timestamp()


# -- the nodes ---------------------------------------------------------------------------------------------------------


def _newcomers(it: Situation, release: VerifiedRelease) -> list[NodeUpdate]:
    payload = full_image(release)
    found = []
    for node in it.nodes.values():
        if node.id in it.updates or not is_meant(node, it.campaign.selection, release):
            continue
        tier = tier_of(it.campaign.id, node.id, it.campaign.rollout)
        if tier is None:
            continue
        update = NodeUpdate(
            campaign=it.campaign.id,
            node=node.id,
            release=it.campaign.release,
            transfer=_transfer(it.campaign.id, payload.sha256, 1),
            tier=tier,
            target_version=release.document.node_version,
            version_before=node.version,
            version=node.version,
            size=payload.size,
            since=it.now,
            radio_since=it.radio_now.get(node.radio, it.now),
        )
        found.append(update)
    return found


def _step(
    it: Situation, row: CampaignRow, update: NodeUpdate, slots: dict[str, int], superseded: list[NodeUpdate]
) -> NodeUpdate:
    """One node's next row: its state where time or policy moves it, and what is wanted of its radio."""
    radio_now = it.radio_now.get(radio_of(update.node), it.now)

    def moved(to: NodeUpdate, what: Input, code: str = "", detail: str = "") -> NodeUpdate:
        return advance(to, what, now=it.now, radio_now=radio_now, code=code, detail=detail)

    if update.state is State.CONFIRMING and it.release is not None:
        if radio_now - update.radio_since >= it.release.document.self_test_s:
            update = moved(update, Input.PROVEN)
        return _wanting(update, Want.DROP if update.ended else Want.INSTALL)
    if update.state in COMMITTED:
        return _wanting(update, Want.INSTALL)
    if update.ended:
        if _may_retry(it, update) and not update.want and row.state is CampaignState.RUNNING:
            if it.now - update.since >= it.campaign.policy.retry_after_s and it.release is not None:
                again = moved(update, Input.RETRY)
                payload = full_image(it.release)
                return replace(again, transfer=_transfer(again.campaign, payload.sha256, again.attempt))
            return update
        return _wanting(update, Want.DROP) if update.want else update
    if row.state is CampaignState.CANCELLED:
        return _drop(moved(update, Input.CANCEL))
    if row.state is CampaignState.EXPIRED and update.effective is State.PENDING:
        return _drop(moved(update, Input.CANCEL, "expired", row.detail))
    if row.state in _HELD or it.forbidden:
        return _hold(update)
    return _unheld(it, row, update, slots, superseded)


def _unheld(
    it: Situation, row: CampaignRow, update: NodeUpdate, slots: dict[str, int], superseded: list[NodeUpdate]
) -> NodeUpdate:
    node = it.nodes.get(update.node)
    radio = radio_of(update.node)
    radio_now = it.radio_now.get(radio, it.now)
    stage_by = it.campaign.rollout.stage_by or (StageBy.TRANSFER if radio == "zigbee" else StageBy.INSTALL)
    tier_open = update.tier < row.open_tiers

    def moved(what: Input, code: str = "", detail: str = "") -> NodeUpdate:
        return advance(update, what, now=it.now, radio_now=radio_now, code=code, detail=detail)

    if not tier_open and stage_by is StageBy.TRANSFER:
        return update
    if node is None:
        why: Deferral | Skip | None = Deferral("unknown_node", "this gateway has not heard of the node")
    else:
        why = may_touch(node, it.campaign.policy, radio_now)
        if update.effective is State.PENDING and it.release is not None:
            choice = choose(node, it.release, it.manufacturers)
            # What can never be is said first; a battery may be charged, a wrong hardware stays wrong.
            why = choice if isinstance(choice, Skip) else why or (choice if isinstance(choice, Deferral) else None)
            if isinstance(choice, Skip):
                return moved(Input.SKIP, choice.code, choice.detail)
            if row.state is CampaignState.RUNNING:  # who cannot start takes no node from others
                why = why or _rivalry(it, update, superseded)
    if isinstance(why, Deferral):
        if update.state is State.DEFERRED and (update.code, update.detail) == (why.code, why.detail):
            return _hold(update)
        return _hold(moved(Input.DEFER, why.code, why.detail))
    if update.state is State.DEFERRED:
        update = moved(Input.RESUME)
    if update.state is State.PENDING and update.want in ("", Want.HOLD):
        if row.state is not CampaignState.RUNNING or slots.get(radio, 1) <= 0:
            return update
        slots[radio] = slots.get(radio, 1) - 1
        return _wanting(replace(update, version_before=node.version if node else None), Want.DELIVER)
    # What was verified and started may finish while trust or clock only keep new things from starting.
    if update.state is State.READY and tier_open and it.release is not None:
        return _wanting(update, Want.INSTALL)
    return _wanting(update, Want.DELIVER)


def _rivalry(it: Situation, update: NodeUpdate, superseded: list[NodeUpdate]) -> Deferral | None:
    """A node has one transfer at a time: the newer version wins, unless the other is past recall."""
    other = it.elsewhere.get(update.node)
    if other is None:
        return None
    if not other.ended and other.state not in COMMITTED and other.target_version < update.target_version:
        ended = advance(
            other,
            Input.SUPERSEDE,
            now=it.now,
            radio_now=it.radio_now.get(radio_of(other.node), it.now),
            detail=f"by campaign {update.campaign}",
        )
        superseded.append(_drop(ended))
    return Deferral("busy", f"campaign {other.campaign} has the node")


def _may_retry(it: Situation, update: NodeUpdate) -> bool:
    return (
        update.state is State.FAILED
        and update.attempt < it.campaign.policy.max_attempts
        and update.code not in FINAL_FAILURES
        and it.campaign.desired is not Desired.CANCELLED
        and it.now <= _expires(it)
    )


def _free_slots(it: Situation, updates: Mapping[str, NodeUpdate]) -> dict[str, int]:
    """How many more nodes may start, by kind of radio."""
    limit = it.campaign.policy.concurrency
    if limit is None:
        return {kind: len(updates) for kind in it.radio_now}
    busy: dict[str, int] = dict.fromkeys(it.radio_now, 0)
    for update in updates.values():
        if update.effective in STARTED or update.state in COMMITTED or update.want == Want.DELIVER:
            kind = radio_of(update.node)
            busy[kind] = busy.get(kind, 0) + 1
    return {kind: limit - count for kind, count in busy.items()}


def _wanting(update: NodeUpdate, want: Want) -> NodeUpdate:
    """A changed want is a new generation; the same one changes nothing."""
    return update if update.want == want else replace(update, want=want.value, generation=update.generation + 1)


def _hold(update: NodeUpdate) -> NodeUpdate:
    # A radio that was never told of the node need not be told to hold it.
    return _wanting(update, Want.HOLD) if update.want else update


def _drop(update: NodeUpdate) -> NodeUpdate:
    return _wanting(update, Want.DROP) if update.want else update


def _transfer(campaign: str, digest: str, attempt: int) -> str:
    """A new attempt is a transfer of its own: a radio may need a fresh session for it."""
    return f"{campaign}.{digest[:12]}.{attempt}"
