"""The same through unmodified bellows and the simulated EZSP dongle, which runs in a process of its own."""

import asyncio
import hashlib
import multiprocessing
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import zigpy.ota.manager

from gatewayd.payload.cache import PayloadCache
from radios.clock import SystemClock
from radios.radio import ImageRef, NodeDirective, NodeId, TransferOrder, Want
from radios.simulated.zigbee.firmware import build_ota_file
from radios.simulated.zigbee.node_spec import NodeSpec
from radios.simulated.zigbee.ota_terms import OtaTiming
from radios.simulated.zigbee.site import ZigbeeSite
from radios.zigbee.driver import ZigbeeRadio
from radios.zigbee.pacing import PacingLimits
from radios.zigbee.settings import ZigbeeSettings, zigpy_config
from radios.zigbee.tap import load_application
from tests.benchmarks.store import radio_journal, store_in_transfer
from tests.benchmarks.zigbee_site import (
    BLOCK_BYTES,
    IMAGE_TYPE,
    MANUFACTURER,
    TRANSFER,
    VERSION,
    with_metadata,
)

NODES = 4
IMAGE = build_ota_file(manufacturer=MANUFACTURER, image_type=IMAGE_TYPE, version=VERSION, size=25_000)
SPECS = tuple(NodeSpec(0x00124B00_00000001 + n, timing=OtaTiming(think_s=0.001)) for n in range(NODES))
LIMIT_S = 120


def cpu_us() -> tuple[float, float]:
    """CPU time of the serving process per block over whole downloads: gatewayd's and zigpy's."""
    taken = []
    for serve in (_gatewayd_s, _zigpy_s):
        with _dongle() as url:
            taken.append(asyncio.run(serve(url)) / (NODES * -(-len(IMAGE) // BLOCK_BYTES)) * 1e6)
    return taken[0], taken[1]


async def _gatewayd_s(url: str) -> float:
    image = ImageRef(hashlib.sha256(IMAGE).hexdigest(), len(IMAGE), VERSION)
    order = TransferOrder(TRANSFER, image, 0, 1.0, datetime.now(UTC) + timedelta(days=1))
    ids = [NodeId(spec.id) for spec in SPECS]
    with tempfile.TemporaryDirectory(prefix="bench-", dir="build") as name:
        cache = PayloadCache(Path(name) / "payloads", 1 << 30)
        cache.path(image.digest).write_bytes(IMAGE)
        database = await store_in_transfer(Path(name) / "state.db", ids, TRANSFER, image.size, VERSION)
        journal = radio_journal(database, "zigbee")
        settings = ZigbeeSettings(url, pacing=PacingLimits(max_active_nodes=NODES))
        radio = ZigbeeRadio(settings, SystemClock())
        tasks = [asyncio.create_task(radio.run(journal, cache)), asyncio.create_task(journal.run())]
        try:
            await _until(lambda: radio.status()["nodes"] == NODES)
            await asyncio.sleep(2)  # interviews
            begin = time.process_time()
            await radio.put(order)
            await radio.direct([NodeDirective(TRANSFER, node, 1, Want.DELIVER) for node in ids])
            await _until(lambda: radio.status()["sessions"] == {"ready": NODES})
            return time.process_time() - begin
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            database.close()
            cache.close()


async def _zigpy_s(url: str) -> float:
    app = await load_application("bellows").new(zigpy_config(ZigbeeSettings(url)), start_radio=False)  # type: ignore[attr-defined]  # zigpy's
    image = with_metadata(IMAGE)
    try:
        await app.startup(auto_form=True)

        def nodes() -> list[Any]:
            own = app.state.node_info.ieee
            return [device for device in app.devices.values() if device.ieee != own and device.is_initialized]

        await _until(lambda: len(nodes()) == NODES)
        await asyncio.sleep(2)
        begin = time.process_time()
        await asyncio.gather(*(_downloaded(device, image) for device in nodes()))
        return time.process_time() - begin
    finally:
        await app.shutdown()


async def _downloaded(device: Any, image: Any) -> None:
    """What `device.update_firmware` does until the node has everything."""
    device.ota_in_progress = True
    with zigpy.ota.manager.OTAManager(device, image, progress_callback=lambda current, total: None) as manager:
        await manager.notify()
        if await manager.wait() != 0:
            raise AssertionError(f"zigpy did not bring the image to {device}")


async def _until(condition: Any) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(0.02)


@contextmanager
def _dongle() -> Iterator[str]:
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(SPECS, theirs), daemon=True)
    process.start()
    try:
        yield pipe.recv()
    finally:
        pipe.send(None)
        process.join(10)


def _serve(specs: Sequence[NodeSpec], pipe: Connection) -> None:
    async def serve() -> None:
        async with ZigbeeSite(specs, SystemClock()) as site:
            pipe.send(site.url)
            await asyncio.to_thread(pipe.recv)

    asyncio.run(serve())
