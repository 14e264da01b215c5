"""Frames of senders whose EUI64 is not known yet: held, a few of each, until somebody says whose the short address is. PURE.

They are what a node says first after a restart that lost it, or after its short address changed: often a button pressed.
"""

from typing import Any, Final

MOST_OF_ONE: Final = 8
MOST: Final = 256
KEPT_S: Final = 60.0  # the address is asked for once in 30 s


class Unnamed:
    """`lost` counts frames that went: the oldest of a sender for a newer one, all beyond `MOST`, and those never named."""

    def __init__(self) -> None:
        self.lost = 0
        self._held: dict[int, list[tuple[float, Any]]] = {}  # by short address: when, packet; the oldest sender first

    def __len__(self) -> int:
        return sum(map(len, self._held.values()))

    def hold(self, nwk: int, packet: Any, now: float) -> None:
        self.expire(now)
        frames = self._held.setdefault(nwk, [])
        frames.append((now, packet))
        if len(frames) > MOST_OF_ONE:
            del frames[0]
            self.lost += 1
        elif len(self) > MOST:
            oldest = next(iter(self._held))
            del self._held[oldest][0]
            self.lost += 1
            if not self._held[oldest]:
                del self._held[oldest]

    def named(self, nwk: int, now: float) -> list[tuple[float, Any]]:
        """What was held of a sender that is known now, and when it came."""
        self.expire(now)
        return self._held.pop(nwk, [])

    def expire(self, now: float) -> None:
        for nwk, frames in list(self._held.items()):
            kept = [(at, packet) for at, packet in frames if now - at < KEPT_S]
            self.lost += len(frames) - len(kept)
            if kept:
                self._held[nwk] = kept
            else:
                del self._held[nwk]
