"""One cohort in virtual time with the link layer left out: gatewayd's own session, virtual nodes, and an air that loses.

Class A nodes that open class C windows, with uplinks at the group's data rate. Set-up loses nothing; from the first
fragment on every frame may be lost. The air is half-duplex: what a node says while the gateway sends is lost as well. Whether a
node hears fragment N depends on node, N and seed only, so that an oracle can know it.
"""

import random
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field

from radios.errors import FrameError
from radios.lorawan.air import MulticastAir, Turn
from radios.lorawan.airtime import DutyCycleLedger, downlink_airtime
from radios.lorawan.cohort import BlockSource, Cohort, SessionSettings
from radios.lorawan.fec import Encoder
from radios.lorawan.fuota_session import FuotaSession
from radios.lorawan.keys import Key
from radios.lorawan.messages import Action, Commit, CreateGroup, DeleteGroup, Multicast, Release, Unicast, waits
from radios.lorawan.network_server import Queued, Uplink
from radios.lorawan.packages.fragmentation import N_MAX
from radios.lorawan.regions import Modulation, region
from radios.lorawan.session_node import NodeProfile, Ports
from radios.radio import Fact, NodeDirective, NodeId, Want
from radios.simulated.chirpstack.agenda import Agenda
from radios.simulated.lorawan import firmware
from radios.simulated.lorawan.node import VirtualNode
from radios.simulated.lorawan.phy import PHY_OVERHEAD_BYTES, Activation
from radios.simulated.lorawan.phy import Uplink as NodeUplink
from radios.simulated.lorawan.region import RX1_DELAY_S, time_on_air_s
from radios.simulated.lorawan.spec import NodeSpec

T0 = 1_800_000_000.0
FREQUENCY_HZ = 869_525_000
_HARDWARE = 0xBEEF
_VERSION = 2
_EVENT_AFTER_S = 0.2  # from the end of an uplink to its event: the server waits for other gateways
_DECISION_AFTER_S = 0.3  # ... to the choice of the downlink that answers it
_LEAST_STEP_S = 0.01
_LONGEST_S = 60 * 86400.0


@dataclass(slots=True)
class Sent:
    """What went down, in frames and seconds on the air, by the name of the command."""

    frames: Counter[str] = field(default_factory=Counter)
    airtime_s: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, name: str, airtime_s: float) -> None:
        self.frames[name] += 1
        self.airtime_s[name] += airtime_s

    @property
    def total_s(self) -> float:
        return sum(self.airtime_s.values())


@dataclass(slots=True)
class _Receiver:
    """A virtual node and its link."""

    node: VirtualNode
    hears: random.Random  # fragments, one draw each in their order
    chance: random.Random  # everything else
    queue: deque[Unicast] = field(default_factory=deque)
    wake: float | None = None
    complete_at: int | None = None  # counter with which it held the whole block

    @property
    def loss(self) -> float:
        return self.node.spec.downlink_loss


