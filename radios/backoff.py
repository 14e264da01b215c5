"""How long to wait before asking again, the longer the more often it was in vain. PURE."""

from typing import Final

_TIMES_MOST: Final = 64  # far beyond every wait; a float has an end, which who is silent for months would reach


def growing_s(first_s: float, factor: float, times: int, most_s: float) -> float:
    """`first_s` times `factor` for each of `times` (none below 0), at most `most_s`."""
    return min(most_s, first_s * factor ** min(_TIMES_MOST, max(0, times)))
