"""Which packages a node has, in which versions, on which ports, and whose multicast groups: found out by asking. PURE.

TS007 tells all packages in one answer, so it is asked first; a node without it is asked package by package. Versions decide
how frames are coded, so nothing is assumed of one that did not answer, but that a package which stays silent while
another one answers is not there. That other one is asked in turn with it, again and again: on a bad link, which loses
answers, a dozen questions without any say nothing, and neither do they while nothing else is answered.
"""

from dataclasses import dataclass, field

from radios.lorawan.journal_codec import Known
from radios.lorawan.network_server import Uplink
from radios.lorawan.packages import clock_sync, firmware_management, fragmentation, multi_package, multicast
from radios.lorawan.session_node import Ports

MC_GROUPS = 4
UNTOLD = float("-inf")
"""When a node told its version that has not told it, or is to be asked again: the radio's clock may begin at 0."""

_SILENT_MOST = 12  # unanswered requests after which a package is not there, when another one answers
# ... and answers of that one meanwhile. Whatever the link loses, each question is as likely to be answered as the one
# beside it, so that a package which is there is the silent one all those times in one of 1000 nodes.
_ANSWERED_LEAST = 10
_ALONE_FIRST = 2  # requests for a package, before another one is asked in turn with it
_CLOCK_SILENT_MOST = (
    3.0  # answers that would have been heard; a node may do without TS003: the MAC layer can tell it the time
)
_GROUPS_SILENT_MOST = 3.0
_ASKED_ALONE = (firmware_management.PACKAGE_ID, fragmentation.PACKAGE_ID, multicast.PACKAGE_ID)
_KNOWN_VERSIONS = {
    fragmentation.PACKAGE_ID: fragmentation.VERSIONS,
    multicast.PACKAGE_ID: multicast.VERSIONS,
    firmware_management.PACKAGE_ID: firmware_management.VERSIONS,
    clock_sync.PACKAGE_ID: clock_sync.VERSIONS,
}
_OPTIONAL = (multicast.PACKAGE_ID, firmware_management.PACKAGE_ID)


@dataclass(frozen=True, slots=True)
class Ask:
    name: str
    port: int
    data: bytes


