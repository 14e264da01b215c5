"""What a node with a broken stack sends: requests of an OTA client, cut at every byte, one after the other and over again."""

import struct
from dataclasses import replace

from radios.simulated.zigbee.frames import CLUSTER_BASIC, CLUSTER_OTA
from radios.simulated.zigbee.mesh import Mesh
from radios.simulated.zigbee.node import VirtualNode

_CARRIER_ATTRIBUTE = 0x0007  # PowerSource: every node has it, so its report is a frame to put other bytes into


class CutFrames:
    """`arrived` counts the frames that have reached the coordinator, `headless` those of them that end within the ZCL header."""

    def __init__(self, mesh: Mesh, node: VirtualNode, every_s: float = 2.0) -> None:
        self.arrived = 0
        self.headless = 0
        self._mesh = mesh
        self._node = node
        self._every_s = every_s
        self._running = False
        self._next_cut = 0
        self._cuts = [whole[:cut] for whole in _requests(node) for cut in range(len(whole))]

    def start(self, now: float) -> None:
        if not self._running:
            self._running = True
            self._mesh.call_at(now + self._every_s, self._send)

    def _send(self, now: float) -> None:
        self._mesh.call_at(now + self._every_s, self._send)
        if not (self._node.listens and self._node.joined):
            return
        cut = self._cuts[self._next_cut % len(self._cuts)]
        self._next_cut += 1
        carrier = self._node.report_frame(CLUSTER_BASIC, _CARRIER_ATTRIBUTE)
        if len(cut) > 1:
            cut = cut[:1] + carrier.payload[1:2] + cut[2:]  # its own sequence, so that none is a repetition

        def reached(_when: float) -> None:
            self.arrived += 1
            self.headless += len(cut) < 3

        frame = replace(carrier, cluster=CLUSTER_OTA, payload=cut)
        self._mesh.uplink(self._node, frame, now, acknowledged=True, done=lambda _arrived: None, arrived=reached)


def _requests(node: VirtualNode) -> tuple[bytes, ...]:
    """QueryNextImage, ImageBlock, ImagePage and UpgradeEnd requests in the node's name, whole."""
    spec = node.spec
    image = struct.pack("<HHL", spec.manufacturer_code, spec.image_type, spec.version + 1)
    return (
        b"\x01\x00\x01\x01" + image + b"\x01\x00",
        b"\x01\x00\x03\x00" + image + struct.pack("<LB", 0, 50),
        b"\x01\x00\x04\x00" + image + struct.pack("<LBHH", 0, 50, 1000, 10),
        b"\x01\x00\x06\x00" + image,
    )
