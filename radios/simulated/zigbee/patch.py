"""A Zigbee node's way from a file in flash to an image: OTA files that hold a patch are told from those that hold an image."""

from collections.abc import Collection

from radios.simulated.patches import apply_patch
from radios.simulated.zigbee.firmware import TAG_IMAGE, FirmwareError, elements_of

TAG_PATCH = 0xF0D1  # manufacturer's range


def patched(file: bytes, running: bytes, formats: Collection[str]) -> bytes | None:
    """The file itself when it holds an image; what its patch makes of the running image; None when it makes nothing."""
    try:
        elements = {tag: file[at : at + length] for tag, at, length in elements_of(file)}
    except FirmwareError:
        return file  # refused where images are
    if TAG_IMAGE in elements or TAG_PATCH not in elements:
        return file
    return apply_patch(elements[TAG_PATCH], running, formats)