@dataclass(slots=True)
class Discovery:
    """What is left to find out about one node. `known` is the journalled part."""

    known: Known
    default: Ports = field(default_factory=Ports)  # where the node did not tell its own
    asks: dict[str, int] = field(default_factory=dict)  # unanswered, by name
    silent: dict[str, float] = field(default_factory=dict)  # ... of these, how many answers would have been heard
    beside: dict[str, int] = field(
        default_factory=dict
    )  # answers of another package, while this one was asked for in turn
    beside_asked: int = 0  # that other one
    last: str = ""  # name of the last request
    answers: int = 0  # in all, with or without news
    version_at: float = UNTOLD  # when DevVersionAns came last
    told_version: int | None = None  # by the last DevVersionAns of this run
    told_hardware: int | None = None
    changed: bool = False  # something was concluded from silence

    @property
    def ports(self) -> Ports:
        return ports_of(self.known, self.default)

    @property
    def ready(self) -> bool:
        """Whether a session can speak with it."""
        packages = self.known.packages
        if any(package not in packages for package in _ASKED_ALONE) or self.unsupported():
            return False
        return not packages[multicast.PACKAGE_ID] or self._groups_known

    def unsupported(self) -> str:
        """Why it can never take part, as far as it told; empty: it can, or it is not known yet."""
        for package in _ASKED_ALONE:
            version = self.known.packages.get(package)
            if version == 0 and package not in _OPTIONAL:
                return f"the node has no package {package}"
            if version and version not in _KNOWN_VERSIONS[package]:
                return f"package {package} in version {version} is not known here"
        return ""

    def mc_group_id(self) -> int | None:
        """The lowest multicast group of the node that is not somebody else's; None: all are."""
        others = {group for group, address in self.known.mc_groups or () if address not in self.known.mc_own}
        return next((group for group in range(MC_GROUPS) if group not in others), None)

    def wanted(self, version_every_s: float, now: float) -> Ask | None:
        """What to ask next, whenever that is due."""
        packages, ports = self.known.packages, self.ports
        missing = [package for package in _ASKED_ALONE if package not in packages]
        if missing and self._ask_multi(missing):
            data = multi_package.encode(multi_package.DevPackageReq())
            return Ask("DevPackageReq", multi_package.DEFAULT_PORT, data)
        if missing:
            self._conclude(missing)
            missing = [package for package in missing if package not in packages]
        if missing:
            least = min(missing, key=lambda package: self._asked(_name(package)))
            other = self._answering()
            in_turn = self.beside_asked < self._asked(_name(least)) - _ALONE_FIRST
            return self._package_version(least if other is None or not in_turn else other)
        if packages[firmware_management.PACKAGE_ID]:
            unknown = self.known.fw_version is None
            if unknown or now >= self.version_at + version_every_s:
                data = firmware_management.encode(firmware_management.DevVersionReq())
                return Ask("DevVersionReq", ports.firmware, data)
        if packages[multicast.PACKAGE_ID] in multicast.VERSIONS and not self._groups_known:
            data = multicast.encode(multicast.McGroupStatusReq(), packages[multicast.PACKAGE_ID])
            return Ask("McGroupStatusReq", ports.multicast, data)
        clock = clock_sync.PACKAGE_ID
        if clock not in packages and self.silent.get(_name(clock), 0.0) < _CLOCK_SILENT_MOST:
            return self._package_version(clock)
        return None

    def was_asked(self, name: str) -> None:
        self.asks[name] = self._asked(name) + 1
        self.beside_asked += self._is_beside(name)
        self.last = name

    def not_asked(self) -> None:
        """The last request never left: silence about it means nothing."""
        if self.asks.get(self.last):
            self.asks[self.last] -= 1
            self.beside_asked -= self._is_beside(self.last)

    def was_silent(self, share: float) -> None:
        """The last request was taken, and the node spoke since without an answer; `share`: of its uplinks that are heard."""
        self.silent[self.last] = self.silent.get(self.last, 0.0) + share

    def take(self, uplink: Uplink, now: float) -> bool:
        """Learn from an uplink; True when what is known changed and is to be journalled."""
        ports = self.ports
        if uplink.port == multi_package.DEFAULT_PORT:
            return self._multi(uplink.data)
        if uplink.port == ports.firmware:
            changed = False
            for command in firmware_management.decode_uplink(uplink.data).commands:
                if isinstance(command, firmware_management.PackageVersionAns):
                    changed |= self._package(command, firmware_management.PACKAGE_ID)
                elif isinstance(command, firmware_management.DevVersionAns):
                    changed |= self._version(command, now)
            return changed
        package = {
            ports.fragmentation: fragmentation.PACKAGE_ID,
            ports.multicast: multicast.PACKAGE_ID,
            ports.clock: clock_sync.PACKAGE_ID,
        }.get(uplink.port)
        if package is None:
            return False
        # PackageVersionAns has the same bytes in every version and comes first; the rest is read where versions agree.
        first = fragmentation.decode_uplink(uplink.data).commands[:1]
        if first and isinstance(first[0], fragmentation.PackageVersionAns):
            return self._package(first[0], package)
        return package == multicast.PACKAGE_ID and self._groups(uplink.data)

    @property
    def _groups_known(self) -> bool:
        return self.known.mc_groups is not None or self.silent.get("McGroupStatusReq", 0.0) >= _GROUPS_SILENT_MOST

    def _asked(self, name: str) -> int:
        return self.asks.get(name, 0)

    def _ask_multi(self, missing: list[int]) -> bool:
        """First, and in turn with the others while nothing has answered: its request may have been lost, or its ports differ."""
        asked, packages = self._asked("DevPackageReq"), self.known.packages
        if multi_package.PACKAGE_ID in packages or (asked and packages):
            return False
        return asked <= min(self._asked(_name(package)) for package in missing)

    def _answering(self) -> int | None:
        """A package that has told its version, and will again."""
        return next((package for package in _ASKED_ALONE if self.known.packages.get(package)), None)

    def _is_beside(self, name: str) -> bool:
        """Whether a request is for a package that has answered before."""
        other = self._answering()
        return other is not None and name == _name(other)

    def _conclude(self, missing: list[int]) -> None:
        for package in missing:
            name = _name(package)
            if self._asked(name) >= _SILENT_MOST and self.beside.get(name, 0) >= _ANSWERED_LEAST:
                self.known.packages[package] = 0
                self._forget(name)
                self.changed = True

    def _forget(self, *names: str) -> None:
        """What was asked, and not answered."""
        for asked in (self.asks, self.silent, self.beside):
            for name in names or tuple(asked):
                asked.pop(name, None)
        if not names:
            self.beside_asked = 0

    def _package_version(self, package: int) -> Ask:
        ports = self.ports
        port = {
            firmware_management.PACKAGE_ID: ports.firmware,
            fragmentation.PACKAGE_ID: ports.fragmentation,
            multicast.PACKAGE_ID: ports.multicast,
            clock_sync.PACKAGE_ID: ports.clock,
        }[package]
        return Ask(_name(package), port, fragmentation.encode(fragmentation.PackageVersionReq()))

    def _package(self, command: fragmentation.PackageVersionAns, expected: int) -> bool:
        if command.package_identifier != expected:
            return False
        self.answers += 1
        if self._asked(_name(expected)) and self._is_beside(_name(expected)):
            for name in (_name(package) for package in _ASKED_ALONE if package not in self.known.packages):
                self.beside[name] = self.beside.get(name, 0) + (self._asked(name) > 0)
        self._forget(_name(expected))
        if self.known.packages.get(expected) == command.package_version:
            return False
        self.known.packages[expected] = command.package_version
        return True

    def _multi(self, data: bytes) -> bool:
        """DevPackageAns is complete: a package that is not in it is not there."""
        changed = False
        for item in multi_package.decode_uplink(data).commands:
            if isinstance(item.command, multi_package.DevPackageAns):
                told = {entry.package_identifier: entry for entry in item.command.packages}
                packages = dict.fromkeys((*_ASKED_ALONE, clock_sync.PACKAGE_ID), 0)
                packages |= {package: entry.package_version for package, entry in told.items()}
                packages[multi_package.PACKAGE_ID] = packages.get(multi_package.PACKAGE_ID) or 1
                ports = {package: entry.f_port for package, entry in told.items() if 1 <= entry.f_port <= 223}
                ports |= {package: e.f_port for package, e in told.items() if e.f_port == multi_package.DEFAULT_PORT}
                changed |= (packages, ports) != (self.known.packages, self.known.ports)
                self.known.packages, self.known.ports = packages, ports
                self.answers += 1
                self._forget()
        return changed

    def _version(self, command: firmware_management.DevVersionAns, now: float) -> bool:
        self.version_at = now
        self.told_version, self.told_hardware = command.fw_version, command.hw_version
        self.answers += 1
        self._forget("DevVersionReq")
        known, before = self.known, (self.known.fw_version, self.known.hw_version)
        if known.fw_version not in (None, command.fw_version):
            known.forget()  # other firmware may speak other versions
            self._forget()
        known.fw_version, known.hw_version = command.fw_version, command.hw_version
        if known.packages.get(firmware_management.PACKAGE_ID) == 0:
            del known.packages[firmware_management.PACKAGE_ID]  # it is there after all
            return True
        return before != (command.fw_version, command.hw_version)

    def _groups(self, data: bytes) -> bool:
        version = self.known.packages.get(multicast.PACKAGE_ID)
        if version not in multicast.VERSIONS:
            return False
        for command in multicast.decode_uplink(data, version).commands:
            if isinstance(command, multicast.McGroupStatusAns):
                groups = tuple((group.mc_group_id, group.mc_addr) for group in command.groups)
                changed = groups != self.known.mc_groups
                self.known.mc_groups = groups
                self.answers += 1
                self._forget("McGroupStatusReq")
                return changed
        return False


def ports_of(known: Known, default: Ports) -> Ports:
    """The node's own ports where it told them, else the defaults."""
    return Ports(
        clock=known.ports.get(clock_sync.PACKAGE_ID, default.clock),
        multicast=known.ports.get(multicast.PACKAGE_ID, default.multicast),
        fragmentation=known.ports.get(fragmentation.PACKAGE_ID, default.fragmentation),
        firmware=known.ports.get(firmware_management.PACKAGE_ID, default.firmware),
    )


def _name(package: int) -> str:
    return f"PackageVersionReq {package}"
