"""The frame that travels between coordinator and node, and the ZCL header inside it.

Responsible for bytes only. Layouts: Zigbee specification 2.2.5 (APS), ZCL 2.4.1 (header).
"""

import struct
from dataclasses import dataclass

PROFILE_ZDO = 0x0000
PROFILE_HOME_AUTOMATION = 0x0104

CLUSTER_BASIC = 0x0000
CLUSTER_POWER = 0x0001
CLUSTER_OTA = 0x0019
CLUSTER_DEVICE_ANNOUNCE = 0x0013

STATUS_SUCCESS = 0x00

_APS_OVERHEAD_BYTES = 11 + 8 + 14 + 4 + 8  # MAC with FCS, NWK, NWK security header and MIC, APS


@dataclass(frozen=True, slots=True)
class ApsFrame:
    """One application frame. `payload` is what follows the APS header: a ZDO sequence or a ZCL header comes first."""

    profile: int
    cluster: int
    source_endpoint: int
    destination_endpoint: int
    payload: bytes
    counter: int = 0  # APS counter: the receiver drops a repeated one
    broadcast: bool = False

    @property
    def air_bytes(self) -> int:
        """Size on the air with MAC, NWK and APS headers."""
        return _APS_OVERHEAD_BYTES + len(self.payload)


@dataclass(frozen=True, slots=True)
class ZclFrame:
    """A ZCL frame apart. `to_client` is the direction bit: set on what a server sends."""

    cluster_specific: bool
    to_client: bool
    disable_default_response: bool
    manufacturer: int | None
    sequence: int
    command: int
    payload: bytes


def parse_zcl(data: bytes) -> ZclFrame | None:
    """The frame, or None when the bytes are too short to be one."""
    if len(data) < 3:
        return None
    control = data[0]
    manufacturer = None
    at = 1
    if control & 0x04:
        if len(data) < 5:
            return None
        (manufacturer,) = struct.unpack_from("<H", data, 1)
        at = 3
    return ZclFrame(
        cluster_specific=control & 0x03 == 0x01,
        to_client=bool(control & 0x08),
        disable_default_response=bool(control & 0x10),
        manufacturer=manufacturer,
        sequence=data[at],
        command=data[at + 1],
        payload=data[at + 2 :],
    )


def zcl_answer(request: ZclFrame, command: int, payload: bytes) -> bytes:
    """A global (not cluster specific) answer to a request: other direction, same sequence, no default response wanted."""
    control = 0x10 | (0 if request.to_client else 0x08)
    if request.manufacturer is None:
        return bytes((control, request.sequence, command)) + payload
    return struct.pack("<BHBB", control | 0x04, request.manufacturer, request.sequence, command) + payload


def zcl_default_response(request: ZclFrame, status: int) -> bytes:
    """ZCL 2.5.12: says what became of a command that has no answer of its own."""
    return zcl_answer(request, 0x0B, bytes((request.command, status)))


def ota_request(sequence: int, command: int, payload: bytes) -> bytes:
    """A command of the OTA cluster from client to server."""
    return bytes((0x01, sequence, command)) + payload
