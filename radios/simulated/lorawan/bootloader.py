"""A node's flash: a running slot, a download slot, and the swap with rollback between them."""

from collections.abc import Callable

from radios.errors import FrameError
from radios.simulated.lorawan import firmware
from radios.simulated.lorawan.packages.firmware_management import UpgradeImage

Verify = Callable[[bytes], int | None]
"""The manufacturer's signature over a whole image: the firmware version that it names, or None when it is bad."""


class AbBootloader:
    def __init__(self, *, image: bytes, version: int, hardware: int, verify: Verify) -> None:
        self.running_image = image
        self.version = version
        self.hardware = hardware
        self.download: bytes | None = None  # a whole block, right or wrong
        self.swaps = 0
        self.rollbacks = 0
        self._previous: tuple[bytes, int] | None = None
        self._verify = verify

    def store(self, block: bytes) -> None:
        self.download = block

    def delete_image(self) -> None:
        self.download = None

    def judge_image(self) -> tuple[UpgradeImage, int | None]:
        if self.download is None:
            return UpgradeImage.NONE, None
        version = self._verify(self.download)
        if version is None:
            return UpgradeImage.CORRUPT, None
        try:
            header = firmware.parse(self.download)
        except FrameError:
            return UpgradeImage.CORRUPT, None
        if header.hardware != self.hardware:
            return UpgradeImage.WRONG_HARDWARE, None
        return UpgradeImage.VALID, version

    def swap(self) -> bool:
        """At a reboot: start a valid download on trial; False keeps what runs."""
        verdict, version = self.judge_image()
        if verdict is not UpgradeImage.VALID or self.download is None or version is None:
            return False
        self._previous = (self.running_image, self.version)
        self.running_image, self.version, self.download = self.download, version, None
        self.swaps += 1
        return True

    def roll_back(self) -> None:
        """The trial failed: back to the image before."""
        if self._previous is not None:
            self.running_image, self.version = self._previous
            self._previous = None
            self.rollbacks += 1