class GroupWorld:
    """`run` returns when every node has shown that its image is valid."""

    def __init__(
        self,
        specs: list[NodeSpec],
        image: bytes,
        *,
        data_rate: int,
        frag_size: int,
        seed: int = 0,
        settings: SessionSettings | None = None,
    ) -> None:
        self.image = image
        self.set_up = Sent()  # what went down before the first fragment
        self.sent = Sent()  # ... and from it on
        self.ready: dict[str, float] = {}
        self.failed: list[str] = []
        self.released: list[Release] = []
        self._agenda = Agenda(T0)
        self._told = True  # the session has something to look at
        self._seed = seed
        self._sending: deque[tuple[float, float]] = deque()
        self._air: deque[tuple[float, float, int, str]] = deque()  # uplinks: start, end, frequency, who
        self._modulation: Modulation = region("EU868").downlink(data_rate).modulation
        self._specs = {spec.dev_eui: spec for spec in specs}
        self._nodes = {spec.dev_eui: self._receiver(spec) for spec in specs}
        self.session = self._session(image, data_rate, frag_size, settings or SessionSettings())
        for spec in specs:
            self.session.join(
                _profile(spec),
                NodeDirective("bench", NodeId(f"lorawan:{spec.dev_eui}"), 1, Want.DELIVER),
                session_cnt=1,
                attempt=1,
                root_key=Key(spec.gen_app_key),
                now=T0,
            )
        for dev_eui in self._nodes:
            self._wake_later(dev_eui)

    @property
    def now(self) -> float:
        return self._agenda.now

    @property
    def fragment_airtime_s(self) -> float:
        return downlink_airtime(self._modulation, 3 + self.session.cohort.frag_size)

    def run(self) -> None:
        """AssertionError when a node fails, leaves or holds other bytes, or it takes for ever."""
        while len(self.ready) < len(self._nodes):
            if self.failed or self.released:
                raise AssertionError(f"not delivered: {self.failed} {self.released}")
            if self.now > T0 + _LONGEST_S:
                raise AssertionError(f"only {len(self.ready)} nodes after {self.now - T0:.0f} s")
            self._step()
        for receiver in self._nodes.values():
            if receiver.node.bootloader.download != self.image:
                raise AssertionError(f"{receiver.node.spec.dev_eui} holds other bytes")

    def completed_at(self) -> list[int]:
        """Per node, the counter with which an oracle would have stopped."""
        found = [receiver.complete_at for receiver in self._nodes.values()]
        return [counter for counter in found if counter is not None]

    def _step(self) -> None:
        deadline = self.session.next_deadline()
        if self._told or deadline is None or deadline <= self.now:
            self._told = False
            actions = self.session.to_send(self.now)
            for action in actions:
                self._perform(action)
            self._told = bool(actions)
            return
        due = self._agenda.next_deadline()
        self._agenda.run_until(deadline if due is None else max(min(due, deadline), self.now))

    def _perform(self, action: Action) -> None:
        match action:
            case Commit():
                for event in action.events:
                    if event.fact is Fact.READY:
                        self.ready[event.node[-16:]] = event.at
                    elif event.fact is Fact.FAILED:
                        self.failed.append(f"{event.node} {event.code} {event.detail}")
            case CreateGroup():
                self.session.group_created("group")
            case DeleteGroup():
                self.session.group_deleted("group")
            case Multicast():
                self._multicast(action)
                self.session.multicast_done(self.now)
            case Unicast():
                queue = self._nodes[action.dev_eui].queue
                if waits(action, [Queued(item.port, item.data, item.expires) for item in queue], self.now):
                    self.session.unicast_waits(action.dev_eui)
                else:
                    queue.append(action)
            case Release():
                self.released.append(action)

    # Down.

    def _multicast(self, frame: Multicast) -> None:
        airtime_s = downlink_airtime(self._modulation, len(frame.data))
        coded = frame.n is not None and frame.n > self.session.cohort.nb_frag
        self._count("coded" if coded else frame.name, airtime_s)
        self._sending.append((self.now, self.now + airtime_s))
        self._agenda.at(self.now + airtime_s, lambda now: self._arrive(frame, now))

    def _arrive(self, frame: Multicast, now: float) -> None:
        for dev_eui, receiver in self._nodes.items():
            draw = receiver.hears if frame.n is not None else receiver.chance
            if draw.random() < receiver.loss or receiver.node.group_session(now) is None:
                continue
            receiver.node.deliver(frame.port, frame.data, now, multicast=True)
            held = receiver.node.fragmentation.session
            if frame.n is None:
                self._wake_later(dev_eui)
            elif receiver.complete_at is None and held is not None and held.decoder.complete:
                receiver.complete_at = frame.n

    def _answer(self, dev_eui: str, uplink: NodeUplink, now: float) -> None:
        """The network server's choice after an uplink: one queued frame in RX1."""
        receiver = self._nodes[dev_eui]
        while receiver.queue and receiver.queue[0].expires <= now:
            receiver.queue.popleft()
        if not receiver.queue:
            return
        start = now - _DECISION_AFTER_S + RX1_DELAY_S
        airtime_s = time_on_air_s(len(receiver.queue[0].data) + PHY_OVERHEAD_BYTES, uplink.data_rate, crc=False)
        if self._busy(start, start + airtime_s):
            return
        item = receiver.queue.popleft()
        self._count(item.name, airtime_s)
        self._sending.append((start, start + airtime_s))

        def arrive(when: float) -> None:
            if self._quiet or receiver.chance.random() >= receiver.loss:
                receiver.node.deliver(item.port, item.data, when, multicast=False)
                self._wake_later(dev_eui)

        self._agenda.at(start + airtime_s, arrive)

    # Up.

    def _wake_later(self, dev_eui: str) -> None:
        receiver = self._nodes[dev_eui]
        when = max(receiver.node.next_deadline(), self.now + _LEAST_STEP_S)
        if receiver.wake is None or when < receiver.wake:
            receiver.wake = when
            self._agenda.at(when, lambda now: self._wake(dev_eui, now))

    def _wake(self, dev_eui: str, now: float) -> None:
        receiver = self._nodes[dev_eui]
        if receiver.wake != now:
            return
        receiver.wake = None
        receiver.node.handle_timeout(now)
        for uplink in receiver.node.to_send(now):
            if isinstance(uplink, NodeUplink):
                size = len(uplink.payload) + PHY_OVERHEAD_BYTES
                end = now + time_on_air_s(size, uplink.data_rate, crc=True)
                self._air.append((now, end, uplink.frequency_hz, dev_eui))
                self._agenda.at(end, lambda when, sent=uplink, start=now: self._heard(sent, start, when))  # type: ignore[misc]
        self._wake_later(dev_eui)

    def _heard(self, uplink: NodeUplink, start: float, end: float) -> None:
        receiver = self._nodes[uplink.dev_eui]
        while self._air and self._air[0][1] < end - 60:
            self._air.popleft()
        collides = any(
            who != uplink.dev_eui and hz == uplink.frequency_hz and begin < end and start < until
            for begin, until, hz, who in self._air
        )
        lost = receiver.chance.random() < receiver.node.spec.uplink_loss and not self._quiet
        if lost or collides or self._busy(start, end):
            return
        up = Uplink(uplink.dev_eui, uplink.f_port, uplink.payload, end)
        self._agenda.at(end + _EVENT_AFTER_S, lambda now: self._tell(up, now))
        self._agenda.at(end + _DECISION_AFTER_S, lambda now: self._answer(uplink.dev_eui, uplink, now))

    def _tell(self, uplink: Uplink, now: float) -> None:
        self._told |= self.session.receive(uplink, now)

    def _count(self, name: str, airtime_s: float) -> None:
        (self.set_up if self._quiet else self.sent).add(name, airtime_s)

    def _busy(self, start: float, end: float) -> bool:
        while self._sending and self._sending[0][1] < self.now - 60:
            self._sending.popleft()
        return any(begin < end and start < until for begin, until in self._sending)

    @property
    def _quiet(self) -> bool:
        """Nothing is lost yet: the nodes are being set up."""
        return not self.session.cohort.data_started

    # Making.

    def _receiver(self, spec: NodeSpec) -> _Receiver:
        node = VirtualNode(spec, _verify, T0, Activation(0, bytes(16), bytes(16)))
        named = f"{self._seed}/{spec.dev_eui}"
        return _Receiver(node, random.Random(f"{named}/fragments"), random.Random(f"{named}/rest"))

    def _session(self, image: bytes, data_rate: int, frag_size: int, settings: SessionSettings) -> FuotaSession:
        cohort = Cohort(
            cohort="bench",
            transfer="bench",
            digest="00" * 32,
            size=len(image),
            version=_VERSION,
            frag_size=frag_size,
            frag_version=1,
            region="EU868",
            data_rate=data_rate,
            frequency_hz=FREQUENCY_HZ,
            gateways=("gateway",),
            mc_addr=0x01020304,
        )
        encoder = Encoder(lambda at, length: image[at : at + length], len(image), frag_size, 1)
        coded: dict[int, bytes] = {}

        def fragment(n: int) -> bytes:
            if n <= cohort.nb_frag:
                return encoder.fragment(n)
            if n not in coded:
                batch = range(n, min(n + 64, N_MAX + 1))
                coded.update(zip(batch, encoder.fragments(batch), strict=True))
            return coded.pop(n)

        ledger = DutyCycleLedger(region("EU868").sub_band(FREQUENCY_HZ).duty_cycle)
        turn = Turn()
        pace = MulticastAir({"gateway": ledger}, self._modulation, turn, share=1.0, gateway_gap_s=0.0)
        source = BlockSource(lambda at, length: image[at : at + length], fragment, len(image))
        return FuotaSession(cohort, Key(bytes(range(16))), source, pace, turn, settings, lambda: (1, Key(bytes(16))))


def spec(number: int, **changes: object) -> NodeSpec:
    """One class A node."""
    values: dict[str, object] = {
        "dev_eui": f"70b3d5499000{number:04x}",
        "gen_app_key": number.to_bytes(16, "big"),
        "image": firmware.build(version=1, hardware=_HARDWARE, size=64, seed=1),
        "version": 1,
        "hardware": _HARDWARE,
        "redundancy_limit": N_MAX,
        "flash_bytes": 1 << 21,
        "seed": number,
    }
    return NodeSpec(**(values | changes))  # type: ignore[arg-type]  # of the fields' types


def new_image(plain_count: int, frag_size: int) -> bytes:
    return firmware.build(version=_VERSION, hardware=_HARDWARE, size=plain_count * frag_size - 5, seed=7)


def _profile(spec: NodeSpec) -> NodeProfile:
    return NodeProfile(spec.dev_eui, 1, 1, 1, (1, 0), 1.5 * spec.uplink_interval_s, Ports())


def _verify(image: bytes) -> int | None:
    try:
        return firmware.parse(image).version
    except FrameError:
        return None
