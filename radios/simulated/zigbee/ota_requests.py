"""The OTA client's requests as bytes, and the page that a client collects. Layouts: ZCL 11.13."""

import struct
from dataclasses import dataclass, field

QUERY_REQUEST, BLOCK_REQUEST, PAGE_REQUEST, END_REQUEST, SPECIFIC_REQUEST = 0x01, 0x03, 0x04, 0x06, 0x08
STACK_VERSION_PRO = 0x0002

_STRAGGLER_S = 0.05
_HAS_IEEE, _HAS_PERIOD = 0x01, 0x02
_QUERY = struct.Struct("<BHHI")
_BLOCK = struct.Struct("<BHHIIB")
_END = struct.Struct("<BHHI")


@dataclass(frozen=True, slots=True)
class Identity:
    """What a client says of itself in every request. `eui64` None: it leaves it out."""

    manufacturer: int
    image_type: int
    eui64: int | None = None


def query_request(identity: Identity, version: int, hardware_version: int | None) -> bytes:
    control = 0 if hardware_version is None else 1
    payload = _QUERY.pack(control, identity.manufacturer, identity.image_type, version)
    return payload if hardware_version is None else payload + struct.pack("<H", hardware_version)


def block_request(identity: Identity, version: int, offset: int, most: int, period: int | None) -> bytes:
    """`period`: the MinimumBlockPeriod attribute of a client that offers it."""
    control = (0 if identity.eui64 is None else _HAS_IEEE) | (0 if period is None else _HAS_PERIOD)
    payload = _BLOCK.pack(control, identity.manufacturer, identity.image_type, version, offset, most)
    if identity.eui64 is not None:
        payload += struct.pack("<Q", identity.eui64)
    return payload if period is None else payload + struct.pack("<H", period)


def page_request(identity: Identity, version: int, offset: int, most: int, page_size: int, spacing_ms: int) -> bytes:
    control = 0 if identity.eui64 is None else _HAS_IEEE
    payload = _BLOCK.pack(control, identity.manufacturer, identity.image_type, version, offset, most)
    payload += struct.pack("<HH", page_size, spacing_ms)
    return payload if identity.eui64 is None else payload + struct.pack("<Q", identity.eui64)


def end_request(identity: Identity, status: int, version: int) -> bytes:
    return _END.pack(status, identity.manufacturer, identity.image_type, version)


def specific_request(identity: Identity, eui64: int, version: int) -> bytes:
    return struct.pack("<QHHIH", eui64, identity.manufacturer, identity.image_type, version, STACK_VERSION_PRO)


def notify_concerns(payload: bytes, manufacturer: int, image_type: int, version: int) -> bool:
    """Whether an ImageNotify is meant for a node with this file. IndexError when it is cut short."""
    kind, _jitter = payload[0], payload[1]
    of_manufacturer, of_type, of_version = struct.unpack("<HHI", payload[2:].ljust(8, b"\xff")[:8])
    return not (
        (kind >= 1 and of_manufacturer not in (manufacturer, 0xFFFF))
        or (kind >= 2 and of_type not in (image_type, 0xFFFF))
        or (kind >= 3 and of_version == version)
    )


@dataclass(slots=True)
class Page:
    """Blocks that come by themselves, in any order, until the page is `over`; RAM, so a reboot loses what is ahead."""

    start: int
    end: int
    spacing_s: float
    over: bool = False
    heard: int = 0
    ahead: dict[int, bytes] = field(default_factory=dict)

    def wants(self, offset: int, length: int) -> bool:
        return not self.over and self.start <= offset and offset + length <= self.end and offset not in self.ahead

    def patience_s(self, offset: int, block_size: int, slack_s: float) -> float:
        """How long to wait after the block that ended at `offset`: for the rest, or for stragglers once the last has come."""
        rest = -(-(self.end - offset) // block_size)
        return rest * self.spacing_s + slack_s if rest else 2 * self.spacing_s + _STRAGGLER_S
