"""What the application packages share: command base, byte reader, range checks and lists of commands in one frame.

All fields are little-endian. Reserved bits are written as 0 and ignored when read. Not here: any command of one package,
apart from the PackageVersion pair, which is CID 0x00 in all of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, Self, TypeVar

from radios.errors import FrameError

TOKEN_MAX = 15
FRAG_INDEX_MAX = 3
MC_GROUP_ID_MAX = 3


class Command(ABC):
    """One command of a package: its CID and what follows it on the air."""

    __slots__ = ()
    CID: ClassVar[int]
    ALONE: ClassVar[bool] = False  # it must be the only command of its frame

    @abstractmethod
    def payload(self, version: int) -> bytes:
        """The bytes after the CID. ValueError names the field that is out of range or not in this version."""

    @classmethod
    @abstractmethod
    def read(cls, reader: "Reader", version: int) -> Self:
        """The command whose CID was just read. FrameError when bytes are missing."""


C = TypeVar("C", bound=Command)
C_co = TypeVar("C_co", bound=Command, covariant=True)


@dataclass(frozen=True, slots=True)
class Decoded(Generic[C_co]):
    """The commands before the first fault, and the fault, which ends the frame: lengths are known by CID only."""

    commands: tuple[C_co, ...]
    error: FrameError | None = None


@dataclass(frozen=True, slots=True)
class PackageVersionReq(Command):
    """CID 00 of every package, down."""

    CID: ClassVar[int] = 0x00

    def payload(self, version: int) -> bytes:
        return b""

    @classmethod
    def read(cls, reader: "Reader", version: int) -> Self:
        return cls()


@dataclass(frozen=True, slots=True)
class PackageVersionAns(Command):
    """CID 00 of every package, up: which package answers on this port, and in which version."""

    CID: ClassVar[int] = 0x00
    package_identifier: int
    package_version: int

    def payload(self, version: int) -> bytes:
        return unsigned("package_identifier", self.package_identifier, 1) + unsigned(
            "package_version", self.package_version, 1
        )

    @classmethod
    def read(cls, reader: "Reader", version: int) -> Self:
        return cls(package_identifier=reader.unsigned(1), package_version=reader.unsigned(1))


class Reader:
    """Takes fields off a frame in order; FrameError names the command, its offset and what is missing."""

    __slots__ = ("_command", "_data", "_start", "offset")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._command = "frame"
        self._start = 0
        self.offset = 0

    @property
    def left(self) -> int:
        return len(self._data) - self.offset

    def begin(self, command: str) -> None:
        """The next bytes belong to this command, whose CID was the last byte."""
        self._command = command
        self._start = self.offset - 1

    def take(self, length: int) -> bytes:
        if self.left < length:
            raise self.fault(f"needs {length} bytes at offset {self.offset}, {self.left} left")
        self.offset += length
        return self._data[self.offset - length : self.offset]

    def rest(self) -> bytes:
        return self.take(self.left)

    def unsigned(self, length: int) -> int:
        return int.from_bytes(self.take(length), "little")

    def signed(self, length: int) -> int:
        return int.from_bytes(self.take(length), "little", signed=True)

    def fault(self, what: str) -> FrameError:
        return FrameError(f"{self._command} at offset {self._start}: {what}")


def unsigned(name: str, value: int, length: int) -> bytes:
    """`length` bytes; ValueError when the value does not fit."""
    return in_range(name, value, 0, (1 << 8 * length) - 1).to_bytes(length, "little")


def signed(name: str, value: int, length: int) -> bytes:
    """`length` bytes, two's complement; ValueError when the value does not fit."""
    half = 1 << (8 * length - 1)
    return in_range(name, value, -half, half - 1).to_bytes(length, "little", signed=True)


def in_range(name: str, value: int, low: int, high: int) -> int:
    """The value; ValueError naming field and range when it is outside."""
    if not low <= value <= high:
        raise ValueError(f"{name} must be {low}..{high}, not {value}")
    return value


def exactly(name: str, value: bytes, length: int) -> bytes:
    """The bytes; ValueError when they are not `length` many."""
    if len(value) != length:
        raise ValueError(f"{name} must be {length} bytes, not {len(value)}")
    return bytes(value)


def flags(*bits: bool) -> int:
    """An integer of flags, the first argument in bit 0."""
    return sum(1 << place for place, bit in enumerate(bits) if bit)


def only_in_v2(version: int, **fields: bool) -> None:
    """ValueError when a field that version 1 has no room for carries something."""
    for name, given in fields.items():
        if version < 2 and given:
            raise ValueError(f"{name} is not in version {version}, only in 2 and above")


def encode_commands(commands: Command | Sequence[Command], version: int, versions: Collection[int]) -> bytes:
    """One frame. ValueError: unknown version, a field out of range, a lone command in company."""
    check_version(version, versions)
    listed = [commands] if isinstance(commands, Command) else list(commands)
    check_company(listed)
    return b"".join(encode_command(command, version) for command in listed)


def encode_command(command: Command, version: int) -> bytes:
    """CID and payload. ValueError: a field out of range."""
    return bytes((command.CID,)) + command.payload(version)


def check_company(commands: Sequence[Command]) -> None:
    """ValueError when there is no command, or a lone one in company."""
    if not commands:
        raise ValueError("a frame must have at least one command")
    for command in commands:
        if command.ALONE and len(commands) > 1:
            raise ValueError(f"{type(command).__name__} must be the only command of its frame")


def decode_commands(data: bytes, version: int, known: Mapping[int, Mapping[int, type[C]]]) -> Decoded[C]:
    """Every command of one frame, up to the first fault. ValueError only for a version that the package has not."""
    check_version(version, known)
    reader = Reader(data)
    commands: list[C] = []
    if not data:
        return Decoded((), FrameError("frame at offset 0: no command"))
    while reader.left:
        try:
            commands.append(read_command(reader, version, known[version], first=not commands))
        except FrameError as error:
            return Decoded(tuple(commands), error)
    return Decoded(tuple(commands))


def read_command(reader: Reader, version: int, known: Mapping[int, type[C]], *, first: bool) -> C:
    """The command that starts at the reader's offset. FrameError when it is unknown, cut or misplaced."""
    cid = reader.unsigned(1)
    command = known.get(cid)
    if command is None:
        reader.begin(f"command 0x{cid:02x}")
        raise reader.fault("unknown command")
    reader.begin(command.__name__)
    if command.ALONE and not first:
        raise reader.fault("must be the only command of its frame")
    return command.read(reader, version)


def by_version(versions: Iterable[int], *commands: type[C]) -> dict[int, dict[int, type[C]]]:
    """Commands of one direction by version and CID, the same in all of these versions."""
    return {version: {command.CID: command for command in commands} for version in versions}


def check_version(version: int, versions: Collection[int]) -> None:
    if version not in versions:
        raise ValueError(f"version must be one of {sorted(versions)}, not {version}")
