"""What a campaign does next, from all that is known. PURE.

`decide` is called with everything it may look at and gives the rows to store and the wishes to hand to the radios; it is
called again whenever something changed, so it only ever looks at the present. The most restrictive of the cloud's desired
state, the local operator's hold and the gate wins.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from gatewayd.campaign.node_update import COMMITTED, EXECUTED, Input, NodeUpdate, State, advance
from gatewayd.campaign.payloads import full_image, payload_of, transfer_id
from gatewayd.campaign.policy import Deferral, may_touch
from gatewayd.campaign.rows import CampaignRow, CampaignState
from gatewayd.campaign.selection import Skip, choose, is_meant
from gatewayd.campaign.tiers import GateResult, Tiers, Verdict, judge
from gatewayd.cloud.messages import Campaign, Desired, Manufacturers, Payload, StageBy
from gatewayd.nodes.node import Node
from gatewayd.trust.release import VerifiedRelease
from radios.radio import Want, radio_of

# Failures that another attempt cannot mend: the image or the node is wrong for the other.
FINAL_FAILURES = frozenset({"invalid_image", "wrong_hardware", "unsupported", "no_space"})
INSTALLING_MAX_S = 3 * 86400.0  # radios give up sooner; this is for one that lost its memory
DROP_MAX_S = 86400.0  # a drop that a radio cannot finish does not keep the node from other campaigns for ever
UNKNOWN_SELF_TEST_S = 86400.0  # of a release that was withdrawn: the longest that there can be
DETAIL_EVERY_S = 60.0  # how often a mere change of words is worth a write
_REVIVABLE = frozenset({"expired", "not_selected"})  # ends that a later revision can take back
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
    yielding: frozenset[str] = frozenset()  # other campaigns that may start nothing any more (expired, revoked)
    unusable: frozenset[str] = frozenset()  # digests of deltas that cannot be had
    refused: frozenset[str] = frozenset()  # digests of deltas that may not be had: what runs with them ends


@dataclass(frozen=True, slots=True)
class Decision:
    """`updates` are those that changed; `superseded` are updates of other campaigns that this one ends."""

    row: CampaignRow
    updates: tuple[NodeUpdate, ...]
    superseded: tuple[NodeUpdate, ...]
    proven: tuple[str, ...]  # nodes whose security floor rises to the release's


def decide(it: Situation) -> Decision:
    """The next rows. Deterministic, and without effect when nothing changed."""
    tiers = Tiers(it.campaign.id, it.campaign.rollout)
    updates = {node: _placed(it, update, tiers) for node, update in it.updates.items()}
    if it.release is not None and it.campaign.desired is not Desired.CANCELLED and not _expired(it):
        for update in _newcomers(it, it.release, tiers):
            updates[update.node] = update
    gate, open_tiers = _gate(it, updates)
    row = _row(it, *_campaign_state(it, updates, gate, open_tiers), gate, open_tiers)

    superseded: list[NodeUpdate] = []
    proven: list[str] = []
    slots = _free_slots(it, updates)
    for node in sorted(updates, key=lambda n: (updates[n].tier, n)):
        before = updates[node]
        after = _step(it, row, before, tiers, slots, superseded)
        # Only what this system delivered raises the floor; a bare claim of a node does not.
        if after.state is State.UPDATED and before.state is not State.UPDATED and after.confirmed >= after.size:
            proven.append(node)
        updates[node] = after
    changed = tuple(u for n, u in sorted(updates.items()) if u != it.updates.get(n))
    if row.state is CampaignState.RUNNING and _settled(it, updates, open_tiers):
        row = replace(row, state=CampaignState.COMPLETED, code="", detail="")
    return Decision(row, changed, tuple(superseded), tuple(proven))


def wishes(updates: Mapping[str, NodeUpdate]) -> list[NodeUpdate]:
    """The updates whose want a radio has to know."""
    return [u for u in updates.values() if u.want]


# -- the campaign ------------------------------------------------------------------------------------------------------


def _row(it: Situation, state: CampaignState, code: str, detail: str, gate: GateResult, open_tiers: int) -> CampaignRow:
    before = it.row
    unchanged = (before.state, before.code) == (state, code) == (CampaignState.WAITING, code)
    if unchanged and 0 <= it.now - before.updated_at < DETAIL_EVERY_S:
        detail = before.detail  # some name the time of day, and would be written every second
    return replace(before, state=state, code=code, detail=detail, gate=gate.verdict.value, open_tiers=open_tiers)


def _campaign_state(
    it: Situation, updates: Mapping[str, NodeUpdate], gate: GateResult, open_tiers: int
) -> tuple[CampaignState, str, str]:
    if it.campaign.desired is Desired.CANCELLED:
        return CampaignState.CANCELLED, "", ""
    if gate.verdict is Verdict.BREACH or (it.row.state is CampaignState.BREACHED and it.row.code == "gate"):
        return CampaignState.BREACHED, "gate", gate.detail if gate.verdict is Verdict.BREACH else it.row.detail
    if it.row.state is CampaignState.COMPLETED and _settled(it, updates, open_tiers):
        return CampaignState.COMPLETED, "", ""  # what keeps others from starting does not concern it
    if it.campaign.desired is Desired.PAUSED:
        return CampaignState.PAUSED, "", ""
    if it.row.hold:
        return CampaignState.HELD, "", ""
    if _expired(it):
        return CampaignState.EXPIRED, "expired", f"expired at {it.campaign.expires.isoformat()}"
    if it.blocked is not None:
        return CampaignState.WAITING, *it.blocked
    if it.release is None:
        return CampaignState.WAITING, "release_unknown", it.campaign.release
    return CampaignState.RUNNING, "", gate.detail


def _gate(it: Situation, updates: Mapping[str, NodeUpdate]) -> tuple[GateResult, int]:
    rollout = it.campaign.rollout
    # A local gate that says `needs_cloud` is opened by the next revision's `open_tiers`.
    open_tiers = min(max(it.row.open_tiers, rollout.open_tiers), len(rollout.tiers))
    if rollout.gate.kind == "cloud":
        open_tiers = min(rollout.open_tiers, len(rollout.tiers))
    states: list[dict[State, int]] = [{} for _ in rollout.tiers]
    last = 0.0
    for update in updates.values():
        # A failure that will be tried again is no outcome yet.
        state = State.PENDING if _may_retry(it, update) else update.state
        tier = update.tier
        if state in EXECUTED:
            # What has happened counts, also where a later revision has closed the tier again.
            tier = min(tier, open_tiers - 1)
            last = max(last, update.since)
        states[tier][state] = states[tier].get(state, 0) + 1
    result = judge(rollout, open_tiers, states, last, it.now)
    if result.verdict is Verdict.OPEN and it.row.state is CampaignState.RUNNING:
        open_tiers += 1
        result = judge(rollout, open_tiers, states, last, it.now)
    return result, open_tiers


def _settled(it: Situation, updates: Mapping[str, NodeUpdate], open_tiers: int) -> bool:
    """Whether every node has its outcome, and no tier waits."""
    if open_tiers < len(it.campaign.rollout.tiers) or not updates:
        return False
    return all(u.ended and not _may_retry(it, u) and u.code != "expired" for u in updates.values())


def _expired(it: Situation) -> bool:
    """By a clock that can be believed: a leap into the future ends nothing."""
    return _past_expiry(it) and (it.blocked is None or it.blocked[0] != "clock_untrusted")


def _past_expiry(it: Situation) -> bool:
    return it.now > it.campaign.expires.timestamp()


# -- the nodes ---------------------------------------------------------------------------------------------------------


def _placed(it: Situation, update: NodeUpdate, tiers: Tiers) -> NodeUpdate:
    """The update in the tiers of this revision, which may be others than those that it was made in."""
    tier = tiers.of(update.node)
    if tier is None:
        tier = len(it.campaign.rollout.tiers) - 1
    return update if tier == update.tier else replace(update, tier=tier)


def _is_selected(it: Situation, node: Node, release: VerifiedRelease, tiers: Tiers) -> bool:
    return is_meant(node, it.campaign.selection, release) and tiers.of(node.id) is not None


def _newcomers(it: Situation, release: VerifiedRelease, tiers: Tiers) -> list[NodeUpdate]:
    """Nodes that this revision means and that have no update, or one that was called off and may start afresh."""
    payload = full_image(release)
    found = []
    for node in it.nodes.values():
        old = it.updates.get(node.id)
        if old is not None and (old.state is not State.CANCELLED or old.code not in _REVIVABLE or old.want):
            continue
        if not is_meant(node, it.campaign.selection, release) or (tier := tiers.of(node.id)) is None:
            continue
        attempt = 1 if old is None else old.attempt + 1
        update = NodeUpdate(
            campaign=it.campaign.id,
            node=node.id,
            release=it.campaign.release,
            transfer=transfer_id(it.campaign.id, payload, attempt),  # until it starts, see `_aimed`
            tier=tier,
            target_version=release.document.node_version,
            attempt=attempt,
            generation=0 if old is None else old.generation,
            version_before=node.version,
            version=node.version,
            size=payload.size,
            since=it.now,
            radio_since=it.radio_now.get(node.radio, it.now),
        )
        found.append(update)
    return found


def _step(
    it: Situation,
    row: CampaignRow,
    update: NodeUpdate,
    tiers: Tiers,
    slots: dict[str, int],
    superseded: list[NodeUpdate],
) -> NodeUpdate:
    """One node's next row: its state where time or policy moves it, and what is wanted of its radio."""
    radio_now = it.radio_now.get(radio_of(update.node), it.now)

    def moved(to: NodeUpdate, what: Input, code: str = "", detail: str = "") -> NodeUpdate:
        return advance(to, what, now=it.now, radio_now=radio_now, code=code, detail=detail)

    if (seen := _seen_later(it, update)) is not None:
        update = replace(moved(update, seen), version=it.nodes[update.node].version)
    if update.state is State.CONFIRMING:
        self_test_s = UNKNOWN_SELF_TEST_S if it.release is None else it.release.document.self_test_s
        node = it.nodes.get(update.node)
        if radio_now - update.radio_since >= self_test_s and not (node and node.joined is False):
            update = moved(update, Input.PROVEN)
            return _drop(update)
        return update if update.want in ("", Want.DROP) else _wanting(update, Want.INSTALL)
    if update.state is State.INSTALLING and radio_now - update.radio_since >= INSTALLING_MAX_S:
        return _drop(moved(update, Input.FAIL, "lost", "nothing was heard of the installation"))
    if update.state in COMMITTED:
        return _wanting(update, Want.INSTALL)
    if update.ended:
        return _after_the_end(it, row, update, radio_now)
    if row.state is CampaignState.CANCELLED:
        return _drop(moved(update, Input.CANCEL))
    if update.effective is State.PENDING:
        if row.state is CampaignState.EXPIRED:
            return _drop(moved(update, Input.CANCEL, "expired", row.detail))
        node = it.nodes.get(update.node)
        if node is not None and it.release is not None and not _is_selected(it, node, it.release, tiers):
            return _drop(moved(update, Input.CANCEL, "not_selected", "a later revision does not mean the node"))
    if row.state in _HELD or it.forbidden:
        return _hold(update)
    if update.want and (payload := _payload(it, update)) is not None and payload.sha256 in it.refused:
        return _drop(moved(update, Input.FAIL, "delta_refused", f"payload {payload.sha256} may not go on air"))
    return _unheld(it, row, update, slots, superseded)


