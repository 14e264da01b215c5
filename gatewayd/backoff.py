"""How long to wait before trying again. PURE."""

from collections.abc import Callable


def backoff_s(attempt: int, first_s: float, max_s: float, rng: Callable[[], float]) -> float:
    """Full jitter: anything between 0 and first_s * 2^attempt, at most max_s. `rng` gives [0, 1)."""
    return rng() * min(max_s, first_s * 2.0 ** min(attempt, 32))
