"""What a node is and speaks, and how it is heard. PURE.

What is asked, and what the answers mean, is in `discovery`. An uplink that is heard without the answer is the moment to ask again,
because the question goes down with it. Asking backs off all the same, because a device of the application need not be able
to answer at all: by the answers that would have been heard, so that a bad uplink is not taken for a device that is dumb.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from radios.backoff import growing_s
from radios.lorawan.discovery import UNTOLD, Discovery
from radios.lorawan.fragment_size import FRAGMENT_LEAST_BYTES, FRAGMENT_MOST_BYTES
from radios.lorawan.gps_time import WRAP_S, GpsTime
from radios.lorawan.hearing import Hearing
from radios.lorawan.journal_codec import Known
from radios.lorawan.link import smoothed
from radios.lorawan.messages import Unicast
from radios.lorawan.network_server import Device, DeviceClass, Uplink
from radios.lorawan.packages import clock_sync, firmware_management, fragmentation, multicast
from radios.lorawan.session_node import NodeProfile, Ports
from radios.radio import NodeId, NodeObservation, Power
from radios.wall_time import WallTime

HARDWARE_TAG = "gatewayd-hardware"
"""Device tag: the hardware (8 hex digits) of a node without TS006, which cannot tell it."""
REDUNDANCY_TAG = "gatewayd-redundancy"
"""Device tag: lost fragments that the node's firmware was built to make up."""
FRAGMENT_TAG = "gatewayd-fragment"
"""Device tag: largest FragSize, in bytes, that the node's firmware was built for (LoRaMac-node as delivered: 50)."""

_BY_UNIX = GpsTime(WallTime())

PORT_TAGS = {
    "clock": "gatewayd-port-clock",
    "multicast": "gatewayd-port-multicast",
    "fragmentation": "gatewayd-port-fragmentation",
    "firmware": "gatewayd-port-firmware",
}
"""Device tags: the FPort of a package on a node that does not tell it itself (TS007)."""
TIME_ANSWER = "AppTimeAns"

STOCK_LIMIT = 100  # LoRa Basics Modem as delivered; LoRaMac-node's 5 goes with at most 21 fragments, so it was rebuilt
STOCK_LIMIT_LORAMAC, STOCK_FRAGMENTS_LORAMAC = 5, 21

