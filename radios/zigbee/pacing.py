"""How much OTA traffic the mesh takes now: who may download at the same time, and when the next block may go out.

Three walls, each a knob: a cap on nodes that download at once (the rest queue by priority and are told when to come
back), a token bucket for the whole network (its rate follows deliveries: additive increase, multiplicative decrease,
scaled by the transfer's share of the air), and a pause per node. Knows nothing of frames; a later channel model
replaces `_rate` and `airtime_s`, not the interface.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final

BLOCK_AIRTIME_S: Final = 0.013  # a 50-byte block at one hop: request, response and APS acknowledgement


@dataclass(frozen=True, slots=True)
class PacingLimits:
    """Knobs of the pacing, in seconds and blocks a second."""

    max_active_nodes: int = 6
    max_blocks_per_s: float = 400.0  # above what any channel takes: clients ask one block at a time, which limits too
    min_blocks_per_s: float = 5.0
    increase_blocks_per_s: float = 10.0  # for every second without a failed delivery
    decrease_factor: float = 0.7
    decrease_at_most_every_s: float = 1.0
    min_block_interval_s: float = 0.0  # per node
    max_delay_s: float = 1.5  # an answer later than the client's timeout (2-3 s) only makes it ask again
    idle_after_s: float = 20.0  # a node that asked nothing for so long gives up its place
    come_back_s: float = 5.0  # wait told to the first of the queue
    max_come_back_s: float = 120.0
    overdue_after_s: float = 5.0  # a queued node that comes back later than this loses its turn to those present


@dataclass(frozen=True, slots=True)
class Grant:
    """Either serve the block at `serve_at`, or (None) tell the node to ask again after `come_back_s`."""

    serve_at: float | None
    come_back_s: int = 0


@dataclass(slots=True)
class _Active:
    last_asked: float
    next_block: float


@dataclass(slots=True)
class _Waiting:
    priority: int
    since: float
    due: float


class Pacer:
    """State of one network's pacing. All times are arguments."""

    def __init__(self, limits: PacingLimits) -> None:
        self._limits = limits
        self._active: dict[str, _Active] = {}
        self._waiting: dict[str, _Waiting] = {}
        self._rate = limits.max_blocks_per_s
        self._next_token = 0.0
        self._decreased_at = float("-inf")
        self._increased_at = float("-inf")
        self._served: deque[float] = deque(maxlen=256)
        self.failures = 0

    def ask(self, node: str, now: float, priority: int, air_share: float) -> Grant:
        """A node asks for a block: when may the answer go out?"""
        active = self._active.get(node)
        if active is None:
            active = self._admit(node, now, priority)
            if active is None:
                return Grant(None, self._queue(node, now, priority))
        limits = self._limits
        rate = max(self._rate * air_share, limits.min_blocks_per_s)
        serve_at = max(now, active.next_block, self._next_token)
        if serve_at - now > limits.max_delay_s:
            active.last_asked = now
            return Grant(None, max(1, round(serve_at - now)))
        active.last_asked = now
        active.next_block = serve_at + limits.min_block_interval_s
        # A burst of a tenth of a second is allowed, so that timers need not be finer than the event loop is.
        self._next_token = max(self._next_token, serve_at - 0.1) + 1.0 / rate
        self._served.append(serve_at)
        return Grant(serve_at)

    def has_room(self, now: float) -> bool:
        """Whether a node that is offered an image now could start it at once."""
        self._expire(now)
        return len(self._active) + len(self._waiting) < self._limits.max_active_nodes

    def release(self, node: str) -> None:
        """The node downloads no more (done, held, failed, dropped)."""
        self._active.pop(node, None)
        self._waiting.pop(node, None)

    def delivered(self, ok: bool, now: float) -> None:
        """One frame towards a node was acknowledged, or not."""
        limits = self._limits
        if ok:
            if now - max(self._increased_at, self._decreased_at) >= 1.0:
                self._increased_at = now
                self._rate = min(limits.max_blocks_per_s, self._rate + limits.increase_blocks_per_s)
            return
        self.failures += 1
        if now - self._decreased_at >= limits.decrease_at_most_every_s:
            self._decreased_at = now
            # Down from what really went out: the ceiling may be far above it, and halving that would slow nothing.
            measured = self.blocks_per_s(now)
            self._rate = max(limits.min_blocks_per_s, min(self._rate, max(measured, 20.0)) * limits.decrease_factor)

    @property
    def active(self) -> int:
        return len(self._active)

    @property
    def queued(self) -> int:
        return len(self._waiting)

    @property
    def rate_limit(self) -> float:
        """Blocks a second that the network is allowed now."""
        return self._rate

    def blocks_per_s(self, now: float) -> float:
        """Blocks a second that went out lately."""
        recent = [at for at in self._served if at > now - 5.0]
        if len(recent) < 2:
            return 0.0
        return len(recent) / max(now - recent[0], 0.05)

    def airtime_s(self, blocks: int) -> float:
        """Air that so many blocks take at one hop."""
        return blocks * BLOCK_AIRTIME_S

    def _admit(self, node: str, now: float, priority: int) -> _Active | None:
        self._expire(now)
        free = self._limits.max_active_nodes - len(self._active)
        if free <= 0:
            return None
        mine = self._waiting.get(node)
        rank = (-priority, mine.since if mine else now)
        overdue = now - self._limits.overdue_after_s
        ahead = sum(
            (-other.priority, other.since) < rank and other.due > overdue
            for name, other in self._waiting.items()
            if name != node
        )
        if ahead >= free:
            return None
        self._waiting.pop(node, None)
        active = self._active[node] = _Active(now, now)
        return active

    def _queue(self, node: str, now: float, priority: int) -> int:
        waiting = self._waiting.get(node)
        if waiting is None:
            waiting = self._waiting[node] = _Waiting(priority, now, now)
        waiting.priority = priority
        rank = sum((-other.priority, other.since) < (-priority, waiting.since) for other in self._waiting.values())
        limits = self._limits
        come_back = limits.come_back_s * (1 + rank // limits.max_active_nodes)
        come_back = min(come_back, limits.max_come_back_s)
        waiting.due = now + come_back
        return max(1, round(come_back))

    def _expire(self, now: float) -> None:
        limits = self._limits
        silent = now - limits.idle_after_s
        for node in [name for name, active in self._active.items() if active.last_asked < silent]:
            del self._active[node]
        gone = now - limits.max_come_back_s
        for node in [name for name, waiting in self._waiting.items() if waiting.due < gone]:
            del self._waiting[node]
