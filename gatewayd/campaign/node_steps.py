"""What happens to one node next: started, held, installed, proven, given up, or called off. PURE.

`step` is called for every node of a campaign in every round, in the order of their tiers. What time or policy moves is moved
here; what radios and nodes tell has been written by the journal before.
"""

from collections.abc import Mapping
from dataclasses import replace

from gatewayd.campaign.least_air import shared_choices
from gatewayd.campaign.moves import noticed, noticed_late
from gatewayd.campaign.node_update import COMMITTED, Input, NodeUpdate, State, advance
from gatewayd.campaign.payloads import full_image, transfer_id
from gatewayd.campaign.policy import Deferral, good_link, may_touch, opening, right_hour
from gatewayd.campaign.retries import LOST, is_asked, pause_s, payload_in, will_retry
from gatewayd.campaign.rows import CampaignRow, CampaignState
from gatewayd.campaign.selection import Skip, barred, choose, is_meant
from gatewayd.campaign.situation import Situation
from gatewayd.campaign.tiers import Tiers
from gatewayd.cloud.messages import Payload, StageBy
from gatewayd.nodes.node import Node
from gatewayd.trust.release import VerifiedRelease
from radios.radio import Want, radio_of

INSTALLING_MAX_S = 3 * 86400.0  # radios give up sooner; this is for one that lost its memory
LISTENING_S = 86400.0  # so long after a start nobody is given up: a gateway that was off has heard nothing
DROP_MAX_S = 86400.0  # a drop that a radio cannot finish does not keep the node from other campaigns for ever
UNKNOWN_SELF_TEST_S = 86400.0  # of a release that was withdrawn: the longest that there can be
CLOCK_CORRECTION_S = 30.0  # so far back a time server may set a clock that ran fast
CLOCKS_AGREE_S = 1.0  # a time is given to a radio whose clock is the wall's, and not (yet) another one
RESET_TOLD_S = 600.0  # so long after a rollback what a node tells of its reset takes the place of what it told before
RESET_FIRST_TOLD_S = 86400.0  # one that speaks seldom tells it with its first reading that comes through
_REVIVABLE = frozenset({"expired", "not_selected"})  # ends that a later revision can take back
_HELD = frozenset({CampaignState.PAUSED, CampaignState.HELD, CampaignState.BREACHED})


class Round:
    """One look at all nodes of a campaign: what they share, and what `step` gathers."""

    def __init__(self, it: Situation, row: CampaignRow, tiers: Tiers, updates: Mapping[str, NodeUpdate]) -> None:
        self.it = it
        self.row = row
        self.tiers = tiers
        self.local = it.local
        self.opening = 0.0 if it.local is None else opening(it.campaign.policy, it.now, it.site.zone)
        self.shared = shared_choices(it, updates, row.open_tiers)  # payloads of nodes that share the air
        self.slots = _free_slots(it, updates)  # how many more nodes may start, by kind of radio
        self.superseded: list[NodeUpdate] = []  # updates of other campaigns that this one ends


def placed(it: Situation, update: NodeUpdate, tiers: Tiers) -> NodeUpdate:
    """The update as this revision sees it: its tiers may be others than those that it was made in."""
    node = it.nodes.get(update.node)
    tier = tiers.of(update.node, None if node is None else node.tags)
    if tier is None:
        tier = len(it.campaign.rollout.tiers) - 1
    if it.dates_believed and update.since - it.now > CLOCK_CORRECTION_S:
        # Written while the clock was ahead: what waits since then begins now, and not in years.
        update = replace(update, since=it.now)
    # An outcome keeps the revision in which it came: only a later one can ask to try it anew. An updated node may still roll back.
    keeps = update.ended and update.state is not State.UPDATED
    revision = update.revision if keeps else it.campaign.revision
    same = (tier, revision) == (update.tier, update.revision)
    return update if same else replace(update, tier=tier, revision=revision)


def newcomers(it: Situation, release: VerifiedRelease, tiers: Tiers) -> list[NodeUpdate]:
    """Nodes that this revision means and that have no update, or one that was called off and may start afresh."""
    payload = full_image(release)
    found = []
    for node in it.nodes.values():
        old = it.updates.get(node.id)
        if old is not None and not _may_begin_anew(it, old):
            continue
        tier = tiers.of(node.id, node.tags)
        if tier is None or not is_meant(node, it.campaign.selection, release):
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
            first_attempt=attempt,
            revision=it.campaign.revision,
            generation=0 if old is None else old.generation,
            version_before=node.version,
            version=node.version,
            size=payload.size,
            since=it.now,
            radio_since=it.radio_now.get(node.radio, it.now),
        )
        found.append(update)
    return found


