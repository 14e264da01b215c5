"""The state of one node in one campaign, and the only ways it can change. PURE.

The table below is the truth: a pair that is not in it raises `UnknownTransition` and changes nothing. `deferred` stands
aside: it remembers the state it interrupts (`resume`), facts from the radio go on moving that one, and lifting the
deferral returns to it.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from gatewayd.errors import Bug
from radios.radio import Want


class State(StrEnum):
    """Stored and reported; never rename."""

    PENDING = "pending"
    PREPARING = "preparing"
    TRANSFERRING = "transferring"
    VERIFYING = "verifying"
    READY = "ready"
    INSTALLING = "installing"
    CONFIRMING = "confirming"
    UPDATED = "updated"
    DEFERRED = "deferred"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"
    SKIPPED = "skipped"


class Input(StrEnum):
    """What can happen to a node update."""

    PREPARE = "prepare"  # the radio sets the node up
    DATA = "data"  # bytes are confirmed on the node
    COMPLETE = "complete"  # the node holds every byte
    READY = "ready"  # the node says that the image is good
    INSTALL = "install"  # the radio is about to tell the node to start it
    NEW_VERSION = "new_version"  # the node reports the release's version
    OLD_VERSION = "old_version"  # the node reports another version
    PROVEN = "proven"  # it has run the new version for the self-test time
    FAIL = "fail"
    RETRY = "retry"
    DEFER = "defer"
    RESUME = "resume"
    CANCEL = "cancel"
    SUPERSEDE = "supersede"
    SKIP = "skip"


ENDED = frozenset({State.UPDATED, State.FAILED, State.ROLLED_BACK, State.CANCELLED, State.SUPERSEDED, State.SKIPPED})
EXECUTED = frozenset({State.UPDATED, State.FAILED, State.ROLLED_BACK})  # what gates count
STARTED = frozenset({State.PREPARING, State.TRANSFERRING, State.VERIFYING, State.READY})
REVERTED = "reverted"  # code of a rollback after the node had run the new version
COMMITTED = frozenset({State.INSTALLING, State.CONFIRMING})  # past the point where the gateway can call it back


class UnknownTransition(Bug):
    """This input has no meaning in this state."""

    code = "unknown_transition"

    def __init__(self, state: State, what: Input) -> None:
        super().__init__(f"a node update that is {state} knows no {what}")
        self.state = state
        self.input = what


_S, _I = State, Input

# Radios repeat themselves (a node that loses its image starts again, a status is asked twice), so inputs that say no more
# than the state already says lead back to it, and a node may fall back as far as it really did.
TRANSITIONS: dict[tuple[State, Input], State] = {
    (_S.PENDING, _I.PREPARE): _S.PREPARING,
    (_S.PENDING, _I.DATA): _S.TRANSFERRING,
    (_S.PENDING, _I.COMPLETE): _S.VERIFYING,  # a node may hold the image from an earlier attempt
    (_S.PENDING, _I.READY): _S.READY,
    (_S.PENDING, _I.NEW_VERSION): _S.CONFIRMING,  # it was updated by other hands meanwhile
    (_S.PENDING, _I.OLD_VERSION): _S.PENDING,
    (_S.PENDING, _I.SKIP): _S.SKIPPED,
    (_S.PREPARING, _I.PREPARE): _S.PREPARING,
    (_S.PREPARING, _I.DATA): _S.TRANSFERRING,
    (_S.PREPARING, _I.COMPLETE): _S.VERIFYING,
    (_S.PREPARING, _I.READY): _S.READY,
    (_S.PREPARING, _I.NEW_VERSION): _S.CONFIRMING,
    (_S.PREPARING, _I.OLD_VERSION): _S.PREPARING,
    (_S.TRANSFERRING, _I.PREPARE): _S.PREPARING,
    (_S.TRANSFERRING, _I.DATA): _S.TRANSFERRING,
    (_S.TRANSFERRING, _I.COMPLETE): _S.VERIFYING,
    (_S.TRANSFERRING, _I.READY): _S.READY,
    (_S.TRANSFERRING, _I.NEW_VERSION): _S.CONFIRMING,
    (_S.TRANSFERRING, _I.OLD_VERSION): _S.TRANSFERRING,
    (_S.VERIFYING, _I.PREPARE): _S.PREPARING,
    (_S.VERIFYING, _I.DATA): _S.TRANSFERRING,
    (_S.VERIFYING, _I.COMPLETE): _S.VERIFYING,
    (_S.VERIFYING, _I.READY): _S.READY,
    (_S.VERIFYING, _I.NEW_VERSION): _S.CONFIRMING,  # some nodes apply by themselves
    (_S.VERIFYING, _I.OLD_VERSION): _S.VERIFYING,
    (_S.READY, _I.PREPARE): _S.PREPARING,
    (_S.READY, _I.DATA): _S.TRANSFERRING,
    (_S.READY, _I.COMPLETE): _S.READY,
    (_S.READY, _I.READY): _S.READY,
    (_S.READY, _I.INSTALL): _S.INSTALLING,
    (_S.READY, _I.NEW_VERSION): _S.CONFIRMING,
    (_S.READY, _I.OLD_VERSION): _S.READY,
    (_S.INSTALLING, _I.COMPLETE): _S.INSTALLING,
    (_S.INSTALLING, _I.READY): _S.INSTALLING,
    (_S.INSTALLING, _I.INSTALL): _S.INSTALLING,
    (_S.INSTALLING, _I.NEW_VERSION): _S.CONFIRMING,
    (_S.INSTALLING, _I.OLD_VERSION): _S.ROLLED_BACK,
    (_S.CONFIRMING, _I.NEW_VERSION): _S.CONFIRMING,
    (_S.CONFIRMING, _I.OLD_VERSION): _S.ROLLED_BACK,
    (_S.CONFIRMING, _I.PROVEN): _S.UPDATED,
    (_S.UPDATED, _I.NEW_VERSION): _S.UPDATED,
    (_S.UPDATED, _I.OLD_VERSION): _S.ROLLED_BACK,  # a late rollback still counts against the gate
    (_S.ROLLED_BACK, _I.OLD_VERSION): _S.ROLLED_BACK,
    (_S.ROLLED_BACK, _I.NEW_VERSION): _S.CONFIRMING,  # it said the old version while a second MCU still took its time
    (_S.FAILED, _I.RETRY): _S.PENDING,
    (_S.ROLLED_BACK, _I.RETRY): _S.PENDING,  # only when a revision asks for it
    (_S.FAILED, _I.NEW_VERSION): _S.CONFIRMING,  # given up as lost, then back with the new version
    (_S.FAILED, _I.OLD_VERSION): _S.FAILED,
    **{(s, _I.FAIL): _S.FAILED for s in (_S.PENDING, *STARTED, *COMMITTED)},
    **{(s, _I.CANCEL): _S.CANCELLED for s in (_S.PENDING, *STARTED)},
    **{(s, _I.SUPERSEDE): _S.SUPERSEDED for s in (_S.PENDING, *STARTED)},
    **{(s, _I.DEFER): _S.DEFERRED for s in (_S.PENDING, *STARTED)},
    **{(s, _I.SKIP): _S.SKIPPED for s in STARTED},  # other hands have brought it to another firmware
}


@dataclass(frozen=True, slots=True)
class NodeUpdate:
    """One node in one campaign, as stored. Times are Unix seconds; `radio_since` follows the steps of the clock (`radio_time.py`)."""

    campaign: str
    node: str
    release: str
    transfer: str
    tier: int
    target_version: int  # what the node reports once it runs the release
    state: State = State.PENDING
    resume: State = State.PENDING  # with DEFERRED: the state that is interrupted
    code: str = ""
    detail: str = ""
    attempt: int = 1
    generation: int = 0
    want: str = ""
    version_before: int | None = None
    version: int | None = None
    confirmed: int = 0
    size: int = 0
    since: float = 0.0
    radio_since: float = 0.0
    revision: int = 0  # of the campaign, that began the attempts which are counted now
    first_attempt: int = 1  # of those that count against the limit
    installing_at: float = 0.0  # as `radio_since`; of the last installation in this campaign, an earlier attempt's too
    reset_cause: str = ""  # of a rollback, where the node tells
    install_at: float = 0.0  # with `want` install: not before this; 0: at once

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def effective(self) -> State:
        """The state a deferral interrupts, or the state itself."""
        return self.resume if self.state is State.DEFERRED else self.state

    @property
    def needs_payload(self) -> bool:
        """Whether the wish is for a node that may still take bytes; one past recall has its image."""
        return self.want == Want.DELIVER or (self.want == Want.INSTALL and self.state not in COMMITTED)


def advance(
    update: NodeUpdate, what: Input, *, now: float, radio_now: float, code: str = "", detail: str = ""
) -> NodeUpdate:
    """The update after `what`. UnknownTransition when the table has no such pair; the argument never changes."""
    state, resume = _next(update, what)
    changed = state is not update.state or resume is not update.resume
    if state is State.ROLLED_BACK and update.state in (State.CONFIRMING, State.UPDATED):
        code = code or REVERTED
    return replace(
        update,
        state=state,
        resume=resume,
        # A deferral keeps its reason when what it interrupts moves on.
        code=code if state is not update.state or code else update.code,
        detail=detail if state is not update.state or detail else update.detail,
        attempt=update.attempt + 1 if what is Input.RETRY else update.attempt,
        confirmed=_confirmed(update, what),
        installing_at=_installing_at(update, what, radio_now),
        reset_cause="" if what is Input.RETRY else update.reset_cause,
        since=now if state is not update.state else update.since,
        radio_since=radio_now if changed else update.radio_since,
    )


def _confirmed(update: NodeUpdate, what: Input) -> int:
    if what is Input.NEW_VERSION and update.installing_at:
        return update.size  # it was delivered, if not in this attempt then in one before
    return 0 if what is Input.RETRY else update.confirmed


def _installing_at(update: NodeUpdate, what: Input, radio_now: float) -> float:
    return radio_now if what is Input.INSTALL and update.state is not State.INSTALLING else update.installing_at


def _next(update: NodeUpdate, what: Input) -> tuple[State, State]:
    if update.state is not State.DEFERRED:
        target = TRANSITIONS.get((update.state, what))
        if target is None:
            raise UnknownTransition(update.state, what)
        return target, update.state if target is State.DEFERRED else target
    if what is Input.RESUME:
        return update.resume, update.resume
    if what is Input.DEFER:
        return State.DEFERRED, update.resume  # another reason
    target = TRANSITIONS.get((update.resume, what))
    if target is None or what is Input.INSTALL:  # nothing is installed while policy says no
        raise UnknownTransition(State.DEFERRED, what)
    if target in ENDED or target in COMMITTED:
        return target, target
    return State.DEFERRED, target
