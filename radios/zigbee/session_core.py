"""What every part of a session stands on: its fields, its timers, and what it sends when. PURE.

`OtaSession` adds what comes from the node and the daemon; `SessionFacts` holds what must be durable before anything is
sent, `SessionAnswers` what the node waits for. Nothing here reads a frame.
"""

from collections.abc import Callable
from enum import Enum
from math import ceil
from typing import Final

from radios.backoff import growing_s
from radios.radio import Fact, TransferEvent, Want
from radios.wall_time import WallTime
from radios.zigbee.block_period import period_for
from radios.zigbee.ota_commands import (
    FileId,
    ImageBlockRequest,
    ImageNotify,
    ImagePageRequest,
    UpgradeEndResponse,
    WaitForData,
)
from radios.zigbee.ota_frames import reply
from radios.zigbee.pacing import Pacer
from radios.zigbee.session_answers import SessionAnswers
from radios.zigbee.session_facts import SessionFacts
from radios.zigbee.session_output import Commit, Outgoing, Purpose
from radios.zigbee.session_state import (
    SessionLimits,
    SessionState,
    Stage,
    Terms,
)

Reader = Callable[[int, int], bytes]  # (offset, length) -> bytes of the image; ImageError when it cannot

AWAKE_S: Final = 60.0  # until a notification, a query or an install has come through
AWAKE_PER_BLOCK_S: Final = 0.6  # of a sleepy node at a fast poll of a quarter second, with repeats

NEVER: Final = float("-inf")
WANTS_IMAGE: Final = (Want.DELIVER, Want.INSTALL)


class Timer(Enum):
    NOTIFY = 0
    STALL = 1
    INSTALL = 2
    LOST = 3
    DROP = 4


