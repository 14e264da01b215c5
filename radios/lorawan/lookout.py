"""Which nodes have to be looked at now, and when the others. PURE.

A node is looked at when it was touched or its time has come, and it stays so until whoever looks lets it rest: an
error on the way loses nothing.
"""

from heapq import heappop, heappush

from radios.lorawan.roster import Roster
from radios.lorawan.session_node import SessionNode


class Lookout:
    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self._awake = roster.watch()
        self._until: dict[str, float] = {}
        self._timers: list[tuple[float, str]] = []  # one that is not in `_until` any more is outdated

    def due(self, now: float) -> list[SessionNode]:
        """In the order in which they joined."""
        while self._timers and self._timers[0][0] <= now:
            when, dev_eui = heappop(self._timers)
            if self._until.get(dev_eui) == when:
                del self._until[dev_eui]
                self._awake[dev_eui] = None
        if not self._awake:
            return []
        for dev_eui in [name for name in self._awake if name not in self._roster.nodes]:
            self._awake.pop(dev_eui)
            self._until.pop(dev_eui, None)
        return self._roster.ordered(self._awake)

    def rest(self, node: SessionNode, until: float | None = None) -> None:
        """There is nothing to do about the node before `until`, unless it is touched; None: not at all."""
        self._awake.pop(node.dev_eui, None)
        if until is None:
            self._until.pop(node.dev_eui, None)
        elif self._until.get(node.dev_eui) != until:
            self._until[node.dev_eui] = until
            heappush(self._timers, (until, node.dev_eui))

    def wake(self, dev_eui: str) -> None:
        self._awake[dev_eui] = None

    def next(self) -> float | None:
        """When the first of the resting nodes is due."""
        while self._timers and self._until.get(self._timers[0][1]) != self._timers[0][0]:
            heappop(self._timers)
        return self._timers[0][0] if self._timers else None
