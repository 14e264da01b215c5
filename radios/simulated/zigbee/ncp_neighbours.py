"""What an NCP knows of the nodes around it: its children, and which address is whose. EZSP bodies in and out."""

import struct

from radios.simulated.zigbee.mesh import Mesh
from radios.simulated.zigbee.network_state import NetworkState
from radios.simulated.zigbee.node import VirtualNode
from radios.simulated.zigbee.zdo import neighbour

SUCCESS, NOT_FOUND, NOT_JOINED = 0x00, 0x03, 0x93


def route_record(node: VirtualNode, relays: tuple[int, ...]) -> bytes:
    """Body of incomingRouteRecordHandler."""
    head = struct.pack("<HQBbB", node.nwk, node.spec.eui64, node.spec.lqi, node.spec.rssi_dbm, len(relays))
    return head + struct.pack(f"<{len(relays)}H", *relays)


def neighbour_table(mesh: Mesh, extended_pan_id: bytes) -> list[bytes]:
    """Of the coordinator: the nodes at one hop, as entries of Mgmt_Lqi_rsp."""
    near = (node for node in mesh.nodes.values() if node.joined and node.spec.hops == 1)
    return [neighbour(extended_pan_id, node.spec.eui64, node.nwk, sleepy=node.spec.sleepy) for node in near]


class NcpNeighbours:
    """Every method takes the body of a command and returns that of its answer."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    def table(self, network: NetworkState | None) -> list[bytes]:
        """The coordinator's own, for Mgmt_Lqi_rsp."""
        return [] if network is None else neighbour_table(self._mesh, network.extended_pan_id)

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
