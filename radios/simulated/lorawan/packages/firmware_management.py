"""TS006, firmware management: port 203. Versions, the downloaded image's verdict, reboot at a time, deletion."""

import struct
from enum import IntEnum
from typing import Protocol

from radios.simulated.lorawan.node_clock import NodeClock
from radios.simulated.lorawan.packages.commands import (
    PACKAGE_VERSION,
    Answer,
    package_version_answer,
    split_commands,
)

_VERSION, _REBOOT_TIME, _REBOOT_COUNTDOWN, _UPGRADE_IMAGE, _DELETE_IMAGE = 0x01, 0x02, 0x03, 0x04, 0x05
_LENGTHS = {
    PACKAGE_VERSION: 0,
    _VERSION: 0,
    _REBOOT_TIME: 4,
    _REBOOT_COUNTDOWN: 3,
    _UPGRADE_IMAGE: 0,
    _DELETE_IMAGE: 4,
}
_CANCEL_TIME, _CANCEL_COUNTDOWN = 0xFFFFFFFF, 0xFFFFFF


class UpgradeImage(IntEnum):
    """What the node thinks of the image in its download slot (DevUpgradeImageAns)."""

    NONE = 0
    CORRUPT = 1
    WRONG_HARDWARE = 2
    VALID = 3


class Bootloader(Protocol):
    """The flash behind the package."""

    version: int
    hardware: int

    def judge_image(self) -> tuple[UpgradeImage, int | None]:
        """The verdict and, when valid, the version that would run next."""
        ...

    def delete_image(self) -> None: ...


class FirmwareManagement:
    package, port = 4, 203

    def __init__(self, clock: NodeClock, version: int, bootloader: Bootloader) -> None:
        self.version = version
        self.malformed = 0
        self.reboot_at: float | None = None
        self._clock = clock
        self._bootloader = bootloader

    def receive(self, payload: bytes, now: float, *, multicast: bool) -> list[Answer]:
        del multicast
        parsed = split_commands(payload, _LENGTHS)
        self.malformed += not parsed.complete
        answers = (self._command(cid, body, now) for cid, body in parsed.commands)
        return [Answer(answer) for answer in answers if answer]

    def next_deadline(self) -> float | None:
        return self.reboot_at

    def handle_timeout(self, now: float) -> list[Answer]:
        return []  # the node reboots itself at `reboot_at`

    def _command(self, cid: int, body: bytes, now: float) -> bytes:
        if cid == PACKAGE_VERSION:
            return package_version_answer(self.package, self.version).payload
        if cid == _VERSION:
            return struct.pack("<BII", _VERSION, self._bootloader.version, self._bootloader.hardware)
        if cid == _REBOOT_TIME:
            return self._reboot_time(int.from_bytes(body, "little"), now)
        if cid == _REBOOT_COUNTDOWN:
            return self._reboot_countdown(int.from_bytes(body, "little"), now)
        if cid == _UPGRADE_IMAGE:
            verdict, version = self._bootloader.judge_image()
            return bytes([_UPGRADE_IMAGE, verdict]) + (b"" if version is None else version.to_bytes(4, "little"))
        return self._delete_image(int.from_bytes(body, "little"))

    def _reboot_time(self, gps_s: int, now: float) -> bytes:
        if gps_s == _CANCEL_TIME:
            self.reboot_at = None
            return struct.pack("<BI", _REBOOT_TIME, _CANCEL_TIME)
        if gps_s == 0:
            self.reboot_at = now
            return b""
        left = gps_s - int(self._clock.gps(now))
        if left <= 0:
            return struct.pack("<BI", _REBOOT_TIME, 0)
        self.reboot_at = self._clock.unix_of_gps(gps_s, now)
        return struct.pack("<BI", _REBOOT_TIME, left)

    def _reboot_countdown(self, seconds: int, now: float) -> bytes:
        if seconds == _CANCEL_COUNTDOWN:
            self.reboot_at = None
        else:
            self.reboot_at = now + seconds
        return b"" if seconds == 0 else bytes([_REBOOT_COUNTDOWN]) + seconds.to_bytes(3, "little")

    def _delete_image(self, version: int) -> bytes:
        verdict, held = self._bootloader.judge_image()
        if verdict is UpgradeImage.NONE:
            return bytes([_DELETE_IMAGE, 0x01])
        if held is not None and held != version:
            return bytes([_DELETE_IMAGE, 0x02])
        self._bootloader.delete_image()
        return bytes([_DELETE_IMAGE, 0x00])
