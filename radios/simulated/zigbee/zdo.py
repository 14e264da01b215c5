"""What a node answers to ZDO requests (Zigbee specification 2.4.3 and 2.4.4): its descriptors, addresses, bindings.

Bytes in, bytes out; leaving is left to the node.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from radios.simulated.zigbee.frames import (
    CLUSTER_BASIC,
    CLUSTER_DEVICE_ANNOUNCE,
    CLUSTER_OTA,
    CLUSTER_POWER,
    PROFILE_HOME_AUTOMATION,
)

NWK_ADDR, IEEE_ADDR, NODE_DESC, POWER_DESC, SIMPLE_DESC, ACTIVE_EP, MATCH_DESC = range(0x0007)
BIND, UNBIND, MGMT_LQI, MGMT_RTG, MGMT_BIND, MGMT_LEAVE, MGMT_PERMIT = 0x21, 0x22, 0x31, 0x32, 0x33, 0x34, 0x36
RESPONSE = 0x8000

SUCCESS, INVALID_REQUEST_TYPE, DEVICE_NOT_FOUND, INVALID_ENDPOINT, NOT_SUPPORTED = 0x00, 0x80, 0x81, 0x82, 0x84
NO_ENTRY = 0x88

DEVICE_TYPE = 0x0302  # temperature sensor: what it is does not matter, only that it is a known type


@dataclass(slots=True)
class ZdoServer:
    """One node's ZDO. The caller keeps `nwk` true."""

    eui64: int
    nwk: int
    manufacturer: int
    endpoint: int
    mains: bool
    sleepy: bool
    bindings: list[bytes] = field(default_factory=list)
    neighbours: list[bytes] = field(default_factory=list)  # entries of Mgmt_Lqi_rsp, made by `neighbour`
    more_inputs: tuple[int, ...] = ()  # clusters beside those that every node has

    @property
    def capability(self) -> int:
        """MAC capability flags: allocate address, and for routers also full function, mains and always listening."""
        if not self.mains and self.sleepy:
            return 0x80
        return 0x80 | 0x08 | (0x04 if self.mains else 0) | (0 if self.sleepy else 0x02)

    def announce(self, sequence: int) -> tuple[int, bytes]:
        """Cluster and payload of Device_annce."""
        return CLUSTER_DEVICE_ANNOUNCE, struct.pack("<BHQB", sequence, self.nwk, self.eui64, self.capability)

    def answer(self, cluster: int, payload: bytes, *, broadcast: bool = False) -> tuple[int, bytes] | None:
        """Cluster and payload of the answer, with the request's sequence first; None when none is due."""
        if cluster & RESPONSE or cluster == CLUSTER_DEVICE_ANNOUNCE or not payload:
            return None
        try:
            body = self._body(cluster, payload[1:], broadcast)
        except struct.error:
            body = bytes((INVALID_REQUEST_TYPE,))
        return None if body is None else (cluster | RESPONSE, payload[:1] + body)

    def is_bound(self, cluster: int) -> bool:
        """Whether anybody gets what this cluster sends."""
        return any(struct.unpack_from("<H", entry, 9) == (cluster,) for entry in self.bindings)

    def _body(self, cluster: int, request: bytes, broadcast: bool) -> bytes | None:
        match cluster:
            case 0x0000 | 0x0001:
                return self._address(cluster, request, broadcast)
            case 0x0002 | 0x0004 | 0x0005 | 0x0006:
                return self._descriptor(cluster, request, broadcast)
            case 0x0021 | 0x0022:
                return self._bind(cluster, request)
            case 0x0031:
                return _page(self.neighbours, request[0] if request else 0)
            case 0x0032:
                return struct.pack("<BBBB", SUCCESS, 0, 0, 0)
            case 0x0033:
                return self._list_bindings(request[0] if request else 0)
            case 0x0034:
                return bytes((SUCCESS,))
            case 0x0036:
                return None if broadcast else bytes((SUCCESS,))
            case _:
                return None if broadcast else bytes((NOT_SUPPORTED,))

    def _address(self, cluster: int, request: bytes, broadcast: bool) -> bytes | None:
        (wanted,) = struct.unpack_from("<Q" if cluster == NWK_ADDR else "<H", request)
        mine = wanted == (self.eui64 if cluster == NWK_ADDR else self.nwk)
        if not mine:
            return None if broadcast else struct.pack("<BQH", DEVICE_NOT_FOUND, self.eui64, self.nwk)
        extended = len(request) > (8 if cluster == NWK_ADDR else 2) and request[8 if cluster == NWK_ADDR else 2] == 1
        return struct.pack("<BQH", SUCCESS, self.eui64, self.nwk) + (b"\x00\x00" if extended else b"")

    def _descriptor(self, cluster: int, request: bytes, broadcast: bool) -> bytes | None:
        (wanted,) = struct.unpack_from("<H", request)
        if cluster == MATCH_DESC:
            return None if broadcast else struct.pack("<BHB", SUCCESS, self.nwk, 0)
        if wanted != self.nwk:
            return struct.pack("<BH", DEVICE_NOT_FOUND, wanted) + (b"\x00" if cluster != NODE_DESC else b"")
        if cluster == NODE_DESC:
            logical_type = 0x02 if self.sleepy else 0x01  # end device or router
            descriptor = struct.pack(
                "<BBBHBHHHB", logical_type, 0x40, self.capability, self.manufacturer, 82, 255, 0, 255, 0
            )
            return struct.pack("<BH", SUCCESS, self.nwk) + descriptor
        if cluster == ACTIVE_EP:
            return struct.pack("<BHBB", SUCCESS, self.nwk, 1, self.endpoint)
        if request[2:3] != bytes((self.endpoint,)):
            return struct.pack("<BHB", INVALID_ENDPOINT, self.nwk, 0)
        simple = struct.pack(
            f"<BHHBB{2 + len(self.more_inputs)}HBH",
            self.endpoint,
            PROFILE_HOME_AUTOMATION,
            DEVICE_TYPE,
            0,
            2 + len(self.more_inputs),
            CLUSTER_BASIC,
            CLUSTER_POWER,
            *self.more_inputs,
            1,
            CLUSTER_OTA,
        )
        return struct.pack("<BHB", SUCCESS, self.nwk, len(simple)) + simple

    def _bind(self, cluster: int, request: bytes) -> bytes:
        source, endpoint, _cluster, mode = struct.unpack_from("<QBHB", request)
        entry = request[: 12 + (9 if mode == 3 else 2)]
        if source != self.eui64:
            return bytes((DEVICE_NOT_FOUND,))
        if endpoint != self.endpoint:
            return bytes((INVALID_ENDPOINT,))
        if cluster == BIND:
            if entry not in self.bindings:
                self.bindings.append(entry)
            return bytes((SUCCESS,))
        if entry not in self.bindings:
            return bytes((NO_ENTRY,))
        self.bindings.remove(entry)
        return bytes((SUCCESS,))

    def _list_bindings(self, start: int) -> bytes:
        return _page(self.bindings, start)


