"""Well-formed Zigbee OTA files with synthetic content, for simulation, demo and tests; and a node's own reader of them.

Layout: ZCL 11.4 (header 0x0BEEF11E, then elements tag u16, length u32, data).
"""

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass

MAGIC = 0x0BEEF11E
TAG_IMAGE = 0x0000
TAG_SIGNATURE = 0xF0A5  # manufacturer's range: our synthetic manufacturer signs everything before this element

_HEADER = struct.Struct("<IHHHHHIH32sI")
_ELEMENT = struct.Struct("<HI")
_HAS_CREDENTIAL, _HAS_DESTINATION, _HAS_HARDWARE = 0x01, 0x02, 0x04
_STACK_VERSION_PRO = 0x0002


class FirmwareError(ValueError):
    """The bytes are no well-formed OTA file; the text says where."""


@dataclass(frozen=True, slots=True)
class OtaFile:
    """What a node reads in an OTA file."""

    manufacturer: int
    image_type: int
    version: int
    hardware_versions: tuple[int, int] | None
    total_size: int
    elements: tuple[tuple[int, int, int], ...]  # tag, offset of the data in the file, length

    def element(self, tag: int) -> tuple[int, int] | None:
        """Offset and length of the first element with this tag."""
        return next(((at, length) for t, at, length in self.elements if t == tag), None)


def synthetic_data(seed: str, size: int) -> bytes:
    """`size` bytes that depend on nothing but the seed and do not compress."""
    return hashlib.shake_256(seed.encode()).digest(size)


def build_ota_file(
    *,
    manufacturer: int,
    image_type: int,
    version: int,
    size: int = 60_000,
    seed: str = "",
    hardware_versions: tuple[int, int] | None = None,
    header_string: str = "gatewayd synthetic image",
    sign: Callable[[bytes], bytes] | None = None,
    signature_size: int = 512,
) -> bytes:
    """An OTA file whose image element holds `size` bytes made from seed, identity and version.

    `sign` gets every byte before the signature element and returns exactly `signature_size` bytes.
    """
    data = synthetic_data(f"{seed}/{manufacturer:04x}/{image_type:04x}/{version:08x}", size)
    optional = b"" if hardware_versions is None else struct.pack("<HH", *hardware_versions)
    header_size = _HEADER.size + len(optional)
    total = header_size + _ELEMENT.size + size + (_ELEMENT.size + signature_size if sign else 0)
    header = _HEADER.pack(
        MAGIC,
        0x0100,
        header_size,
        _HAS_HARDWARE if hardware_versions is not None else 0,
        manufacturer,
        image_type,
        version,
        _STACK_VERSION_PRO,
        header_string.encode()[:32],
        total,
    )
    signed = header + optional + _ELEMENT.pack(TAG_IMAGE, size) + data
    if sign is None:
        return signed
    signature = sign(signed)
    if len(signature) != signature_size:
        raise ValueError(f"the signature has {len(signature)} bytes, {signature_size} were promised in the header")
    return signed + _ELEMENT.pack(TAG_SIGNATURE, signature_size) + signature


def parse_ota_file(file: bytes) -> OtaFile:
    """Read the header and walk the elements to the last byte. FirmwareError when anything does not fit."""
    if len(file) < _HEADER.size:
        raise FirmwareError(f"{len(file)} bytes are no header")
    magic, header_version, header_size, control, manufacturer, image_type, version, _stack, _text, total = (
        _HEADER.unpack_from(file)
    )
    if magic != MAGIC:
        raise FirmwareError(f"magic is {magic:#010x}")
    if header_version != 0x0100:
        raise FirmwareError(f"header version is {header_version:#06x}")
    if total != len(file):
        raise FirmwareError(f"the header says {total} bytes, the file has {len(file)}")
    at = _HEADER.size + (1 if control & _HAS_CREDENTIAL else 0) + (8 if control & _HAS_DESTINATION else 0)
    hardware: tuple[int, int] | None = None
    if control & _HAS_HARDWARE:
        if at + 4 > min(header_size, len(file)):
            raise FirmwareError("the header ends before its hardware versions")
        low, high = struct.unpack_from("<HH", file, at)
        hardware = (low, high)
    if not _HEADER.size <= header_size <= len(file):
        raise FirmwareError(f"header length is {header_size}")
    elements = _elements(file, header_size)
    if not any(tag == TAG_IMAGE for tag, _, _ in elements):
        raise FirmwareError("there is no image element")
    return OtaFile(manufacturer, image_type, version, hardware, total, elements)


def elements_of(file: bytes) -> tuple[tuple[int, int, int], ...]:
    """Tag, offset and length of every element, whatever the file holds. FirmwareError when it is cut or no OTA file."""
    if len(file) < _HEADER.size:
        raise FirmwareError(f"{len(file)} bytes are no header")
    return _elements(file, _HEADER.unpack_from(file)[2])


def split_signature(file: bytes) -> tuple[bytes, bytes] | None:
    """The signed bytes and the signature of a file that `build_ota_file` signed; None when there is none or it is broken."""
    try:
        found = parse_ota_file(file).element(TAG_SIGNATURE)
    except FirmwareError:
        return None
    if found is None:
        return None
    at, length = found
    return file[: at - _ELEMENT.size], file[at : at + length]


def _elements(file: bytes, at: int) -> tuple[tuple[int, int, int], ...]:
    elements = []
    while at < len(file):
        if at + _ELEMENT.size > len(file):
            raise FirmwareError(f"an element header is cut at {at}")
        tag, length = _ELEMENT.unpack_from(file, at)
        at += _ELEMENT.size
        if at + length > len(file):
            raise FirmwareError(f"element {tag:#06x} at {at} says {length} bytes, {len(file) - at} are left")
        elements.append((tag, at, length))
        at += length
    return tuple(elements)
