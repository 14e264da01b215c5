"""LoRaWAN: one cohort with ever more nodes."""

import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import radios.lorawan
from radios.lorawan.cohort import SessionSettings
from tests.benchmarks.lorawan_group import T0, GroupWorld, new_image, spec
from tests.benchmarks.lorawan_rounds import in_processes
from tests.benchmarks.result import Result, Target, quick

COUNTS = (1, 10, 100, 1000)
QUICK_COUNTS = (1, 10, 100)
PLAIN_COUNT, FRAG_SIZE, DATA_RATE = 100, 219, 5
LOSS = 0.05
LINEAR = (
    15.0  # times the set-up airtime, or the CPU time, for ten times the nodes: more of them lose more to collisions
)
GROWTH = (
    1.1  # times the airtime to the group, over an oracle's growth: nodes that lose by chance need a few fragments more
)
LEAST_OF = 3  # deliveries; what else runs on the machine only adds to the CPU time
_EMPTY = 2000  # calls of nothing that tell what the clock takes
_TO_GROUP = ("DataFragment", "coded", "FragSessionStatusReq")


@dataclass(frozen=True, slots=True)
class Run:
    nodes: int
    data_s: float  # airtime of what went to the group
    oracle_s: float  # of the plain and coded fragments that an oracle sends
    set_up_s: float
    proof_s: float  # DevUpgradeImageReq and other questions to single nodes
    cpu_s: float  # of the session
    virtual_s: float
    memory_bytes: int  # of the session, with every node in it


class _Metered(GroupWorld):
    """Times the session's own code, less what looking at the clock takes, which is as much as hearing an uplink of no news."""

    def __init__(self, nodes: int, plain_count: int, loss: float) -> None:
        specs = [spec(number + 1, downlink_loss=loss, uplink_loss=loss, data_rate=DATA_RATE) for number in range(nodes)]
        settings = SessionSettings(gather_s=1e6, lead_s=3600.0)  # all in one cohort
        image = new_image(plain_count, FRAG_SIZE)
        super().__init__(specs, image, data_rate=DATA_RATE, frag_size=FRAG_SIZE, settings=settings)
        self.cpu_s = self._clock_s = 0.0
        nothing = self._timed(bool)
        for _ in range(_EMPTY):
            nothing()
        self._clock_s, self.cpu_s = self.cpu_s / _EMPTY, 0.0
        for name in ("to_send", "receive"):
            setattr(self.session, name, self._timed(getattr(self.session, name)))

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: object) -> object:
            begun = time.process_time()
            try:
                return function(*arguments)
            finally:
                self.cpu_s += time.process_time() - begun - self._clock_s

        return timed


def measure(nodes: int) -> Run:
    """The same delivery to so many nodes a few times, and another short one for what the session holds in memory."""
    cpu_s = []
    for _ in range(1 if quick() else LEAST_OF):
        world = _Metered(nodes, PLAIN_COUNT, LOSS)
        world.run()
        cpu_s.append(world.cpu_s)
    sent, set_up = world.sent, world.set_up
    data_s = sum(sent.airtime_s[name] for name in _TO_GROUP)
    return Run(
        nodes=nodes,
        data_s=data_s,
        oracle_s=max(world.completed_at()) * world.fragment_airtime_s,
        set_up_s=set_up.total_s,
        proof_s=sent.total_s - data_s,
        cpu_s=min(cpu_s),
        virtual_s=world.now - T0,
        memory_bytes=_memory_bytes(nodes),
    )


def scale() -> list[Result]:
    """(d): what grows with the number of nodes, and what does not."""
    counts = QUICK_COUNTS if quick() else COUNTS
    runs = list(reversed(in_processes([partial(measure, nodes) for nodes in reversed(counts)])))
    one, most, tenth = runs[0], runs[-1], runs[-2]
    what = f"one cohort of {most.nodes} nodes"
    results = [
        Result(
            f"{what}: airtime to the group / with 1 node",
            most.data_s / one.data_s,
            "x",
            Target("<=", GROWTH * most.oracle_s / one.oracle_s),
            peers={"oracle": most.oracle_s / one.oracle_s},
        ),
        Result(
            f"{what}: session's CPU / with {tenth.nodes} nodes", most.cpu_s / tenth.cpu_s, "x", Target("<=", LINEAR)
        ),
        Result(
            f"{what}: airtime of set-up / with {tenth.nodes} nodes",
            most.set_up_s / tenth.set_up_s,
            "x",
            Target("<=", LINEAR),
        ),
    ]
    for run in runs:
        name = f"one cohort of {run.nodes} node{'s' if run.nodes > 1 else ''}"
        results += [
            Result(f"{name}: airtime to the group", run.data_s, "s", peers={"oracle": run.oracle_s}),
            Result(
                f"{name}: airtime of set-up, of proof a node",
                run.set_up_s / run.nodes,
                "s",
                peers={"proof": run.proof_s / run.nodes},
            ),
            Result(
                f"{name}: session's CPU",
                run.cpu_s,
                "s",
                peers={"share of the time, %": 100 * run.cpu_s / run.virtual_s},
            ),
            Result(f"{name}: session's memory", run.memory_bytes / 1e3, "kB"),
        ]
    return results


def _memory_bytes(nodes: int) -> int:
    """Python memory that the session's modules hold when the last node is ready."""
    own = str(Path(radios.lorawan.__file__).parent / "*")
    tracemalloc.start()
    try:
        world = _Metered(nodes, plain_count=10, loss=0.0)
        world.run()
        snapshot = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(inclusive=True, filename_pattern=own)])
        return sum(trace.size for trace in snapshot.traces)
    finally:
        tracemalloc.stop()
