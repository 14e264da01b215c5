"""LoRaWAN: how long a delivery takes beside the simulated ChirpStack, and how long it had to take."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from radios.lorawan.air import RESERVE
from radios.lorawan.airtime import downlink_airtime
from radios.lorawan.cohort import SessionSettings
from radios.lorawan.fec import Encoder
from radios.lorawan.packages import fragmentation
from radios.lorawan.regions import region
from radios.lorawan.session_node import BEFORE_DATA, Step
from radios.simulated.lorawan.packages.fragmentation import StatusStyle
from tests.benchmarks.lorawan_rounds import LEAST_LOSS, MOST_LOSS, in_processes
from tests.benchmarks.result import Result, Target, quick
from tests.radios.lorawan.world import FREQUENCY_HZ, World, new_image, spec

NODES = 20
ANSWERS_LOST = 0.2
CASES = ((468, 219, 5), (915, 112, 3))  # plain fragments, bytes of one, EU868 data rate: 100 KiB
STYLES = (StatusStyle.LBM, StatusStyle.LORAMAC)
SEEDS = 3
UPLINK_INTERVAL_S = 300.0
MOST_TIMES_BOUND = 1.10
WINDOW_S = 3600.0
SCHEDULER_S = 1.0
OWN_REDUNDANCY = 0.30
_LONGEST_S = 10 * 86400.0


@dataclass(frozen=True, slots=True)
class Run:
    """Seconds, from the moment at which the last node has its fragmentation session, if not said otherwise."""

    took_s: float  # until the last node held the block
    since_agreed_s: float  # the same, from the last node's consent to a class C session
    bound_s: float
    queue_bound_s: float  # when ChirpStack's scheduler sends one frame a second at most
    set_up_s: tuple[float, ...]  # per node, from the order to the fragmentation session
    agreed_s: float  # to the last node's consent
    own_last_s: float  # ChirpStack's own flow: to its last fragment
    own_completed: float  # ... and share of the nodes that held the block then
    completed: float  # share of the nodes that hold the block by gatewayd


class _Delivery(World):
    """Notes when nodes are set up and when they hold the block."""

    def __init__(self, plain_count: int, frag_size: int, data_rate: int, seed: int) -> None:
        specs = [
            spec(
                number + 1,
                device_class="A",
                downlink_loss=LEAST_LOSS + (MOST_LOSS - LEAST_LOSS) * number / (NODES - 1),
                uplink_loss=ANSWERS_LOST,
                status_style=STYLES[number % 2],
                data_rate=data_rate,
                uplink_interval_s=UPLINK_INTERVAL_S,
                redundancy_limit=fragmentation.N_MAX,
                seed=number + 1000 * seed,
            )
            for number in range(NODES)
        ]
        # All in one cohort, however long it takes to set them up.
        settings = SessionSettings(gather_s=21_600.0)
        super().__init__(
            specs,
            new_image(plain_count * frag_size - 5),
            settings=settings,
            data_rate=data_rate,
            frag_size=frag_size,
            seed=seed,
        )
        self.begun = self.now
        self.set_up: dict[str, float] = {}
        self.consented: dict[str, float] = {}
        self.complete: dict[str, tuple[float, int]] = {}

    def watch(self) -> None:
        for dev_eui, node in self.session.nodes.items():
            if dev_eui not in self.set_up and (node.step not in BEFORE_DATA or node.step is Step.SET_UP):
                self.set_up[dev_eui] = self.now
            if dev_eui not in self.consented and node.step is Step.RECEIVING:
                self.consented[dev_eui] = self.now
        for dev_eui, virtual in self.network.nodes.items():
            held = virtual.fragmentation.session
            if dev_eui not in self.complete and held is not None and held.decoder.complete:
                self.complete[dev_eui] = self.now, self.session.highest_sent

    def deliver(self) -> None:
        self.run(self._all(self.complete), _LONGEST_S)

    def prepare(self) -> None:
        """Until all nodes have agreed to the class C session."""
        self.run(self._all(self.consented), _LONGEST_S)

    def _all(self, seen: dict[str, object] | dict[str, float] | dict[str, tuple[float, int]]):  # type: ignore[no-untyped-def]
        def until(_world: World) -> bool:
            self.watch()
            if self.released:
                raise AssertionError(f"left the cohort: {self.released}")
            return len(seen) == NODES

        return until


def measure(plain_count: int, frag_size: int, data_rate: int, seed: int) -> Run:
    """One delivery by gatewayd, and one by ChirpStack's own flow to nodes set up alike."""
    world = _Delivery(plain_count, frag_size, data_rate, seed)
    world.deliver()
    start = max(world.set_up.values())
    airtime_s = downlink_airtime(region("EU868").downlink(data_rate).modulation, 3 + frag_size)
    count = max(counter for _, counter in world.complete.values())
    own_last_s, own_completed = _own_flow(plain_count, frag_size, data_rate, seed)
    end, agreed = max(at for at, _ in world.complete.values()), max(world.consented.values())
    return Run(
        took_s=end - start,
        since_agreed_s=end - max(start, agreed),
        bound_s=earliest_finish_s(count, airtime_s),
        queue_bound_s=earliest_finish_s(count, airtime_s, max(airtime_s, SCHEDULER_S)),
        set_up_s=tuple(at - world.begun for at in world.set_up.values()),
        agreed_s=max(0.0, agreed - start),
        own_last_s=own_last_s,
        own_completed=own_completed,
        completed=len(world.complete) / NODES,
    )


