"""What an MCUboot image says of itself: header, TLVs, and whether its own digest fits. PURE.

After MCUboot's docs/design.md ("Image format") and boot/bootutil/include/bootutil/image.h. Whose key signed it is the
bootloader's business: the manufacturer's signature over the whole file is checked elsewhere, with the key that the fleet
trusts. What an image contradicts itself about would brick or be refused by the node, so it never goes on air.
"""

import hashlib
import struct
from dataclasses import dataclass
from typing import Final

from radios.errors import FrameError

MAGIC: Final = 0x96F3B83D
HEADER_BYTES: Final = 32

_HEADER = struct.Struct("<LLHHLLBBHLL")
_AREA = struct.Struct("<HH")  # magic, length with this head
_TLV = struct.Struct("<HH")  # type, length without this head
_PROTECTED: Final = 0x6908
_PLAIN: Final = 0x6907
_ENCRYPTED: Final = 0x04 | 0x08  # IMAGE_F_ENCRYPTED_AES128, _AES256: the digest is over what only the node can read
_DIGESTS: Final = {0x10: "sha256", 0x11: "sha384", 0x12: "sha512"}
_PURE_SIGNATURE: Final = 0x25  # over the image itself: such an image need not have a digest
_SIGNATURES: Final = frozenset(
    {0x20, 0x21, 0x22, 0x23, 0x24, _PURE_SIGNATURE}
)  # RSA2048, ECDSA224, ECDSA, RSA3072, Ed25519
_SECURITY_COUNTER: Final = 0x50


@dataclass(frozen=True, slots=True)
class McubootImage:
    """`version` is (major, minor, revision, build); `security_counter` None when the image has none."""

    version: tuple[int, int, int, int]
    security_counter: int | None
    encrypted: bool
    digest: bytes | None  # that was compared with the content; None with an encrypted or purely signed image
    signature_types: tuple[int, ...]  # TLV types

    def version_text(self) -> str:
        major, minor, revision, build = self.version
        return f"{major}.{minor}.{revision}" + (f"+{build}" if build else "")


@dataclass(frozen=True, slots=True)
class _Header:
    size: int
    protected: int
    image: int
    flags: int
    version: tuple[int, int, int, int]