def step(this: Round, update: NodeUpdate) -> NodeUpdate:
    """One node's next row: its state where time or policy moves it, and what is wanted of its radio."""
    it, row = this.it, this.row
    if (seen := _seen_later(it, update)) is not None:
        began = update.effective is State.PENDING
        update = replace(_moved(it, update, seen), version=it.nodes[update.node].version)
        update = _drop(update) if began else update  # there is nothing to deliver to it any more
    if update.state is State.CONFIRMING:
        return _confirming(it, update)
    if update.state is State.INSTALLING and _is_overdue(it, update):
        return _drop(_moved(it, update, Input.FAIL, LOST, "nothing was heard of the installation"))
    if update.state in COMMITTED:
        # One that was let go meanwhile (see `_rivalry`) is not told again: it has started the image, or another campaign has it.
        return update if update.want in ("", Want.DROP) else _wanting(update, Want.INSTALL, update.install_at)
    if update.ended:
        return _after_the_end(it, row, _with_reset_cause(it, noticed_late(it, update)))
    if row.state is CampaignState.CANCELLED:
        return _drop(_moved(it, update, Input.CANCEL))
    # One that its radio lets begin no more is being set up and has nothing of the image yet.
    if update.effective is State.PENDING or (update.state is State.PREPARING and update.code == "expired"):
        if row.state is CampaignState.EXPIRED:
            return _drop(_moved(it, update, Input.CANCEL, "expired", row.detail))
        node = it.nodes.get(update.node)
        if node is not None and it.release is not None and not _is_selected(this, node, it.release):
            return _drop(_moved(it, update, Input.CANCEL, "not_selected", "a later revision does not mean the node"))
    if row.state in _HELD or it.forbidden:
        return _hold(update)
    if update.want and (payload := payload_in(it, update)) is not None:
        if payload.sha256 in it.refused:
            return _drop(_moved(it, update, Input.FAIL, "delta_refused", f"payload {payload.sha256} may not go on air"))
        if payload.sha256 in it.doubted:
            return _hold(update)
    return _unheld(this, update)


def _is_selected(this: Round, node: Node, release: VerifiedRelease) -> bool:
    if node.hardware is None and this.it.campaign.selection.nodes is None:
        return True  # it has not told its hardware (again, after a crash): it may be meant, and waits
    return is_meant(node, this.it.campaign.selection, release) and this.tiers.of(node.id, node.tags) is not None


def _may_begin_anew(it: Situation, old: NodeUpdate) -> bool:
    """Whether what was called off may start afresh, in a row of its own."""
    if old.want:
        return False  # the radio has not dropped it yet
    if old.state is State.CANCELLED:
        return old.code in _REVIVABLE
    return old.state is State.SKIPPED and is_asked(it, old)


def _confirming(it: Situation, update: NodeUpdate) -> NodeUpdate:
    """Updated only once the node has run the new version for the release's self-test time."""
    self_test_s = UNKNOWN_SELF_TEST_S if it.release is None else it.release.document.self_test_s
    node = it.nodes.get(update.node)
    gone = node is not None and node.joined is False
    if _radio_now(it, update) - update.radio_since >= self_test_s and not gone:
        return _drop(_moved(it, update, Input.PROVEN))
    if gone and _is_overdue(it, update):
        return _drop(
            _moved(it, update, Input.FAIL, LOST, "the node has left the network since it runs the new version")
        )
    return update if update.want in ("", Want.DROP) else _wanting(update, Want.INSTALL, update.install_at)


def _is_overdue(it: Situation, update: NodeUpdate) -> bool:
    """Whether a node past recall would have been heard by now, by a gateway that was there to hear it."""
    now = _radio_now(it, update)
    listening = now - it.listens_since.get(radio_of(update.node), 0.0) >= LISTENING_S
    return listening and now - update.radio_since >= INSTALLING_MAX_S


