"""An A/B bootloader: two slots in flash, one of them runs; a new image runs on trial until it is confirmed.

Responsible for which bytes run after a reset, and for nothing of how they came there.
"""

from dataclasses import dataclass
from enum import StrEnum

from radios.simulated.zigbee.firmware import FirmwareError, parse_ota_file


class ResetCause(StrEnum):
    POWER_ON = "power_on"
    SOFT = "soft"
    WATCHDOG = "watchdog"


@dataclass(frozen=True, slots=True)
class Slot:
    """One half of the flash: the OTA file as it was received, and the version that it reports when it runs."""

    image: bytes
    version: int


class Bootloader:
    """Slots "a" and "b". The running slot is never written."""

    def __init__(self, image: bytes, version: int | None = None) -> None:
        self.current = Slot(image, _version(image) if version is None else version)
        self.slots: dict[str, Slot | None] = {"a": self.current, "b": None}
        self.running = "a"
        self.on_trial = False
        self.reset_cause = ResetCause.POWER_ON
        self._swap_pending = False

    @property
    def other(self) -> str:
        return "b" if self.running == "a" else "a"

    def stage(self, image: bytes) -> None:
        """Put a verified image in the slot that does not run. FirmwareError when it is none."""
        self.slots[self.other] = Slot(image, _version(image))

    def request_swap(self) -> None:
        """The next reset starts the other slot, on trial."""
        if self.slots[self.other] is None:
            raise FirmwareError("the other slot is empty")
        self._swap_pending = True

    def confirm(self) -> None:
        """The running image has passed its self-test: keep it."""
        self.on_trial = False

    def reset(self, cause: ResetCause) -> None:
        """Boot: start a staged image, or fall back when the image on trial was never confirmed."""
        self.reset_cause = cause
        if self._swap_pending:
            self._swap_pending = False
            self.on_trial = self._swap()
        elif self.on_trial:
            self.on_trial = not self._swap()

    def _swap(self) -> bool:
        slot = self.slots[self.other]
        if slot is None:
            return False
        self.running, self.current = self.other, slot
        return True


def _version(image: bytes) -> int:
    return parse_ota_file(image).version
