"""What a node is and speaks, found out by asking it: package versions, firmware, hardware. PURE.

Versions decide how frames are coded, so nothing is assumed: a node whose package versions are not known takes part in
nothing. Asking backs off, because a device of the application need not be able to answer at all.
"""

from dataclasses import dataclass, field

from radios.lorawan.gps_time import WRAP_S, gps_from_unix
from radios.lorawan.journal_codec import Known
from radios.lorawan.messages import Unicast
from radios.lorawan.network_server import Device, DeviceClass, Uplink
from radios.lorawan.packages import clock_sync, firmware_management, fragmentation, multicast
from radios.lorawan.session_node import NodeProfile, Ports
from radios.radio import NodeId, NodeObservation, Power

NEEDED = (fragmentation.PACKAGE_ID, multicast.PACKAGE_ID, firmware_management.PACKAGE_ID)

_KNOWN_VERSIONS = {
    fragmentation.PACKAGE_ID: fragmentation.VERSIONS,
    multicast.PACKAGE_ID: multicast.VERSIONS,
    firmware_management.PACKAGE_ID: firmware_management.VERSIONS,
    clock_sync.PACKAGE_ID: clock_sync.VERSIONS,
}
_BACK_OFF = 1.7
_STEADY = 3  # requests before the back-off begins: a lost frame is no reason for it
_CLOCK_ASKED_MOST = 3  # a node may do without TS003: the MAC layer can tell it the time
_TIME_ANSWER_EXPIRES_S = 30.0


@dataclass(frozen=True, slots=True)
class InventorySettings:
    answer_timeout_s: float = 60.0
    most_s: float = 6 * 3600.0  # between two requests to a node that never answers
    version_every_s: float = 86400.0
    uplink_intervals: float = 1.5  # how long the answer of a class A node may take