def _seen_later(it: Situation, update: NodeUpdate) -> Input | None:
    """What an observation says that the radio's session, which may be over, did not."""
    node = it.nodes.get(update.node)
    if node is None or node.version is None or node.version_at is None or node.version_at <= update.radio_since:
        return None
    given_up = update.state in (State.FAILED, State.ROLLED_BACK)
    if given_up and node.version == update.target_version and update.confirmed >= update.size:
        return Input.NEW_VERSION  # given up as lost, then back; or late with what it had begun
    if update.effective is State.PENDING and update.installing_at and node.version == update.target_version:
        return Input.NEW_VERSION  # the installation that was given up has come through after all
    if update.state in (State.CONFIRMING, State.UPDATED) and it.versions.newer(
        node.hardware, update.target_version, node.version
    ):
        # After the expiry others may have brought an updated node back; one that confirms is still ours.
        return None if it.past_expiry and update.state is State.UPDATED else Input.OLD_VERSION
    return None


def _with_reset_cause(it: Situation, update: NodeUpdate) -> NodeUpdate:
    """A rollback with the cause of the node's reset, told after the installation began.

    Soon after the rollback the last telling counts (the first may still be of the restart into the new image), later
    only the first: what comes after that may be of any other reset.
    """
    node = it.nodes.get(update.node)
    if update.state is not State.ROLLED_BACK or node is None or node.reset_cause is None or node.reset_cause_at is None:
        return update
    limit_s = RESET_TOLD_S if update.reset_cause else RESET_FIRST_TOLD_S
    if not 0 < update.installing_at <= node.reset_cause_at <= update.radio_since + limit_s:
        return update
    return replace(update, reset_cause=node.reset_cause)


def _after_the_end(it: Situation, row: CampaignRow, update: NodeUpdate) -> NodeUpdate:
    if update.want:
        if update.want == Want.DROP and _radio_now(it, update) - update.radio_since >= DROP_MAX_S:
            return replace(update, want="")
        return _wanting(update, Want.DROP)
    if row.state is not CampaignState.RUNNING or it.release is None or not will_retry(it, update):
        return update
    if update.state is State.SKIPPED or it.now - update.since < pause_s(it, update):
        return update
    again = _moved(it, update, Input.RETRY)
    if is_asked(it, update):
        again = replace(again, first_attempt=again.attempt)  # the limit counts anew
    return _aimed(replace(again, revision=it.campaign.revision), full_image(it.release))


def _unheld(this: Round, update: NodeUpdate) -> NodeUpdate:
    it, row = this.it, this.row
    radio = radio_of(update.node)
    stage_by = it.campaign.rollout.stage_by or (StageBy.TRANSFER if radio == "zigbee" else StageBy.INSTALL)
    # A revision that closes a tier again keeps nodes from starting there; those under way go on.
    tier_open = update.tier < row.open_tiers or (stage_by is StageBy.TRANSFER and update.want != "")
    if not tier_open and stage_by is StageBy.TRANSFER:
        return update
    policy = it.campaign.policy
    hour = right_hour(policy, update.effective, this.local)
    install_at = 0.0
    if hour is not None and hour.code == "outside_window" and abs(_radio_now(it, update) - it.now) <= CLOCKS_AGREE_S:
        install_at = this.opening
        hour = None if install_at else hour
    node = it.nodes.get(update.node)
    why: Deferral | Skip | None
    if node is None:
        why = Deferral("unknown_node", "this gateway has not heard of the node")
    else:
        looked = noticed(it, update)
        if isinstance(looked, NodeUpdate):
            update = looked
        # Who has not begun begins later; only who is under way has to be held, and told of.
        why = may_touch(node, policy, _radio_now(it, update)) or (hour if update.want else None)
        if (update.effective is State.PENDING or not update.want) and it.release is not None:
            choice = choose(node, it.release, it.manufacturers, update.attempt, it.unusable, it.versions)
            # What can never be is said first; a battery may be charged, a wrong hardware stays wrong.
            why = choice if isinstance(choice, Skip) else why or (choice if isinstance(choice, Deferral) else None)
            if isinstance(choice, Payload) and not update.want:
                choice = this.shared.get(node.id, choice)
                update = _aimed(update, choice) if update.effective is State.PENDING else update
                why = why or good_link(node, policy, update.code)
                if row.state is CampaignState.RUNNING:  # who cannot start takes no node from others
                    why = why or _rivalry(this, update)
        elif it.release is not None:
            why = barred(node, it.release, it.manufacturers) or why
        if isinstance(looked, Skip) and not isinstance(why, Skip):
            why = looked
    if isinstance(why, Skip):
        return _drop(_moved(it, update, Input.SKIP, why.code, why.detail))
    if why is not None:
        if update.state is State.DEFERRED and (update.code, update.detail) == (why.code, why.detail):
            return _hold(update)
        return _hold(_moved(it, update, Input.DEFER, why.code, why.detail))
    if update.state is State.DEFERRED:
        update = _moved(it, update, Input.RESUME)
    # Whatever is known of it: whom no radio has been told of, or who was held before anything happened, starts here.
    if not update.want or (update.state is State.PENDING and update.want == Want.HOLD):
        if row.state is not CampaignState.RUNNING or hour is not None or this.slots.get(radio, 1) <= 0:
            return update
        this.slots[radio] = this.slots.get(radio, 1) - 1
        if node is not None and node.version != update.version_before:
            update = replace(update, version_before=node.version)
        return _wanting(update, Want.DELIVER)
    # What was verified and started may finish while trust or clock only keep new things from starting.
    if update.state is State.READY and tier_open and it.release is not None:
        if not install_at and update.install_at <= it.now:
            install_at = update.install_at  # which has come: nothing else is wanted than before
        return _wanting(update, Want.INSTALL, install_at)
    return _wanting(update, Want.DELIVER)


