"""TS007 Multi-Package Access, version 1: commands of several packages in one frame on one port, with a token.

A frame is commands, each after a byte 0x80 | package when the package changes (it begins as TS007 itself), then the token
byte, which the node repeats. An answer too long for one frame comes as MultiPackBufferFrag: joined in order of their base
bytes, and with any token byte put behind, the pieces are a frame for `decode_uplink`. Layouts as in LoRa Basics Modem 4.8.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from radios.errors import FrameError
from radios.lorawan.packages import clock_sync, firmware_management, fragmentation, multicast
from radios.lorawan.packages.codec import (
    Command,
    PackageVersionAns,
    PackageVersionReq,
    Reader,
    by_version,
    check_company,
    check_version,
    encode_command,
    in_range,
    read_command,
    unsigned,
)

__all__ = [
    "BUFFER_FRAG_FAILED",
    "DEFAULT_PORT",
    "DOWNLINK",
    "PACKAGE_ID",
    "UPLINK",
    "VERSIONS",
    "Addressed",
    "DecodedPack",
    "DevPackageAns",
    "DevPackageReq",
    "DownlinkCommand",
    "MultiPackBufferFrag",
    "MultiPackBufferReq",
    "Package",
    "PackageVersionAns",
    "PackageVersionReq",
    "UplinkCommand",
    "decode_downlink",
    "decode_uplink",
    "encode",
]

PACKAGE_ID = 0
DEFAULT_PORT = 225
VERSIONS = (1,)
BUFFER_FRAG_FAILED = 0xFF

_PACKAGE_FLAG = 0x80
_TOKEN_MASK = 3


@dataclass(frozen=True, slots=True)
class Package:
    """A package that a node has, in which version, on which port."""

    package_identifier: int
    package_version: int
    f_port: int


@dataclass(frozen=True, slots=True)
class DevPackageReq(Command):
    """Down."""

    CID: ClassVar[int] = 0x01

    def payload(self, version: int) -> bytes:
        return b""

    @classmethod
    def read(cls, reader: Reader, version: int) -> Self:
        return cls()


@dataclass(frozen=True, slots=True)
class DevPackageAns(Command):
    """Up: every package of the node."""

    CID: ClassVar[int] = 0x01
    packages: tuple[Package, ...]

    def payload(self, version: int) -> bytes:
        entries = (
            unsigned("package_identifier", package.package_identifier, 1)
            + unsigned("package_version", package.package_version, 1)
            + unsigned("f_port", package.f_port, 1)
            for package in self.packages
        )
        return bytes((in_range("number of packages", len(self.packages), 0, 7),)) + b"".join(entries)

    @classmethod
    def read(cls, reader: Reader, version: int) -> Self:
        count = reader.unsigned(1) & 7
        return cls(tuple(Package(reader.unsigned(1), reader.unsigned(1), reader.unsigned(1)) for _ in range(count)))


@dataclass(frozen=True, slots=True)
class MultiPackBufferReq(Command):
    """Down, alone: send bytes `start` to `stop` of the last answer again."""

    CID: ClassVar[int] = 0x02
    ALONE: ClassVar[bool] = True
    start: int
    stop: int

    def payload(self, version: int) -> bytes:
        if self.stop < self.start:
            raise ValueError(f"stop must be {self.start}..255, not {self.stop}")
        return unsigned("start", self.start, 1) + unsigned("stop", self.stop, 1)

    @classmethod
    def read(cls, reader: Reader, version: int) -> Self:
        return cls(start=reader.unsigned(1), stop=reader.unsigned(1))


@dataclass(frozen=True, slots=True)
class MultiPackBufferFrag(Command):
    """Up, alone: a piece of an answer from `base_byte` on, to the frame's token; BUFFER_FRAG_FAILED with no data: refused."""

    CID: ClassVar[int] = 0x02
    ALONE: ClassVar[bool] = True
    base_byte: int
    data: bytes

    @property
    def failed(self) -> bool:
        return self.base_byte == BUFFER_FRAG_FAILED and not self.data

    def payload(self, version: int) -> bytes:
        return unsigned("base_byte", self.base_byte, 1) + self.data

    @classmethod
    def read(cls, reader: Reader, version: int) -> Self:
        return cls(base_byte=reader.unsigned(1), data=reader.rest())


UplinkCommand = PackageVersionAns | DevPackageAns | MultiPackBufferFrag
DownlinkCommand = PackageVersionReq | DevPackageReq | MultiPackBufferReq

