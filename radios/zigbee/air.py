"""What OTA traffic takes of the shared channel, and how large its share may be now. Pure arithmetic, all times given.

The unit is the air second: one second in which the channel carries nothing else. Knows nothing of queues and frames.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from math import exp
from typing import Final

from radios.quiet_hours import QuietHours

BLOCK_AIR_S: Final = 0.013  # one hop of a 50-byte block: request, response and APS acknowledgement
APS_ACK_AIR_S: Final = 0.0034  # of BLOCK_AIR_S, the acknowledgement
PAGE_BLOCK_AIR_S: Final = 0.0056  # one hop of a block of a page: no request of its own, no acknowledgement
HANDED_OVER_AIR_S: Final = 0.009  # of BLOCK_AIR_S, what follows the handing over: response and acknowledgement
MAX_HOPS: Final = 6.0
_PRIOR_HOPS: Final = 2.0  # of a node whose acknowledgements were not timed yet
_METER_S: Final = 10
_FREE_CHANNEL: Final = 1.1  # what downloads without a bucket take of the air, as it is estimated here; at most


class Why(StrEnum):
    """What sets the share that is in force."""

    FREE = "free"
    CAP = "cap"
    QUIET_HOURS = "quiet hours"
    FOREGROUND = "foreground"
    DELIVERIES = "failed deliveries"


@dataclass(frozen=True, slots=True)
class ShareLimits:
    """Shares of the channel's air, 0..1; 1 means: as much as there is."""

    air_share: float = 1.0
    foreground_share: float = 0.4  # at `foreground_full_per_s` and above; below, the rest is given up in proportion
    quiet_hours: QuietHours | None = None
    foreground_full_per_s: float = 0.7  # frames of the site's own that come or go
    foreground_memory_s: float = 12.0  # time constant of their measured rate


class Shares:
    """The share in force. `minute_of_day` turns a time into the site's own minutes since midnight."""

    def __init__(self, limits: ShareLimits, minute_of_day: Callable[[float], int]) -> None:
        self._limits = limits
        self._minute_of_day = minute_of_day
        self._rate_per_s = 0.0  # of foreground frames, as of _heard_at
        self._heard_at = float("-inf")
        self._valid_until = float("-inf")
        self._share = 1.0
        self._why = Why.FREE

    def foreground(self, now: float) -> None:
        """A frame that is no OTA traffic, and no answer to what we asked for, came or went."""
        self._rate_per_s = self.foreground_per_s(now) + 1.0 / self._limits.foreground_memory_s
        self._heard_at = max(now, self._heard_at)
        self._valid_until = float("-inf")

    def foreground_per_s(self, now: float) -> float:
        """Rate of foreground frames lately: each counts less and less, none is forgotten at once."""
        return self._rate_per_s * exp(min(self._heard_at - now, 0.0) / self._limits.foreground_memory_s)

    def in_force(self, now: float) -> float:
        if now >= self._valid_until:
            self._valid_until = now + 1.0
            self._share, self._why = self._least(now)
        return self._share

    def lasting(self, now: float) -> float:
        """The same without the foreground, which comes and goes."""
        return self._lasting(now)[0]

    @property
    def why(self) -> Why:
        """Of the last `in_force`."""
        return self._why

    def _least(self, now: float) -> tuple[float, Why]:
        limits = self._limits
        busy = min(1.0, self.foreground_per_s(now) / limits.foreground_full_per_s)
        left = _FREE_CHANNEL - busy * (_FREE_CHANNEL - limits.foreground_share)
        share, why = self._lasting(now)
        return (left, Why.FOREGROUND) if left < share else (share, why)

    def _lasting(self, now: float) -> tuple[float, Why]:
        limits, quiet = self._limits, self._limits.quiet_hours
        share, why = limits.air_share, Why.CAP
        if quiet is not None and quiet.air_share < share and quiet.cover(self._minute_of_day(now)):
            share, why = quiet.air_share, Why.QUIET_HOURS
        return (share, why) if share < 1.0 else (1.0, Why.FREE)


class Meter:
    """Air used lately, in slots of one second."""

    def __init__(self) -> None:
        self._slots = [0.0] * (_METER_S + 1)
        self._blocks = [0] * (_METER_S + 1)
        self._second = 0
        self._since = float("-inf")

    def add(self, air_s: float, now: float) -> None:
        self._turn(now)
        at = self._second % len(self._slots)
        self._slots[at] += air_s
        self._blocks[at] += 1

    def share(self, now: float) -> float:
        """Of the channel, over the last 10 s."""
        self._turn(now)
        return sum(self._slots) / self._span(now)

    def blocks_per_s(self, now: float) -> float:
        self._turn(now)
        return sum(self._blocks) / self._span(now)

    def _span(self, now: float) -> float:
        return min(max(now - self._since, 0.5), _METER_S + now % 1.0)

    def _turn(self, now: float) -> None:
        second = int(now)
        gone = second - self._second
        if gone == 0:
            return
        if not 0 < gone < len(self._slots):
            self._slots = [0.0] * len(self._slots)
            self._blocks = [0] * len(self._blocks)
            self._since = now
        else:
            for at in range(self._second + 1, second + 1):
                self._slots[at % len(self._slots)] = 0.0
                self._blocks[at % len(self._blocks)] = 0
        self._second = second


@dataclass(slots=True)
class Path:
    """What the acknowledgements of one node say of the way to it, and how far apart its blocks are kept for that."""

    hops: float | None = None  # known otherwise: a route record
    fastest_s: float = 0.0  # least time from handing over to acknowledgement, rising slowly
    mean_s: float = 0.0
    deviation_s: float = 0.0
    spacing_s: float = 0.0
    unacknowledged: int = 0  # blocks since the last one that asked for an acknowledgement
    strict: int = 0  # blocks that are to ask for one, because one was lost

    def asks_acknowledgement(self, every: int, again: bool) -> bool:
        """Whether the next block is to be acknowledged at the APS layer: one of `every`, and all for a while after a
        loss (`again`: the node repeated its request)."""
        if again:
            self.strict = 4 * every
        if self.strict:
            self.strict -= 1
            self.unacknowledged = 0
            return True
        if not self.mean_s or self.unacknowledged + 1 >= every:
            self.unacknowledged = 0
            return True
        self.unacknowledged += 1
        return False

    def acknowledged(self, took_s: float) -> bool:
        """Learn from one; whether it was far slower than this node's own habit."""
        if not self.mean_s:
            self.fastest_s = self.mean_s = took_s
            self.deviation_s = took_s / 2
            return False
        self.fastest_s = min(took_s, self.fastest_s * 1.002)
        off = took_s - self.mean_s
        slow = off > 4 * self.deviation_s + 0.1
        self.mean_s += off / 16
        self.deviation_s += (abs(off) - self.deviation_s) / 16
        return slow

    def hops_estimated(self, nearest_s: float) -> float:
        """Hops, from the time beyond the nearest node's, which counts as one hop plus what host and dongle take."""
        if self.hops is not None:
            return self.hops
        if not self.fastest_s:
            return _PRIOR_HOPS
        return min(MAX_HOPS, 1.0 + max(0.0, self.fastest_s - nearest_s) / HANDED_OVER_AIR_S)
