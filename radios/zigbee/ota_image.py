"""The header of a Zigbee OTA file (ZCL8 11.4.2): what the file is for.

Responsible for the header alone. The elements behind it, and whether they are what the manufacturer signed, are not
looked at here: they were verified before the file reached a radio.
"""

import struct
from dataclasses import dataclass
from typing import Final

from radios.errors import FrameError, ImageError, Unsupported
from radios.radio import ImageStore, NodeId, TransferOrder
from radios.zigbee.ota_commands import WILDCARD_VERSION, FileId
from radios.zigbee.session_state import OtaImage

MAGIC: Final = 0x0BEEF11E
HEADER_BYTES: Final = 56  # without the optional fields
MAX_HEADER_BYTES: Final = HEADER_BYTES + 1 + 8 + 4  # what to read from a file to be sure to hold every field

_HEADER_VERSION = 0x0100
_CREDENTIAL_PRESENT = 0x01
_DEVICE_SPECIFIC = 0x02
_HARDWARE_VERSIONS_PRESENT = 0x04
_FIXED = struct.Struct("<LHHHHHLH32sL")


@dataclass(frozen=True, slots=True)
class OtaHeader:
    """Header of an OTA file. `destination` is the only node (8 bytes as on the wire) a device-specific file is for."""

    header_length: int
    manufacturer: int
    image_type: int
    version: int
    stack_version: int
    text: str
    total_size: int
    credential: int | None = None
    destination: bytes | None = None
    min_hardware: int | None = None
    max_hardware: int | None = None


def parse_ota_header(data: bytes) -> OtaHeader:
    """The header at the start of `data` (MAX_HEADER_BYTES are enough). FrameError when it is none."""
    if len(data) < HEADER_BYTES:
        raise FrameError(f"OTA file: a header has {HEADER_BYTES} bytes at least, got {len(data)}")
    magic, form, length, control, manufacturer, image_type, version, stack, text, size = _FIXED.unpack_from(data)
    if magic != MAGIC:
        raise FrameError(f"OTA file: magic is {magic:#010x}, not {MAGIC:#010x}")
    if form >> 8 != _HEADER_VERSION >> 8:
        raise FrameError(f"OTA file: header version {form:#06x} is unknown")
    at = HEADER_BYTES
    credential = destination = minimum = maximum = None
    if control & _CREDENTIAL_PRESENT:
        credential = _field(data, at, 1)[0]
        at += 1
    if control & _DEVICE_SPECIFIC:
        destination = _field(data, at, 8)
        at += 8
    if control & _HARDWARE_VERSIONS_PRESENT:
        minimum, maximum = struct.unpack("<HH", _field(data, at, 4))
        at += 4
        if minimum > maximum:
            raise FrameError(f"OTA file: hardware versions {minimum} to {maximum} are no range")
    if length < at:
        raise FrameError(f"OTA file: header length {length} is less than its {at} bytes of fields")
    if size < length:
        raise FrameError(f"OTA file: total size {size} is less than the header length {length}")
    name = text.split(b"\x00", 1)[0].decode("ascii", "replace")
    return OtaHeader(
        length, manufacturer, image_type, version, stack, name, size, credential, destination, minimum, maximum
    )


def image_of(order: TransferOrder, node: NodeId, images: ImageStore | None) -> OtaImage:
    """What a node is to be sent: the file's own header decides how nodes are answered. ImageError, FrameError when it is
    no OTA file; Unsupported when it is for another node alone."""
    if images is None:
        raise ImageError("the radio does not run")
    header = parse_ota_header(images.read(order.image.digest, 0, min(MAX_HEADER_BYTES, order.image.size)))
    if header.total_size != order.image.size:
        raise FrameError(f"OTA file: header says {header.total_size} bytes, the file has {order.image.size}")
    if header.version != order.image.version:
        raise FrameError(f"OTA file: header says version {header.version:#x}, not {order.image.version:#x}")
    if header.version == WILDCARD_VERSION:
        raise FrameError("OTA file: version ffffffff means any, so no node could ever say that it runs it")
    if header.destination is not None and node_of_eui64(header.destination) != node:
        raise Unsupported(f"OTA file: made for {node_of_eui64(header.destination)} alone")
    file = FileId(header.manufacturer, header.image_type, header.version)
    return OtaImage(order.image, file, header.min_hardware, header.max_hardware)


def node_of_eui64(destination: bytes) -> NodeId:
    """The node that a device-specific file names: 8 bytes as on the wire, least significant first."""
    return NodeId("zigbee:" + destination[::-1].hex())


def _field(data: bytes, at: int, length: int) -> bytes:
    field = data[at : at + length]
    if len(field) < length:
        raise FrameError(f"OTA file: header ends after {len(data)} bytes, {at + length} needed")
    return field
