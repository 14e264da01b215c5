"""TS005 Remote Multicast Setup, versions 1 and 2: bytes <-> commands. Version 2 only adds StartMissed.

Keys are made in `radios.lorawan.keys`; the frequency is in Hz here and coded in 100 Hz (200 Hz from 2.4 GHz on) on the air.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self

from radios.lorawan.packages.codec import (
    MC_GROUP_ID_MAX,
    Command,
    Decoded,
    PackageVersionAns,
    PackageVersionReq,
    Reader,
    by_version,
    decode_commands,
    encode_commands,
    exactly,
    flags,
    in_range,
    only_in_v2,
    unsigned,
)

__all__ = [
    "BEACON_PERIOD_S",
    "DEFAULT_PORT",
    "DOWNLINK",
    "PACKAGE_ID",
    "UPLINK",
    "VERSIONS",
    "DownlinkCommand",
    "McClassBSessionAns",
    "McClassBSessionReq",
    "McClassCSessionAns",
    "McClassCSessionReq",
    "McGroup",
    "McGroupDeleteAns",
    "McGroupDeleteReq",
    "McGroupSetupAns",
    "McGroupSetupReq",
    "McGroupStatusAns",
    "McGroupStatusReq",
    "PackageVersionAns",
    "PackageVersionReq",
    "UplinkCommand",
    "decode_downlink",
    "decode_uplink",
    "encode",
]

PACKAGE_ID = 2
DEFAULT_PORT = 200
VERSIONS = (1, 2)
BEACON_PERIOD_S = 128

_FREQUENCY_STEP_HZ = 100
_ISM_2400_HZ = 2_400_000_000
_ISM_2400_STEP_HZ = 200
_ISM_2400_CODED = _ISM_2400_HZ // _ISM_2400_STEP_HZ


@dataclass(frozen=True, slots=True)
class McGroup:
    """A multicast group that a node knows."""

    mc_group_id: int
    mc_addr: int


@dataclass(frozen=True, slots=True)
class McGroupStatusReq(Command):
    """Down."""

    CID: ClassVar[int] = 0x01
    req_group_mask: int = 15  # bit n: tell about group n

    def payload(self, version: int) -> bytes:
        return bytes((in_range("req_group_mask", self.req_group_mask, 0, 15),))

    @classmethod
    def read(cls, reader: Reader, version: int) -> Self:
        return cls(req_group_mask=reader.unsigned(1) & 15)


@dataclass(frozen=True, slots=True)
class McGroupStatusAns(Command):
    """Up. `groups` has one entry per bit of `ans_group_mask`, lowest group first, fewer when the frame was too small."""

    CID: ClassVar[int] = 0x01
    ans_group_mask: int
    nb_total_groups: int
    groups: tuple[McGroup, ...] = ()

    def payload(self, version: int) -> bytes:
        expected = self.ans_group_mask.bit_count()
        if len(self.groups) != expected:
            raise ValueError(
                f"groups must have {expected} entries, one per bit of ans_group_mask, not {len(self.groups)}"
            )
        status = (
            in_range("ans_group_mask", self.ans_group_mask, 0, 15)
            | in_range("nb_total_groups", self.nb_total_groups, 0, 7) << 4
        )
        entries = (unsigned("mc_group_id", g.mc_group_id, 1) + unsigned("mc_addr", g.mc_addr, 4) for g in self.groups)
        return bytes((status,)) + b"".join(entries)

    @classmethod
    def read(cls, reader: Reader, version: int) -> Self:
        status = reader.unsigned(1)
        mask = status & 15
        groups = tuple(
            McGroup(mc_group_id=reader.unsigned(1), mc_addr=reader.unsigned(4)) for _ in range(mask.bit_count())
        )
        return cls(ans_group_mask=mask, nb_total_groups=status >> 4 & 7, groups=groups)


@dataclass(frozen=True, slots=True)
class McGroupSetupReq(Command):
    """Down, 30 bytes with its CID."""

    CID: ClassVar[int] = 0x02
    mc_group_id: int
    mc_addr: int
    mc_key_encrypted: bytes = field(repr=False)  # 16 bytes, keys.encrypt_mc_key
    min_mc_f_count: int
    max_mc_f_count: int

    def payload(self, version: int) -> bytes:
        return (
            bytes((_group(self.mc_group_id),))
            + unsigned("mc_addr", self.mc_addr, 4)
            + exactly("mc_key_encrypted", self.mc_key_encrypted, 16)
            + unsigned("min_mc_f_count", self.min_mc_f_count, 4)
            + unsigned("max_mc_f_count", self.max_mc_f_count, 4)
        )

    @classmethod
    def read(cls, reader: Reader, version: int) -> Self:
        return cls(
            mc_group_id=reader.unsigned(1) & 3,
            mc_addr=reader.unsigned(4),
            mc_key_encrypted=reader.take(16),
            min_mc_f_count=reader.unsigned(4),
            max_mc_f_count=reader.unsigned(4),
        )


@dataclass(frozen=True, slots=True)
class McGroupSetupAns(Command):
    """Up."""

    CID: ClassVar[int] = 0x02
    mc_group_id: int
    id_error: bool = False

    def payload(self, version: int) -> bytes:
        return bytes((_group(self.mc_group_id) | int(self.id_error) << 2,))

    @classmethod
    def read(cls, reader: Reader, version: int) -> Self:
        value = reader.unsigned(1)
        return cls(mc_group_id=value & 3, id_error=bool(value & 4))


@dataclass(frozen=True, slots=True)
class McGroupDeleteReq(Command):
    """Down."""

    CID: ClassVar[int] = 0x03
    mc_group_id: int

    def payload(self, version: int) -> bytes:
        return bytes((_group(self.mc_group_id),))

    @classmethod
    def read(cls, reader: Reader, version: int) -> Self:
        return cls(mc_group_id=reader.unsigned(1) & 3)


@dataclass(frozen=True, slots=True)
class McGroupDeleteAns(Command):
    """Up."""

    CID: ClassVar[int] = 0x03
    mc_group_id: int
    mc_group_undefined: bool = False

    def payload(self, version: int) -> bytes:
        return bytes((_group(self.mc_group_id) | int(self.mc_group_undefined) << 2,))

    @classmethod
    def read(cls, reader: Reader, version: int) -> Self:
        value = reader.unsigned(1)
        return cls(mc_group_id=value & 3, mc_group_undefined=bool(value & 4))


@dataclass(frozen=True, slots=True)
class McClassCSessionReq(Command):
    """Down: listen to the group from `session_time` on for 2^`time_out` s."""

    CID: ClassVar[int] = 0x04
    mc_group_id: int
    session_time: int  # GPS seconds modulo 2^32
    time_out: int
    dl_frequency_hz: int
    dr: int

    def payload(self, version: int) -> bytes:
        return _session(
            self.mc_group_id,
            self.session_time,
            in_range("time_out", self.time_out, 0, 15),
            self.dl_frequency_hz,
            self.dr,
        )

    @classmethod
    def read(cls, reader: Reader, version: int) -> Self:
        data = reader.take(10)
        return cls(
            mc_group_id=data[0] & 3,
            session_time=int.from_bytes(data[1:5], "little"),
            time_out=data[5] & 15,
            dl_frequency_hz=_frequency_hz(data[6:9]),
            dr=data[9],
        )


@dataclass(frozen=True, slots=True)
class McClassBSessionReq(Command):
    """Down: listen to the group's ping slots from `session_time` on for 2^`time_out` beacon periods of 128 s."""

    CID: ClassVar[int] = 0x05
    mc_group_id: int
    session_time: int  # GPS seconds modulo 2^32, start of a beacon period: a multiple of 128
    time_out: int
    periodicity: int  # a ping slot every 2^n s
    dl_frequency_hz: int
    dr: int

    def payload(self, version: int) -> bytes:
        if self.session_time % BEACON_PERIOD_S:
            raise ValueError(f"session_time must be a multiple of {BEACON_PERIOD_S}, not {self.session_time}")
        window = in_range("time_out", self.time_out, 0, 15) | in_range("periodicity", self.periodicity, 0, 7) << 4
        return _session(self.mc_group_id, self.session_time, window, self.dl_frequency_hz, self.dr)

    @classmethod
    def read(cls, reader: Reader, version: int) -> Self:
        data = reader.take(10)
        return cls(
            mc_group_id=data[0] & 3,
            session_time=int.from_bytes(data[1:5], "little"),
            time_out=data[5] & 15,
            periodicity=data[5] >> 4 & 7,
            dl_frequency_hz=_frequency_hz(data[6:9]),
            dr=data[9],
        )


