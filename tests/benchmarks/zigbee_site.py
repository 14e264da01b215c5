"""A Zigbee network of many nodes that download: served by gatewayd's radio, or by zigpy's own OTA manager.

Both stand on the same in-process radio library, take the same packets and send into the same sink. No time passes by
itself: `SteppedClock` is moved as the packets would come over a saturated channel.
"""

import asyncio
import contextlib
import hashlib
import heapq
import struct
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import zigpy.ota
import zigpy.ota.image
import zigpy.ota.providers
import zigpy.types as t

from gatewayd.campaign.journal import PROGRESS_FLUSH_S
from gatewayd.nodes.inventory import Inventory
from gatewayd.payload.cache import PayloadCache
from radios.radio import ImageRef, NodeDirective, TransferOrder, Want
from radios.simulated.zigbee.firmware import build_ota_file
from radios.wall_time import WallTime
from radios.zigbee.driver import ZigbeeRadio
from radios.zigbee.nodes import node_id
from radios.zigbee.pacing import PacingLimits
from radios.zigbee.settings import ZigbeeSettings, zigpy_config
from tests.benchmarks.store import radio_journal, store_in_transfer
from tests.support.zigpy_library import FakeRadio

MANUFACTURER, IMAGE_TYPE, VERSION = 0x1049, 1, 0x00020000
BLOCK_BYTES = 50
IMAGE = build_ota_file(manufacturer=MANUFACTURER, image_type=IMAGE_TYPE, version=VERSION, size=256 * 1024)
CHANNEL_BLOCKS_PER_S = 75.0  # what an idle channel takes at one hop (protocols: channel arithmetic)
TRANSFER = "bench.1"
OTA_CLUSTER = 0x0019

Flush = Callable[[], Awaitable[None]]

_ANSWER_MASK = 0xEF  # of the frame control: all but "disable default response"
_START = 1_800_000_000.0


class SteppedClock:
    """`radios.clock.Clock` that only moves when told."""

    def __init__(self) -> None:
        self.wall = WallTime()
        self._now = _START
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    def now(self) -> float:
        return self._now

    async def sleep_until(self, when: float) -> None:
        while when > self._now:
            self._count += 1
            woken = asyncio.get_running_loop().create_future()
            heapq.heappush(self._sleepers, (when, self._count, woken))
            await woken

    def advance(self, seconds: float) -> None:
        self._now += seconds
        while self._sleepers and self._sleepers[0][0] <= self._now:
            woken = heapq.heappop(self._sleepers)[2]
            if not woken.done():
                woken.set_result(None)


class SinkLibrary(FakeRadio):
    """What is sent on the OTA cluster is kept, and nothing else happens to it; questions about the network go nowhere."""

    nodes: Sequence[tuple[t.EUI64, int]] = ()

    async def send_packet(self, packet: t.ZigbeePacket) -> None:
        if packet.cluster_id == OTA_CLUSTER:
            await super().send_packet(packet)


class Site:
    """A network whose nodes all download at once. `begin`, then `serve` rounds of packets; answers are in `app.sent`."""

    def __init__(self, app: SinkLibrary, clock: SteppedClock, flush: Flush | None = None) -> None:
        self.app = app
        self._clock = clock
        self._flush = flush
        self._flushed_at = clock.now()

    async def begin(self) -> None:
        """Offer the image to every node; return when all were notified."""
        raise NotImplementedError

    async def serve(self, rounds: Sequence[Sequence[t.ZigbeePacket]]) -> None:
        """Each round's packets come in, then their answers are awaited; the store is written when that is due."""
        sent, clock, flush, receive = self.app.sent, self._clock, self._flush, self.app.packet_received
        for packets in rounds:
            wanted = len(sent) + len(packets)
            for packet in packets:
                clock.advance(1 / CHANNEL_BLOCKS_PER_S)
                receive(packet)
            while len(sent) < wanted:
                await asyncio.sleep(0)
            if flush is not None and clock.now() - self._flushed_at >= PROGRESS_FLUSH_S:
                self._flushed_at = clock.now()
                await flush()

    async def _notified(self, count: int) -> None:
        notify = 0x00
        async with asyncio.timeout(60):
            while sum(packet.data.serialize()[2] == notify for packet in self._ota()) < count:
                await asyncio.sleep(0.001)
                self._clock.advance(0.001)
        self.app.sent.clear()

    def _ota(self) -> list[t.ZigbeePacket]:
        """Cluster commands, no attribute reads."""
        return [p for p in self.app.sent if p.cluster_id == 0x0019 and p.data.serialize()[0] & 1]


