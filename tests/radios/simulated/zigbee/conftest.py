"""A site in virtual time with a small OTA server of the tests' own."""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from radios.simulated.zigbee.firmware import build_ota_file
from radios.simulated.zigbee.frames import ApsFrame
from radios.simulated.zigbee.mesh import JoinStatus, Mesh
from radios.simulated.zigbee.node import VirtualNode
from radios.simulated.zigbee.node_spec import NodeSpec

MANUFACTURER, IMAGE_TYPE, OLD, NEW = 0x1049, 0x0001, 0x0001_0000, 0x0002_0000
EUI64 = 0x00124B00_00000001
START = 1_700_000_000.0

Answer = Callable[[int, bytes], bytes | None]


def image(size: int = 2_000, **more: object) -> bytes:
    return build_ota_file(manufacturer=MANUFACTURER, image_type=IMAGE_TYPE, version=NEW, size=size, **more)  # type: ignore[arg-type]


@dataclass
class Lab:
    """One mesh, one clock that only moves when told, one server that `override` can make misbehave."""

    mesh: Mesh
    file: bytes
    now: float = START
    asked: list[tuple[float, int, bytes]] = field(default_factory=list)  # OTA commands of the nodes
    changes: list[JoinStatus] = field(default_factory=list)
    other: list[ApsFrame] = field(default_factory=list)
    override: Answer = lambda command, request: None
    silent: bool = False
    listening: bool = True
    _sequence: int = 0

    @property
    def node(self) -> VirtualNode:
        return next(iter(self.mesh.nodes.values()))

    def start(self) -> None:
        self.mesh.coordinator = self
        self.mesh.power_on(self.now)
        self.mesh.network_up(self.now)

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        end = self.now + seconds
        while not until():
            deadline = self.mesh.next_deadline()
            if deadline is None or deadline > end:
                self.now = end
                return
            self.now = max(self.now, deadline)
            self.mesh.handle_timeout(self.now)

    def send(
        self, command: int, payload: bytes, node: VirtualNode | None = None, *, broadcast: bool = False
    ) -> list[bool]:
        self._sequence = (self._sequence + 1) % 256
        frame = ApsFrame(
            0x0104, 0x0019, 1, 1, bytes((0x19, self._sequence, command)) + payload, self._sequence, broadcast
        )
        arrived: list[bool] = []
        if broadcast:
            self.mesh.broadcast(frame, self.now)
        else:
            self.mesh.unicast((node or self.node).nwk, frame, self.now, acknowledged=False, done=arrived.append)
        return arrived

    def notify(self) -> None:
        self.send(0x00, b"\x00\x64")

    def commands(self) -> list[int]:
        return [command for _, command, _ in self.asked]

    def offsets(self) -> list[int]:
        return [struct.unpack_from("<I", request, 9)[0] for _, command, request in self.asked if command == 0x03]

    def block(self, offset: int, *, version: int = NEW, data: bytes | None = None) -> bytes:
        data = self.file[offset : offset + 50] if data is None else data
        return struct.pack("<BHHIIB", 0, MANUFACTURER, IMAGE_TYPE, version, offset, len(data)) + data

    def frame_received(self, node: VirtualNode, frame: ApsFrame) -> None:
        if frame.cluster != 0x0019 or frame.payload[0] != 0x01:
            self.other.append(frame)
            return
        command, request = frame.payload[2], frame.payload[3:]
        self.asked.append((self.now, command, request))
        if self.silent:
            return
        answer = self.override(command, request)
        if answer is None:
            answer = self.answer(command, request)
        if answer:
            self.send({0x01: 0x02, 0x03: 0x05, 0x06: 0x07}[command], answer, node)

    def answer(self, command: int, request: bytes) -> bytes:
        if command == 0x01:
            return struct.pack("<BHHII", 0, MANUFACTURER, IMAGE_TYPE, NEW, len(self.file))
        if command == 0x03:
            return self.block(struct.unpack_from("<I", request, 9)[0])
        return b"" if request[0] else struct.pack("<HHIII", MANUFACTURER, IMAGE_TYPE, NEW, 0, 0)

    def node_changed(self, node: VirtualNode, status: JoinStatus) -> None:
        self.changes.append(status)


MakeLab = Callable[..., Lab]


@pytest.fixture
def make_lab() -> MakeLab:
    """Call it with fields of NodeSpec; `file` is what the server gives out, `mesh` are arguments for the mesh."""

    def make(*, file: bytes | None = None, mesh: dict[str, object] | None = None, **spec: object) -> Lab:
        node = NodeSpec(**{"eui64": EUI64, **spec})  # type: ignore[arg-type]
        lab = Lab(Mesh([node], **(mesh or {})), image() if file is None else file)  # type: ignore[arg-type]
        lab.start()
        return lab

    return make