def earliest_finish_s(count: int, airtime_s: float, spacing_s: float | None = None) -> float:
    """So many frames, each as early as no hour holds more than the budget less the reserve; `spacing_s`: least between two."""
    an_hour = int(_duty() * WINDOW_S / airtime_s)
    hours, rest = divmod(count - 1, an_hour)
    return hours * WINDOW_S + (rest + 1) * (spacing_s or airtime_s)


def pace() -> list[Result]:
    """(c): gatewayd through ChirpStack's queue, in virtual time."""
    seeds = range(1 if quick() else SEEDS)
    runs = in_processes([partial(measure, *case, seed) for case in reversed(CASES) for seed in seeds])
    found = {case: runs[at * len(seeds) : (at + 1) * len(seeds)] for at, case in enumerate(reversed(CASES))}
    return [result for case in CASES for result in _results(case, found[case])]


def _results(case: tuple[int, int, int], runs: Sequence[Run]) -> list[Result]:
    what = f"EU868 DR{case[2]}, M={case[0]}, {NODES} nodes"
    target = Target("<=", MOST_TIMES_BOUND)
    own = "ChirpStack's own flow, to its last fragment"

    def median(values: Sequence[float]) -> float:
        return statistics.median(values)

    set_up = [statistics.mean(run.set_up_s) / UPLINK_INTERVAL_S for run in runs]
    return [
        Result(
            f"{what}: time / earliest finish of the hourly budget",
            median([run.took_s / run.bound_s for run in runs]),
            "x",
            target,
            {own: median([run.own_last_s / run.bound_s for run in runs])},
        ),
        Result(
            f"{what}: the same, from the last consent to a class C session",
            median([run.since_agreed_s / run.bound_s for run in runs]),
            "x",
        ),
        Result(
            f"{what}: the same, when ChirpStack sends one frame a second at most",
            median([run.since_agreed_s / run.queue_bound_s for run in runs]),
            "x",
        ),
        Result(
            f"{what}: nodes completed",
            100 * statistics.mean(run.completed for run in runs),
            "%",
            Target("==", 100),
            peers={"ChirpStack's own flow, fixed 30 %": 100 * statistics.mean(run.own_completed for run in runs)},
        ),
        Result(f"{what}: time", median([run.took_s for run in runs]) / 60, "min"),
        Result(f"{what}: set-up of a node", median(set_up), "uplink intervals"),
        Result(
            f"{what}: from the last fragmentation session to the last consent to a class C session",
            median([run.agreed_s for run in runs]) / UPLINK_INTERVAL_S,
            "uplink intervals",
        ),
    ]


def _duty() -> float:
    return region("EU868").sub_band(FREQUENCY_HZ).duty_cycle * (1 - RESERVE)


def _own_flow(plain_count: int, frag_size: int, data_rate: int, seed: int) -> tuple[float, float]:
    """All fragments enqueued at once: ChirpStack spaces them by its margin of 5 s, whatever the duty cycle allows."""
    world = _Delivery(plain_count, frag_size, data_rate, seed)
    world.prepare()
    network, cohort, image = world.network, world.cohort, world.image
    start = max(world.now, cohort.window_start) + 1.0
    network.advance(start)
    count = round(plain_count * (1 + OWN_REDUNDANCY))
    encoder = Encoder(lambda at, length: image[at : at + length], len(image), frag_size, 1)
    for n, data in enumerate(encoder.fragments(range(1, count + 1)), 1):
        command = fragmentation.DataFragment(frag_index=0, n=n, data=data)
        network.multicast.enqueue(cohort.group_id, 201, fragmentation.encode(command, 1), None)
    while network.multicast.list_queue(cohort.group_id):
        due = network.next_deadline()
        if due is None:
            break
        network.advance(due)
    took_s = network.agenda.now - start
    network.advance(network.agenda.now + 10.0)
    done = sum(
        node.fragmentation.session is not None and node.fragmentation.session.decoder.complete
        for node in network.nodes.values()
    )
    return took_s, done / NODES
