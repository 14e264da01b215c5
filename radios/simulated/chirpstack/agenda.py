"""What will happen when, in the simulation's time. Everything runs at its own moment, however late it is called."""

import heapq
from collections.abc import Callable
from itertools import count

Action = Callable[[float], None]


class Agenda:
    def __init__(self, now: float) -> None:
        self.now = now  # how far the simulation has come
        self._entries: list[tuple[float, int, Action]] = []
        self._order = count()

    def at(self, when: float, action: Action) -> None:
        """Call `action(when)` then; a moment that is past means now. Equal moments keep their order."""
        heapq.heappush(self._entries, (max(when, self.now), next(self._order), action))

    def next_deadline(self) -> float | None:
        return self._entries[0][0] if self._entries else None

    def run_until(self, now: float) -> None:
        while self._entries and self._entries[0][0] <= now:
            when, _, action = heapq.heappop(self._entries)
            self.now = when
            action(when)
        self.now = max(self.now, now)