def _rivalry(this: Round, update: NodeUpdate) -> Deferral | None:
    """A node has one transfer at a time: the newer version wins, unless the other is past recall."""
    it = this.it
    other = it.elsewhere.get(update.node)
    if other is None:
        return None
    node = it.nodes.get(update.node)
    hardware = None if node is None else node.hardware
    newer = it.versions.newer(hardware, update.target_version, other.target_version)
    if other.campaign in it.yielding:
        # A frozen one (revoked) sees to nobody any more: it gives nobody up, and frees nobody.
        if other.ended and _radio_now(it, other) - other.radio_since >= DROP_MAX_S:
            return None
        if other.state in COMMITTED and other.want != Want.DROP and _is_overdue(it, other):
            this.superseded.append(_drop(other))
        newer = not it.versions.newer(hardware, other.target_version, update.target_version)
    if newer and not other.ended and other.state not in COMMITTED:
        ended = _moved(it, other, Input.SUPERSEDE, detail=f"by campaign {update.campaign}")
        this.superseded.append(_drop(ended))
    return Deferral("busy", f"campaign {other.campaign} has the node")


def _aimed(update: NodeUpdate, payload: Payload) -> NodeUpdate:
    """The update with what it delivers; only for one that no radio knows yet."""
    transfer = transfer_id(update.campaign, payload, update.attempt)
    same = (transfer, payload.size) == (update.transfer, update.size)
    return update if same else replace(update, transfer=transfer, size=payload.size)


def _moved(it: Situation, update: NodeUpdate, what: Input, code: str = "", detail: str = "") -> NodeUpdate:
    return advance(update, what, now=it.now, radio_now=_radio_now(it, update), code=code, detail=detail)


def _radio_now(it: Situation, update: NodeUpdate) -> float:
    return it.radio_now.get(radio_of(update.node), it.now)


def _free_slots(it: Situation, updates: Mapping[str, NodeUpdate]) -> dict[str, int]:
    """How many more nodes may start, by kind of radio."""
    limit = it.campaign.policy.concurrency
    if limit is None:
        return {kind: len(updates) for kind in it.radio_now}
    busy: dict[str, int] = dict.fromkeys(it.radio_now, 0)
    for update in updates.values():
        # One that is held, deferred or silent takes nobody's place.
        active = update.want in (Want.DELIVER, Want.INSTALL) and not update.ended
        active &= (update.state, update.want) != (State.READY, Want.DELIVER)  # it has its image, and waits for its tier
        if active and (not update.code or update.state in COMMITTED):
            kind = radio_of(update.node)
            busy[kind] = busy.get(kind, 0) + 1
    return {kind: limit - count for kind, count in busy.items()}


def _wanting(update: NodeUpdate, want: Want, install_at: float = 0.0) -> NodeUpdate:
    """A changed want is a new generation; the same one changes nothing."""
    if (update.want, update.install_at) == (want, install_at):
        return update
    return replace(update, want=want.value, install_at=install_at, generation=update.generation + 1)


def _hold(update: NodeUpdate) -> NodeUpdate:
    # A radio that was never told of the node need not be told to hold it.
    return _wanting(update, Want.HOLD) if update.want else update


def _drop(update: NodeUpdate) -> NodeUpdate:
    return _wanting(update, Want.DROP) if update.want else update
