"""What one session states: facts that must be durable before anything is sent, and a word on progress that may be lost. PURE.

Holds the commit barrier: while a change is not `settled`, the session gives no frames out. Not responsible for what is
true of the node, nor for making a commit durable (the shell).
"""

from typing import TypedDict, Unpack

from radios.radio import Fact, NodeId, TransferEvent
from radios.zigbee.session_output import Commit
from radios.zigbee.session_state import SessionLimits, SessionState


class _Said(TypedDict, total=False):
    """As `TransferEvent` has it."""

    confirmed: int | None
    version: int | None
    code: str
    detail: str


class SessionFacts:
    """`generation` is that of the directive in force; what is stated from now on is stated in it."""

    __slots__ = (
        "_committed",
        "_events",
        "_node",
        "_progress",
        "_progress_at",
        "_progress_told",
        "_sequence",
        "_transfer",
        "generation",
    )

    def __init__(self, transfer: str, node: NodeId, generation: int) -> None:
        self.generation = generation
        self._transfer = transfer
        self._node = node
        self._events: list[TransferEvent] = []
        self._sequence = self._committed = 0
        self._progress: TransferEvent | None = None
        self._progress_at = float("-inf")
        self._progress_told = 0  # bytes

    # -- what must be durable ------------------------------------------------------------------------------------

    @property
    def settled(self) -> bool:
        """Whether all that was changed and stated is durable."""
        return self._sequence == self._committed

    def changed(self) -> None:
        """The session's state is another one, of which there is nothing to say."""
        self._sequence += 1

    def event(self, fact: Fact, now: float, **said: Unpack[_Said]) -> None:
        """State it; the session's state has changed with it."""
        self._events.append(self._made(fact, now, **said))
        self._sequence += 1

    def take_back(self, fact: Fact) -> bool:
        """Unsay what is not durable yet; False when there is no such event."""
        kept = [event for event in self._events if event.fact is not fact]
        if len(kept) == len(self._events):
            return False
        self._events = kept
        self._sequence += 1
        return True

    def commit(self, state: SessionState) -> Commit:
        return Commit(state, tuple(self._events), self._sequence)

    def committed(self, commit: Commit) -> None:
        """The commit is durable."""
        del self._events[: len(commit.events)]
        self._committed = commit.sequence

    # -- what may be lost ----------------------------------------------------------------------------------------

    def is_due(self, confirmed: int, size: int, limits: SessionLimits, now: float) -> bool:
        """With many nodes each gets few blocks a second: to tell of each block would cost more than to serve it."""
        since = now - self._progress_at
        moved = abs(confirmed - self._progress_told) >= limits.progress_step * size
        return since >= (limits.progress_interval_s if moved else limits.max_progress_interval_s)

    def progressed(self, confirmed: int, now: float) -> None:
        self._progress_at, self._progress_told = now, confirmed
        self._progress = self._made(Fact.PROGRESS, now, confirmed=confirmed)

    def stalled(self, code: str, now: float, detail: str, confirmed: int) -> None:
        self._progress_at = float("-inf")  # that it moves again is worth telling at once
        self._progress = self._made(Fact.STALLED, now, code=code, detail=detail, confirmed=confirmed)

    def no_progress(self) -> None:
        """An end is stated: what waits to be told is out of date."""
        self._progress = None

    def take_progress(self) -> TransferEvent | None:
        """PROGRESS or STALLED, once."""
        event, self._progress = self._progress, None
        return event

    def _made(self, fact: Fact, now: float, **said: Unpack[_Said]) -> TransferEvent:
        return TransferEvent(self._transfer, self._node, self.generation, fact, now, **said)
