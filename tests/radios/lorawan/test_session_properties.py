"""The whole radio in virtual time: whatever is lost, doubled or late, whoever goes away and whenever.

The invariant: within a bounded time every node runs exactly the new image, or runs its old one unchanged with a reason
told; and unless the node itself cannot take the image, it runs the new one.
"""

import asyncio
import hashlib
import json
import random
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from radios.lorawan.chirpstack import ChirpStackSettings
from radios.lorawan.chirpstack_events import parse_uplink
from radios.lorawan.cohort import SessionSettings
from radios.lorawan.driver import LorawanRadio, LorawanSettings
from radios.radio import Fact, ImageRef, NodeDirective, TransferOrder, Want
from radios.simulated.lorawan import firmware
from radios.simulated.lorawan.packages.fragmentation import StatusStyle
from radios.simulated.zigbee.virtual_time import LoopClock, run_virtual
from tests.radios.lorawan.memory_site import MemoryJournal, Network, Store, node_id
from tests.radios.lorawan.world import new_image, spec, verify

T0 = 1_800_000_000.0
LIMIT_S = 20 * 86400.0
IMAGE = new_image(3000)


class Journal(MemoryJournal):
    """Progress is written along with the next commit, as the daemon's is; a crash loses it. Commits may fail."""

    def __init__(self):
        super().__init__()
        self.failing = 0
        self._soft = {}

    async def commit(self, records, events):
        if self.failing:
            self.failing -= 1
            raise OSError("the disk is full")
        await super().commit([*self._soft.values(), *records], events)
        self._soft = {}

    def progress(self, events, records=()):
        self.events += events
        self._soft |= {(record.scope, record.key): record for record in records}

    def crash(self):
        self._soft = {}


class Site(Network):
    """The simulated network server on the loop's time. Events come twice or late now and then."""

    def __init__(self, specs, clock, seed, image):
        super().__init__(specs, clock, signed=lambda held: verify(held) if held == image else None)
        self._random = random.Random(seed)
        self._loop = asyncio.get_running_loop()
        self._heard = asyncio.Queue()

    def next_deadline(self):
        return self.simulated.next_deadline()

    def handle_timeout(self, now):
        self.simulated.advance(now)
        while self.simulated.events:
            event = self.simulated.events.popleft()
            if event.kind != "up":
                continue
            copies = 2 if self._random.random() < 0.1 else 1
            for _ in range(copies):
                late_s = self._random.uniform(0.0, 20.0) if self._random.random() < 0.1 else 0.0
                self._loop.call_at(now + late_s, self._heard.put_nowait, json.dumps(event.body).encode())

    async def uplinks(self):
        while True:
            body = await self._heard.get()
            if not self.down:
                yield parse_uplink(body)


@dataclass(frozen=True, slots=True)
class Trouble:
    after_s: float  # since the last one
    what: str
    lasts_s: float = 0.0
    node: int = 0


def deliver(specs, troubles, seed=0, image=IMAGE, journal=None):
    """The site's nodes and the journal's events, once all nodes have come to an end."""

    async def main():
        loop = asyncio.get_running_loop()
        clock = LoopClock(loop)
        network = Site(specs, clock, seed, image)
        loop.attach(network)
        daemon = Daemon(network, journal, clock, specs, image)
        daemon.start()
        making = asyncio.create_task(trouble_makers(troubles, daemon, network, journal, specs))
        while not (making.done() and ended(journal, specs, network)):
            assert clock.now() < T0 + LIMIT_S, (
                {s.dev_eui[-2:]: journal.facts(node_id(s))[-3:] for s in specs},
                daemon.radio.status()["cohorts"],
            )
            daemon.check()
            await asyncio.sleep(60.0)
        await daemon.stop()
        return network.simulated.nodes

    journal = journal or Journal()
    return run_virtual(main(), start=T0), journal


class Daemon:
    def __init__(self, network, journal, clock, specs, image):
        self._network, self._journal, self._clock, self._specs, self._image = network, journal, clock, specs, image
        ref = ImageRef(hashlib.sha256(image).hexdigest(), len(image), firmware.parse(image).version)
        expires = datetime.fromtimestamp(T0, UTC) + timedelta(days=60)
        self._order = TransferOrder("t1", ref, 1, 1.0, expires)

    def start(self):
        chirpstack = ChirpStackSettings("127.0.0.1:1", "token", "a", "t", "127.0.0.1")
        session = SessionSettings(attempts_most=99)
        settings = LorawanSettings(chirpstack=chirpstack, multicast_data_rate=5, device_poll_s=60.0, session=session)
        self.radio = LorawanRadio(settings, self._clock, self._network)
        self._running = asyncio.create_task(self._run())

    async def _run(self):
        await self.radio.put(self._order)
        await self.radio.direct([NodeDirective("t1", node_id(s), 1, Want.INSTALL) for s in self._specs])
        await self.radio.run(self._journal, Store(self._image))

    def check(self):
        if self._running.done() and not self._running.cancelled():
            self._running.result()

    async def stop(self):
        """As SIGKILL: nothing is said to anybody."""
        self._running.cancel()
        with suppress(asyncio.CancelledError):
            await self._running
        self._journal.crash()


