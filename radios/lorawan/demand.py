"""How many coded fragments a node still needs, as far as that can be known. PURE.

A node that misses k fragments needs k and a few more to arrive, the code's overhead, of which its loss takes a share. The
number is random, and so is the loss that is only estimated: sizing by the mean and the deviation sends little too much
and asks seldom.
"""

from dataclasses import dataclass
from math import erfc, exp, pi, sqrt

_OVERHEAD_MEAN = 1.6  # fragments beyond those lost, measured with decoders of the field
_OVERHEAD_VARIANCE = 1.7
_LEAST_LOSS, _MOST_LOSS = 0.002, 0.95
_PRIOR_LOST, _PRIOR_TRIED = 0.5, 5.0


@dataclass(frozen=True, slots=True)
class Loss:
    """What is known of a link: so many of the fragments tried were lost."""

    lost: float = 0.0
    tried: float = 0.0

    @property
    def mean(self) -> float:
        found = (self.lost + _PRIOR_LOST) / (self.tried + _PRIOR_TRIED)
        return min(_MOST_LOSS, max(_LEAST_LOSS, found))

    @property
    def variance(self) -> float:
        return self.mean * (1 - self.mean) / (self.tried + _PRIOR_TRIED)


@dataclass(frozen=True, slots=True)
class Demand:
    """Coded fragments still to be sent until the node completes: mean, may be below zero, and standard deviation."""

    mean: float
    deviation: float

    def at(self, deviations: float) -> float:
        return self.mean + deviations * self.deviation

    def beyond(self, sent: float) -> "Demand":
        """Known not to be complete `sent` fragments further on; told from the present position."""
        if self.deviation <= 0:
            return Demand(max(self.mean, sent + 1), 0.5)
        z = (sent - self.mean) / self.deviation
        tail = erfc(z / sqrt(2)) / 2
        if z > 4 or tail <= 0:  # far beyond all expectation: the estimate was wrong, by about a deviation
            return Demand(sent + max(1.0, self.deviation / 3), max(1.0, self.deviation / 3))
        hazard = exp(-z * z / 2) / sqrt(2 * pi) / tail
        variance = max(0.04, 1 + z * hazard - hazard * hazard)
        return Demand(self.mean + self.deviation * hazard, self.deviation * sqrt(variance))


def demand(missing: float, uncertain: float, loss: Loss, since: int) -> Demand:
    """For a node that missed `missing` (variance `uncertain`) before the last `since` coded fragments were sent."""
    if missing <= 0:
        return Demand(-float(since), 0.0)
    heard = 1 - loss.mean
    goal = missing + _OVERHEAD_MEAN
    variance = (goal * loss.mean + _OVERHEAD_VARIANCE + uncertain) / heard**2 + goal**2 / heard**4 * loss.variance
    return Demand(goal / heard - since, sqrt(variance))