class McubootReader:
    """Takes an image in pieces of any size and keeps header and TLVs (at most 128 kB) of it."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = bytearray()  # from the first TLV area on
        self._seen = 0
        self._header: _Header | None = None
        self._hashers = {name: hashlib.new(name) for name in _DIGESTS.values()}

    def feed(self, piece: bytes) -> None:
        """The next bytes. FrameError when this is no MCUboot image."""
        if self._header is None:
            self._head += piece
            if len(self._head) < HEADER_BYTES:
                return
            piece = bytes(self._head)
            self._header = _header(piece)
            self._head.clear()
        tlvs_at = self._header.size + self._header.image
        covered = tlvs_at + self._header.protected
        for hasher in self._hashers.values():
            hasher.update(piece[: max(0, covered - self._seen)])
        self._tail += piece[max(0, tlvs_at - self._seen) :]
        self._seen += len(piece)
        if len(self._tail) > self._header.protected + 0x10000:
            raise FrameError(f"MCUboot image: {len(self._tail)} bytes behind the image, which no TLV area can hold")

    def finish(self) -> McubootImage:
        """Everything is fed: what the image says. FrameError when it is cut short, malformed, or its digest is wrong."""
        if self._header is None:
            raise FrameError(f"MCUboot image: a header has {HEADER_BYTES} bytes, the file {len(self._head)}")
        header, tail = self._header, bytes(self._tail)
        if self._seen < header.size + header.image:
            raise FrameError(
                f"MCUboot image: header and image have {header.size} + {header.image} bytes, the file {self._seen}"
            )
        tlvs: list[tuple[int, bytes]] = []
        if header.protected:
            tlvs += _tlvs(tail[: header.protected], _PROTECTED, "protected TLVs")
            if _AREA.unpack_from(tail)[1] != header.protected:
                raise FrameError(
                    f"MCUboot image: the header says {header.protected} bytes of protected TLVs, not so they"
                )
        _unambiguous(tlvs, "protected TLVs", protected=True)
        rest = tail[header.protected :]
        plain = _tlvs(rest, _PLAIN, "TLVs")
        if trailing := len(rest) - _AREA.unpack_from(rest)[1]:
            raise FrameError(f"MCUboot image: {trailing} bytes behind the last TLV")
        _unambiguous(plain, "TLVs", protected=False)
        encrypted = bool(header.flags & _ENCRYPTED)
        return McubootImage(
            header.version,
            _counter(dict(tlvs)),
            encrypted,
            None if encrypted else self._checked_digest(plain),
            tuple(kind for kind, _ in plain if kind in _SIGNATURES),
        )

    def _checked_digest(self, plain: list[tuple[int, bytes]]) -> bytes | None:
        found = [(kind, value) for kind, value in plain if kind in _DIGESTS]
        if not found:
            if any(kind == _PURE_SIGNATURE for kind, _ in plain):
                return None
            raise FrameError("MCUboot image: no TLV with a digest")
        for kind, value in found:
            made = self._hashers[_DIGESTS[kind]].digest()
            if made != value:
                raise FrameError(f"MCUboot image: {_DIGESTS[kind]} is {made.hex()}, its TLV says {value.hex()}")
        return found[0][1]


def is_mcuboot(head: bytes) -> bool:
    """Whether a file that begins so is an MCUboot image."""
    return head[:4] == MAGIC.to_bytes(4, "little")


def _header(data: bytes) -> _Header:
    magic, _, size, protected, image, flags, major, minor, revision, build, _ = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise FrameError(f"MCUboot image: magic is {magic:#010x}, not {MAGIC:#010x}")
    if size < HEADER_BYTES:
        raise FrameError(f"MCUboot image: header size {size} is less than {HEADER_BYTES}")
    if not image:
        raise FrameError("MCUboot image: it is empty")
    return _Header(size, protected, image, flags, (major, minor, revision, build))


def _tlvs(area: bytes, magic: int, what: str) -> list[tuple[int, bytes]]:
    if len(area) < _AREA.size:
        raise FrameError(f"MCUboot image: {what} end after {len(area)} bytes")
    found, total = _AREA.unpack_from(area)
    if found != magic:
        raise FrameError(f"MCUboot image: {what} begin with {found:#06x}, not {magic:#06x}")
    if not _AREA.size <= total <= len(area):
        raise FrameError(f"MCUboot image: {what} say {total} bytes, there are {len(area)}")
    at, tlvs = _AREA.size, []
    while at < total:
        if total - at < _TLV.size:
            raise FrameError(f"MCUboot image: {what} end within a TLV at {at}")
        kind, length = _TLV.unpack_from(area, at)
        at += _TLV.size
        if at + length > total:
            raise FrameError(f"MCUboot image: {what}: TLV {kind:#06x} of {length} bytes goes beyond {total}")
        tlvs.append((kind, area[at : at + length]))
        at += length
    return tlvs


def _unambiguous(tlvs: list[tuple[int, bytes]], what: str, *, protected: bool) -> None:
    """MCUboot takes the first TLV of a kind, protected ones before the others; there must be no second one to choose."""
    kinds = [kind for kind, _ in tlvs]
    for kind in (_SECURITY_COUNTER, *_DIGESTS):
        if kinds.count(kind) > 1:
            raise FrameError(f"MCUboot image: {what}: more than one TLV {kind:#06x}")
    if protected and any(kind in _DIGESTS for kind in kinds):
        raise FrameError(f"MCUboot image: {what}: a digest, which would be of itself")


def _counter(signed: dict[int, bytes]) -> int | None:
    """Only a protected TLV counts: the others are not covered by the image's digest."""
    value = signed.get(_SECURITY_COUNTER)
    if value is None:
        return None
    if len(value) != 4:
        raise FrameError(f"MCUboot image: a security counter has 4 bytes, not {len(value)}")
    return int.from_bytes(value, "little")
