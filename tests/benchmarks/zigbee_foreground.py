"""Zigbee over the simulated channel, in virtual time: what the site's own traffic costs the update, by how much there is of it."""

import statistics
from functools import partial
from typing import Final

from tests.benchmarks.result import Bench, Result, quick
from tests.benchmarks.zigbee_mesh import Run, Server, in_parallel, measure

RATES_PER_S = (0.0, 0.05, 0.1, 0.3, 1.0, 2.0)
SITES = ((6, 80_000), (50, 10_000))  # nodes, bytes of the image: four virtual minutes at the bound
SEEDS = (1,) if quick() else (1, 2, 3)

_PERCENT: Final = 100.0


def by_rate() -> list[Result]:
    """The update's share of the bound at each rate, and how late a message is then. No target but that of `beside_foreground`."""
    cases = [(nodes, size, rate) for nodes, size in SITES for rate in RATES_PER_S]
    runs = in_parallel(
        [
            partial(measure, Server.GATEWAYD, foreground_per_s=rate, nodes=nodes, image_bytes=size, seed=seed)
            for nodes, size, rate in cases
            for seed in SEEDS
        ]
    )
    return [
        _result(nodes, rate, runs[at * len(SEEDS) : (at + 1) * len(SEEDS)]) for at, (nodes, _, rate) in enumerate(cases)
    ]


def _result(nodes: int, rate: float, runs: list[Run]) -> Result:
    late = {"p95 latency / idle": statistics.median(run.times_idle for run in runs)} if rate else {}
    share = statistics.median(_PERCENT / run.times_bound for run in runs)
    return Result(
        f"{nodes} nodes, {rate:g} foreground unicasts a second: update's share of the bound", share, "%", peers=late
    )


BENCHES: tuple[Bench, ...] = (by_rate,)
