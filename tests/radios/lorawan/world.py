"""Virtual time: one session, a journal that can fail, and the simulated network server with its virtual nodes, sans-I/O."""

import json

from radios.errors import FrameError
from radios.lorawan.air import MulticastAir, Turn
from radios.lorawan.airtime import DutyCycleLedger
from radios.lorawan.chirpstack_events import parse_uplink
from radios.lorawan.cohort import BlockSource, Cohort, SessionSettings
from radios.lorawan.fec import Encoder
from radios.lorawan.fuota_session import FuotaSession
from radios.lorawan.gateway_bus import FrameKey, GatewayBus, GatewayFrame
from radios.lorawan.inventory import time_answer
from radios.lorawan.journal_codec import read_cohort, read_key, read_node
from radios.lorawan.keys import Key, mc_app_s_key, mc_net_s_key
from radios.lorawan.messages import Commit, CreateGroup, DeleteGroup, Feed, Multicast, Progress, Release, Unicast, waits
from radios.lorawan.network_server import Device, DeviceClass, Queued, Uplink
from radios.lorawan.packages import fragmentation
from radios.lorawan.regions import region
from radios.lorawan.restored import after_restore
from radios.lorawan.runner import BUSY_WAIT_S
from radios.lorawan.session_node import NodeProfile, Ports
from radios.lorawan.transmissions import Transmissions
from radios.lorawan.unicast_air import UnicastAir
from radios.radio import Fact, NodeDirective, NodeId, Want
from radios.simulated.chirpstack.model import GroupSettings, GroupType, Scheduling
from radios.simulated.chirpstack.network import NetworkServer, NetworkSettings
from radios.simulated.lorawan import firmware
from radios.simulated.lorawan.spec import NodeSpec

T0 = 1_800_000_000.0
GATEWAY = "00800000a0000001"
HARDWARE = 0xBEEF
FREQUENCY_HZ = 869_525_000


def verify(image):
    try:
        return firmware.parse(image).version
    except FrameError:
        return None


def spec(number, **changes):
    values = {
        "dev_eui": f"70b3d5499000{number:04x}",
        "gen_app_key": bytes([number] * 16),
        "image": firmware.build(version=1, hardware=HARDWARE, size=64, seed=1),
        "version": 1,
        "hardware": HARDWARE,
        "device_class": "C",
        "seed": number,
    }
    return NodeSpec(**(values | changes))


def new_image(size=6000):
    return firmware.build(version=2, hardware=HARDWARE, size=size, seed=7)


class CommitFailed(Exception):
    pass


