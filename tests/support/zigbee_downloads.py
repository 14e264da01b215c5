"""Whole downloads over the simulated mesh in virtual time, served by gatewayd's radio as it is."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from radios.radio import ImageRef, NodeDirective, Record, TransferEvent, TransferOrder, Want, parse_node_id
from radios.simulated.zigbee.channel import Channel
from radios.simulated.zigbee.firmware import build_ota_file
from radios.simulated.zigbee.mesh import Mesh
from radios.simulated.zigbee.node_spec import NodeSpec
from radios.simulated.zigbee.virtual_time import LoopClock, VirtualLoop, run_virtual
from radios.simulated.zigbee.zigpy_radio import radio_library
from radios.zigbee.driver import ZigbeeRadio
from radios.zigbee.settings import ZigbeeSettings

NEW = 0x0002_0000
EUI64 = 0x00124B00_00001000


class Journal:
    """Keeps the facts."""

    def __init__(self) -> None:
        self.events: list[TransferEvent] = []

    async def load(self) -> Sequence[Record]:
        return ()

    async def commit(self, records: Sequence[Record], events: Sequence[TransferEvent]) -> None:
        del records
        self.events += events

    def progress(self, events: Sequence[TransferEvent], records: Sequence[Record] = ()) -> None:
        del records
        self.events += events


class Images:
    def __init__(self, image: bytes) -> None:
        self._image = image

    def read(self, digest: str, offset: int, length: int) -> bytes:
        del digest
        return self._image[offset : offset + length]

    def size(self, digest: str) -> int:
        del digest
        return len(self._image)


@dataclass
class Site:
    mesh: Mesh
    loop: VirtualLoop
    radio: ZigbeeRadio
    image: bytes
    journal: Journal = field(default_factory=Journal)
    took_s: float = 0.0

    def left(self) -> int:
        """Nodes that do not hold every byte, and whatever they hold are the right ones."""
        nodes = self.mesh.nodes.values()
        assert all(self.image.startswith(bytes(node.ota.staged)) for node in nodes)
        return sum(bytes(node.ota.staged) != self.image for node in nodes)

    async def order(self, generation: int = 1) -> None:
        expires = datetime.fromtimestamp(self.loop.time(), UTC) + timedelta(days=30)
        image = ImageRef(sha256(self.image).hexdigest(), len(self.image), NEW)
        await self.radio.put(TransferOrder("t", image, 0, 1.0, expires))
        nodes = [parse_node_id(node) for node in self.mesh.nodes]
        await self.radio.direct([NodeDirective("t", node, generation, Want.DELIVER) for node in nodes])

    async def until(self, condition: Callable[[], bool], seconds: float) -> None:
        begun = self.loop.time()
        while not condition():
            if self.loop.time() - begun > seconds:
                raise TimeoutError(f"not within {seconds} virtual seconds, {self.left()} nodes left")
            await asyncio.sleep(0.1)


def download(
    specs: Sequence[NodeSpec],
    settings: ZigbeeSettings,
    *,
    image_bytes: int = 4000,
    within_s: float = 3600.0,
    meanwhile: Callable[[Site], None] = lambda _: None,
    seed: int = 1,
    channel: bool = True,
) -> Site:
    """Give the image to all nodes; returns when each holds it. `meanwhile` is called when the order is given."""
    image = build_ota_file(
        manufacturer=specs[0].manufacturer_code, image_type=specs[0].image_type, version=NEW, size=image_bytes
    )

    async def main() -> Site:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        mesh = Mesh(specs, channel=Channel(seed) if channel else None, seed=seed)
        loop.attach(mesh)
        library = radio_library(mesh, loop.time, interviewed=True)
        site = Site(mesh, loop, ZigbeeRadio(settings, LoopClock(), library), image)
        running = asyncio.create_task(site.radio.run(site.journal, Images(image)))
        try:
            mesh.power_on(loop.time())
            await asyncio.sleep(20.0)
            begun = loop.time()
            await site.order()
            meanwhile(site)
            await site.until(lambda: site.left() == 0, within_s)
            site.took_s = loop.time() - begun
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        return site

    return run_virtual(main())
