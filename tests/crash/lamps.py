"""The Zigbee world: five lamps on a simulated mesh.

Two are updated by the held campaign, of which one rolls back; one is cancelled half-way; one takes a patch, and one, of which
that is stated wrongly, refuses it and takes the full image.
"""

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import detools  # noqa: F401 - what the nodes patch with, loaded once for all forks

from gatewayd.demo import scenario
from radios.simulated.zigbee.frames import CLUSTER_OTA, ApsFrame, parse_zcl
from radios.simulated.zigbee.mesh import JoinStatus, Mesh
from radios.simulated.zigbee.node import VirtualNode
from radios.simulated.zigbee.node_spec import NodeSpec
from radios.simulated.zigbee.ota_client import WAIT_FOREVER
from radios.simulated.zigbee.ota_terms import OtaTiming
from tests.crash.cloud import CANCELLED, FALLEN_BACK, LAMP_EUI64, PATCHED, ROLLED_BACK, SPARE, ZIGBEE, Published
from tests.crash.world import World

CANCEL_AT_BYTES = 1000  # held by the node whose campaign is cancelled
BLOCK_BYTES = 200  # few large blocks with pauses in between: every frame costs these tests real time
TIMING = OtaTiming(boot_query_delay_s=(1.0, 2.0), think_s=0.2)
_UPGRADE_END_RESPONSE = 0x07
_BASE = ZIGBEE.firmware[0]


def specs() -> list[NodeSpec]:
    """Who can be patched runs what the patch is for; the others something older, to which only the full image leads."""
    nodes = []
    for number, name in enumerate(ZIGBEE.nodes, 1):
        base = name in (PATCHED, FALLEN_BACK)
        nodes.append(
            NodeSpec(
                LAMP_EUI64 + number,
                manufacturer_code=scenario.MANUFACTURER_CODE,
                image_type=scenario.LAMP_TYPE,
                version=_BASE.spec.node_version if base else scenario.ZIGBEE_OLD,
                image=_BASE.image if base else scenario.zigbee_image(scenario.ZIGBEE_OLD, size=300),
                self_test_fails=name == ROLLED_BACK,
                delta_formats=("detools",) if name == PATCHED else (),
                timing=TIMING,
                block_size=BLOCK_BYTES,
            )
        )
    return nodes


class _Ears:
    """The mesh's coordinator: keeps what the gateway's process has to be told."""

    def __init__(self, world: "Lamps") -> None:
        self._world = world
        self.listening = False

    def frame_received(self, node: VirtualNode, frame: ApsFrame) -> None:
        if self.listening:
            self._world.news.append(("frame", node.id, frame))

    def node_changed(self, node: VirtualNode, status: JoinStatus) -> None:
        if self.listening:
            self._world.news.append(("changed", node.id, status))


class Lamps(World):
    def __init__(self, published: Published, store: Path) -> None:
        super().__init__(published, store)
        self.mesh = Mesh(specs(), seed=1)
        self.mesh.power_on(self.now)
        self._ears = _Ears(self)

    @property
    def site(self) -> Mesh:
        return self.mesh

    def bytes_held(self, node: str) -> int:
        return len(self.mesh.nodes[node].ota.staged)

    def known_nodes(self) -> Any:
        return self.mesh.nodes

    def begin_life(self) -> None:
        super().begin_life()
        self.mesh.coordinator = self._ears

    def gateway_gone(self) -> None:
        self.listen(False)

    # -- requests

    def listen(self, on: bool) -> None:
        self._ears.listening = on
        self.news.clear()

    def pass_time(self, now: float) -> None:
        super().pass_time(now)
        orders = len(self.story.campaigns)
        if len(self.log) == orders and self.bytes_held(CANCELLED) >= CANCEL_AT_BYTES:
            self.log.append(self.published.order(SPARE, 2))

    def unicast(self, key: int, destination: int, frame: ApsFrame, now: float, acknowledged: bool) -> None:
        self.now, life = now, self.life
        if _to_install(frame):
            self.judge_install(self.mesh.by_nwk[destination].id)

        def done(arrived: bool) -> None:
            if life == self.life:
                self.news.append(("done", key, arrived))

        self.mesh.unicast(destination, frame, now, acknowledged=acknowledged, done=done)

    def broadcast(self, frame: ApsFrame, now: float, to_sleepy: bool) -> None:
        self.now = now
        self.mesh.broadcast(frame, now, to_sleepy=to_sleepy)

    def permit_joining(self, seconds: float, now: float) -> None:
        self.now = now
        self.mesh.permit_joining(seconds, now)

    # -- what has become of it

    def nodes(self) -> dict[str, dict[str, object]]:
        return {name: _describe(node) for name, node in self.mesh.nodes.items()}


def _to_install(frame: ApsFrame) -> bool:
    zcl = parse_zcl(frame.payload) if frame.cluster == CLUSTER_OTA else None
    if zcl is None or not zcl.cluster_specific or zcl.command != _UPGRADE_END_RESPONSE:
        return False
    return int.from_bytes(zcl.payload[12:16], "little") != WAIT_FOREVER


def _describe(node: VirtualNode) -> dict[str, object]:
    counters = asdict(node.counters)
    # Not `bytes_received_twice`: a block whose receipt was not stored may be asked for again. Of a patch that the node
    # refuses: not how often, since a refusal that was not stored comes again.
    return {
        "image": hashlib.sha256(node.running_image).hexdigest(),
        "version": node.running_version,
        "resets": node.resets,
        "held": len(node.ota.staged),
        "downloads_thrown_away": counters["downloads_thrown_away"],
        "begun_again": counters["downloads_started_at_zero"] - 1 - counters["images_refused"],
        "refused": counters["images_refused"] > 0,
    }
