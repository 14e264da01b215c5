"""Places for nodes that download at the same time: who has one, who is invited to one, who waits for one. Pure.

A node has a place while it asks (active), for some seconds after it was notified (invited), or none: told to come back
(waiting), or not offered its image yet (wishing). Places go by priority, then by how long a node has waited.
"""

from dataclasses import dataclass


@dataclass(slots=True)
class Active:
    """A node that downloads."""

    rank: tuple[int, float, str]  # (-priority, admitted at, node)
    last_asked: float
    next_block: float


@dataclass(slots=True)
class _Waiting:
    rank: tuple[int, float]  # (-priority, since)
    due: float


class Admission:
    """`places` may be changed at any time; what is above it is sent back to the queue at its next request."""

    def __init__(
        self,
        places: int,
        *,
        idle_after_s: float,
        invited_for_s: float,
        come_back_s: float,
        max_come_back_s: float,
        overdue_after_s: float,
    ) -> None:
        self.places = places
        self._idle_after_s = idle_after_s
        self._invited_for_s = invited_for_s
        self._come_back_s = come_back_s
        self._max_come_back_s = max_come_back_s
        self._overdue_after_s = overdue_after_s
        self._active: dict[str, Active] = {}
        self._invited: dict[str, float] = {}  # until
        self._waiting: dict[str, _Waiting] = {}
        self._wishing: dict[str, tuple[int, float]] = {}  # rank

    @property
    def active(self) -> int:
        return len(self._active)

    @property
    def invited(self) -> int:
        return len(self._invited)

    @property
    def queued(self) -> int:
        return len(self._waiting) + len(self._wishing)

    @property
    def wishing(self) -> bool:
        return bool(self._wishing)

    # -- those that ask for blocks -----------------------------------------------------------------------------------

    def ask(self, node: str, now: float, priority: int) -> Active | None:
        """The node's place, or None when it has to wait."""
        active = self._active.get(node)
        if active is None:
            return self._admit(node, now, priority)
        active.last_asked = now
        if active.rank[0] != -priority:
            active.rank = (-priority, active.rank[1], node)
        if len(self._active) > self.places and self._is_beyond(active):
            del self._active[node]
            self._waiting[node] = _Waiting(active.rank[:2], now)  # it keeps its turn before those that had no place
            return None
        return active

    def queue(self, node: str, now: float, priority: int) -> int:
        """Seconds after which a node without a place is to ask again."""
        waiting = self._waiting.get(node)
        if waiting is None:
            waiting = self._waiting[node] = _Waiting((-priority, now), now)
        waiting.rank = (-priority, waiting.rank[1])
        ahead = sum(other.rank < waiting.rank for other in self._waiting.values())
        come_back = min(self._come_back_s * (1 + ahead // max(self.places, 1)), self._max_come_back_s)
        waiting.due = now + come_back
        return max(1, round(come_back))

    def release(self, node: str) -> None:
        self._active.pop(node, None)
        self._invited.pop(node, None)
        self._waiting.pop(node, None)
        self._wishing.pop(node, None)

    # -- those that are to be offered an image -----------------------------------------------------------------------

    def invite(self, node: str, now: float, priority: int) -> bool:
        """Whether the node may be notified now. Otherwise it wishes to be."""
        if node in self._active:
            return True
        self._expire(now)
        if node in self._invited:
            return True
        rank = self._wishing.setdefault(node, (-priority, now))
        if rank[0] != -priority:
            rank = self._wishing[node] = (-priority, rank[1])
        ahead = sum(other < rank for other in self._wishing.values())
        if self._free() - ahead - self._about_to_come(now, priority) <= 0:
            return False
        del self._wishing[node]
        self._invited[node] = now + self._invited_for_s
        return True

    def to_wake(self, now: float) -> list[str]:
        """Those wishing nodes that have a place now; each counts as invited from here on."""
        self._expire(now)
        woken: list[str] = []
        free = self._free()
        if free <= 0 or not self._wishing:
            return woken
        for node, rank in sorted(self._wishing.items(), key=lambda item: item[1]):
            if free - self._about_to_come(now, -rank[0]) <= 0:
                break
            del self._wishing[node]
            self._invited[node] = now + self._invited_for_s
            woken.append(node)
            free -= 1
        return woken

    def next_expiry(self) -> float:
        """When a place that is taken now may become free by itself."""
        idle = min((active.last_asked for active in self._active.values()), default=float("inf")) + self._idle_after_s
        return min(idle, min(self._invited.values(), default=float("inf")))

    # -- within ------------------------------------------------------------------------------------------------------

    def _about_to_come(self, now: float, priority: int) -> int:
        """Nodes of at least that priority that are part-way and come back soon: what is begun is ended first."""
        soon, overdue = now + self._come_back_s, now - self._overdue_after_s
        return sum(waiting.rank[0] <= -priority and overdue < waiting.due <= soon for waiting in self._waiting.values())

    def _free(self) -> int:
        return self.places - len(self._active) - len(self._invited)

    def _admit(self, node: str, now: float, priority: int) -> Active | None:
        self._expire(now)
        invited = self._invited.pop(node, None) is not None
        self._wishing.pop(node, None)
        free = self._free()
        if free <= 0:
            return None
        mine = self._waiting.get(node)
        rank = (-priority, mine.rank[1] if mine else now)
        if not invited:
            overdue = now - self._overdue_after_s
            ahead = sum(
                other.rank < rank and other.due > overdue for name, other in self._waiting.items() if name != node
            )
            if ahead >= free:
                return None
        self._waiting.pop(node, None)
        active = self._active[node] = Active((-priority, now, node), now, now)
        return active

    def _is_beyond(self, mine: Active) -> bool:
        """Whether it is not among the first `places`."""
        return sum(other.rank < mine.rank for other in self._active.values()) >= self.places

    def _expire(self, now: float) -> None:
        silent = now - self._idle_after_s
        for node in [name for name, active in self._active.items() if active.last_asked < silent]:
            del self._active[node]
        for node in [name for name, until in self._invited.items() if until <= now]:
            del self._invited[node]
        gone = now - self._max_come_back_s
        for node in [name for name, waiting in self._waiting.items() if waiting.due < gone]:
            del self._waiting[node]
