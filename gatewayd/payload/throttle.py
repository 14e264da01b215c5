"""How fast payloads may come now: an operator's cap, and another one in quiet hours. PURE.

A token bucket whose rate follows the site's clock. It holds one second's worth, so that a pause is never made good by a
burst that fills the site's uplink.
"""

from collections.abc import Callable
from dataclasses import dataclass

UNLIMITED = None
_CLOSED_S = 60.0  # how long to wait before looking again while nothing may come


@dataclass(frozen=True, slots=True)
class DownloadLimits:
    """Bytes per second; None: as fast as it comes, 0: not at all. Minutes of the site's day, over midnight if end <= start."""

    rate_bytes_s: int | None = UNLIMITED
    quiet_start_minute: int = 0
    quiet_end_minute: int = 0  # equal to the start: there are no quiet hours
    quiet_rate_bytes_s: int | None = UNLIMITED

    def rate(self, minute: int) -> int | None:
        """Bytes per second at a minute of the site's day; the slower one where both apply."""
        start, end = self.quiet_start_minute, self.quiet_end_minute
        quiet = start <= minute < end if start < end else start != end and (minute >= start or minute < end)
        rates = [self.rate_bytes_s] + ([self.quiet_rate_bytes_s] if quiet else [])
        known = [rate for rate in rates if rate is not None]
        return min(known, default=None)


class Throttle:
    """One for all downloads. `minute_of_day` is the site's; `now` of the methods is any monotonic clock, in seconds."""

    def __init__(self, limits: DownloadLimits, minute_of_day: Callable[[], int]) -> None:
        self._limits = limits
        self._minute_of_day = minute_of_day
        self._free_at = float("-inf")  # when what was taken is paid for

    @property
    def closed(self) -> bool:
        """Whether nothing may come at this time of day."""
        return self._limits.rate(self._minute_of_day()) == 0

    def take(self, size: int, now: float) -> float:
        """So many bytes have come: seconds to wait before the next are read."""
        rate = self._limits.rate(self._minute_of_day())
        if rate is None:
            return 0.0
        if rate == 0:
            return _CLOSED_S
        self._free_at = max(self._free_at, now - 1.0) + size / rate
        return max(0.0, self._free_at - now)

    def piece(self, most: int) -> int:
        """How many bytes to read at once: a second's worth, so that a wait is short."""
        rate = self._limits.rate(self._minute_of_day())
        return most if not rate else max(1, min(most, rate))

    def closed_s(self) -> float:
        """Seconds to wait before asking again whether anything may come; 0 when it may."""
        return _CLOSED_S if self.closed else 0.0
