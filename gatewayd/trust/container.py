"""What a payload file says of itself, against what the release says of it: Zigbee OTA headers, MCUboot images. PURE.

An opaque image, and a patch that no container wraps, say nothing: protection against a downgrade then rests on the
release's key and the node.
"""

import re
import struct
from typing import Final

from gatewayd.cloud import messages
from gatewayd.errors import Refused
from gatewayd.trust.mcuboot import McubootReader, is_mcuboot
from radios.errors import FrameError
from radios.zigbee.ota_image import MAX_HEADER_BYTES, OtaHeader, parse_ota_header

UPGRADE_IMAGE_TAG: Final = 0x0000  # ZCL8 11.4.2.2
_ELEMENT = struct.Struct("<HL")
_NUMBERS = re.compile(r"(\d+)\.(\d+)\.(\d+)(?:\+(\d+))?")


class ContainerCheck:
    """One pass over a payload: `feed` every piece, then `finish`. Nothing is raised before the end, so that a file that is
    not the payload at all can be told as that."""

    def __init__(self, payload: messages.Payload, release: messages.Release) -> None:
        self._payload = payload
        self._release = release
        self._what = f"{release.name} {release.version}, payload {payload.sha256}"
        self._fault: FrameError | None = None
        self._mcuboot: McubootReader | None = None
        full = payload.kind == "full"
        if release.container == "mcuboot" and full:
            self._mcuboot = McubootReader()
        self._ota = release.container == "zigbee-ota"
        self._inner = full  # an MCUboot image may be inside; a delta's patch is none
        self._head = bytearray()
        self._header: OtaHeader | None = None
        self._left = 0  # bytes of the upgrade image element that are still to come
        self._looking = self._ota

    def feed(self, piece: bytes) -> None:
        """The next bytes of the file."""
        if self._fault is not None:
            return
        try:
            if self._looking:
                piece = self._from_ota(piece)
            if self._mcuboot is not None:
                self._mcuboot.feed(piece[: self._left] if self._ota else piece)
                self._left -= min(len(piece), self._left)
        except FrameError as error:
            self._fault = error

    def finish(self) -> None:
        """The file has ended. Refused("header_mismatch") when it contradicts the release, or itself."""
        try:
            if self._fault is not None:
                raise self._fault
            if self._ota:
                self._check_ota(self._header or parse_ota_header(bytes(self._head)))
            if self._mcuboot is not None:
                self._check_mcuboot(self._mcuboot)
        except FrameError as error:
            raise Refused("header_mismatch", f"{self._what}: {error}") from None

    def _from_ota(self, piece: bytes) -> bytes:
        """What of the piece belongs to an MCUboot image inside the file."""
        self._head += piece
        if self._header is None and len(self._head) >= MAX_HEADER_BYTES:
            self._header = parse_ota_header(bytes(self._head[:MAX_HEADER_BYTES]))
        if self._header is None:
            return b""
        at = self._header.header_length + _ELEMENT.size
        if len(self._head) < at + 4:
            return b""
        self._looking = False
        tag, length = _ELEMENT.unpack_from(self._head, self._header.header_length)
        inside = bytes(self._head[at:])
        self._head.clear()
        if not self._inner or tag != UPGRADE_IMAGE_TAG or not is_mcuboot(inside):
            return b""
        self._mcuboot, self._left = McubootReader(), length
        return inside

    def _check_ota(self, header: OtaHeader) -> None:
        release, wanted = self._release, self._release.node_version
        if header.version != wanted:
            raise FrameError(f"file version {header.version:#010x}, not {wanted:#010x}")
        hardware = f"zigbee:{header.manufacturer:04x}-{header.image_type:04x}"
        if release.hardware != (hardware,):
            raise FrameError(f"the file is for {hardware}, the release for {release.hardware}")
        if header.total_size != self._payload.size:
            raise FrameError(f"the file says {header.total_size} bytes, it has {self._payload.size}")

    def _check_mcuboot(self, reader: McubootReader) -> None:
        image, release = reader.finish(), self._release
        if not image.signature_types:
            raise FrameError("MCUboot image: it has no signature, a bootloader would refuse it")
        stated = _NUMBERS.match(release.version)
        if stated is not None:
            wanted = [int(number) for number in stated.groups() if number is not None]
            if list(image.version[: len(wanted)]) != wanted:
                raise FrameError(f"MCUboot image: version {image.version_text()}, not {release.version}")
        counter = image.security_counter
        if counter is not None and counter != release.security_version:
            raise FrameError(
                f"MCUboot image: security counter {counter}, the release's security version is {release.security_version}"
            )
