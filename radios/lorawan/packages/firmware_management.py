"""TS006 Firmware Management, version 1: bytes <-> commands.

The only standard proof that an image on a node is good and that the node then runs it; what to make of the answers is the
session's business.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Self

from radios.lorawan.packages.codec import (
    Command,
    Decoded,
    PackageVersionAns,
    PackageVersionReq,
    Reader,
    by_version,
    decode_commands,
    encode_commands,
    flags,
    unsigned,
)

__all__ = [
    "COUNTDOWN_CANCEL",
    "DEFAULT_PORT",
    "DOWNLINK",
    "PACKAGE_ID",
    "REBOOT_NOW",
    "REBOOT_TIME_CANCEL",
    "UPLINK",
    "VERSIONS",
    "DevDeleteImageAns",
    "DevDeleteImageReq",
    "DevRebootCountdownAns",
    "DevRebootCountdownReq",
    "DevRebootTimeAns",
    "DevRebootTimeReq",
    "DevUpgradeImageAns",
    "DevUpgradeImageReq",
    "DevVersionAns",
    "DevVersionReq",
    "DownlinkCommand",
    "PackageVersionAns",
    "PackageVersionReq",
    "UpImageStatus",
    "UplinkCommand",
    "decode_downlink",
    "decode_uplink",
    "encode",
]

PACKAGE_ID = 4
DEFAULT_PORT = 203
VERSIONS = (1,)
REBOOT_NOW = 0
"""In DevRebootTimeReq and DevRebootCountdownReq; nodes reboot without an answer."""
REBOOT_TIME_CANCEL = 0xFFFFFFFF
COUNTDOWN_CANCEL = 0xFFFFFF


class UpImageStatus(IntEnum):
    """What a node says of the image that it holds."""

    NO_IMAGE = 0
    INVALID = 1  # corrupt, or its signature is bad
    WRONG_HARDWARE = 2
    VALID = 3


@dataclass(frozen=True, slots=True)
class DevVersionReq(Command):
    """Down."""

    CID: ClassVar[int] = 0x01

    def payload(self, version: int) -> bytes:
        return b""

    @classmethod
    def read(cls, reader: Reader, version: int) -> Self:
        return cls()


@dataclass(frozen=True, slots=True)
class DevVersionAns(Command):
    """Up: what the node runs now."""

    CID: ClassVar[int] = 0x01
    fw_version: int
    hw_version: int

    def payload(self, version: int) -> bytes:
        return unsigned("fw_version", self.fw_version, 4) + unsigned("hw_version", self.hw_version, 4)

    @classmethod
    def read(cls, reader: Reader, version: int) -> Self:
        return cls(fw_version=reader.unsigned(4), hw_version=reader.unsigned(4))


@dataclass(frozen=True, slots=True)
class DevRebootTimeReq(Command):
    """Down."""

    CID: ClassVar[int] = 0x02
    reboot_time: int  # GPS seconds modulo 2^32; REBOOT_NOW, REBOOT_TIME_CANCEL

    def payload(self, version: int) -> bytes:
        return unsigned("reboot_time", self.reboot_time, 4)

    @classmethod
    def read(cls, reader: Reader, version: int) -> Self:
        return cls(reboot_time=reader.unsigned(4))


@dataclass(frozen=True, slots=True)
class DevRebootTimeAns(Command):
    """Up. LBM answers the seconds left (0: the time is past, or the node has no clock), or REBOOT_TIME_CANCEL."""

    CID: ClassVar[int] = 0x02
    reboot_time: int

    def payload(self, version: int) -> bytes:
        return unsigned("reboot_time", self.reboot_time, 4)

    @classmethod
    def read(cls, reader: Reader, version: int) -> Self:
        return cls(reboot_time=reader.unsigned(4))


@dataclass(frozen=True, slots=True)
class DevRebootCountdownReq(Command):
    """Down."""

    CID: ClassVar[int] = 0x03
    countdown: int  # s; REBOOT_NOW, COUNTDOWN_CANCEL

    def payload(self, version: int) -> bytes:
        return unsigned("countdown", self.countdown, 3)

    @classmethod
    def read(cls, reader: Reader, version: int) -> Self:
        return cls(countdown=reader.unsigned(3))


@dataclass(frozen=True, slots=True)
class DevRebootCountdownAns(Command):
    """Up."""

    CID: ClassVar[int] = 0x03
    countdown: int  # s

    def payload(self, version: int) -> bytes:
        return unsigned("countdown", self.countdown, 3)

    @classmethod
    def read(cls, reader: Reader, version: int) -> Self:
        return cls(countdown=reader.unsigned(3))


@dataclass(frozen=True, slots=True)
class DevUpgradeImageReq(Command):
    """Down."""

    CID: ClassVar[int] = 0x04

    def payload(self, version: int) -> bytes:
        return b""

    @classmethod
    def read(cls, reader: Reader, version: int) -> Self:
        return cls()


@dataclass(frozen=True, slots=True)
class DevUpgradeImageAns(Command):
    """Up. `next_fw_version` is there exactly when the image is valid."""

    CID: ClassVar[int] = 0x04
    up_image_status: UpImageStatus
    next_fw_version: int | None = None

    def payload(self, version: int) -> bytes:
        status = UpImageStatus(self.up_image_status)
        if status is not UpImageStatus.VALID:
            if self.next_fw_version is not None:
                raise ValueError(f"next_fw_version must be None when up_image_status is {status.name}")
            return bytes((status,))
        if self.next_fw_version is None:
            raise ValueError(f"next_fw_version must be 0..{0xFFFFFFFF} when up_image_status is VALID, not None")
        return bytes((status,)) + unsigned("next_fw_version", self.next_fw_version, 4)

    @classmethod
    def read(cls, reader: Reader, version: int) -> Self:
        status = UpImageStatus(reader.unsigned(1) & 3)
        return cls(
            up_image_status=status, next_fw_version=reader.unsigned(4) if status is UpImageStatus.VALID else None
        )


@dataclass(frozen=True, slots=True)
class DevDeleteImageReq(Command):
    """Down."""

    CID: ClassVar[int] = 0x05
    fw_to_delete_version: int

    def payload(self, version: int) -> bytes:
        return unsigned("fw_to_delete_version", self.fw_to_delete_version, 4)

    @classmethod
    def read(cls, reader: Reader, version: int) -> Self:
        return cls(fw_to_delete_version=reader.unsigned(4))


@dataclass(frozen=True, slots=True)
class DevDeleteImageAns(Command):
    """Up."""

    CID: ClassVar[int] = 0x05
    no_valid_image: bool = False
    invalid_version: bool = False

    def payload(self, version: int) -> bytes:
        return bytes((flags(self.no_valid_image, self.invalid_version),))

    @classmethod
    def read(cls, reader: Reader, version: int) -> Self:
        value = reader.unsigned(1)
        return cls(no_valid_image=bool(value & 1), invalid_version=bool(value & 2))


UplinkCommand = (
    PackageVersionAns
    | DevVersionAns
    | DevRebootTimeAns
    | DevRebootCountdownAns
    | DevUpgradeImageAns
    | DevDeleteImageAns
)
DownlinkCommand = (
    PackageVersionReq
    | DevVersionReq
    | DevRebootTimeReq
    | DevRebootCountdownReq
    | DevUpgradeImageReq
    | DevDeleteImageReq
)

UPLINK: Mapping[int, Mapping[int, type[UplinkCommand]]] = by_version(
    VERSIONS,
    PackageVersionAns,
    DevVersionAns,
    DevRebootTimeAns,
    DevRebootCountdownAns,
    DevUpgradeImageAns,
    DevDeleteImageAns,
)
DOWNLINK: Mapping[int, Mapping[int, type[DownlinkCommand]]] = by_version(
    VERSIONS,
    PackageVersionReq,
    DevVersionReq,
    DevRebootTimeReq,
    DevRebootCountdownReq,
    DevUpgradeImageReq,
    DevDeleteImageReq,
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