_BACK_OFF = 1.7
_STEADY = 3  # requests before the back-off begins: a lost frame is no reason for it
_ANSWER_S = 5.0  # a node answers a question by an uplink of its own
_SAME_UPLINK_S = 0.3  # after an uplink a question still goes down with it
_IMPATIENT = 20.0  # answers that would have been heard, until an uplink is no reason any more to ask again
_TIME_ANSWER_EXPIRES_S = 30.0
_SNR_STEP_DB = 2.0  # smaller changes are not journalled


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
    default_ports: Ports = field(default_factory=Ports)  # of the packages, where neither node nor tags say others
    asked: int = 0  # questions without an answer to anything
    not_before: float = 0.0
    asked_at: float = 0.0
    chances: int = 0  # uplinks since, or just before, that the question may have gone down with
    silence: float = 0.0  # answers that would have been heard, since the last one that was
    told_silent: bool = False  # the operator was
    hearing: Hearing = field(default_factory=Hearing)
    last_heard: float | None = None
    rssi_dbm: float | None = None
    snr_db: float | None = None
    reset_cause: str | None = None  # as the last uplink told it
    discovery: Discovery = field(init=False)

    def __post_init__(self) -> None:
        self.discovery = Discovery(self.known, ports_by_tags(self.device.tags, self.default_ports))

    def describe(self, device: Device) -> None:
        """What the network server says of it now."""
        self.device = device
        self.discovery.default = ports_by_tags(device.tags, self.default_ports)

    @property
    def node_id(self) -> NodeId:
        return NodeId(f"lorawan:{self.device.dev_eui}")

    @property
    def ports(self) -> Ports:
        return self.discovery.ports

    @property
    def ready(self) -> bool:
        """Whether a session can speak with it, and it has told what it runs: since this run began, or its last session lost it."""
        tells = self.known.packages.get(firmware_management.PACKAGE_ID, 0) > 0
        return self.discovery.ready and (self.discovery.version_at > UNTOLD or not tells)

    @property
    def runs(self) -> int | None:
        """The version that it told, as far as that is not to be asked again."""
        return self.discovery.told_version if self.discovery.version_at > UNTOLD else None

    @property
    def unicast_only(self) -> bool:
        """Whether no multicast group can be set up on it."""
        no_package = self.known.packages.get(multicast.PACKAGE_ID) == 0
        return no_package or self.known.no_multicast or self.discovery.mc_group_id() is None

    def unsupported(self) -> str:
        """Why it can never take part, as far as it told; empty: it can, or it is not known yet."""
        return self.discovery.unsupported() or self.device.refused

    def answer_timeout_s(self, settings: InventorySettings) -> float:
        if self.device.device_class is not DeviceClass.C:  # a ping slot may come sooner; its uplink surely comes
            return max(settings.answer_timeout_s, settings.uplink_intervals * self.device.uplink_interval_s)
        return settings.answer_timeout_s

    def redundancy_limit(self, nb_frag: int) -> int:
        """Lost fragments that its decoder is thought to make up: observed, told by a tag, or as its library is delivered."""
        told = _number(self.device.tags.get(REDUNDANCY_TAG, ""))
        stock = STOCK_LIMIT_LORAMAC if nb_frag <= STOCK_FRAGMENTS_LORAMAC else STOCK_LIMIT
        limit = stock if told is None else told
        return limit if self.known.redundancy_limit is None else min(limit, self.known.redundancy_limit)

    @property
    def fragment_most(self) -> int:
        """Bytes of data in a fragment that its firmware takes: told by a tag, else what the command can say."""
        told = _number(self.device.tags.get(FRAGMENT_TAG, ""))
        return told if told is not None and FRAGMENT_LEAST_BYTES <= told <= FRAGMENT_MOST_BYTES else FRAGMENT_MOST_BYTES

    def profile(
        self,
        settings: InventorySettings,
        *,
        unicast_dr: int | None = None,
        redundancy_limit: int | None = None,
        confirm_each: bool = False,
    ) -> NodeProfile:
        packages = self.known.packages
        return NodeProfile(
            dev_eui=self.device.dev_eui,
            frag_version=packages[fragmentation.PACKAGE_ID],
            multicast_version=packages[multicast.PACKAGE_ID] or 1,
            clock_version=packages.get(clock_sync.PACKAGE_ID) or None,
            mac_version=self.device.mac_version,
            answer_timeout_s=self.answer_timeout_s(settings),
            ports=self.ports,
            always_on=self.always_on,
            unicast_dr=unicast_dr,
            redundancy_limit=redundancy_limit,
            confirm_each=confirm_each,
            firmware_management=packages[firmware_management.PACKAGE_ID] > 0,
            mc_group_id=self.discovery.mc_group_id() or 0,
        )

    def is_due(self, settings: InventorySettings, now: float) -> bool:
        """Whether there is something to ask, now."""
        return now >= self.not_before and self.discovery.wanted(settings.version_every_s, now) is not None

    def ask(self, settings: InventorySettings, now: float) -> Unicast | None:
        """The next question, when it is due."""
        wanted = self.discovery.wanted(settings.version_every_s, now)
        if wanted is None or now < self.not_before:
            return None
        timeout_s = self.answer_timeout_s(settings)
        if any(self.known.packages.values()):
            wait = timeout_s * _BACK_OFF ** min(2, max(0, self.asked - _STEADY))  # it answers: only this is missing
        else:
            wait = growing_s(timeout_s, _BACK_OFF, self.asked - _STEADY, max(settings.most_s, timeout_s))
        self.asked += 1
        self.discovery.was_asked(wanted.name)
        self.asked_at, self.not_before = now, now + wait
        heard_now = self.last_heard is not None and now <= self.last_heard + _SAME_UPLINK_S
        self.chances = int(heard_now and not self.always_on)
        return Unicast(self.device.dev_eui, wanted.port, wanted.data, now + wait, wanted.name)

    def postpone(self, until: float) -> None:
        """The network server did not take the question."""
        self.asked = max(0, self.asked - 1)
        self.discovery.not_asked()
        self.not_before = until

    def ask_version(self) -> None:
        """Whatever was told before: ask for the version now."""
        self.discovery.version_at = UNTOLD
        self._ask_afresh()

    def ask_version_in(self, wait_s: float, settings: InventorySettings) -> None:
        """Sooner than as a rule: what it runs is new to it."""
        self.discovery.version_at += wait_s - settings.version_every_s

    def hear(self, uplink: Uplink, now: float) -> bool:
        """Learn from an uplink; True when what is known changed and is to be journalled."""
        new = self.hearing.take(uplink.f_cnt)
        self.last_heard, self.reset_cause = now, uplink.reset_cause
        best = max((r for r in uplink.receptions if r.rssi_dbm is not None), key=_rssi, default=None)
        if best is not None:
            self.rssi_dbm, self.snr_db = best.rssi_dbm, best.snr_db
        heard, answers = self._link(uplink), self.discovery.answers
        changed = self.discovery.take(uplink, now)
        if self.discovery.answers > answers:
            self._ask_afresh()
        elif new:
            self._asked_in_vain(now)
        return changed or heard

    def silent_about(self, after: int) -> str:
        """Once, when it did not answer more than `after` questions: what was asked, for the operator; else empty."""
        if self.asked <= after or self.told_silent:
            return ""
        self.told_silent = True
        heard = self.last_heard is not None and self.last_heard > self.asked_at
        return f"no answer to {self.discovery.last}" + ("" if heard else ", and not heard since")

    def take_changed(self) -> bool:
        """Whether asking in vain led to a conclusion that is to be journalled."""
        changed, self.discovery.changed = self.discovery.changed, False
        return changed

    def described(self, now: float, refused: str = "") -> NodeObservation:
        """What the network server says of it now, as of when it last heard the node. `refused`: why it cannot take part."""
        device, known = self.device, self.known
        power = {None: Power.UNKNOWN, True: Power.MAINS, False: Power.BATTERY}[device.external_power]
        tag = device.tags.get(HARDWARE_TAG, "").lower()
        told = self.known.packages.get(firmware_management.PACKAGE_ID) == 0 and _is_hardware(tag)
        return NodeObservation(
            node=self.node_id,
            at=now if device.last_seen is None else min(now, device.last_seen),
            alive=device.last_seen is not None,
            name=device.name or None,
            hardware=f"lorawan:{tag}" if told else None,
            power=power,
            battery_percent=device.battery_percent,
            sleepy=device.device_class is DeviceClass.A,
            joined=True,
            tags=device.tags,
            details={
                "class": str(device.device_class),
                "region": device.region,
                "mac_version": ".".join(map(str, device.mac_version)),
                "profile": device.profile or None,
                "margin_db": device.margin_db,
                "external_power": device.external_power,  # None: it has never told its status
                "battery_unmeasured": device.external_power is False and device.battery_percent is None,
                "uplink_data_rate": known.uplink_dr,
                "uplink_interval_s": device.uplink_interval_s,
                "packages": {str(package): version for package, version in sorted(known.packages.items())},
                "redundancy_limit": known.redundancy_limit,
                "refused": refused or None,
            },
        )

    def told(self, now: float) -> NodeObservation:
        """What an uplink that came now said: how it was heard, and the version if it told that."""
        discovery = self.discovery
        version = hardware = None
        if discovery.version_at == now:
            version, hardware = discovery.told_version, discovery.told_hardware
        return NodeObservation(
            node=self.node_id,
            at=now,
            hardware=None if hardware is None else f"lorawan:{hardware:08x}",
            hardware_version=hardware,
            version=version,
            rssi_dbm=self.rssi_dbm,
            snr_db=self.snr_db,
            reset_cause=self.reset_cause,
            joined=True,
        )

    @property
    def always_on(self) -> bool:
        """Whether a request is sent as soon as it is queued; else it waits for the node's next uplink."""
        return self.device.device_class is DeviceClass.C

    def _ask_afresh(self) -> None:
        self.asked, self.not_before, self.silence, self.told_silent = 0, 0.0, 0.0, False

    def _asked_in_vain(self, now: float) -> None:
        """An uplink without an answer. Class A and B: the one before took the question, and this one takes the next."""
        if not self.asked or now <= self.asked_at + _ANSWER_S:
            return
        self.chances += 1
        enough = 1 if self.always_on else 2
        if self.chances == enough:
            self.silence += self.hearing.share
            self.discovery.was_silent(self.hearing.share)
        if self.chances >= enough and self.silence < _IMPATIENT:
            self.not_before = min(self.not_before, now)

    def _link(self, uplink: Uplink) -> bool:
        """Whether it is heard so differently that it is worth a record."""
        known, changed = self.known, False
        for reception in uplink.receptions:
            if reception.snr_db is None:
                continue
            before = known.snr_db.get(reception.gateway_id)
            after = smoothed(before, reception.snr_db)
            known.snr_db[reception.gateway_id] = after
            changed |= before is None or int(before / _SNR_STEP_DB) != int(after / _SNR_STEP_DB)
        if uplink.data_rate is not None and uplink.data_rate != known.uplink_dr:
            known.uplink_dr, changed = uplink.data_rate, True
        return changed