class GatewaydSite(Site):
    def __init__(self, app: SinkLibrary, clock: SteppedClock, flush: Flush, radio: ZigbeeRadio) -> None:
        super().__init__(app, clock, flush)
        self._radio = radio

    async def begin(self) -> None:
        image = ImageRef(hashlib.sha256(IMAGE).hexdigest(), len(IMAGE), VERSION)
        expires = datetime.fromtimestamp(_START, UTC) + timedelta(days=1)
        await self._radio.put(TransferOrder(TRANSFER, image, 0, 1.0, expires))
        ids = [node_id(ieee) for ieee, _ in self.app.nodes]
        await self._radio.direct([NodeDirective(TRANSFER, node, 1, Want.DELIVER) for node in ids])
        await self._notified(len(ids))


class ZigpySite(Site):
    """zigpy 2.4's `device.update_firmware` for every node, as its users call it."""

    def __init__(self, app: SinkLibrary, clock: SteppedClock) -> None:
        super().__init__(app, clock)
        self.tasks: list[asyncio.Task[Any]] = []
        self.progress = 0

    async def begin(self) -> None:
        image = with_metadata(IMAGE)
        for ieee, _ in self.app.nodes:
            update = self.app.devices[ieee].update_firmware(image, self._progressed)
            self.tasks.append(asyncio.create_task(update))
        await self._notified(len(self.tasks))

    def _progressed(self, current: int, total: int, percent: float) -> None:
        self.progress = current


def with_metadata(file: bytes) -> zigpy.ota.OtaImageWithMetadata:
    """The image as zigpy wants it."""
    firmware, _ = zigpy.ota.image.parse_ota_image(file)
    metadata = zigpy.ota.providers.BaseOtaImageMetadata(
        file_version=VERSION, manufacturer_id=MANUFACTURER, image_type=IMAGE_TYPE
    )
    return zigpy.ota.OtaImageWithMetadata(metadata=metadata, firmware=firmware)


def addresses(count: int) -> list[tuple[t.EUI64, int]]:
    return [(t.EUI64.convert(f"00124b00{number:08x}"), 0x1000 + number) for number in range(1, count + 1)]


