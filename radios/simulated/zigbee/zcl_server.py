"""A node's attributes and the general commands upon them (ZCL 2.5): read, write, discover, configure reporting.

Responsible for one endpoint's table of attributes. Values are read when asked for, so a table never goes stale.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from radios.simulated.zigbee.frames import ZclFrame, zcl_answer, zcl_default_response

READ, READ_ANSWER, WRITE, WRITE_ANSWER, WRITE_SILENTLY = 0x00, 0x01, 0x02, 0x04, 0x05
CONFIGURE, CONFIGURE_ANSWER, READ_CONFIGURATION, READ_CONFIGURATION_ANSWER, REPORT = 0x06, 0x07, 0x08, 0x09, 0x0A
DEFAULT_RESPONSE, DISCOVER, DISCOVER_ANSWER = 0x0B, 0x0C, 0x0D

SUCCESS, MALFORMED_COMMAND, UNSUP_CLUSTER_COMMAND, UNSUP_GENERAL_COMMAND = 0x00, 0x80, 0x81, 0x82
UNSUPPORTED_ATTRIBUTE, READ_ONLY, NOT_FOUND, UNSUPPORTED_CLUSTER = 0x86, 0x88, 0x8B, 0xC3

U8, U16, U32, ENUM8, STRING, EUI64 = 0x20, 0x21, 0x23, 0x30, 0x42, 0xF0

_FORMATS = {U8: "<B", U16: "<H", U32: "<I", ENUM8: "<B", EUI64: "<Q"}
_SIZES = {
    0x10: 1,
    0x18: 1,
    U8: 1,
    U16: 2,
    0x22: 3,
    U32: 4,
    0x28: 1,
    0x29: 2,
    0x2B: 4,
    ENUM8: 1,
    0x31: 2,
    0x39: 4,
    EUI64: 8,
}
_ANALOG = frozenset({U8, U16, 0x22, U32, 0x28, 0x29, 0x2B, 0x39})

Reader = Callable[[], int | str]


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute: its ZCL type and where its value comes from."""

    type: int
    read: Reader

    def encoded(self) -> bytes:
        value = self.read()
        if isinstance(value, str):
            raw = value.encode()[:254]
            return bytes((len(raw),)) + raw
        return struct.pack(_FORMATS[self.type], value)


@dataclass(slots=True)
class ZclServer:
    """The attributes of one endpoint by cluster, and what was configured to be reported."""

    clusters: Mapping[int, Mapping[int, Attribute]]
    # By cluster and attribute: min and max seconds, and the reportable change as it came.
    specific: Mapping[tuple[int, int], Mapping[int, Attribute]] = field(
        default_factory=dict
    )  # by manufacturer, cluster
    reporting: dict[tuple[int, int], tuple[int, int, bytes]] = field(default_factory=dict)

    def answer(self, cluster: int, frame: ZclFrame) -> bytes | None:
        """The ZCL frame to answer a general command with, or None when none is due. Never raises on what was received."""
        if frame.command in (DEFAULT_RESPONSE, REPORT) or frame.command in (0x01, 0x04, 0x07, 0x09, 0x0D):
            return None
        attributes = self.clusters.get(cluster)
        if attributes is None:
            return zcl_default_response(frame, UNSUPPORTED_CLUSTER)
        if frame.manufacturer is not None:
            attributes = self.specific.get((frame.manufacturer, cluster), {})
        try:
            return self._answer(cluster, attributes, frame)
        except (struct.error, IndexError, KeyError):
            return zcl_default_response(frame, MALFORMED_COMMAND)

    def report(self, cluster: int, attribute: int, sequence: int) -> bytes:
        """A Report Attributes frame of a server cluster. KeyError when there is no such attribute."""
        found = self.clusters[cluster][attribute]
        return bytes((0x18, sequence, REPORT)) + struct.pack("<HB", attribute, found.type) + found.encoded()

    def _answer(self, cluster: int, attributes: Mapping[int, Attribute], frame: ZclFrame) -> bytes | None:
        match frame.command:
            case 0x00:
                return zcl_answer(frame, READ_ANSWER, _read(attributes, frame.payload))
            case 0x02:
                return zcl_answer(frame, WRITE_ANSWER, _write(attributes, frame.payload))
            case 0x05:
                return None
            case 0x06:
                return zcl_answer(frame, CONFIGURE_ANSWER, self._configure(cluster, attributes, frame.payload))
            case 0x08:
                return zcl_answer(
                    frame, READ_CONFIGURATION_ANSWER, self._configuration(cluster, attributes, frame.payload)
                )
            case 0x0C:
                return zcl_answer(frame, DISCOVER_ANSWER, _discover(attributes, frame.payload))
            case _:
                return zcl_default_response(frame, UNSUP_GENERAL_COMMAND)

    def _configure(self, cluster: int, attributes: Mapping[int, Attribute], payload: bytes) -> bytes:
        bad = b""
        at = 0
        while at < len(payload):
            direction, attribute = struct.unpack_from("<BH", payload, at)
            at += 3
            if direction == 1:
                at += 2
                continue
            kind, shortest, longest = struct.unpack_from("<BHH", payload, at)
            at += 5
            change = payload[at : at + _SIZES[kind]] if kind in _ANALOG else b""
            at += len(change)
            if attribute in attributes:
                self.reporting[cluster, attribute] = (shortest, longest, change)
            else:
                bad += struct.pack("<BBH", UNSUPPORTED_ATTRIBUTE, 0, attribute)
        return bad or bytes((SUCCESS,))

    def _configuration(self, cluster: int, attributes: Mapping[int, Attribute], payload: bytes) -> bytes:
        out = b""
        for at in range(0, len(payload), 3):
            direction, attribute = struct.unpack_from("<BH", payload, at)
            configured = self.reporting.get((cluster, attribute))
            if attribute not in attributes:
                out += struct.pack("<BBH", UNSUPPORTED_ATTRIBUTE, direction, attribute)
            elif configured is None:
                out += struct.pack("<BBH", NOT_FOUND, direction, attribute)
            else:
                kind = attributes[attribute].type
                shortest, longest, change = configured
                out += struct.pack("<BBHBHH", SUCCESS, direction, attribute, kind, shortest, longest) + change
        return out


def _read(attributes: Mapping[int, Attribute], payload: bytes) -> bytes:
    out = b""
    for at in range(0, len(payload), 2):
        (identifier,) = struct.unpack_from("<H", payload, at)
        found = attributes.get(identifier)
        if found is None:
            out += struct.pack("<HB", identifier, UNSUPPORTED_ATTRIBUTE)
        else:
            out += struct.pack("<HBB", identifier, SUCCESS, found.type) + found.encoded()
    return out


def _write(attributes: Mapping[int, Attribute], payload: bytes) -> bytes:
    """Nothing can be written: every record is refused."""
    out = b""
    at = 0
    while at < len(payload):
        identifier, kind = struct.unpack_from("<HB", payload, at)
        at += 3 + (1 + payload[at + 3] if kind in (0x41, STRING) else _SIZES[kind])
        out += struct.pack("<BH", READ_ONLY if identifier in attributes else UNSUPPORTED_ATTRIBUTE, identifier)
    return out


def _discover(attributes: Mapping[int, Attribute], payload: bytes) -> bytes:
    first, most = struct.unpack_from("<HB", payload)
    found = [i for i in sorted(attributes) if i >= first]
    listed = b"".join(struct.pack("<HB", i, attributes[i].type) for i in found[:most])
    return bytes((0 if len(found) > most else 1,)) + listed
