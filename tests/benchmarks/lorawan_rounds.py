"""LoRaWAN: what gatewayd's rounds of parity cost beside an oracle that knows what will be lost."""

import math
import multiprocessing
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TypeVar

from radios.lorawan.cohort import SessionSettings
from radios.simulated.lorawan.packages.fragmentation import StatusStyle
from tests.benchmarks.lorawan_group import GroupWorld, new_image, spec
from tests.benchmarks.result import Result, Target, quick

NODES = 20
LEAST_LOSS, MOST_LOSS = 0.01, 0.30
ANSWERS_LOST = 0.2
CASES = ((468, 219, 5), (915, 112, 3), (2134, 48, 2))  # plain fragments, bytes of one, EU868 data rate
STYLES = {StatusStyle.LBM: "count", StatusStyle.LORAMAC: "last counter"}
SEEDS = 30
QUICK_SEEDS = 2
FIXED = (10, 20, 30)  # per cent of coded fragments
MOST_TIMES_ORACLE = 1.05

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Run:
    """Airtime as a multiple of the oracle's; `completed_at`: per node, the last counter that it needs."""

    times_oracle: float
    fragments: int
    completed_at: tuple[int, ...]
    plain_count: int

    @property
    def oracle(self) -> int:
        return max(self.completed_at)

    def completed_by(self, per_cent: int) -> float:
        """Share of the nodes that a fixed redundancy completes."""
        last = math.ceil(self.plain_count * (1 + per_cent / 100))
        return sum(counter <= last for counter in self.completed_at) / NODES


def measure(plain_count: int, frag_size: int, data_rate: int, style: StatusStyle, seed: int) -> Run:
    """One delivery to all nodes, from the first fragment to the last proof, in virtual time."""
    specs = [
        spec(
            number + 1,
            downlink_loss=LEAST_LOSS + (MOST_LOSS - LEAST_LOSS) * number / (NODES - 1),
            uplink_loss=ANSWERS_LOST,
            status_style=style,
            data_rate=data_rate,
        )
        for number in range(NODES)
    ]
    settings = SessionSettings(gather_s=14_400.0)  # all in one cohort
    image = new_image(plain_count, frag_size)
    world = GroupWorld(specs, image, data_rate=data_rate, frag_size=frag_size, seed=seed, settings=settings)
    world.run()
    completed = tuple(world.completed_at())
    oracle_s = max(completed) * world.fragment_airtime_s
    return Run(world.sent.total_s / oracle_s, world.session.highest_sent, completed, plain_count)


def rounds() -> list[Result]:
    """(b): everything sent from the first fragment on, divided by the plain and coded fragments that an oracle sends."""
    seeds = range(QUICK_SEEDS if quick() else SEEDS)
    keys = [(case, style) for case in reversed(CASES) for style in STYLES]  # the longest first
    runs = in_processes([partial(measure, *case, style, seed) for case, style in keys for seed in seeds])
    found = {key: runs[at * len(seeds) : (at + 1) * len(seeds)] for at, key in enumerate(keys)}
    return list(chain.from_iterable(_results(case, style, found[case, style]) for case in CASES for style in STYLES))


def _results(case: tuple[int, int, int], style: StatusStyle, runs: Sequence[Run]) -> list[Result]:
    what = f"rounds M={case[0]}, status by {STYLES[style]}"
    ratios = sorted(run.times_oracle for run in runs)
    fixed = {f"fixed {share} %": 100 * statistics.mean(run.completed_by(share) for run in runs) for share in FIXED}
    coded = statistics.mean(run.fragments / run.oracle for run in runs)
    return [
        Result(
            f"{what}: airtime / oracle, mean of {len(runs)}",
            statistics.mean(ratios),
            "x",
            Target("<=", MOST_TIMES_ORACLE),
        ),
        Result(f"{what}: airtime / oracle, worst seed", ratios[-1], "x"),
        Result(f"{what}: fragments alone / oracle", coded, "x"),
        Result(f"{what}: nodes completed", _completed(runs), "%", Target("==", 100), fixed),
    ]


def _completed(runs: Sequence[Run]) -> float:
    return 100 * statistics.mean(len(run.completed_at) for run in runs) / NODES


def in_processes(runs: Sequence[Callable[[], R]]) -> list[R]:
    """Each in one of two processes."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        return [future.result() for future in [pool.submit(run) for run in runs]]
