"""What a link loses: of every MAC attempt independently, and in bursts (Gilbert-Elliott)."""

import math
import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bursts:
    """The bad state of a link. `share` of the time (0..1) is bad, for `mean_s` seconds at a time on average; then `loss` of
    the MAC attempts is lost (0..1)."""

    loss: float = 0.9
    mean_s: float = 1.0
    share: float = 0.02

    def __post_init__(self) -> None:
        if not 0 <= self.loss <= 1 or not 0 < self.share < 1 or self.mean_s <= 0:
            raise ValueError(f"bursts with loss {self.loss}, mean {self.mean_s} s and share {self.share} cannot be")


class LossyLink:
    """Loses `loss` of the attempts in the good state, `bursts.loss` in the bad one. Time must not go back.

    The state is a continuous-time Markov chain, looked at when somebody sends: a burst passes also while nobody does.
    """

    __slots__ = ("_bad", "_bursts", "_good", "_random", "_rate", "_seen")

    def __init__(self, loss: float, bursts: Bursts | None, rng: random.Random) -> None:
        self._good = loss
        self._bursts = bursts
        self._random = rng.random
        self._bad = False
        self._seen = -math.inf
        # Sum of the rates of leaving either state; with it the correlation fades.
        self._rate = 0.0 if bursts is None else 1 / bursts.mean_s / (1 - bursts.share)

    def lost(self, now: float) -> bool:
        """Whether an attempt that ends now is lost."""
        if self._bursts is None:
            return self._random() < self._good
        return self._random() < (self._bursts.loss if self._is_bad(now, self._bursts) else self._good)

    def _is_bad(self, now: float, bursts: Bursts) -> bool:
        remembered = math.exp(-self._rate * max(0.0, now - self._seen))
        chance = bursts.share + ((1.0 if self._bad else 0.0) - bursts.share) * remembered
        self._seen = now
        self._bad = self._random() < chance
        return self._bad
