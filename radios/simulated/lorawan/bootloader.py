"""A node's flash: a running slot, a download slot, and the swap with rollback between them."""

from collections.abc import Callable, Sequence

from radios.errors import FrameError
from radios.simulated.lorawan import firmware
from radios.simulated.lorawan.packages.firmware_management import UpgradeImage
from radios.simulated.patches import apply_patch

Verify = Callable[[bytes], int | None]
"""The manufacturer's signature over a whole image: the firmware version that it names, or None when it is bad."""


class AbBootloader:
    """`delta_formats`: of patches that it can apply to what runs."""

    def __init__(
        self, *, image: bytes, version: int, hardware: int, verify: Verify, delta_formats: Sequence[str] = ()
    ) -> None:
        self.running_image = image
        self.version = version
        self.hardware = hardware
        self.download: bytes | None = None  # a whole block, right or wrong
        self.swaps = 0
        self.rollbacks = 0
        self._previous: tuple[bytes, int] | None = None
        self._verify = verify
        self._delta_formats = tuple(delta_formats)

    def store(self, block: bytes) -> None:
        self.download = block

    def delete_image(self) -> None:
        self.download = None

    def judge_image(self) -> tuple[UpgradeImage, int | None]:
        if self.download is None:
            return UpgradeImage.NONE, None
        image = self._image(self.download)
        version = self._verify(image)
        if version is None:
            return UpgradeImage.CORRUPT, None
        try:
            header = firmware.parse(image)
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
        self.running_image, self.version, self.download = self._image(self.download), version, None
        self.swaps += 1
        return True

    def _image(self, block: bytes) -> bytes:
        """What a block is, or makes of the running image."""
        if not self._delta_formats or firmware.is_image(block):
            return block
        return apply_patch(block, self.running_image, self._delta_formats) or block

    def roll_back(self) -> None:
        """The trial failed: back to the image before."""
        if self._previous is not None:
            self.running_image, self.version = self._previous
            self._previous = None
            self.rollbacks += 1