class World:
    """`stop_after`: actions after which the daemon "crashes" and is made again from the records, once per entry."""

    def __init__(
        self,
        specs,
        image,
        *,
        settings=None,
        frag_version=1,
        data_rate=5,
        frag_size=219,
        seed=0,
        gateways=(GATEWAY,),
        unicast=False,
        alone=False,
        limit=None,
        bus=False,
        **network,
    ):
        """`unicast`: single nodes may be fed; `alone`: the cohort has no group; `limit`: lost fragments that are made up.

        `bus`: the gateway bus is heard; `network`: changes to the `NetworkSettings`.
        """
        self.now = T0
        self.gateways = gateways
        self.unicast = unicast or alone
        self.limit = limit
        self.image = image
        self.network = NetworkServer(
            NetworkSettings("tenant", "app", list(gateways), seed=seed, **network), specs, self._signed, T0
        )
        self.specs = {s.dev_eui: s for s in specs}
        self.settings = settings or SessionSettings()
        self.frag_version = frag_version
        self.records = {}
        self.events = []
        self.released = []
        self.log = []  # every action performed
        self.fed = []  # (DevEUI, counter) by unicast
        self.transmissions = Transmissions() if bus else None
        self.verdicts = []
        self._bus = GatewayBus()
        self.violations = []
        self.silent = set()  # DevEUIs whose uplinks are lost
        self.restarts = 0
        self.crash_at = set()
        self.fail_commits = set()
        self.commits = 0
        self._performed = 0
        self._mc_keys = 0
        self.cohort = Cohort(
            cohort="c0ffee00",
            transfer="t1",
            digest="00" * 32,
            size=len(image),
            version=2,
            frag_size=frag_size,
            frag_version=frag_version,
            region="EU868",
            data_rate=data_rate,
            frequency_hz=FREQUENCY_HZ,
            gateways=tuple(gateways),
            mc_addr=0x01020304,
            unicast=alone,
        )
        self.session = self._session(self.cohort, Key(bytes(range(16))), None)
        for s in specs:
            self.session.join(
                self.profile(s), self.directive(s), session_cnt=1, attempt=1, root_key=Key(s.gen_app_key), now=T0
            )

    def _signed(self, image):
        """The manufacturer's signature: good over the image as it was made, and nothing else."""
        return verify(image) if image == self.image else None

    def profile(self, s):
        timeout_s = 60.0 if s.device_class == "C" else 1.5 * s.uplink_interval_s
        always_on = s.device_class == "C"
        return NodeProfile(
            s.dev_eui,
            self.frag_version,
            s.package_version(2),
            1,
            (1, 0),
            timeout_s,
            Ports(),
            always_on=always_on,
            unicast_dr=(0 if always_on else s.data_rate) if self.unicast else None,
            redundancy_limit=self.limit,
        )

    @staticmethod
    def directive(s, want=Want.INSTALL, generation=1):
        return NodeDirective("t1", NodeId(f"lorawan:{s.dev_eui}"), generation, want)

    def node(self, s):
        return self.network.nodes[s.dev_eui]

    def facts(self, s):
        return [e.fact for e in self.events if e.node.endswith(s.dev_eui)]

    def run(self, until, limit_s=7 * 86400.0):
        """Virtual time passes until the condition holds; AssertionError at the limit."""
        end = self.now + limit_s
        while not until(self):
            assert self.now < end, (
                f"nothing in {limit_s} s: {[(n.dev_eui, n.step) for n in self.session.nodes.values()]}"
            )
            self._step()

    def restart(self):
        """As after SIGKILL: only committed records remain."""
        self.restarts += 1
        cohorts = [r for (scope, key), r in self.records.items() if scope == "group" and "/" not in key]
        if not cohorts:
            assert not self.session.nodes or not self.log
            return
        cohort = read_cohort(cohorts[0])
        key = read_key(self.records["group", f"{cohort.cohort}/key"])
        nodes = [
            read_node(r) for (scope, k), r in self.records.items() if scope == "node" and not k.startswith("known/")
        ]
        for node in nodes:
            node.root_key = Key(self.specs[node.dev_eui].gen_app_key)
        self.cohort = cohort
        self.session = self._session(cohort, key, nodes)

    def back_up(self):
        """The records as they are, and when."""
        return dict(self.records), self.now

    def replace(self, backup):
        """Other hardware takes over with an older backup."""
        records, made_at = backup
        put = after_restore(
            list(records.values()), made_at, self.now, region("EU868"), FREQUENCY_HZ, self.gateways, self._new_group
        )
        self.records = records | {(record.scope, record.key): record for record in put}
        self.restart()

    def _source(self, cohort):
        encoder = Encoder(lambda at, n: self.image[at : at + n], cohort.size, cohort.frag_size, cohort.frag_version)
        return BlockSource(lambda at, n: self.image[at : at + n], encoder.fragment, cohort.size)

    def _session(self, cohort, key, nodes):
        source = self._source(cohort)
        plan = region("EU868")
        turn = Turn()
        ledger = DutyCycleLedger(plan.sub_band(FREQUENCY_HZ).duty_cycle)
        modulation = plan.downlink(cohort.data_rate).modulation
        ledgers = dict.fromkeys(cohort.gateways, ledger) if len(cohort.gateways) == 1 else self._ledgers(plan)
        pace = MulticastAir(ledgers, modulation, turn, share=1.0, gateway_gap_s=5.0, least_spacing_s=1.0)
        air = UnicastAir(plan.held_to(repeater=True, dwell_time=False), rx2=ledgers) if self.unicast else None
        return FuotaSession(cohort, key, source, pace, turn, self.settings, self._new_group, nodes=nodes, unicast=air)

    def _ledgers(self, plan):
        duty_cycle = plan.sub_band(FREQUENCY_HZ).duty_cycle
        return {gateway: DutyCycleLedger(duty_cycle) for gateway in self.gateways}

    def _new_group(self):
        self._mc_keys += 1
        return 0x01020304 + self._mc_keys, Key(bytes([self._mc_keys] * 16))

    def _step(self):
        actions = self.session.to_send(self.now)
        try:
            for action in actions:
                self._perform(action)
                self._performed += 1
                if self._performed in self.crash_at:
                    self.restart()
                    break
        except CommitFailed:
            self.restart()
        if not actions:
            deadlines = [self.session.next_deadline(), self.network.next_deadline(), self.now + 3600.0]
            self.now = max(self.now + 0.001, min(d for d in deadlines if d is not None))
            self._advance()

    def _advance(self):
        self.network.advance(self.now)
        self._hear_bus()
        while self.network.events:
            event = self.network.events.popleft()
            if event.kind == "up":
                uplink = parse_uplink(json.dumps(event.body).encode())
                assert isinstance(uplink, Uplink), uplink
                if uplink.dev_eui not in self.silent:
                    self._answer_time(uplink)
                    self.session.receive(uplink, self.now)

    def _hear_bus(self):
        while self.network.bus:
            said = self.network.bus.popleft()
            if said.statuses is None:
                self._bus.downlink(said.gateway_id, said.downlink_id, [GatewayFrame(f.phy) for f in said.frames])
            elif self.transmissions is not None:
                word = self._bus.ack(said.gateway_id, said.downlink_id, said.statuses)
                if word is not None and word.key.mc_addr == self.cohort.mc_addr:
                    self._judge([self.transmissions.heard(word)])

    def _judge(self, verdicts):
        for verdict in verdicts:
            if verdict is not None:
                self.verdicts.append(verdict)
                self.session.multicast_transmitted(verdict.n, verdict.sent, self.now, verdict.status)

    def perform(self, actions):
        for action in actions:
            self._perform(action)

    def _answer_time(self, uplink):
        """What the driver does for every node."""
        device = Device(uplink.dev_eui, "", DeviceClass.C, "EU868", (1, 0), 300.0)
        answer = time_answer(device, Ports(), uplink, self.now)
        if answer is not None:
            expires = answer.expires
            self.network.enqueue(answer.dev_eui, answer.port, answer.data, confirmed=False, expires_at=expires)

    def _perform(self, action):
        if not isinstance(action, Multicast):
            self.log.append(action)
        match action:
            case Commit():
                self.commits += 1
                if self.commits in self.fail_commits:
                    raise CommitFailed
                for record in action.records:
                    self.records[record.scope, record.key] = record
                    if not record.value:
                        del self.records[record.scope, record.key]
                self.events += action.events
            case Progress():
                self.events += action.events
            case Unicast():
                queue = self.network.devices[action.dev_eui].queue
                if waits(action, [Queued(item.f_port, item.data, item.expires_at) for item in queue], self.now):
                    self.session.unicast_waits(action.dev_eui)
                    return
                self._check_setup(action)
                self.network.enqueue(
                    action.dev_eui, action.port, action.data, confirmed=False, expires_at=action.expires
                )
            case CreateGroup():
                group_id = action.name
                if group_id in self.network.multicast.groups:  # the contract: not made twice
                    self.session.group_created(group_id)
                    return
                settings = GroupSettings(
                    name=action.name,
                    application_id="app",
                    region=0,
                    f_cnt=0,
                    mc_addr=action.mc_addr,
                    mc_nwk_s_key=mc_net_s_key(action.mc_key, action.mc_addr).reveal(),
                    mc_app_s_key=mc_app_s_key(action.mc_key, action.mc_addr).reveal(),
                    group_type=GroupType.CLASS_C if action.ping_periodicity is None else GroupType.CLASS_B,
                    class_b_ping_slot_periodicity=action.ping_periodicity or 0,
                    data_rate=action.data_rate,
                    frequency_hz=action.frequency_hz,
                    scheduling=Scheduling.DELAY,
                )
                self.network.multicast.create(group_id, settings)
                for gateway in action.gateways:
                    self.network.multicast.add_gateway(group_id, gateway)
                self.session.group_created(group_id)
            case DeleteGroup():
                if action.group_id in self.network.multicast.groups:  # the contract: idempotent
                    self.network.multicast.delete(action.group_id)
                self.session.group_deleted(action.group_id)
            case Multicast():
                self._multicast(action)
            case Feed():
                self._feed(action)
            case Release():
                self.released.append(action)

    def _multicast(self, action):
        if self.network.multicast.list_queue(action.group_id):
            self.session.multicast_busy(self.now, BUSY_WAIT_S)
            return
        if action.n is not None:
            stored = read_cohort(self.records["group", self.cohort.cohort])
            if not (stored.data_started and action.n <= stored.reserved):
                self.violations.append(f"fragment {action.n} before its reservation {stored.reserved}")
        self.log.append(action)
        f_cnt = self.network.multicast.enqueue(action.group_id, action.port, action.data, None)
        self.session.multicast_done(self.now)
        if self.transmissions is not None:
            key = FrameKey(self.cohort.mc_addr, f_cnt & 0xFFFF)
            self._judge(self.transmissions.given(key, action.n, self.gateways))

    def _feed(self, action):
        if self.network.devices[action.dev_eui].queue:
            self.session.feed_busy(action.dev_eui, self.now)
            return
        stored = read_cohort(self.records["group", self.cohort.cohort])
        for frame in action.frames:
            if frame.n is not None:
                if frame.n > stored.reserved:
                    self.violations.append(f"fragment {frame.n} before its reservation {stored.reserved}")
                self.fed.append((action.dev_eui, frame.n))
            self.network.enqueue(action.dev_eui, frame.port, frame.data, confirmed=False, expires_at=action.expires)
        self.session.fed(action.dev_eui, len(action.frames), self.now)

    def _check_setup(self, action):
        """The one rule that loses a node's data when broken."""
        started = any(isinstance(a, Multicast) and a.n for a in self.log) or self.fed
        if action.name == "FragSessionSetupReq" and started:
            self.violations.append(f"FragSessionSetupReq to {action.dev_eui} after data")

    def fragments(self):
        return [a.n for a in self.log if isinstance(a, Multicast) and a.n is not None]


def all_running(world):
    done = {e.node for e in world.events if e.fact in (Fact.RUNNING, Fact.FAILED)}
    return len(done) == len(world.specs)


__all__ = ["CommitFailed", "Fact", "Want", "World", "all_running", "fragmentation", "new_image", "spec"]