def _page(table: Sequence[bytes], start: int) -> bytes:
    page = table[start : start + 3]
    return struct.pack("<BBBB", SUCCESS, len(table), start, len(page)) + b"".join(page)


def neighbour(extended_pan_id: bytes, eui64: int, nwk: int, *, sleepy: bool, lqi: int = 200) -> bytes:
    """An entry of a neighbour table: a child that sleeps, or a router beside."""
    kind = (0x02 | 0x00 << 2 | 0x01 << 4) if sleepy else (0x01 | 0x01 << 2 | 0x02 << 4)
    return extended_pan_id + struct.pack("<QHBBBB", eui64, nwk, kind, 0x02, 1, lqi)


def coordinator_answer(cluster: int, payload: bytes = b"", neighbours: Sequence[bytes] = ()) -> bytes:
    """What the coordinator's own ZDO answers, after the sequence, to the host's requests to address 0x0000."""
    match cluster:
        case 0x0002:
            return struct.pack("<BHBBBHBHHHB", SUCCESS, 0, 0x00, 0x40, 0x8F, 0x1049, 82, 255, 0x2C41, 255, 0)
        case 0x0031:
            return _page(neighbours, payload[1] if len(payload) > 1 else 0)
        case 0x0032:
            return bytes(4)
        case 0x0036:
            return bytes((SUCCESS,))
        case _:
            return bytes((NOT_SUPPORTED, 0, 0, 0))