class SessionCore:
    """See the module. `read` gives bytes of the image; `reconciled` is False for a session restored from the journal."""

    def __init__(
        self,
        state: SessionState,
        read: Reader,
        pacer: Pacer,
        limits: SessionLimits,
        now: float,
        *,
        reconciled: bool,
        wall: WallTime | None = None,
    ) -> None:
        self.node = state.node
        self.transfer = state.transfer
        self.image = state.image
        self.terms = Terms()
        self._read = read
        self._pacer = pacer
        self._limits = limits
        self._facts = SessionFacts(state.transfer, state.node, state.generation)
        self._want = state.want
        self.wall = wall or WallTime()
        self._install_at = state.install_at  # Unix seconds
        self._start: float | None = None  # of the image, once the installation has begun: no step moves that any more
        self._stage = state.stage
        self._confirmed = state.confirmed
        self._failures = state.failures
        self._code = state.code
        self._endpoint = state.endpoint
        self._client_known = False  # the node spoke of this image: it has a client for it
        self._running_version = state.running_version
        self._rebooted = state.rebooted
        self._reconciled = reconciled
        self._started_at = self._last_heard = now
        self._restarts = False  # a query was answered with the image, or it rebooted: it may go on at less, or at 0
        self._notified_at = NEVER  # or it did not arrive
        self._notifies = 0
        self._install_tries = 0
        self._file = state.image.file  # as the node names it, once it has said so: the file's header may hold wildcards
        self.cluster_revision: int | None = None  # of the cluster on the node, if it says so
        self._last_command = self._rebooted_at = NEVER
        self._told_at: float | None = None  # when the install was last sent, unless it is known not to have arrived
        self._inherited = state.stage is Stage.INSTALLING  # from the process before, which may have told it
        self._may_be_told = self._inherited  # or a frame that seemed lost
        self._told = False  # an install frame is on its way or arrived: no other until that is known to have failed
        self._reached = self._retold = False  # an install frame arrived; it was told again after a reboot
        self._installing_since = now
        self._tsn = state.generation & 0xFF
        self._timers: dict[Timer, float] = {}
        self._install_refused = False  # by the daemon, until its next directive
        self.sleeps = False  # the node does not listen when idle: what it is to do at a time, it is told before
        self._prepared = True
        self._unprepared_until = float("inf")  # from when it could have been installed
        self._period_set_at = NEVER
        self._served_offset = -1  # of the last block
        self._answers = SessionAnswers(state.endpoint)
        self._install_answer: tuple[float, int] | None = None  # asked, tsn
        self._notify = False
        if reconciled:
            self._facts.event(Fact.PREPARING, now)
            self._arm(now)

    # -- what the shell asks -------------------------------------------------------------------------------------

    @property
    def stage(self) -> Stage:
        return self._stage

    @property
    def endpoint(self) -> int:
        return self._endpoint

    @property
    def confirmed(self) -> int:
        return self._confirmed

    @property
    def reconciled(self) -> bool:
        return self._reconciled

    @property
    def file(self) -> FileId:
        """The image as the node names it, as far as it did: a header may hold wildcards."""
        return self._file

    @property
    def is_silent(self) -> bool:
        """No notification of its own has woken the node."""
        silent = self._stage is Stage.OFFERED and self._want in WANTS_IMAGE
        return silent and self._notifies >= self._limits.silent_after_notifies

    @property
    def limits(self) -> SessionLimits:
        return self._limits

    @limits.setter
    def limits(self, limits: SessionLimits) -> None:
        """The node's model is known now."""
        self._limits = limits

    def unprepared(self) -> None:
        """Something is to be read of the node first: the install waits for `prepared`, for `prepare_s` at most."""
        self._prepared = False

    def prepared(self, now: float) -> None:
        self._prepared = True
        self._install_if_due(now)

    def awake_s(self, now: float) -> float | None:
        """How long a sleepy node should poll fast, to download or to hear that it shall start; None: nothing is wanted."""
        if self._stage is Stage.INSTALLING:
            return None if self._told else AWAKE_S
        if not self._reconciled or self._want not in WANTS_IMAGE:
            return None
        if self._stage is Stage.DOWNLOADING or (self._stage is Stage.OFFERED and not self._expired(now)):
            blocks = (self.image.ref.size - self._confirmed) / self._limits.max_block_bytes
            return AWAKE_S + blocks * AWAKE_PER_BLOCK_S
        return None

    def state(self) -> SessionState:
        """What must be found again after a crash."""
        return SessionState(
            self.node,
            self.transfer,
            self._facts.generation,
            self._want,
            self._install_at,
            self.image,
            self._stage,
            self._confirmed,
            self._failures,
            self._code,
            self._endpoint,
            self._running_version,
            self._rebooted,
        )

    def pending_commit(self) -> Commit | None:
        """The state and the events that must be durable before `to_send` goes on; None when nothing has changed."""
        return None if self._facts.settled else self._facts.commit(self.state())

    def committed(self, commit: Commit) -> None:
        """The commit is durable."""
        self._facts.committed(commit)

    def progress(self) -> TransferEvent | None:
        """PROGRESS or STALLED that may be lost in a crash, once."""
        return self._facts.take_progress()

    def to_send(self, now: float) -> list[Outgoing]:
        """Frames to send now, none while something is uncommitted."""
        if not self._facts.settled:
            return []
        frames = self._answers.take(now, self._limits.reply_stale_after_s)
        if (
            self._stage is Stage.INSTALLING
            and self._reconciled
            and not self._told
            and Timer.INSTALL not in self._timers
        ):
            frames.append(self._install_frame(now))
        if self._notify:
            self._notify = False
            frames.append(Outgoing(reply(self._notification(), self._next_tsn()), self._endpoint, Purpose.NOTIFY))
        return frames

    def next_deadline(self) -> float | None:
        """When `handle_timeout` and `to_send` are to be called, if nothing comes before."""
        deadline = min(self._timers.values(), default=None)
        due = self._answers.due
        if due is None or not self._facts.settled:
            return deadline
        return due if deadline is None else min(due, deadline)

    def clock_stepped(self, now: float) -> None:
        """The wall clock was: the hour of an installation, and the order's expiry, lie elsewhere in the radio's time."""
        if self._stage is Stage.READY:
            self._install_if_due(now)
        else:
            self._offer_if_unexpired(now)

    def reterm(self, terms: Terms, now: float) -> None:
        """The order's terms are these now: it may have been prolonged."""
        self.terms = terms
        self._offer_if_unexpired(now)

    # -- timers and steps ------------------------------------------------------------------------------------------

    def _arm(self, now: float) -> None:
        """Set the timers that fit stage and want; also the way on after a restart."""
        limits = self._limits
        if self._stage is Stage.OFFERED and self._want in WANTS_IMAGE:
            self._notifies = 0
            self._timers[Timer.NOTIFY] = now
        elif self._stage is Stage.DOWNLOADING and self._want in WANTS_IMAGE:
            self._timers.pop(Timer.NOTIFY, None)  # whatever kept it silent is over: let it go on by itself
            self._timers[Timer.STALL] = now + limits.hold_wait_s + limits.stall_after_s
        elif self._stage is Stage.READY:
            self._install_if_due(now)
        elif self._stage is Stage.INSTALLING:
            # After a restart the node may have been told already: ask for its version first, tell it (again) later.
            self._timers.setdefault(Timer.LOST, self._starts_at(now) + limits.lost_after_s)
            self._timers.setdefault(Timer.INSTALL, now + limits.install_retry_s)
            self._timers[Timer.NOTIFY] = now + 2.0
        elif self._stage is Stage.DROPPING:
            self._timers[Timer.DROP] = now + limits.drop_after_s

    def _offer_if_unexpired(self, now: float) -> None:
        """The order's end lies elsewhere."""
        if self._stage is Stage.OFFERED and self._reconciled and Timer.NOTIFY not in self._timers:
            self._arm(now)

    def _notify_due(self, now: float) -> None:
        limits = self._limits
        if self._stage is Stage.OFFERED:
            if self._want not in WANTS_IMAGE or not self._reconciled:
                return
            if self._expired(now):
                self._stalled("expired", now, "the transfer may start on no further node")
                return
            if not self._pacer.invite(self.node, now, self.terms.priority):
                self._timers[Timer.NOTIFY] = now + limits.max_notify_interval_s  # the pacer wakes it before
                return
        elif self._stage is Stage.RUNNING:
            if self._notifies >= limits.silent_after_notifies:
                return
        elif self._stage not in (Stage.DOWNLOADING, Stage.INSTALLING):
            return
        self._notify = True
        self._notified_at = now
        pause = growing_s(limits.notify_interval_s, 2.0, self._notifies, limits.max_notify_interval_s)
        self._notifies = min(self._notifies + 1, 16)
        if self._stage is Stage.INSTALLING:
            pause = max(pause, limits.probe_interval_s)
        self._timers[Timer.NOTIFY] = now + pause
        if self._notifies == limits.silent_after_notifies and self._stage is Stage.OFFERED:
            self._stalled("silent", now, f"no query after {self._notifies} notifications")

    def _install_if_due(self, now: float) -> None:
        if self._stage is not Stage.READY or self._want is not Want.INSTALL or not self._reconciled:
            return
        if self._install_refused:
            return
        # Until it is told the node waits, so that a hold can still come between: to the end for one that listens.
        tell_at = self._starts_at(now) - (self._limits.hand_out_s if self.sleeps else 0.0)
        if tell_at > now:
            self._timers[Timer.INSTALL] = tell_at
            return
        if not self._prepared:
            self._unprepared_until = min(self._unprepared_until, now + self._limits.prepare_s)
            if now < self._unprepared_until:
                self._timers[Timer.INSTALL] = self._unprepared_until
                return
        self._stage, self._start = Stage.INSTALLING, None
        self._rebooted = self._told = self._may_be_told = self._inherited = False
        self._reached = self._retold = False
        self._told_at, self._installing_since = None, now
        self._install_tries = 0
        self._timers = {
            Timer.LOST: self._starts_at(now) + self._limits.lost_after_s,
            Timer.NOTIFY: self._starts_at(now) + self._limits.probe_installing_after_s,
        }
        self._notifies = 0
        self._facts.event(Fact.INSTALLING, now)

    def _install_frame(self, now: float) -> Outgoing:
        self._told = self._may_be_told = True
        self._told_at = self._starts_at(now)
        answer, self._install_answer = self._install_answer, None
        fresh = answer is not None and now - answer[0] <= self._limits.reply_stale_after_s
        tsn = answer[1] if answer is not None and fresh else self._next_tsn()
        offset = ceil(self._told_at - now)  # a current time of 0 makes the upgrade time one (ZCL8 11.13.9)
        return Outgoing(reply(UpgradeEndResponse(self._file, 0, offset), tsn), self._endpoint, Purpose.INSTALL)

    def _lost_if_told(self, now: float) -> None:
        """It was not heard to have started the image. One that sleeps, and could not be told yet, has nothing to start."""
        limits = self._limits
        if self.sleeps and not self._reached and now - self._installing_since < limits.untold_s:
            self._timers[Timer.LOST] = now + limits.lost_after_s
            self._stalled("silent", now, "it sleeps, and could not be told to start the image yet")
        else:
            self._fail("lost", now, f"not back {limits.lost_after_s:.0f} s after the install")

    def _starts_at(self, now: float) -> float:
        """When the image is to be started that the node is told to start now."""
        if self._install_at is None:
            return now
        if self._stage is not Stage.INSTALLING:
            return max(now, self.wall.at(self._install_at))
        if self._start is None:
            # It began at most so long before; what lies further ahead, a step of the clock has moved there.
            self._start = min(self.wall.at(self._install_at), now + self._limits.hand_out_s)
        return max(now, self._start)

    def _expired(self, now: float) -> bool:
        """No node that has not begun may begin any more."""
        return self.wall.unix(now) >= self.terms.expires_at

    def _notification(self) -> ImageNotify:
        """A version in it would be for offers alone: a node that runs it does not answer the question what it runs."""
        file = self._file
        most = 3 if self._stage is Stage.OFFERED else 2
        named = (file.manufacturer, file.image_type, file.version)[: min(self._limits.notify_payload, most)]
        return ImageNotify(100, *named)

    def _runs(self, version: int, now: float) -> None:
        self._stage = Stage.RUNNING
        self._running_version = version
        self._rebooted = False
        self._pacer.release(self.node)
        self._timers.clear()
        self._facts.event(Fact.RUNNING, now, version=version)

    def _fail(self, code: str, now: float, detail: str) -> None:
        self._stage = Stage.FAILED
        self._code = code
        self._pacer.release(self.node)
        self._timers.clear()
        self._facts.event(Fact.FAILED, now, code=code, detail=detail)

    def _dropped(self, now: float) -> None:
        self._stage = Stage.DROPPED
        self._timers.clear()
        self._notify = False
        self._facts.event(Fact.DROPPED, now)

    def _stalled(self, code: str, now: float, detail: str) -> None:
        self._facts.stalled(code, now, detail, self._confirmed)

    def _wait(self, request: ImageBlockRequest | ImagePageRequest, seconds: int, tsn: int, now: float) -> None:
        if self._stage is Stage.DOWNLOADING and self._want in WANTS_IMAGE and self._reconciled:
            self._timers[Timer.STALL] = now + seconds + self._limits.stall_after_s
        self._answers.reply(WaitForData(0, seconds, self._block_period(request, now)), tsn, now)

    def _block_period(self, request: ImageBlockRequest | ImagePageRequest, now: float) -> int | None:
        """What WAIT_FOR_DATA says of it: the wanted one where the node's unit is known, else its own, or nothing."""
        own = request.minimum_block_period if isinstance(request, ImageBlockRequest) else None
        if own is None or self._limits.wait_short_form or not self._limits.minimum_block_period:
            return None if self._limits.wait_short_form else own
        wanted = period_for(self.cluster_revision, self._pacer.block_period_s(now, self.terms.air_share))
        return own if wanted is None else wanted

    def _next_tsn(self) -> int:
        self._tsn = (self._tsn + 1) & 0xFF
        return self._tsn
