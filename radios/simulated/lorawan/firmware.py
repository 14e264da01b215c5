"""Synthetic firmware of a LoRaWAN node: 16-byte header, then pseudo-random bytes made from a seed.

Header, little-endian: magic `LWFW`, version u32 (the FWversion of TS006), hardware u32 (HWversion), length u32 (of the
whole file, header included). The manufacturer's signature is over the whole file and is not part of it.
"""

import random
import struct
from dataclasses import dataclass

from radios.errors import FrameError

_MAGIC = b"LWFW"
_HEADER = struct.Struct("<4sIII")
HEADER_BYTES = _HEADER.size


@dataclass(frozen=True, slots=True)
class Firmware:
    version: int
    hardware: int
    length: int


def build(*, version: int, hardware: int, size: int, seed: int) -> bytes:
    """A file of exactly `size` bytes; the same arguments give the same bytes."""
    if size < HEADER_BYTES:
        raise ValueError(f"firmware of {size} bytes is shorter than its header of {HEADER_BYTES}")
    body = random.Random(f"{version}/{hardware}/{seed}").randbytes(size - HEADER_BYTES)
    return _HEADER.pack(_MAGIC, version, hardware, size) + body


def is_image(data: bytes) -> bool:
    """Whether it begins as an image does; a patch does not."""
    return data.startswith(_MAGIC)


def parse(image: bytes) -> Firmware:
    """FrameError when the header is not this format or the length is not that of the file."""
    if len(image) < HEADER_BYTES:
        raise FrameError(f"firmware of {len(image)} bytes is shorter than its header of {HEADER_BYTES}")
    magic, version, hardware, length = _HEADER.unpack_from(image)
    if magic != _MAGIC:
        raise FrameError(f"firmware starts with {magic.hex()}, not with the magic {_MAGIC.hex()}")
    if length != len(image):
        raise FrameError(f"firmware header says {length} bytes, the file has {len(image)}")
    return Firmware(version=version, hardware=hardware, length=length)