@dataclass(slots=True)
class Node:
    """One device, and what it told."""

    device: Device
    known: Known
    ports: Ports = field(default_factory=Ports)
    question: str = ""
    asked: int = 0
    clock_asked: int = 0
    not_before: float = 0.0
    version_at: float = 0.0  # when DevVersionAns came last
    last_heard: float | None = None
    rssi_dbm: float | None = None
    snr_db: float | None = None
    gateways: dict[str, float] = field(default_factory=dict)  # last heard through each

    @property
    def node_id(self) -> NodeId:
        return NodeId(f"lorawan:{self.device.dev_eui}")

    @property
    def ready(self) -> bool:
        """Whether a session can speak with it."""
        packages = self.known.packages
        return all(packages.get(package) in _KNOWN_VERSIONS[package] for package in NEEDED)

    def unsupported(self) -> str:
        """Why it can never take part, as far as it told; empty: it can, or it is not known yet."""
        for package in NEEDED:
            version = self.known.packages.get(package)
            if version is not None and version not in _KNOWN_VERSIONS[package]:
                return f"package {package} in version {version} is not known here"
        return self.device.refused

    def answer_timeout_s(self, settings: InventorySettings) -> float:
        if self.device.device_class is DeviceClass.A:
            return max(settings.answer_timeout_s, settings.uplink_intervals * self.device.uplink_interval_s)
        return settings.answer_timeout_s

    def profile(self, settings: InventorySettings) -> NodeProfile:
        packages = self.known.packages
        return NodeProfile(
            dev_eui=self.device.dev_eui,
            frag_version=packages[fragmentation.PACKAGE_ID],
            multicast_version=packages[multicast.PACKAGE_ID],
            clock_version=packages.get(clock_sync.PACKAGE_ID),
            mac_version=self.device.mac_version,
            answer_timeout_s=self.answer_timeout_s(settings),
            ports=self.ports,
        )

    def ask(self, settings: InventorySettings, now: float) -> Unicast | None:
        """The next question, when it is due."""
        wanted = self._wanted(settings, now)
        if wanted is None:
            return None
        name, port, data = wanted
        if name != self.question:
            self.question, self.asked = name, 0
        elif now < self.not_before:
            return None
        wait = min(
            max(settings.most_s, self.answer_timeout_s(settings)),
            self.answer_timeout_s(settings) * _BACK_OFF ** max(0, self.asked - _STEADY),
        )
        self.asked += 1
        self.clock_asked += port == self.ports.clock
        self.not_before = now + wait
        return Unicast(self.device.dev_eui, port, data, now + wait, name)

    def postpone(self, until: float) -> None:
        """The network server did not take the question."""
        self.asked = max(0, self.asked - 1)
        self.not_before = until

    def ask_version(self) -> None:
        """Whatever was told before: ask for the version now."""
        self.version_at = 0.0
        self.question = ""

    def hear(self, uplink: Uplink, now: float) -> bool:
        """Learn from an uplink; True when what is known changed and is to be journalled."""
        self.last_heard = now
        for reception in uplink.receptions:
            self.gateways[reception.gateway_id] = now
        best = max((r for r in uplink.receptions if r.rssi_dbm is not None), key=_rssi, default=None)
        if best is not None:
            self.rssi_dbm, self.snr_db = best.rssi_dbm, best.snr_db
        changed = False
        for command in self._commands(uplink):
            if isinstance(command, fragmentation.PackageVersionAns):
                changed |= self._package(command, uplink.port)
            elif isinstance(command, firmware_management.DevVersionAns):
                changed |= self._version(command, now)
        return changed

    def observation(self, now: float) -> NodeObservation:
        device, known = self.device, self.known
        power = {None: Power.UNKNOWN, True: Power.MAINS, False: Power.BATTERY}[device.external_power]
        return NodeObservation(
            node=self.node_id,
            at=now,
            name=device.name or None,
            hardware=None if known.hw_version is None else f"lorawan:{known.hw_version:08x}",
            hardware_version=known.hw_version,
            version=known.fw_version,
            power=power,
            battery_percent=device.battery_percent,
            sleepy=device.device_class is DeviceClass.A,
            rssi_dbm=self.rssi_dbm,
            snr_db=self.snr_db,
            joined=True,
            tags=device.tags,
        )

    def _wanted(self, settings: InventorySettings, now: float) -> tuple[str, int, bytes] | None:
        ports, packages = self.ports, self.known.packages
        request = fragmentation.encode(fragmentation.PackageVersionReq())
        for package, port in (
            (firmware_management.PACKAGE_ID, ports.firmware),
            (fragmentation.PACKAGE_ID, ports.fragmentation),
            (multicast.PACKAGE_ID, ports.multicast),
        ):
            if package not in packages:
                return f"PackageVersionReq {package}", port, request
        if self.known.fw_version is None or now >= self.version_at + settings.version_every_s:
            return "DevVersionReq", ports.firmware, firmware_management.encode(firmware_management.DevVersionReq())
        if clock_sync.PACKAGE_ID not in packages and self.clock_asked < _CLOCK_ASKED_MOST:
            return f"PackageVersionReq {clock_sync.PACKAGE_ID}", ports.clock, request
        return None

    def _commands(self, uplink: Uplink) -> tuple[object, ...]:
        """PackageVersionAns has the same bytes in every version and comes first; the rest is read where versions agree."""
        if uplink.port == self.ports.firmware:
            return firmware_management.decode_uplink(uplink.data).commands
        if uplink.port in (self.ports.fragmentation, self.ports.multicast, self.ports.clock):
            found = fragmentation.decode_uplink(uplink.data).commands
            return tuple(command for command in found[:1] if isinstance(command, fragmentation.PackageVersionAns))
        return ()

    def _package(self, command: fragmentation.PackageVersionAns, port: int) -> bool:
        expected = {
            self.ports.firmware: firmware_management.PACKAGE_ID,
            self.ports.fragmentation: fragmentation.PACKAGE_ID,
            self.ports.multicast: multicast.PACKAGE_ID,
            self.ports.clock: clock_sync.PACKAGE_ID,
        }[port]
        if command.package_identifier != expected:
            return False
        if self.known.packages.get(expected) == command.package_version:
            return False
        self.known.packages[expected] = command.package_version
        return True

    def _version(self, command: firmware_management.DevVersionAns, now: float) -> bool:
        self.version_at = now
        known = self.known
        if (known.fw_version, known.hw_version) == (command.fw_version, command.hw_version):
            return False
        if known.fw_version is not None and known.fw_version != command.fw_version:
            known.packages.clear()  # other firmware may speak other versions
            self.clock_asked = 0
        known.fw_version, known.hw_version = command.fw_version, command.hw_version
        return True


def time_answer(device: Device, ports: Ports, uplink: Uplink, now: float) -> Unicast | None:
    """AppTimeAns to the AppTimeReq in an uplink, by the time of its reception; it is worthless when late."""
    if device.answers_time or uplink.port != ports.clock:
        return None
    for command in clock_sync.decode_uplink(uplink.data).commands:
        if isinstance(command, clock_sync.AppTimeReq):
            gps = next((r.gps_time_s for r in uplink.receptions if r.gps_time_s is not None), None)
            if gps is None:
                gps = gps_from_unix(uplink.received_at if uplink.received_at is not None else now)
            correction = (round(gps) - command.device_time + WRAP_S // 2) % WRAP_S - WRAP_S // 2
            if not correction and not command.ans_required:
                return None
            answer = clock_sync.AppTimeAns(time_correction=correction, token_ans=command.token_req)
            data = clock_sync.encode(answer)
            return Unicast(device.dev_eui, ports.clock, data, now + _TIME_ANSWER_EXPIRES_S, "AppTimeAns")
    return None


def _rssi(reception: object) -> float:
    value = getattr(reception, "rssi_dbm", None)
    return float(value) if value is not None else float("-inf")
