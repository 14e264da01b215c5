"""One node within a cohort: its steps, what is asked of it now, and what its record holds. PURE.

The question to a node follows from its step alone, so that a restart asks the same thing again.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from radios.errors import ContractError
from radios.lorawan.block_status import BlockStatus
from radios.lorawan.keys import Key
from radios.radio import Want


class Step(StrEnum):
    """Stored; never rename."""

    GROUP = "group"  # McGroupSetupReq
    BLOCK = "block"  # FragSessionSetupReq
    SET_UP = "set_up"  # waits for the others
    WINDOW = "window"  # McClassCSessionReq
    RECEIVING = "receiving"
    VERIFYING = "verifying"  # says it has the block: DevUpgradeImageReq
    READY = "ready"
    INSTALLING = "installing"  # DevRebootTimeReq, DevRebootCountdownReq
    CONFIRMING = "confirming"  # DevVersionReq after the reboot
    RUNNING = "running"
    FAILED = "failed"
    DROPPING = "dropping"  # FragSessionDeleteReq, then McGroupDeleteReq
    LEFT = "left"  # no longer in this cohort


_S = Step
TRANSITIONS: dict[Step, frozenset[Step]] = {
    _S.GROUP: frozenset({_S.BLOCK, _S.WINDOW, _S.VERIFYING, _S.FAILED, _S.DROPPING, _S.LEFT}),
    _S.BLOCK: frozenset({_S.SET_UP, _S.RECEIVING, _S.VERIFYING, _S.FAILED, _S.DROPPING, _S.LEFT}),
    _S.SET_UP: frozenset({_S.WINDOW, _S.RECEIVING, _S.FAILED, _S.DROPPING, _S.LEFT}),
    _S.WINDOW: frozenset({_S.RECEIVING, _S.VERIFYING, _S.READY, _S.GROUP, _S.FAILED, _S.DROPPING, _S.LEFT}),
    _S.RECEIVING: frozenset({_S.WINDOW, _S.GROUP, _S.VERIFYING, _S.READY, _S.FAILED, _S.DROPPING, _S.LEFT}),
    _S.VERIFYING: frozenset({_S.RECEIVING, _S.READY, _S.FAILED, _S.DROPPING, _S.LEFT}),
    _S.READY: frozenset({_S.INSTALLING, _S.RUNNING, _S.FAILED, _S.DROPPING, _S.LEFT}),
    _S.INSTALLING: frozenset({_S.READY, _S.CONFIRMING, _S.RUNNING, _S.FAILED, _S.DROPPING, _S.LEFT}),
    _S.CONFIRMING: frozenset({_S.READY, _S.RUNNING, _S.INSTALLING, _S.FAILED, _S.DROPPING, _S.LEFT}),
    _S.RUNNING: frozenset({_S.DROPPING, _S.LEFT}),
    _S.FAILED: frozenset({_S.DROPPING, _S.LEFT}),
    _S.DROPPING: frozenset({_S.LEFT}),
    _S.LEFT: frozenset(),
}
BEFORE_BLOCK = frozenset({_S.GROUP, _S.BLOCK})
BEFORE_DATA = frozenset({_S.GROUP, _S.BLOCK, _S.SET_UP})
_TOLD_AHEAD_MOST_S = 86400.0  # a node is told so long before its moment at most: twice its answer's time
_REBOOTED_MOST_S = 2 * 86400.0  # an answer's time and a reboot
UNPROVEN_MOST = 3  # times that silence about an image is taken for lost frames
NEEDS_DATA = frozenset({_S.GROUP, _S.BLOCK, _S.SET_UP, _S.WINDOW, _S.RECEIVING, _S.VERIFYING})


@dataclass(frozen=True, slots=True)
class NodeProfile:
    """What a session must know of a node before it may join; versions come from the node, never from a guess."""

    dev_eui: str
    frag_version: int
    multicast_version: int
    clock_version: int | None
    mac_version: tuple[int, int]
    answer_timeout_s: float  # class A: more than its uplink interval
    ports: "Ports"
    always_on: bool = False  # class C: its queue is served at once, in RX2
    unicast_dr: int | None = None  # of downlinks to it, when it was last heard; None: not known
    redundancy_limit: int | None = None  # lost fragments that its decoder makes up; None: no limit is expected
    firmware_management: bool = True  # TS006: it can tell its image and its version, and be told to reboot
    mc_group_id: int = 0  # McGroupID on this node
    confirm_each: bool = False  # alone: each plain fragment goes out until the node has seen it


@dataclass(frozen=True, slots=True)
class Ports:
    """FPorts of the packages on a node."""

    clock: int = 202
    multicast: int = 200
    fragmentation: int = 201
    firmware: int = 203


@dataclass(slots=True)
class SessionNode:
    """State of one node. The upper part is journalled; the lower part a crash may lose."""

    profile: NodeProfile
    generation: int
    want: Want
    block: BlockStatus
    step: Step = Step.GROUP
    install_at: float | None = None  # Unix seconds
    said_late: bool = False  # that the order expired before it was set up
    told_at: float = 0.0  # the moment, on the radio's clock, that it was told to reboot at; 0: none
    session_cnt: int = 0  # of this session; 0: not chosen yet
    attempt: int = 1
    reboots: int = 0  # reboot commands sent
    reboots_heard: int = 0  # that the node answered, or joined again after
    rebooted_by: float = 0.0  # when the last command to reboot has taken effect, if it was heard; of the radio's clock
    image_waits: bool = (
        False  # it said so, and since then was not told to reboot, nor did so by itself as far as is known
    )
    version: int | None = None  # last told after the reboot
    code: str = ""
    unicast: bool = False  # its fragments come through its queue
    grouped: bool = True  # it was told of a multicast group
    holds_image: bool = False  # and does not run it, as far as is known
    installing_since: float = 0.0  # Unix seconds
    unsure: bool = False  # its record is of a backup: before anything else it is asked what it holds by now

    unicast_dr: int | None = None  # as of its last uplink
    oversize_since: float = 0.0  # since when fragments do not fit its data rate
    root_key: Key | None = field(default=None, repr=False)
    question: str = ""  # that is being asked
    asked: int = 0  # times
    not_before: float = 0.0  # the next asking
    asked_at: float = 0.0
    answered_at: float = 0.0  # anything of ours
    prompt: bool = False  # asked for a window that begins at once, because it is listening: it was just heard
    chances: int = 0  # class A: uplinks since, or just before, that the request may have gone down with
    stalled: bool = False
    answered_poll: int = -1  # number of the last poll that it answered
    poll_alone: bool = False  # a unicast status is wanted
    sounded: bool = False  # it was asked alone, before the first coded fragment
    suspect: bool = False  # may be complete: the image is asked about
    unproven: int = 0  # times that the image was asked about in vain
    timeless: bool = False  # it cannot be told a moment: it has no clock, or another time
    version_requests: int = 0  # since the last command to reboot
    obeyed: bool = False  # the last command to reboot was heard
    started: bool = False  # after the reboot command its image slot is empty: the image was begun, whatever runs by now
    image_refused: int = 0  # answers that there is no valid image
    without_session: int = 0  # answers without a word about the session that was asked for
    resync: bool = False  # its clock is off
    window_from: float = 0.0  # SessionTime asked for last, Unix seconds
    window_before: float = 0.0  # ... and the time before: that request may still wait in its queue
    window_errors: int = 0  # one after the other
    windows_refused: int = 0  # in all
    clock_error_s: float = 0.0  # by which its clock is ahead, when it cannot be set
    group_deleted: bool = False  # while DROPPING: the fragmentation session is gone, the group is next
    recheck_s: float = 0.0
    last_heard: float = 0.0
    f_cnt: int = 0  # of its last uplink

    def __post_init__(self) -> None:
        if self.unicast_dr is None:
            self.unicast_dr = self.profile.unicast_dr

    @property
    def dev_eui(self) -> str:
        return self.profile.dev_eui

    @property
    def mc_group_id(self) -> int:
        return self.profile.mc_group_id

    @property
    def in_demand(self) -> bool:
        """Whether fragments are sent to the group for it."""
        return self._receives and not self.unicast

    @property
    def fed(self) -> bool:
        """Whether fragments are sent to it alone."""
        return self._receives and self.unicast

    @property
    def _receives(self) -> bool:
        return self.step is Step.RECEIVING and self.want in (Want.DELIVER, Want.INSTALL)

    def found_at(self, now: float) -> None:
        """Read again from the journal: what lies too far ahead is of another clock's time."""
        self.installing_since = min(self.installing_since, now)
        if self.told_at > now + _TOLD_AHEAD_MOST_S:
            self.told_at = 0.0
        if self.rebooted_by > now + _REBOOTED_MOST_S:
            self.rebooted_by = 0.0

    def move(self, step: Step) -> None:
        """ContractError for a step that does not follow."""
        if step not in TRANSITIONS[self.step]:
            raise ContractError(f"{self.dev_eui}: {self.step} is never followed by {step}")
        self.step = step
        self.unsure = False
        self.ask_afresh()

    def ask_afresh(self, not_before: float = 0.0) -> None:
        """The next question is a new one."""
        self.question, self.asked, self.not_before = "", 0, not_before
        self.chances = 0
        self.poll_alone = self.suspect = False