async def trouble_makers(troubles, daemon, network, journal, specs):
    for trouble in troubles:
        await asyncio.sleep(trouble.after_s)
        match trouble.what:
            case "daemon":
                await daemon.stop()
                await asyncio.sleep(trouble.lasts_s)
                daemon.start()
            case "server":
                network.down = True
                await asyncio.sleep(trouble.lasts_s)
                network.down = False
            case "node":
                dev_eui = specs[trouble.node % len(specs)].dev_eui
                network.simulated.advance(daemon._clock.now())
                network.simulated.nodes[dev_eui].power_cycle(daemon._clock.now())
            case "disk":
                journal.failing += 1
            case "group":
                network.simulated.multicast.groups.clear()


def ended(journal, specs, network):
    for s in specs:
        told = [e for e in journal.events if e.node == node_id(s) and e.fact in (Fact.RUNNING, Fact.FAILED)]
        if not told or (
            told[-1].fact is Fact.RUNNING and told[-1].version != network.simulated.nodes[s.dev_eui].version
        ):
            return False
    return True


LOSSES = st.sampled_from([0.0, 0.0, 0.1, 0.3, 0.5])
TROUBLES = st.builds(
    Trouble,
    after_s=st.floats(1.0, 2500.0),
    what=st.sampled_from(["daemon", "server", "node", "disk", "group"]),
    lasts_s=st.floats(0.0, 900.0),
    node=st.integers(0, 3),
)


@st.composite
def sites(draw):
    version = draw(st.sampled_from([1, 2]), "version")
    return [
        spec(
            number,
            seed=draw(st.integers(0, 1 << 30)),
            status_style=draw(st.sampled_from(list(StatusStyle))),
            device_class=draw(st.sampled_from(["A", "B", "C", "C"])),
            downlink_loss=draw(LOSSES),
            uplink_loss=draw(LOSSES),
            loss_burst_frames=draw(st.sampled_from([1.0, 1.0, 4.0])),
            clock_error_s=draw(st.sampled_from([0.0, -400.0, 90.0])),
            clock_drift_ppm=draw(st.sampled_from([0.0, 50.0])),
            redundancy_limit=draw(st.sampled_from([5, 100, 100])),
            self_test_fails=draw(st.integers(0, 5)) == 0,
            package_versions={3: version, 2: draw(st.sampled_from([1, 2]))},
            uplink_interval_s=120.0,
        )
        for number in range(1, 1 + draw(st.integers(1, 3)))
    ]


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(sites(), st.lists(TROUBLES, max_size=4), st.integers(0, 1 << 30))
def test_every_node_ends_with_the_image_or_unchanged(specs, troubles, seed):
    nodes, journal = deliver(specs, troubles, seed)
    for s in specs:
        node = nodes[s.dev_eui]
        last = [e for e in journal.events if e.node == node_id(s) and e.fact in (Fact.RUNNING, Fact.FAILED)][-1]
        if last.fact is Fact.RUNNING and last.version == 2:
            assert node.running_image == IMAGE
        else:
            assert node.running_image == s.image
            # Only a node that rolled back, or whose decoder makes up too little, may stay as it is.
            assert node.bootloader.rollbacks or (s.redundancy_limit == 5 and s.downlink_loss), (last.code, last.detail)


def test_a_node_whose_leave_was_not_committed_joins_no_other_cohort():
    """The journal has it in its first session until the leave is durable: a second one would wipe what the node holds."""

    class Leaving(Journal):
        refused = 0

        async def commit(self, records, events):
            leaves = any(record.scope == "node" and not record.value for record in records)
            if leaves and self.refused < 3:
                self.refused += 1
                raise OSError("the disk is full")
            await super().commit(records, events)

    # The second loses its session in mid-transfer, so it leaves for another cohort.
    specs = [spec(1, device_class="C"), spec(2, device_class="C", downlink_loss=0.1)]
    nodes, journal = deliver(specs, [Trouble(280.0, "node", node=1)], journal=Leaving())
    assert journal.refused == 3
    assert {node.running_image for node in nodes.values()} == {IMAGE}