def requests(nodes: Sequence[tuple[t.EUI64, int]], rounds: int, first: int = 0) -> list[list[t.ZigbeePacket]]:
    """Block requests of every node, block after block from block `first` on, each with a sequence number of its own."""
    made = []
    for block in range(first, first + rounds):
        offset = block * BLOCK_BYTES % (len(IMAGE) // BLOCK_BYTES * BLOCK_BYTES)
        made.append([_packet(nwk, (block + index) & 0xFF, offset) for index, (_, nwk) in enumerate(nodes)])
    return made


def check_answers(rounds: Sequence[Sequence[t.ZigbeePacket]], sent: Sequence[t.ZigbeePacket]) -> None:
    """Every byte of every answer, and whom it went to. AssertionError otherwise."""
    expected: list[tuple[int, bytes]] = []
    for packets in rounds:
        for packet in packets:
            frame = packet.data.serialize()
            (offset,) = struct.unpack_from("<L", frame, 12)
            data = IMAGE[offset : offset + BLOCK_BYTES]
            head = struct.pack("<BHHLLB", 0, MANUFACTURER, IMAGE_TYPE, VERSION, offset, len(data))
            expected.append((packet.src.address, bytes((0x09, frame[1], 0x05)) + head + data))
    got = []
    for packet in sent:
        frame = packet.data.serialize()
        got.append((packet.dst.address, bytes((frame[0] & _ANSWER_MASK,)) + frame[1:]))
        if (packet.cluster_id, packet.profile_id, packet.src_ep, packet.dst_ep) != (0x0019, 0x0104, 1, 1):
            raise AssertionError(f"answered to the wrong place: {packet}")
    if sorted(got) != sorted(expected):
        raise AssertionError(f"{len(got)} answers are not the {len(expected)} that were asked for")


@contextlib.asynccontextmanager
async def gatewayd_site(count: int, *, with_inventory: bool = False) -> AsyncIterator[GatewaydSite]:
    """gatewayd's radio with a journal on a real store and the image in a real cache; the network is up, no transfer yet.

    `with_inventory` also keeps what is observed of the nodes, as the daemon does.
    """
    with tempfile.TemporaryDirectory(prefix="bench-", dir="build") as name:
        folder = Path(name)
        nodes = addresses(count)
        ids = [node_id(ieee) for ieee, _ in nodes]
        cache = PayloadCache(folder / "payloads", 1 << 30)
        cache.path(hashlib.sha256(IMAGE).hexdigest()).write_bytes(IMAGE)
        database = await store_in_transfer(folder / "state.db", ids, TRANSFER, len(IMAGE), VERSION)
        journal = radio_journal(database, "zigbee")
        clock = SteppedClock()
        library = _library(nodes)
        # All nodes at once, as zigpy does; how many gatewayd lets in by itself is another bench's matter.
        pacing = PacingLimits(max_active_nodes=count)
        settings = ZigbeeSettings("bench", interview_timeout_s=0.01, concurrent_interviews=count, pacing=pacing)
        radio = ZigbeeRadio(settings, clock, library)
        inventory = await Inventory.load(database) if with_inventory else None
        tasks = [asyncio.create_task(radio.run(journal, cache)), asyncio.create_task(_observe(radio, inventory))]

        async def flush() -> None:
            await journal.flush()
            if inventory is not None:
                await inventory.flush()

        try:
            while radio.status()["link"] != "up":
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.1)  # interviews, which nobody answers
            yield GatewaydSite(library.instances[-1], clock, flush, radio)
        finally:
            await _cancelled(tasks)
            database.close()
            cache.close()


@contextlib.asynccontextmanager
async def zigpy_site(count: int) -> AsyncIterator[ZigpySite]:
    """zigpy alone on the same library; the network is up, no transfer yet."""
    app = await _library(addresses(count)).new(zigpy_config(ZigbeeSettings("bench")), start_radio=False)
    await app.startup(auto_form=False)
    site = ZigpySite(app, SteppedClock())
    try:
        yield site
    finally:
        await _cancelled(site.tasks)
        await app.shutdown()


def _library(nodes: Sequence[tuple[t.EUI64, int]]) -> type[SinkLibrary]:
    return type("Sink", (SinkLibrary,), {"instances": [], "refusals": [], "nodes": nodes})


def _packet(nwk: int, tsn: int, offset: int) -> t.ZigbeePacket:
    frame = bytes((1, tsn, 3, 0)) + struct.pack("<HHLLB", MANUFACTURER, IMAGE_TYPE, VERSION, offset, BLOCK_BYTES)
    own, node = (t.AddrModeAddress(addr_mode=t.AddrMode.NWK, address=t.NWK(address)) for address in (0, nwk))
    return t.ZigbeePacket(
        src=node,
        src_ep=1,
        dst=own,
        dst_ep=1,
        tsn=tsn,
        profile_id=0x0104,
        cluster_id=0x0019,
        data=t.SerializableBytes(frame),
        lqi=111,
        rssi=-70,
    )


async def _observe(radio: ZigbeeRadio, inventory: Inventory | None) -> None:
    async for seen in radio.observations():
        if inventory is not None:
            await inventory.observe(seen)


async def _cancelled(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