UPLINK: Mapping[int, Mapping[int, type[UplinkCommand]]] = by_version(
    VERSIONS, PackageVersionAns, DevPackageAns, MultiPackBufferFrag
)
DOWNLINK: Mapping[int, Mapping[int, type[DownlinkCommand]]] = by_version(
    VERSIONS, PackageVersionReq, DevPackageReq, MultiPackBufferReq
)

_Tables = Mapping[int, Mapping[int, Mapping[int, type[Command]]]]
_ALL_UPLINK: _Tables = {
    PACKAGE_ID: UPLINK,
    clock_sync.PACKAGE_ID: clock_sync.UPLINK,
    multicast.PACKAGE_ID: multicast.UPLINK,
    fragmentation.PACKAGE_ID: fragmentation.UPLINK,
    firmware_management.PACKAGE_ID: firmware_management.UPLINK,
}
_ALL_DOWNLINK: _Tables = {
    PACKAGE_ID: DOWNLINK,
    clock_sync.PACKAGE_ID: clock_sync.DOWNLINK,
    multicast.PACKAGE_ID: multicast.DOWNLINK,
    fragmentation.PACKAGE_ID: fragmentation.DOWNLINK,
    firmware_management.PACKAGE_ID: firmware_management.DOWNLINK,
}


@dataclass(frozen=True, slots=True)
class Addressed:
    """A command and the package that it belongs to."""

    package_identifier: int
    command: Command


@dataclass(frozen=True, slots=True)
class DecodedPack:
    """The commands before the first fault, the token (0..3), and the fault."""

    commands: tuple[Addressed, ...]
    token: int
    error: FrameError | None = None


def encode(
    commands: Command | Addressed | Sequence[Command | Addressed],
    version: int = 1,
    *,
    token: int = 0,
    versions: Mapping[int, int] | None = None,
) -> bytes:
    """One frame. A bare command is of TS007 itself; `versions` are those of the other packages, 1 where it says nothing.

    ValueError names the field and its range.
    """
    check_version(version, VERSIONS)
    in_range("token", token, 0, _TOKEN_MASK)
    listed = [commands] if isinstance(commands, Command | Addressed) else list(commands)
    addressed = [item if isinstance(item, Addressed) else Addressed(PACKAGE_ID, item) for item in listed]
    check_company([item.command for item in addressed])
    frame = b""
    package = PACKAGE_ID
    for item in addressed:
        if item.package_identifier not in _ALL_UPLINK:
            raise ValueError(f"package_identifier must be one of {sorted(_ALL_UPLINK)}, not {item.package_identifier}")
        if item.package_identifier != package:
            package = item.package_identifier
            frame += bytes((_PACKAGE_FLAG | package,))
        frame += encode_command(item.command, _version_of(package, versions, _ALL_UPLINK))
    return frame + bytes((token,))


def decode_uplink(data: bytes, version: int = 1, versions: Mapping[int, int] | None = None) -> DecodedPack:
    """What a node sent in one frame; `versions` are those of the other packages, 1 where it says nothing."""
    return _decode(data, version, versions, _ALL_UPLINK)


def decode_downlink(data: bytes, version: int = 1, versions: Mapping[int, int] | None = None) -> DecodedPack:
    """What was sent to a node in one frame; `versions` as above."""
    return _decode(data, version, versions, _ALL_DOWNLINK)


def _decode(data: bytes, version: int, versions: Mapping[int, int] | None, tables: _Tables) -> DecodedPack:
    check_version(version, VERSIONS)
    if len(data) < 2:
        return DecodedPack((), 0, FrameError("frame at offset 0: no command and token"))
    token = data[-1] & _TOKEN_MASK
    reader = Reader(data[:-1])
    commands: list[Addressed] = []
    package = PACKAGE_ID
    while reader.left:
        try:
            if data[reader.offset] & _PACKAGE_FLAG:
                package = reader.unsigned(1) & ~_PACKAGE_FLAG
                reader.begin(f"package {package}")
            if package not in tables:
                raise reader.fault("unknown package")
            of_package = _version_of(package, versions, tables)
            command = read_command(reader, of_package, tables[package][of_package], first=not commands)
        except FrameError as error:
            return DecodedPack(tuple(commands), token, error)
        commands.append(Addressed(package, command))
    return DecodedPack(tuple(commands), token)


def _version_of(package: int, versions: Mapping[int, int] | None, tables: _Tables) -> int:
    version = (versions or {}).get(package, 1)
    check_version(version, tables[package])
    return version
