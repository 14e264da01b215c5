"""The whole radio in virtual time: whatever is lost, doubled or late, whoever goes away and whenever.

The invariant: within a bounded time every node runs exactly the new image, or runs its old one unchanged with a reason
told; and unless the node itself cannot take the image, or its sessions are few, it runs the new one. A daemon that goes away is
killed, and made again from the bytes of the journal.
"""

import asyncio
import hashlib
import json
import random
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from radios.lorawan.chirpstack import ChirpStackSettings
from radios.lorawan.chirpstack_events import parse_uplink
from radios.lorawan.cohort import SessionSettings
from radios.lorawan.driver import LorawanRadio, LorawanSettings
from radios.lorawan.journal_codec import read_known
from radios.radio import Fact, ImageRef, NodeDirective, TransferOrder, Want
from radios.simulated.lorawan import firmware
from radios.simulated.lorawan.packages.fragmentation import StatusStyle
from radios.simulated.zigbee.virtual_time import LoopClock, run_virtual
from tests.radios.lorawan.drawing import few
from tests.radios.lorawan.memory_site import MemoryJournal, Network, Store, node_id
from tests.radios.lorawan.world import GATEWAY, new_image, spec, verify

T0 = 1_800_000_000.0
LIMIT_S = 60 * 86400.0
OTHER_GATEWAY = "00800000a0000002"
IMAGE = new_image(3000)


class Journal(MemoryJournal):
    """Progress is written along with the next commit, as the daemon's is; a crash loses it. Commits may fail."""

    def __init__(self):
        super().__init__()
        self.failing = 0
        self.killing = None  # a future: the daemon is killed once the next commit is durable
        self._soft = {}

    async def commit(self, records, events):
        if self.failing:
            self.failing -= 1
            raise OSError("the disk is full")
        await super().commit([*self._soft.values(), *records], events)
        self._soft = {}
        if self.killing is not None and not self.killing.done():
            self.killing.set_result(None)
            await asyncio.Event().wait()  # nothing that follows the commit is done any more

    def progress(self, events, records=()):
        self.events += events
        self._soft |= {(record.scope, record.key): record for record in records}

    def crash(self):
        self._soft = {}


class Site(Network):
    """The simulated network server on the loop's time. Events come twice or late now and then."""

    def __init__(self, specs, clock, seed, image, gateways):
        names = [GATEWAY, OTHER_GATEWAY][: gateways.count]
        super().__init__(specs, clock, names, signed=lambda held: verify(held) if held == image else None)
        self.simulated.settings = replace(self.simulated.settings, ack_loss=gateways.ack_loss)
        for gateway in self.simulated.air.gateways.values():
            gateway.refused_share = gateways.refused_share
        self._bus_up = gateways.heard
        self._random = random.Random(seed)
        self._loop = asyncio.get_running_loop()
        self._heard = asyncio.Queue()

    def next_deadline(self):
        return self.simulated.next_deadline()

    def handle_timeout(self, now):
        self.simulated.advance(now)
        if self._bus_up:
            self._tell_of_gateways()
        while self.simulated.events:
            event = self.simulated.events.popleft()
            if event.kind != "up":
                continue
            copies = 2 if self._random.random() < 0.1 else 1
            for _ in range(copies):
                late_s = self._random.uniform(0.0, 20.0) if self._random.random() < 0.1 else 0.0
                self._loop.call_at(now + late_s, self._heard.put_nowait, json.dumps(event.body).encode())

    def link_up(self):
        return {"memory": not self.down, "gateway_bus": self._bus_up}

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


@dataclass(frozen=True, slots=True)
class Gateways:
    """`heard`: the gateway bus is. `refused_share` of frames to send at once is, and `ack_loss` of what they say of it is lost."""

    count: int = 1
    heard: bool = False
    refused_share: float = 0.0
    ack_loss: float = 0.0