def ports_by_tags(tags: Mapping[str, str], default: Ports) -> Ports:
    """The ports that tags state, else the default; what is no FPort of an application is not looked at."""
    stated = {name: tags.get(tag, "") for name, tag in PORT_TAGS.items()}
    return replace(default, **{name: int(text) for name, text in stated.items() if _is_port(text)})


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else None


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= 223


def time_answer(
    device: Device, ports: Ports, uplink: Uplink, now: float, gps_time: GpsTime = _BY_UNIX
) -> Unicast | None:
    """AppTimeAns to the AppTimeReq in an uplink, by the time of its reception; it is worthless when late."""
    if device.answers_time or uplink.port != ports.clock:
        return None
    for command in clock_sync.decode_uplink(uplink.data).commands:
        if isinstance(command, clock_sync.AppTimeReq):
            gps = next((r.gps_time_s for r in uplink.receptions if r.gps_time_s is not None), None)
            if gps is None:
                gps = gps_time.at(uplink.received_at if uplink.received_at is not None else now)
            correction = (round(gps) - command.device_time + WRAP_S // 2) % WRAP_S - WRAP_S // 2
            if not correction and not command.ans_required:
                return None
            answer = clock_sync.AppTimeAns(time_correction=correction, token_ans=command.token_req)
            data = clock_sync.encode(answer)
            return Unicast(device.dev_eui, ports.clock, data, now + _TIME_ANSWER_EXPIRES_S, TIME_ANSWER)
    return None


def _rssi(reception: object) -> float:
    value = getattr(reception, "rssi_dbm", None)
    return float(value) if value is not None else float("-inf")


def _is_hardware(text: str) -> bool:
    return len(text) == 8 and all(digit in "0123456789abcdef" for digit in text)
