"""An image on its way into a node's other slot: what is in flash, and what a page has brought ahead of it.

Responsible for which blocks belong there, in any order within a page; `target` and `staged` survive a reset.
"""

import struct
from dataclasses import dataclass, field

from radios.errors import ContractError
from radios.simulated.zigbee.firmware import FirmwareError, parse_ota_file
from radios.simulated.zigbee.ota_requests import Page
from radios.simulated.zigbee.ota_terms import OtaCounters, Target

_UNKNOWN_U32 = 0xFFFFFFFF
_BLOCK = struct.Struct("<BHHIIB")


@dataclass(slots=True)
class Download:
    """One at a time."""

    manufacturer: int
    image_type: int
    block_size: int
    counters: OtaCounters
    target: Target | None = None
    staged: bytearray = field(default_factory=bytearray)
    page: Page | None = None
    _held_once: dict[int, int] = field(default_factory=dict)  # version: bytes that flash held once

    @property
    def file_offset(self) -> int:
        """Attribute FileOffset: up to the first hole."""
        return len(self.staged) if self.target is not None else _UNKNOWN_U32

    @property
    def version(self) -> int:
        """Attribute DownloadedFileVersion."""
        return self.target.version if self.target is not None else _UNKNOWN_U32

    def aim(self) -> Target:
        if self.target is None:
            raise ContractError("the OTA client has no target in a state that needs one")
        return self.target

    def forget(self) -> None:
        self.target = None
        self.staged = bytearray()
        self.page = None

    def take(self, payload: bytes) -> int | None:
        """Keep the data of an ImageBlockResponse; where the block ended, or None when it is none of ours. struct.error when
        it is cut short."""
        _, manufacturer, image_type, version, offset, length = _BLOCK.unpack_from(payload)
        data = payload[_BLOCK.size :]
        target, at, page = self.aim(), len(self.staged), self.page
        ahead = offset > at and page is not None and page.wants(offset, length)
        if (
            (manufacturer, image_type, version) != (self.manufacturer, self.image_type, target.version)
            or not (offset == at or ahead)
            or len(data) != length
            or not 0 < length <= self.block_size
            or offset + length > target.size
        ):
            self.counters.responses_ignored += 1
            return None
        self.counters.blocks_received += 1
        self.counters.bytes_received += length
        if page is not None:
            page.heard += 1
        if ahead and page is not None:
            page.ahead[offset] = data
        else:
            self._append(data, target.version)
        end: int = offset + length
        return end

    def acceptable(self, image: bytes, hardware_version: int | None) -> bool:
        """Whether the image, as it came or as a patch made it, is one of ours."""
        try:
            file = parse_ota_file(image)
        except FirmwareError:
            return False
        if (file.manufacturer, file.image_type, file.version) != (
            self.manufacturer,
            self.image_type,
            self.aim().version,
        ):
            return False
        if file.hardware_versions is None or hardware_version is None:
            return True
        low, high = file.hardware_versions
        return low <= hardware_version <= high

    def _append(self, data: bytes, version: int) -> None:
        """Into flash, and after it what a page brought ahead of it."""
        more: bytes | None = data
        while more is not None:
            offset = len(self.staged)
            self.staged += more
            at = len(self.staged)
            held = self._held_once.get(version, 0)
            if at > held:
                self._held_once[version] = at
            self.counters.bytes_received_twice += max(0, min(held, at) - offset)
            more = self.page.ahead.pop(at, None) if self.page is not None else None