def deliver(specs, troubles, seed=0, image=IMAGE, journal=None, gateways=Gateways(), attempts_most=99):
    """The site's nodes and the journal's events, once all nodes have come to an end."""

    async def main():
        loop = asyncio.get_running_loop()
        clock = LoopClock(loop)
        network = Site(specs, clock, seed, image, gateways)
        loop.attach(network)
        daemon = Daemon(network, journal, clock, specs, image, attempts_most)
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
    def __init__(self, network, journal, clock, specs, image, attempts_most):
        self._attempts_most = attempts_most
        self._network, self._journal, self._clock, self._specs, self._image = network, journal, clock, specs, image
        ref = ImageRef(hashlib.sha256(image).hexdigest(), len(image), firmware.parse(image).version)
        expires = datetime.fromtimestamp(T0, UTC) + timedelta(days=90)
        self._order = TransferOrder("t1", ref, 1, 1.0, expires)

    def start(self):
        chirpstack = ChirpStackSettings("127.0.0.1:1", "token", "a", "t", "127.0.0.1")
        session = SessionSettings(attempts_most=self._attempts_most)
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
            case "commit":
                journal.killing = asyncio.get_running_loop().create_future()
                await asyncio.wait([journal.killing], timeout=7200.0)
                await daemon.stop()
                journal.killing = None
                await asyncio.sleep(trouble.lasts_s)
                daemon.start()
            case "queues":
                for device in network.simulated.devices.values():
                    device.queue.clear()
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


# Of downlinks and of uplinks. What is lost both ways 9 times of 10 takes months; one way, days.
LOSSES = st.sampled_from(
    [(0.0, 0.0)] * 3
    + [
        (0.1, 0.1),
        (0.3, 0.0),
        (0.1, 0.3),
        (0.3, 0.5),
        (0.5, 0.3),
        (0.7, 0.1),
        (0.0, 0.7),
        (0.7, 0.7),
        (0.9, 0.0),
        (0.0, 0.9),
    ]
)
TROUBLES = st.builds(
    Trouble,
    after_s=st.floats(1.0, 2500.0),
    what=st.sampled_from(["daemon", "commit", "commit", "server", "queues", "node", "disk", "group"]),
    lasts_s=st.floats(0.0, 900.0),
    node=st.integers(0, 3),
)


@st.composite
def sites(draw):
    version = draw(st.sampled_from([1, 2]), "version")
    gateways = draw(
        st.builds(
            Gateways,
            count=st.sampled_from([1, 2]),
            heard=st.booleans(),
            refused_share=st.sampled_from([0.0, 0.0, 0.2]),
            ack_loss=st.sampled_from([0.0, 0.3]),
        ),
        "gateways",
    )
    reach = st.sampled_from([(), (GATEWAY,), (OTHER_GATEWAY,)][: 1 if gateways.count == 1 else 3])
    # A decoder that makes up 5 has no chance on the worst links, in any number of sessions.
    node = st.tuples(st.just(100), LOSSES) | st.tuples(st.just(5), LOSSES.filter(lambda link: link[0] < 0.4))
    links = draw(st.lists(node, min_size=1, max_size=3))
    specs = [
        spec(
            number,
            seed=draw(st.integers(0, 1 << 30)),
            status_style=draw(st.sampled_from(list(StatusStyle))),
            device_class=draw(st.sampled_from(["A", "B", "C", "C"])),
            downlink_loss=down,
            uplink_loss=up,
            loss_burst_frames=draw(st.sampled_from([1.0, 1.0, 4.0])),
            clock_error_s=draw(st.sampled_from([0.0, -400.0, 90.0])),
            clock_drift_ppm=draw(st.sampled_from([0.0, 50.0])),
            redundancy_limit=limit,
            self_test_fails=draw(st.integers(0, 5)) == 0,
            package_versions={0: draw(st.integers(0, 1)), 3: version, 2: draw(st.sampled_from([0, 1, 2, 2]))},
            uplink_interval_s=120.0,
            gateways=draw(reach),
        )
        for number, (limit, (down, up)) in enumerate(links, 1)
    ]
    return specs, gateways


FEW_SESSIONS = {"session_lost", "no_space", "invalid_image", "deaf", "lost", "refused"}


def check(specs, nodes, journal, attempts_most):
    for s in specs:
        node = nodes[s.dev_eui]
        assert node.counters.reboots == node.bootloader.swaps, "a reboot that begins no image"
        last = [e for e in journal.events if e.node == node_id(s) and e.fact in (Fact.RUNNING, Fact.FAILED)][-1]
        if last.fact is Fact.RUNNING and last.version == 2:
            assert node.running_image == IMAGE
            continue
        assert node.running_image == s.image
        # Only a node that rolled back, whose decoder makes up too little, or that may have no other session may stay as it is.
        spent = attempts_most < 99 and last.code in FEW_SESSIONS
        heard = (1 - s.downlink_loss) * (1 - s.uplink_loss)
        unheard = heard < 0.4 and last.code == "unproven"
        assert node.bootloader.rollbacks or spent or unheard or s.redundancy_limit == 5, (last.code, last.detail)


