"""A Zigbee radio on a simulated mesh in this process, with a journal and images in memory, and time that runs faster."""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from radios.clock import ScaledClock
from radios.radio import (
    CommandResult,
    ImageRef,
    Json,
    NodeCommand,
    NodeDirective,
    NodeId,
    Record,
    TransferEvent,
    TransferOrder,
    Want,
)
from radios.simulated.zigbee.firmware import build_ota_file
from radios.simulated.zigbee.mesh import Mesh
from radios.simulated.zigbee.node_spec import NodeSpec
from radios.simulated.zigbee.site import MeshDriver
from radios.simulated.zigbee.zigpy_radio import radio_library
from radios.zigbee.driver import ZigbeeRadio
from radios.zigbee.settings import ZigbeeSettings

LIMIT_S = 20.0
NEW = 0x0002_0000


class Journal:
    """Every commit is durable at once."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], Record] = {}
        self.events: list[TransferEvent] = []

    async def load(self) -> Sequence[Record]:
        return list(self.records.values())

    async def commit(self, records: Sequence[Record], events: Sequence[TransferEvent]) -> None:
        self.progress(events, records)

    def progress(self, events: Sequence[TransferEvent], records: Sequence[Record] = ()) -> None:
        self.events += events
        for record in records:
            self.records[record.scope, record.key] = record
            if not record.value:
                del self.records[record.scope, record.key]


@dataclass
class Image:
    """The one image there is, as the radio's image store."""

    file: bytes

    def read(self, digest: str, offset: int, length: int) -> bytes:
        del digest
        return self.file[offset : offset + length]

    def size(self, digest: str) -> int:
        del digest
        return len(self.file)


@dataclass
class MeshRadio:
    radio: ZigbeeRadio
    mesh: Mesh
    clock: ScaledClock
    library: Any
    journal: Journal
    image: Image

    def node(self, name: str) -> Any:
        return self.mesh.nodes[name]

    async def update(self, node: NodeId) -> None:
        """Order the image for a node."""
        file = self.image.file
        reference = ImageRef(hashlib.sha256(file).hexdigest(), len(file), NEW)
        await self.radio.put(TransferOrder("t", reference, 0, 1.0, datetime.now(UTC) + timedelta(days=1)))
        await self.radio.direct([NodeDirective("t", node, 1, Want.INSTALL)])

    async def ask(self, name: str, node: NodeId, **arguments: Json) -> CommandResult:
        return await self.radio.manage(NodeCommand(name, node, arguments))

    def report(self, node: NodeId, cluster: int, attribute: int) -> None:
        """With an APS acknowledgement asked for, as nodes do."""
        self.mesh.nodes[node].report(cluster, attribute)
        self.mesh.settle(self.mesh.nodes[node], self.clock.now())

    async def until(self, condition: Callable[[], object], what: str) -> None:
        try:
            async with asyncio.timeout(LIMIT_S):
                while not condition():
                    await asyncio.sleep(0.005)
        except TimeoutError:
            raise AssertionError(f"never came: {what}") from None


@contextlib.asynccontextmanager
async def mesh_radio(
    specs: Sequence[NodeSpec], *, scale: float = 10.0, image_size: int = 3000, journal: Journal | None = None
) -> AsyncIterator[MeshRadio]:
    """Up and running, every node interviewed."""
    clock = ScaledClock(scale, time.time())
    mesh = Mesh(specs)
    driver = MeshDriver(mesh, clock)
    library = radio_library(mesh, clock.now, interviewed=True)
    spec = specs[0]
    file = build_ota_file(manufacturer=spec.manufacturer_code, image_type=spec.image_type, version=NEW, size=image_size)
    radio = ZigbeeRadio(ZigbeeSettings("simulated", max_reconnect_wait_s=0.1), clock, library)
    world = MeshRadio(radio, mesh, clock, library, journal or Journal(), Image(file))
    mesh.power_on(clock.now())
    running = asyncio.create_task(radio.run(world.journal, world.image))
    try:
        await world.until(lambda: mesh.coordinator is not None and mesh.coordinator.listening, "the radio is up")
        yield world
    finally:
        running.cancel()
        await asyncio.wait({running})
        driver.close()
        if not running.cancelled() and (error := running.exception()) is not None:
            raise error