@dataclass(frozen=True, slots=True)
class _McSessionAns(Command):
    """Up. `time_to_start` (s) is there exactly when no error is set."""

    mc_group_id: int
    dr_error: bool = False
    freq_error: bool = False
    mc_group_undefined: bool = False  # version 1 nodes also say so when the start is in the past
    start_missed: bool = False  # version 2
    time_to_start: int | None = None

    @property
    def accepted(self) -> bool:
        return not (self.dr_error or self.freq_error or self.mc_group_undefined or self.start_missed)

    def payload(self, version: int) -> bytes:
        only_in_v2(version, start_missed=self.start_missed)
        errors = flags(self.dr_error, self.freq_error, self.mc_group_undefined, self.start_missed)
        status = bytes((_group(self.mc_group_id) | errors << 2,))
        if errors:
            if self.time_to_start is not None:
                raise ValueError("time_to_start must be None when an error is set")
            return status
        if self.time_to_start is None:
            raise ValueError(f"time_to_start must be 0..{0xFFFFFF} when no error is set, not None")
        return status + unsigned("time_to_start", self.time_to_start, 3)

    @classmethod
    def read(cls, reader: Reader, version: int) -> Self:
        status = reader.unsigned(1)
        errors = status & (0x1C if version == 1 else 0x3C)
        return cls(
            mc_group_id=status & 3,
            dr_error=bool(status & 4),
            freq_error=bool(status & 8),
            mc_group_undefined=bool(status & 16),
            start_missed=version > 1 and bool(status & 32),
            time_to_start=None if errors else reader.unsigned(3),
        )


