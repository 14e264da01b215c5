"""One virtual LoRaWAN node, sans-I/O: frames and the time in, uplinks out.

It hears what a real node would: RX1 and RX2 after an uplink, RX2 always in class C, and multicast while a class C
session is open on the frame's frequency and data rate, or in the ping slots of a class B one. Loss on the way is the air's business, not the node's.
"""

import random
from dataclasses import dataclass

from radios.errors import FrameError
from radios.simulated.lorawan import crypto
from radios.simulated.lorawan.bootloader import AbBootloader, Verify
from radios.simulated.lorawan.link_counters import Downlinks, LinkCounters
from radios.simulated.lorawan.node_clock import NodeClock, gps_of_unix
from radios.simulated.lorawan.packages.clock_sync import ClockSync
from radios.simulated.lorawan.packages.commands import Answer
from radios.simulated.lorawan.packages.firmware_management import FirmwareManagement
from radios.simulated.lorawan.packages.fragmentation import Fragmentation, FragmentCounters
from radios.simulated.lorawan.packages.multi_package import MultiPackage
from radios.simulated.lorawan.packages.multicast import GroupSession, RemoteMulticast
from radios.simulated.lorawan.phy import (
    PHY_OVERHEAD_BYTES,
    Activation,
    Downlink,
    DownlinkHeader,
    JoinRequest,
    Uplink,
    full_f_cnt,
    parse_downlink,
)
from radios.simulated.lorawan.ping_slots import is_ping_slot
from radios.simulated.lorawan.region import (
    RX1_DELAY_S,
    RX2_DATA_RATE,
    RX2_DELAY_S,
    RX2_FREQUENCY_HZ,
    UPLINK_FREQUENCIES_HZ,
    max_frm_payload_bytes,
    time_on_air_s,
)
from radios.simulated.lorawan.spec import NodeSpec

SENSOR_PORT = 2
RESET_CAUSES = ("power_on", "watchdog", "soft")  # the number of one is the last byte of a reading of nodes that tell
_WINDOW_TOLERANCE_S = 0.05
_JOIN_RETRY_S = 30.0
_JOIN_PHY_BYTES = 23
_AFTER_RX_WINDOWS_S = RX2_DELAY_S + 1.0


@dataclass(frozen=True, slots=True)
class _Pending:
    at: float
    f_port: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class _Sent:
    start: float
    end: float
    frequency_hz: int
    data_rate: int


