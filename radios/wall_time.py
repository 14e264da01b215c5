"""What the steady time of a radio is on the wall. PURE.

A radio's clock never steps, so that its timers and what it journals are durations in disguise. Where the world counts in
Unix time (an installation's hour, expiry, quiet hours, GPS time, the network server), a moment is translated when it is used.
"""

from collections.abc import Callable


class WallTime:
    """`ahead_s`: how far the wall clock is ahead of the radio's, as far as is known now."""

    def __init__(self, ahead_s: float = 0.0) -> None:
        self.ahead_s = ahead_s
        self._watchers: list[Callable[[float], None]] = []

    def unix(self, at: float) -> float:
        """Unix seconds of a moment of the radio's clock."""
        return at + self.ahead_s

    def at(self, unix: float) -> float:
        """The moment of the radio's clock at which the wall clock shows this."""
        return unix - self.ahead_s

    def watch(self, stepped: Callable[[float], None]) -> None:
        """Call this after each step of the wall clock, with its size in seconds: what waits for an hour waits differently."""
        self._watchers.append(stepped)

    def step(self, ahead_s: float) -> None:
        """The wall clock is so far ahead from now on."""
        by_s, self.ahead_s = ahead_s - self.ahead_s, ahead_s
        if by_s:
            for stepped in self._watchers:
                stepped(by_s)