@few(16)
@given(sites(), st.lists(TROUBLES, max_size=4), st.integers(0, 1 << 30), st.sampled_from([3, 4, 99, 99]))
def test_every_node_ends_with_the_image_or_unchanged(site, troubles, seed, attempts_most):
    specs, gateways = site
    nodes, journal = deliver(specs, troubles, seed, gateways=gateways, attempts_most=attempts_most)
    check(specs, nodes, journal, attempts_most)


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


def test_a_failure_that_could_not_be_committed_is_told_later():
    class Failing(Journal):
        refused = 0

        async def commit(self, records, events):
            if any(event.fact is Fact.FAILED for event in events) and self.refused < 2:
                self.refused += 1
                raise OSError("the disk is full")
            await super().commit(records, events)

    specs = [spec(1, device_class="C", package_versions={3: 0})]
    _, journal = deliver(specs, [], journal=Failing())
    assert journal.refused == 2
    assert [(e.fact, e.detail) for e in journal.events] == [(Fact.FAILED, "the node has no package 3")]


def test_a_session_that_could_not_be_committed_is_no_attempt():
    """The journal refuses the record of the node's first session three times, and one attempt is all that it may have."""

    class Refusing(Journal):
        refused = 0

        async def commit(self, records, events):
            if self.refused < 3 and any(record.key.startswith("known/") for record in records):
                self.refused += 1
                raise OSError("the disk is full")
            await super().commit(records, events)

    nodes, journal = deliver([spec(1, device_class="C")], [], journal=Refusing())
    assert journal.refused == 3
    assert {node.running_image for node in nodes.values()} == {IMAGE}
    known = read_known(journal.records["node", f"known/{spec(1).dev_eui}"])
    assert known.attempts == {"t1": 1}


def test_a_node_whose_decoder_makes_up_too_little_for_its_link_gets_the_image_all_the_same():
    """It says how little it makes up, leaves for ever lower data rates, and in the end gets every fragment confirmed."""
    specs = [spec(1, downlink_loss=0.5, redundancy_limit=2, uplink_interval_s=120.0)]
    nodes, journal = deliver(specs, [], attempts_most=3)
    assert nodes[specs[0].dev_eui].running_image == IMAGE
    assert [e.code for e in journal.events if e.fact is Fact.FAILED] == []


def test_a_restarted_radio_sends_no_data_before_it_was_told_what_is_wanted_now():
    """The daemon may have held the nodes between the last commit of the radio and its end."""
    specs = [spec(1, device_class="C"), spec(2, device_class="C")]

    class Silent(Daemon):
        async def _run(self):
            await self.radio.put(self._order)
            await self.radio.run(self._journal, Store(self._image))

    async def main():
        loop = asyncio.get_running_loop()
        clock, journal = LoopClock(loop), Journal()
        network = Site(specs, clock, 0, IMAGE, Gateways())
        loop.attach(network)

        def received():
            return [network.simulated.nodes[s.dev_eui].fragment_counters.fragments_received for s in specs]

        first = Daemon(network, journal, clock, specs, IMAGE, 99)
        first.start()
        while not all(count > 2 for count in received()):
            await asyncio.sleep(0.5)
        await first.stop()
        again = Silent(network, journal, clock, specs, IMAGE, 99)
        again.start()
        await asyncio.sleep(10.0)  # one fragment may have been in the network server's queue
        before = received()
        await asyncio.sleep(300.0)
        assert received() == before
        await again.radio.direct([NodeDirective("t1", node_id(s), 2, Want.HOLD) for s in specs])
        await asyncio.sleep(1000.0)
        assert received() == before
        await again.radio.direct([NodeDirective("t1", node_id(s), 3, Want.INSTALL) for s in specs])
        while not ended(journal, specs, network):
            assert clock.now() < T0 + LIMIT_S
            await asyncio.sleep(60.0)
        await again.stop()
        return network.simulated.nodes

    nodes = run_virtual(main(), start=T0)
    assert {node.running_image for node in nodes.values()} == {IMAGE}