class VirtualNode:
    """`activation` is the session that the network server knows too; the node starts joined and in time."""

    def __init__(self, spec: NodeSpec, verify: Verify, now: float, activation: Activation) -> None:
        self.spec = spec
        self.bootloader = AbBootloader(
            image=spec.image,
            version=spec.version,
            hardware=spec.hardware,
            verify=verify,
            delta_formats=spec.delta_formats,
        )
        self.battery_percent = spec.battery_percent
        beacons = spec.device_class == "B"  # they keep its clock
        self.clock = NodeClock(now) if beacons else NodeClock(now, spec.clock_error_s, spec.clock_drift_ppm)
        self.counters = LinkCounters()
        self.downlinks = Downlinks()
        self.fragment_counters = FragmentCounters()
        self._seen: set[tuple[int, bytes]] = set()
        self._random = random.Random(f"{spec.seed}/{spec.dev_eui}")
        if spec.mac_1_1:
            root, root_key = spec.app_key, crypto.mc_root_key(app_key=spec.app_key)
        else:
            root, root_key = spec.gen_app_key, crypto.mc_root_key(gen_app_key=spec.gen_app_key)
        self._ke_key = crypto.mc_ke_key(root_key)
        self._int_key = crypto.data_block_int_key(root)
        self._next_join: float | None = None
        self._trial_ends: float | None = None
        self.reset_cause = "power_on"
        self._activation: Activation | None = None
        self._sent: _Sent | None = None
        self._pending: list[_Pending] = []
        self._tx_free_at = now
        self._poll_at: float | None = None
        self._next_uplink = now
        self._f_cnt_up = 0
        self._next_f_cnt_down = 0
        self._ack_due = False
        self._start_packages(now)
        self._start_session(activation, now)

    @property
    def running_image(self) -> bytes:
        return self.bootloader.running_image

    @property
    def version(self) -> int:
        return self.bootloader.version

    @property
    def joined(self) -> bool:
        return self._activation is not None

    def group_session(self, now: float) -> GroupSession | None:
        """The multicast window, of class B or C, that is open now."""
        return self.multicast.open_session(now) if self.joined else None

    def state(self, now: float) -> str:
        """One word for people."""
        if not self.joined:
            return "rebooting"
        if self.bootloader.download is not None:
            return "image_held"
        if self.fragmentation.session is not None:
            return "receiving" if self.group_session(now) else "session_set_up"
        if self.multicast.groups:
            return "in_group"
        return "rolled_back" if self.bootloader.rollbacks else "idle"

    def listens(self, frequency_hz: int, data_rate: int, start: float) -> bool:
        """Whether the receiver is on and tuned to a frame that starts then."""
        return self._hears_unicast(frequency_hz, data_rate, start) or self._hears_group(
            None, frequency_hz, data_rate, start
        )

    def receive_downlink(self, frame: Downlink, now: float) -> None:
        """`now` is the end of the frame."""
        start = now - time_on_air_s(len(frame.phy), frame.data_rate, crc=False)
        if not self.listens(frame.frequency_hz, frame.data_rate, start):
            self.counters.not_listening += 1
            return
        try:
            header = parse_downlink(frame.phy)
        except FrameError:
            self.counters.bad_mic += 1
            return
        if self._activation is not None and header.dev_addr == self._activation.dev_addr:
            if self._hears_unicast(frame.frequency_hz, frame.data_rate, start):
                self._unicast(header, self._activation, now)
            return
        most = self.spec.group_frames_most
        if most is not None and self.counters.multicast_received >= most:
            self.counters.disturbed += 1
            return
        for group, held in list(self.multicast.groups.items()):
            if held.session.dev_addr == header.dev_addr:
                if self._hears_group(group, frame.frequency_hz, frame.data_rate, start):
                    session = self.group_session(start)
                    window = "class C" if session is None or session.periodicity is None else "class B"
                    self._group_frame(group, header, f"{window} DR{frame.data_rate}", now)
                else:
                    self.counters.not_listening += 1
                return

    def deliver(self, f_port: int | None, payload: bytes, now: float, *, multicast: bool) -> None:
        """What a frame carried, once the link layer has let it through."""
        package = self._packages.get(f_port) if f_port is not None else None
        if package is not None and f_port is not None:
            self._schedule(f_port, package.receive(payload, now, multicast=multicast), now)

    def to_send(self, now: float) -> list[Uplink | JoinRequest]:
        """At most one frame: the next one has to wait for the receive windows of this one."""
        if now < self._tx_free_at:
            return []
        if self._activation is None:
            return self._join_request(now)
        due = next((p for p in self._pending if p.at <= now), None)
        if due is not None:
            self._pending.remove(due)
            return [self._uplink(due.f_port, due.payload, now)]
        if self._next_uplink <= now or (self._poll_at is not None and self._poll_at <= now):
            return [self._uplink(SENSOR_PORT, self._reading(), now)]
        return []

    def next_deadline(self) -> float:
        if self._activation is None:
            waits = [self._next_join, self._trial_ends]
            return min(w for w in waits if w is not None)
        to_send = [self._next_uplink, *(p.at for p in self._pending)]
        if self._poll_at is not None:
            to_send.append(self._poll_at)
        timers = [package.next_deadline() for package in self._packages.values()]
        return min([max(min(to_send), self._tx_free_at), *(t for t in timers if t is not None)])

    def handle_timeout(self, now: float) -> None:
        if self._trial_ends is not None and self._trial_ends <= now:  # the watchdog bit
            self._trial_ends = None
            self.reset_cause = "watchdog"
            self.bootloader.roll_back()
            self._next_join = now + self.spec.boot_s
        if self._activation is None:
            return
        if self.firmware.reboot_at is not None and self.firmware.reboot_at <= now:
            self._reboot(now)
            return
        for port, package in self._packages.items():
            self._schedule(port, package.handle_timeout(now), now)

    def power_cycle(self, now: float) -> None:
        """The power was gone for a moment: RAM is lost, flash is kept. An image on trial is rolled back."""
        self.reset_cause = "power_on"
        if self._trial_ends is not None:
            self._trial_ends = None
            self.bootloader.roll_back()
        self._start_packages(now)
        self._next_join = now + self.spec.boot_s

    def accept_join(self, activation: Activation, now: float) -> None:
        """JoinAccept, and the DeviceTimeAns that a joining node asks for."""
        self.clock.synchronise(now)
        self._start_session(activation, now)

    def _hears_unicast(self, frequency_hz: int, data_rate: int, start: float) -> bool:
        if self._activation is None or self._transmitting(start):
            return False
        tuned_rx2 = (frequency_hz, data_rate) == (RX2_FREQUENCY_HZ, RX2_DATA_RATE)
        if self.spec.device_class == "C" and tuned_rx2:
            return True
        sent = self._sent
        if sent is None:
            return False
        after = start - sent.end
        if (frequency_hz, data_rate) == (sent.frequency_hz, sent.data_rate):
            return abs(after - RX1_DELAY_S) <= _WINDOW_TOLERANCE_S
        return tuned_rx2 and abs(after - RX2_DELAY_S) <= _WINDOW_TOLERANCE_S

    def _hears_group(self, group: int | None, frequency_hz: int, data_rate: int, start: float) -> bool:
        session = self.group_session(start)
        return (
            session is not None
            and not self._transmitting(start)
            and group in (None, session.group)
            and (session.frequency_hz, session.data_rate) == (frequency_hz, data_rate)
            and (session.periodicity is None or self._in_ping_slot(session.group, session.periodicity, start))
        )

    def _in_ping_slot(self, group: int, periodicity: int, start: float) -> bool:
        held = self.multicast.groups.get(group)
        return held is not None and is_ping_slot(gps_of_unix(start), held.session.dev_addr, periodicity)

    def _transmitting(self, at: float) -> bool:
        return self._sent is not None and self._sent.start <= at < self._sent.end

    def _unicast(self, header: DownlinkHeader, session: Activation, now: float) -> None:
        f_cnt = full_f_cnt(header.f_cnt_16, self._next_f_cnt_down)
        if not header.verify(session.nwk_s_key, f_cnt):
            self.counters.bad_mic += 1
            return
        self._next_f_cnt_down = f_cnt + 1
        self.counters.unicast_received += 1
        self._ack_due = self._ack_due or header.confirmed
        if header.f_pending or header.confirmed:
            self._poll_at = now + self._random.uniform(2.0, 4.0)
        payload = header.decrypt(session.app_s_key, f_cnt)
        self.downlinks.heard("unicast", header.f_port, payload)
        self.deliver(header.f_port, payload, now, multicast=False)

    def _group_frame(self, group: int, header: DownlinkHeader, way: str, now: float) -> None:
        held = self.multicast.groups[group]
        f_cnt = full_f_cnt(header.f_cnt_16, held.next_f_cnt)
        if f_cnt >= held.max_f_cnt:
            self.counters.f_cnt_dropped += 1
            return
        if not header.verify(held.session.nwk_s_key, f_cnt):
            self.counters.bad_mic += 1
            return
        held.next_f_cnt = f_cnt + 1
        self.counters.multicast_received += 1
        payload = header.decrypt(held.session.app_s_key, f_cnt)
        self.downlinks.heard(way, header.f_port, payload)
        self.deliver(header.f_port, payload, now, multicast=True)

    def _schedule(self, f_port: int, answers: list[Answer], now: float) -> None:
        """Answers without a spread go up together, as real nodes do; the others each at a moment of its own."""
        limit = max_frm_payload_bytes(self.spec.data_rate)
        together = b""
        soon = now + self._random.uniform(1.0, 3.0)
        for answer in answers:
            if answer.within_s:
                at = now + self._random.random() * answer.within_s
                self._pending.append(_Pending(at, f_port, answer.payload))
            elif len(together) + len(answer.payload) <= limit:
                together += answer.payload
        if together:
            self._pending.append(_Pending(soon, f_port, together))
        self._pending.sort(key=lambda pending: pending.at)

    def _uplink(self, f_port: int, payload: bytes, now: float) -> Uplink:
        frequency_hz = self._transmit(len(payload) + PHY_OVERHEAD_BYTES, now)
        uplink = Uplink(
            self.spec.dev_eui,
            self._f_cnt_up,
            f_port,
            payload,
            frequency_hz,
            self.spec.data_rate,
            ack=self._ack_due,
        )
        self._f_cnt_up += 1
        self._ack_due = False
        self._poll_at = None
        if self._next_uplink <= now:
            self._next_uplink = now + self.spec.uplink_interval_s * self._random.uniform(0.95, 1.05)
        self.counters.uplinks += 1
        return uplink

    def _join_request(self, now: float) -> list[Uplink | JoinRequest]:
        if self._next_join is None or now < self._next_join:
            return []
        frequency_hz = self._transmit(_JOIN_PHY_BYTES, now)
        self._next_join = now + _JOIN_RETRY_S * self._random.uniform(1.0, 1.5)
        return [JoinRequest(self.spec.dev_eui, frequency_hz, self.spec.data_rate)]

    def _transmit(self, phy_bytes: int, now: float) -> int:
        frequency_hz = self._random.choice(UPLINK_FREQUENCIES_HZ)
        end = now + time_on_air_s(phy_bytes, self.spec.data_rate, crc=True)
        self._sent = _Sent(now, end, frequency_hz, self.spec.data_rate)
        self._tx_free_at = end + _AFTER_RX_WINDOWS_S
        return frequency_hz

    def _reading(self) -> bytes:
        told = bytes((RESET_CAUSES.index(self.reset_cause),)) if self.spec.tells_reset_cause else b""
        return self._f_cnt_up.to_bytes(4, "big") + told

    def _reboot(self, now: float) -> None:
        """RAM is lost: groups, sessions, counters of the link. A valid image in the download slot is started."""
        self.reset_cause = "soft"
        self.counters.reboots += 1
        swapped = self.bootloader.swap()
        self._start_packages(now)
        if swapped and self.spec.self_test_fails:
            self._trial_ends = now + self.spec.boot_s + self.spec.watchdog_s
        else:
            self._next_join = now + self.spec.boot_s

    def _start_packages(self, now: float) -> None:
        spec, clock = self.spec, self.clock
        self._activation = None
        self._sent = None
        self._tx_free_at = now
        self._pending = []
        self.clock_sync = ClockSync(clock, spec.package_version(ClockSync.package), spec.app_time_period_s, now)
        self.multicast = RemoteMulticast(
            clock, spec.package_version(RemoteMulticast.package), self._ke_key, class_b=spec.device_class == "B"
        )
        self.fragmentation = Fragmentation(
            spec.package_version(Fragmentation.package),
            style=spec.status_style,
            redundancy_limit=spec.redundancy_limit,
            flash_bytes=spec.flash_bytes,
            fragment_bytes_most=spec.fragment_bytes_most,
            int_key=self._int_key,
            counters=self.fragment_counters,
            seen=self._seen,
            slot_erased=self.bootloader.delete_image,
            block_done=self.bootloader.store,
        )
        self.firmware = FirmwareManagement(clock, spec.package_version(FirmwareManagement.package), self.bootloader)
        self.multi_package = MultiPackage(spec.package_versions.get(MultiPackage.package, 0), self._told_packages)
        every = (self.multi_package, self.clock_sync, self.multicast, self.fragmentation, self.firmware)
        self._packages: dict[int, MultiPackage | ClockSync | RemoteMulticast | Fragmentation | FirmwareManagement] = {
            spec.ports.get(package.package, package.port): package for package in every if package.version
        }

    def _told_packages(self) -> list[tuple[int, int, int]]:
        return [(package.package, package.version, port) for port, package in self._packages.items()]

    def _start_session(self, activation: Activation, now: float) -> None:
        self._activation = activation
        self._next_join = None
        self._f_cnt_up = 0
        self._next_f_cnt_down = 0
        self._ack_due = False
        self._poll_at = None
        first = 5.0 if self.counters.joins else self.spec.uplink_interval_s
        self._next_uplink = now + self._random.random() * first
        self.counters.joins += 1
