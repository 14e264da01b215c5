"""How many of a node's uplinks are heard, by their frame counters. PURE.

Silence of a node whose uplinks are mostly lost says little: an answer would have been lost too.
"""

_FADES = 0.9  # what an uplink before counts beside this one: links change
_GAP_MOST = 100  # counters that are missing between two uplinks, as far as they are believed to be lost ones


class Hearing:
    def __init__(self) -> None:
        self._last: int | None = None
        self._heard = self._sent = 1.0

    @property
    def share(self) -> float:
        """Of its last uplinks, as many as were heard; 1 while nothing is known."""
        return self._heard / self._sent

    def take(self, f_cnt: int) -> bool:
        """An uplink came. False for a copy, and for one that comes late: it was sent before the last one."""
        last, self._last = self._last, f_cnt
        if last is None:
            return True
        if f_cnt <= last:
            late = last - f_cnt < _GAP_MOST
            self._last = last if late and f_cnt > 0 else f_cnt  # else it joined again
            return not late
        self._heard = _FADES * self._heard + 1.0
        self._sent = _FADES * self._sent + min(_GAP_MOST, f_cnt - last)
        return True
