"""What an NCP knows of the nodes around it: its children, and which address is whose. EZSP bodies in and out."""

import struct

from radios.simulated.zigbee.mesh import Mesh
from radios.simulated.zigbee.node import VirtualNode

SUCCESS, NOT_FOUND, NOT_JOINED = 0x00, 0x03, 0x93


def route_record(node: VirtualNode, relays: tuple[int, ...]) -> bytes:
    """Body of incomingRouteRecordHandler."""
    head = struct.pack("<HQBbB", node.nwk, node.spec.eui64, node.spec.lqi, node.spec.rssi_dbm, len(relays))
    return head + struct.pack(f"<{len(relays)}H", *relays)


class NcpNeighbours:
    """Every method takes the body of a command and returns that of its answer."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    def child(self, body: bytes) -> bytes:
        children = [n for n in self._mesh.nodes.values() if n.spec.sleepy and n.joined]
        if body[0] >= len(children):
            return bytes((NOT_JOINED,)) + bytes(14)
        return struct.pack("<BQBHBBB", SUCCESS, children[body[0]].spec.eui64, 4, children[body[0]].nwk, 0, 0, 0)

    def node_of(self, body: bytes) -> bytes:
        (wanted,) = struct.unpack_from("<Q", body)
        found = (n.nwk for n in self._mesh.nodes.values() if n.spec.eui64 == wanted and n.joined)
        return struct.pack("<H", next(found, 0xFFFF))

    def eui64_of(self, body: bytes) -> bytes:
        node = self._mesh.by_nwk.get(struct.unpack_from("<H", body)[0])
        return bytes((NOT_FOUND,)) + bytes(8) if node is None else struct.pack("<BQ", SUCCESS, node.spec.eui64)