def _seen_later(it: Situation, update: NodeUpdate) -> Input | None:
    """What an observation says that the radio's session, which may be over, did not."""
    node = it.nodes.get(update.node)
    if node is None or node.version is None or node.version_at is None or node.version_at <= update.radio_since:
        return None
    given_up = update.state in (State.FAILED, State.ROLLED_BACK)
    if given_up and node.version == update.target_version and update.confirmed >= update.size:
        return Input.NEW_VERSION  # given up as lost, then back; or late with what it had begun
    if update.state in (State.CONFIRMING, State.UPDATED) and node.version < update.target_version:
        return None if _past_expiry(it) else Input.OLD_VERSION
    return None


def _after_the_end(it: Situation, row: CampaignRow, update: NodeUpdate, radio_now: float) -> NodeUpdate:
    if update.want:
        if update.want == Want.DROP and radio_now - update.radio_since >= DROP_MAX_S:
            return replace(update, want="")
        return _wanting(update, Want.DROP)
    if not _may_retry(it, update) or row.state is not CampaignState.RUNNING or it.release is None:
        return update
    if it.now - update.since < it.campaign.policy.retry_after_s and not _by_delta(it, update):
        return update
    return _aimed(advance(update, Input.RETRY, now=it.now, radio_now=radio_now), full_image(it.release))