@dataclass(frozen=True, slots=True)
class McClassCSessionAns(_McSessionAns):
    """Up. `time_to_start` (s) is there exactly when no error is set."""

    CID: ClassVar[int] = 0x04


@dataclass(frozen=True, slots=True)
class McClassBSessionAns(_McSessionAns):
    """Up. `time_to_start` (s) is there exactly when no error is set."""

    CID: ClassVar[int] = 0x05


UplinkCommand = (
    PackageVersionAns | McGroupStatusAns | McGroupSetupAns | McGroupDeleteAns | McClassCSessionAns | McClassBSessionAns
)
DownlinkCommand = (
    PackageVersionReq | McGroupStatusReq | McGroupSetupReq | McGroupDeleteReq | McClassCSessionReq | McClassBSessionReq
)

UPLINK: Mapping[int, Mapping[int, type[UplinkCommand]]] = by_version(
    VERSIONS,
    PackageVersionAns,
    McGroupStatusAns,
    McGroupSetupAns,
    McGroupDeleteAns,
    McClassCSessionAns,
    McClassBSessionAns,
)
DOWNLINK: Mapping[int, Mapping[int, type[DownlinkCommand]]] = by_version(
    VERSIONS,
    PackageVersionReq,
    McGroupStatusReq,
    McGroupSetupReq,
    McGroupDeleteReq,
    McClassCSessionReq,
    McClassBSessionReq,
)


def encode(
    commands: UplinkCommand | DownlinkCommand | Sequence[UplinkCommand | DownlinkCommand], version: int = 1
) -> bytes:
    """One frame of one or more commands. ValueError names the field and its range."""
    return encode_commands(commands, version, VERSIONS)


def decode_uplink(data: bytes, version: int = 1) -> Decoded[UplinkCommand]:
    """What a node sent in one frame."""
    return decode_commands(data, version, UPLINK)


def decode_downlink(data: bytes, version: int = 1) -> Decoded[DownlinkCommand]:
    """What was sent to a node in one frame."""
    return decode_commands(data, version, DOWNLINK)


def _group(mc_group_id: int) -> int:
    return in_range("mc_group_id", mc_group_id, 0, MC_GROUP_ID_MAX)


def _session(mc_group_id: int, session_time: int, window: int, dl_frequency_hz: int, dr: int) -> bytes:
    return (
        bytes((_group(mc_group_id),))
        + unsigned("session_time", session_time, 4)
        + bytes((window,))
        + _coded_frequency(dl_frequency_hz)
        + unsigned("dr", dr, 1)
    )


def _coded_frequency(hz: int) -> bytes:
    step = _ISM_2400_STEP_HZ if hz >= _ISM_2400_HZ else _FREQUENCY_STEP_HZ
    coded, remainder = divmod(hz, step)
    # A value below the 2.4 GHz band must not be read as one in it: 100 Hz steps end where 200 Hz codes begin.
    low, high = (_ISM_2400_CODED, 0xFFFFFF) if hz >= _ISM_2400_HZ else (0, _ISM_2400_CODED - 1)
    if remainder or not low <= coded <= high:
        raise ValueError(f"dl_frequency_hz must be a multiple of {step} in {low * step}..{high * step}, not {hz}")
    return coded.to_bytes(3, "little")


def _frequency_hz(data: bytes) -> int:
    coded = int.from_bytes(data, "little")
    return coded * (_ISM_2400_STEP_HZ if coded >= _ISM_2400_CODED else _FREQUENCY_STEP_HZ)
