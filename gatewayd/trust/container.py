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
        self._readers: list[McubootReader] = []  # of every MCUboot image in the file
        self._ota = release.container == "zigbee-ota"
        self._inner = payload.kind == "full"  # an MCUboot image may be inside; a delta's patch is none
        self._head = bytearray()  # of the OTA file, then of the element that begins
        self._header: OtaHeader | None = None
        self._left = 0  # bytes of the present element that are still to come
        self._sink: McubootReader | None = None  # of the present element
        if release.container == "mcuboot" and self._inner:
            self._readers.append(McubootReader())

    def feed(self, piece: bytes) -> None:
        """The next bytes of the file."""
        if self._fault is not None:
            return
        try:
            if self._ota:
                self._feed_ota(piece)
            elif self._readers:
                self._readers[0].feed(piece)
        except FrameError as error:
            self._fault = error

    def finish(self) -> None:
        """The file has ended. Refused("header_mismatch") when it contradicts the release, or itself."""
        try:
            if self._fault is not None:
                raise self._fault
            if self._ota:
                self._check_ota(self._header or parse_ota_header(bytes(self._head)))
            for reader in self._readers:
                self._check_mcuboot(reader)
        except FrameError as error:
            raise Refused("header_mismatch", f"{self._what}: {error}") from None

    def _feed_ota(self, piece: bytes) -> None:
        """The header, then every element: an upgrade image may come after whatever else there is."""
        if self._header is None:
            self._head += piece
            if len(self._head) < MAX_HEADER_BYTES:
                return
            self._header = parse_ota_header(bytes(self._head[:MAX_HEADER_BYTES]))
            piece = bytes(self._head[self._header.header_length :])
            self._head.clear()
        while piece and self._inner:
            if self._left:
                part, piece = piece[: self._left], piece[self._left :]
                self._left -= len(part)
                if self._sink is not None:
                    self._sink.feed(part)
                continue
            # An upgrade image shows in its first bytes what it is; of other elements the head is enough.
            self._head += piece
            if len(self._head) < _ELEMENT.size:
                return
            tag, length = _ELEMENT.unpack_from(self._head)
            inside = bytes(self._head[_ELEMENT.size :])
            begin = inside[: min(4, length)]
            if tag == UPGRADE_IMAGE_TAG and len(begin) < min(4, length):
                return
            self._head.clear()
            self._left, self._sink, piece = length, None, inside
            if tag == UPGRADE_IMAGE_TAG and is_mcuboot(begin):
                self._sink = McubootReader()
                self._readers.append(self._sink)

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
        counter, wanted_counter = image.security_counter, release.security_version
        if counter is None and wanted_counter:
            raise FrameError(f"MCUboot image: no security counter, the release's security version is {wanted_counter}")
        if counter is not None and counter != wanted_counter:
            raise FrameError(
                f"MCUboot image: security counter {counter}, the release's security version is {wanted_counter}"
            )
