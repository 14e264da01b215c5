"""TS003 Application Layer Clock Synchronization, versions 1 and 2 (same bytes): bytes <-> commands.

Times are GPS seconds modulo 2^32 (`radios.lorawan.gps_time`). Version 2 calls ForceDeviceResyncReq ...Cmd.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from radios.lorawan.packages.codec import (
    TOKEN_MAX,
    Command,
    Decoded,
    PackageVersionAns,
    PackageVersionReq,
    Reader,
    by_version,
    decode_commands,
    encode_commands,
    in_range,
    signed,
    unsigned,
)

__all__ = [
    "DEFAULT_PORT",
    "DOWNLINK",
    "PACKAGE_ID",
    "UPLINK",
    "VERSIONS",
    "AppTimeAns",
    "AppTimeReq",
    "DeviceAppTimePeriodicityAns",
    "DeviceAppTimePeriodicityReq",
    "DownlinkCommand",
    "ForceDeviceResyncReq",
    "PackageVersionAns",
    "PackageVersionReq",
    "UplinkCommand",
    "decode_downlink",
    "decode_uplink",
    "encode",
]

PACKAGE_ID = 1
DEFAULT_PORT = 202
VERSIONS = (1, 2)


@dataclass(frozen=True, slots=True)
class AppTimeReq(Command):
    """Up."""

    CID: ClassVar[int] = 0x01
    device_time: int  # GPS seconds modulo 2^32, as the node believes
    token_req: int
    ans_required: bool  # False: answer only when the node's clock is off

    def payload(self, version: int) -> bytes:
        param = in_range("token_req", self.token_req, 0, TOKEN_MAX) | int(self.ans_required) << 4
        return unsigned("device_time", self.device_time, 4) + bytes((param,))

    @classmethod
    def read(cls, reader: Reader, version: int) -> Self:
        data = reader.take(5)
        return cls(
            device_time=int.from_bytes(data[:4], "little"), token_req=data[4] & 15, ans_required=bool(data[4] & 16)
        )


@dataclass(frozen=True, slots=True)
class AppTimeAns(Command):
    """Down. Worthless once the node has sent a newer token."""

    CID: ClassVar[int] = 0x01
    time_correction: int  # s, signed: the server's GPS time at reception less device_time
    token_ans: int  # of the AppTimeReq that it answers

    def payload(self, version: int) -> bytes:
        return signed("time_correction", self.time_correction, 4) + bytes(
            (in_range("token_ans", self.token_ans, 0, TOKEN_MAX),)
        )

    @classmethod
    def read(cls, reader: Reader, version: int) -> Self:
        return cls(time_correction=reader.signed(4), token_ans=reader.unsigned(1) & TOKEN_MAX)


@dataclass(frozen=True, slots=True)
class DeviceAppTimePeriodicityReq(Command):
    """Down: ask for the time every 128 * 2^`period` s."""

    CID: ClassVar[int] = 0x02
    period: int

    def payload(self, version: int) -> bytes:
        return bytes((in_range("period", self.period, 0, 15),))

    @classmethod
    def read(cls, reader: Reader, version: int) -> Self:
        return cls(period=reader.unsigned(1) & 15)


@dataclass(frozen=True, slots=True)
class DeviceAppTimePeriodicityAns(Command):
    """Up."""

    CID: ClassVar[int] = 0x02
    not_supported: bool
    time: int  # GPS seconds modulo 2^32, as the node believes

    def payload(self, version: int) -> bytes:
        return bytes((int(self.not_supported),)) + unsigned("time", self.time, 4)

    @classmethod
    def read(cls, reader: Reader, version: int) -> Self:
        return cls(not_supported=bool(reader.unsigned(1) & 1), time=reader.unsigned(4))


@dataclass(frozen=True, slots=True)
class ForceDeviceResyncReq(Command):
    """Down: send AppTimeReq `nb_transmissions` times; there is no answer of its own."""

    CID: ClassVar[int] = 0x03
    nb_transmissions: int

    def payload(self, version: int) -> bytes:
        return bytes((in_range("nb_transmissions", self.nb_transmissions, 0, 7),))

    @classmethod
    def read(cls, reader: Reader, version: int) -> Self:
        return cls(nb_transmissions=reader.unsigned(1) & 7)


UplinkCommand = PackageVersionAns | AppTimeReq | DeviceAppTimePeriodicityAns
DownlinkCommand = PackageVersionReq | AppTimeAns | DeviceAppTimePeriodicityReq | ForceDeviceResyncReq

UPLINK: Mapping[int, Mapping[int, type[UplinkCommand]]] = by_version(
    VERSIONS, PackageVersionAns, AppTimeReq, DeviceAppTimePeriodicityAns
)
DOWNLINK: Mapping[int, Mapping[int, type[DownlinkCommand]]] = by_version(
    VERSIONS, PackageVersionReq, AppTimeAns, DeviceAppTimePeriodicityReq, ForceDeviceResyncReq
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