def _unheld(
    it: Situation, row: CampaignRow, update: NodeUpdate, slots: dict[str, int], superseded: list[NodeUpdate]
) -> NodeUpdate:
    node = it.nodes.get(update.node)
    radio = radio_of(update.node)
    radio_now = it.radio_now.get(radio, it.now)
    stage_by = it.campaign.rollout.stage_by or (StageBy.TRANSFER if radio == "zigbee" else StageBy.INSTALL)
    # A revision that closes a tier again keeps nodes from starting there; those under way go on.
    tier_open = update.tier < row.open_tiers or (stage_by is StageBy.TRANSFER and update.want != "")

    def moved(what: Input, code: str = "", detail: str = "") -> NodeUpdate:
        return advance(update, what, now=it.now, radio_now=radio_now, code=code, detail=detail)

    if not tier_open and stage_by is StageBy.TRANSFER:
        return update
    if node is None:
        why: Deferral | Skip | None = Deferral("unknown_node", "this gateway has not heard of the node")
    else:
        why = may_touch(node, it.campaign.policy, radio_now)
        if update.effective is State.PENDING and it.release is not None:
            choice = choose(node, it.release, it.manufacturers, update.attempt, it.unusable)
            # What can never be is said first; a battery may be charged, a wrong hardware stays wrong.
            why = choice if isinstance(choice, Skip) else why or (choice if isinstance(choice, Deferral) else None)
            if isinstance(choice, Skip):
                return moved(Input.SKIP, choice.code, choice.detail)
            if isinstance(choice, Payload) and not update.want:
                update = _aimed(update, choice)
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
    newer = other.target_version < update.target_version
    if other.campaign in it.yielding:
        newer = other.target_version <= update.target_version
    if newer and not other.ended and other.state not in COMMITTED:
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
    # A delta that failed says nothing of the node: the full image is tried, whatever else the policy allows.
    again = update.attempt < it.campaign.policy.max_attempts and update.code not in FINAL_FAILURES
    return (
        update.state is State.FAILED
        and (again or _by_delta(it, update))
        and it.campaign.desired is not Desired.CANCELLED
        and not _expired(it)
    )


def _payload(it: Situation, update: NodeUpdate) -> Payload | None:
    return None if it.release is None else payload_of(update.transfer, it.release)


def _by_delta(it: Situation, update: NodeUpdate) -> bool:
    payload = _payload(it, update)
    return payload is not None and payload.kind == "delta"


def _aimed(update: NodeUpdate, payload: Payload) -> NodeUpdate:
    """The update with what it delivers; only for one that no radio knows yet."""
    return replace(update, transfer=transfer_id(update.campaign, payload, update.attempt), size=payload.size)


def _free_slots(it: Situation, updates: Mapping[str, NodeUpdate]) -> dict[str, int]:
    """How many more nodes may start, by kind of radio."""
    limit = it.campaign.policy.concurrency
    if limit is None:
        return {kind: len(updates) for kind in it.radio_now}
    busy: dict[str, int] = dict.fromkeys(it.radio_now, 0)
    for update in updates.values():
        # One that is held, deferred or silent takes nobody's place.
        active = update.want in (Want.DELIVER, Want.INSTALL) and not update.ended
        if active and (not update.code or update.state in COMMITTED):
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
