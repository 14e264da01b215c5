"""What outlives the gateway's process: the nodes on their mesh, the cloud with what it stores, and what was asked of the mirror.

It is a process of its own, which answers one request of the gateway after the other over a pipe; its time is the one that
the gateway's requests tell, so a run is the same every time. While no gateway lives, time passes by `pause`.
"""

import hashlib
import sqlite3
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from gatewayd.cloud import messages
from gatewayd.cloud.messages import Report, ReportBatch
from gatewayd.demo import scenario
from gatewayd.publisher.collector import ReportStore
from radios.simulated.zigbee.firmware import build_ota_file
from radios.simulated.zigbee.frames import CLUSTER_OTA, ApsFrame, parse_zcl
from radios.simulated.zigbee.mesh import JoinStatus, Mesh
from radios.simulated.zigbee.node import VirtualNode
from radios.simulated.zigbee.node_spec import NodeSpec
from radios.simulated.zigbee.ota_client import WAIT_FOREVER
from radios.simulated.zigbee.ota_terms import OtaTiming
from radios.simulated.zigbee.virtual_time import run_agenda
from tests.crash.cloud import CANCELLED, EUI64, LAMPS, NODES, ROLLED_BACK, SPARE, Published

GATEWAY = "gw-1"
CANCEL_AT_BYTES = 1000  # held by the node whose campaign is cancelled
COMMITTED = ("installing", "confirming", "updated", "rolled_back")
ANSWER_WITHIN_S = 60.0  # real time; a gateway that says nothing for so long is stuck
_UPGRADE_END_RESPONSE = 0x07

BLOCK_BYTES = 200  # few large blocks with pauses in between: every frame costs these tests real time
TIMING = OtaTiming(boot_query_delay_s=(1.0, 2.0), think_s=0.2)
OLD_IMAGE = build_ota_file(
    manufacturer=scenario.MANUFACTURER_CODE,
    image_type=scenario.LAMP_TYPE,
    version=scenario.ZIGBEE_OLD,
    size=300,
    seed="old",
)


