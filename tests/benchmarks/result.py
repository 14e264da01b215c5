"""What a bench hands back, and how long something takes."""

import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

QUICK = "GATEWAYD_BENCH_QUICK"


@dataclass(frozen=True, slots=True)
class Target:
    """A bound that is to be held."""

    relation: Literal["<=", ">=", "=="]
    bound: float

    def holds(self, value: float) -> bool:
        if self.relation == "<=":
            return value <= self.bound
        return value >= self.bound if self.relation == ">=" else value == self.bound

    def __str__(self) -> str:
        return f"{self.relation} {self.bound:g}"


@dataclass(frozen=True, slots=True)
class Result:
    """One figure. `peers` are the same figure of others, in the same unit; None: not to be had on this machine."""

    name: str
    value: float
    unit: str
    target: Target | None = None
    peers: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def holds(self) -> bool | None:
        return None if self.target is None else self.target.holds(self.value)

    def as_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "target": None if self.target is None else str(self.target),
            "holds": self.holds,
            "peers": dict(self.peers),
        }


Bench = Callable[[], list[Result]]


def quick() -> bool:
    """Whether less is to be measured (`--quick`): for trying a bench, not for its figures."""
    return os.environ.get(QUICK) == "1"


def median_ms(*functions: Callable[[], object], runs: int = 15) -> list[float]:
    """Median wall time of each function in ms; they take turns, so that a slow moment hits all of them."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(runs):
        for function, taken in zip(functions, times, strict=True):
            begin = time.perf_counter()
            function()
            taken.append((time.perf_counter() - begin) * 1e3)
    return [statistics.median(taken) for taken in times]