def specs() -> list[NodeSpec]:
    return [
        NodeSpec(
            EUI64 + number,
            manufacturer_code=scenario.MANUFACTURER_CODE,
            image_type=scenario.LAMP_TYPE,
            version=scenario.ZIGBEE_OLD,
            image=OLD_IMAGE,
            self_test_fails=name == ROLLED_BACK,
            timing=TIMING,
            block_size=BLOCK_BYTES,
        )
        for number, name in enumerate(NODES, 1)
    ]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to the mirror, [start, stop) of a payload."""

    digest: str
    start: int
    stop: int


@dataclass(slots=True)
class _Ears:
    """The mesh's coordinator: keeps what the gateway's process has to be told."""

    listening: bool = False
    news: list[tuple[Any, ...]] = field(default_factory=list)

    def frame_received(self, node: VirtualNode, frame: ApsFrame) -> None:
        if self.listening:
            self.news.append(("frame", node.id, frame))

    def node_changed(self, node: VirtualNode, status: JoinStatus) -> None:
        if self.listening:
            self.news.append(("changed", node.id, status))


class World:
    """The methods under "requests" are what the gateway's process may ask; its side is `far.py`."""

    def __init__(self, published: Published, store: Path) -> None:
        self._published = published
        self._store = store
        self.now = published.start
        self.mesh = Mesh(specs(), seed=1)
        self.mesh.power_on(self.now)
        self.asked_for: list[Asked] = []
        self.told_too_early: list[str] = []  # to install, before the store said so
        self.troubles: list[str] = []  # that the gateway found with its store at a start
        self._reports = ReportStore()
        self._acks = b""
        self._ears = _Ears()
        self._life = 0
        self._log = [published.order(LAMPS, 1), published.order(SPARE, 1)]

    # -- lives of the gateway ------------------------------------------------------------------------------------------

    def serve(self, connection: Connection) -> bool:
        """Answer the gateway until it ends; False when it said nothing for too long."""
        self._life += 1
        self.mesh.coordinator = self._ears
        while connection.poll(ANSWER_WITHIN_S):
            try:
                name, arguments = connection.recv()
                result = getattr(self, name)(*arguments)
                news, self._ears.news = self._ears.news, []
                connection.send((result, news, self.mesh.next_deadline()))
            except (EOFError, ConnectionError):
                self.listen(False)
                return True
        return False

    def pause(self, seconds: float) -> None:
        """Nobody is there for so long."""
        run_agenda(self.mesh, self.now, seconds)
        self.now += seconds

    # -- requests: the mesh --------------------------------------------------------------------------------------------

    def listen(self, on: bool) -> None:
        self._ears.listening = on
        self._ears.news.clear()

    def pass_time(self, now: float) -> None:
        self.now = now
        self.mesh.handle_timeout(now)
        node = self.mesh.nodes[CANCELLED]
        if len(self._log) == 2 and len(node.ota.staged) >= CANCEL_AT_BYTES:
            self._log.append(self._published.order(SPARE, 2))

    def unicast(self, key: int, destination: int, frame: ApsFrame, now: float, acknowledged: bool) -> None:
        self.now, life = now, self._life
        self._judge(destination, frame)

        def done(arrived: bool) -> None:
            if life == self._life:
                self._ears.news.append(("done", key, arrived))

        self.mesh.unicast(destination, frame, now, acknowledged=acknowledged, done=done)

    def broadcast(self, frame: ApsFrame, now: float, to_sleepy: bool) -> None:
        self.now = now
        self.mesh.broadcast(frame, now, to_sleepy=to_sleepy)

    def permit_joining(self, seconds: float, now: float) -> None:
        self.now = now
        self.mesh.permit_joining(seconds, now)

    def at_rest(self) -> bool:
        """Whether no node holds bytes of an image that nobody will complete."""
        return not any(node.ota.staged for node in self.mesh.nodes.values())

    def _judge(self, destination: int, frame: ApsFrame) -> None:
        """A node is only told to install what the store, as it is on the disk, says it may be told."""
        zcl = parse_zcl(frame.payload) if frame.cluster == CLUSTER_OTA else None
        if zcl is None or not zcl.cluster_specific or zcl.command != _UPGRADE_END_RESPONSE:
            return
        if int.from_bytes(zcl.payload[12:16], "little") == WAIT_FOREVER:
            return
        node = self.mesh.by_nwk[destination].id
        store = sqlite3.connect(f"file:{self._store}?mode=ro", uri=True)
        try:
            found = store.execute("SELECT state FROM node_update WHERE node = ?", (node,)).fetchall()
        finally:
            store.close()
        if not any(state in COMMITTED for (state,) in found):
            self.told_too_early.append(f"{node}: {found}")

    # -- requests: cloud and mirror ------------------------------------------------------------------------------------

    def retained(self, known: int) -> tuple[int, list[tuple[str, bytes]], bytes]:
        """What is retained beyond what was known, the newest for each topic, and the acknowledgement."""
        newest = {order.topic: order.envelope for order in self._log[known:]}
        return len(self._log), list(newest.items()), self._acks

    def reports(self, raw: bytes) -> None:
        batch = messages.parse(ReportBatch, raw, "reports", messages.RELEASE_MAX_BYTES)
        if (acks := self._reports.store(GATEWAY, batch, self.now)) is not None:
            self._acks = messages.dump(acks)

    def troubled(self, code: str, detail: str) -> None:
        self.troubles.append(f"{code}: {detail}")

    def asked(self, digest: str, start: int, stop: int) -> None:
        self.asked_for.append(Asked(digest, start, stop))

    # -- what has become of it -----------------------------------------------------------------------------------------

    def told(self) -> list[Report]:
        """Reports that the cloud has stored, each once, in order."""
        return [report for _, report in self._reports.reports()]

    def nodes(self) -> dict[str, dict[str, object]]:
        return {name: _describe(node) for name, node in self.mesh.nodes.items()}


def _describe(node: VirtualNode) -> dict[str, object]:
    counters = asdict(node.counters)
    kept = ("downloads_started_at_zero", "downloads_thrown_away", "images_refused", "bytes_received_twice")
    return {
        "image": hashlib.sha256(node.running_image).hexdigest(),
        "version": node.running_version,
        "resets": node.resets,
        "held": len(node.ota.staged),
        **{name: counters[name] for name in kept},
    }
