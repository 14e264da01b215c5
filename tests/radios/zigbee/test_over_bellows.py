"""A whole update through unmodified bellows over TCP: the simulated dongle and nodes share no code with the driver."""

import asyncio
import contextlib
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from radios.clock import ScaledClock, SystemClock
from radios.radio import Fact, NodeDirective, NodeId, TransferOrder, Want
from radios.simulated.zigbee.channel import Channel, lower_bound_s
from radios.simulated.zigbee.firmware import build_ota_file
from radios.simulated.zigbee.node_spec import NodeSpec
from radios.simulated.zigbee.ota_terms import OtaTiming
from radios.simulated.zigbee.site import ZigbeeSite
from radios.zigbee.driver import ZigbeeRadio
from radios.zigbee.settings import ZigbeeSettings

OLD, NEW = 0x00010000, 0x00020000
TIMING = OtaTiming(
    think_s=0.001, response_timeout_s=(0.5, 0.7), verify_s=0.01, boot_query_delay_s=(0.05, 0.1), retry_later_s=1.0
)
GOOD = NodeSpec(0x00124B0000000001, timing=TIMING, reboot_s=0.1, self_test_s=0.1, mac_loss=0.1)
BAD = NodeSpec(0x00124B0000000002, timing=TIMING, reboot_s=0.1, self_test_s=0.1, watchdog_s=0.1, self_test_fails=True)


async def test_update_rollback_and_restart(journal: Any, images: Any, tmp_path: Path) -> None:
    clock = SystemClock()
    image = build_ota_file(manufacturer=0x1049, image_type=1, version=NEW, size=2500)
    order = TransferOrder("t1", images.add(image, NEW), 0, 1.0, datetime.now(UTC) + timedelta(days=1))
    directives = [NodeDirective("t1", NodeId(spec.id), 1, Want.INSTALL) for spec in (GOOD, BAD)]

    async with ZigbeeSite([GOOD, BAD], clock) as site:

        async def run() -> tuple[ZigbeeRadio, asyncio.Task[None]]:
            radio = ZigbeeRadio(ZigbeeSettings(site.url, database=tmp_path / "zigbee.db"), clock)
            task = asyncio.create_task(radio.run(journal, images))
            await radio.put(order)
            await radio.direct(directives)
            return radio, task

        async def stop(task: asyncio.Task[None]) -> None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

        def versions(spec: NodeSpec) -> list[int | None]:
            return [e.version for e in journal.events if e.node == spec.id and e.fact is Fact.RUNNING]

        async with asyncio.timeout(60):
            _, task = await run()
            while len(site.nodes[GOOD.id].ota.staged) < 600:
                await asyncio.sleep(0.005)
            await stop(task)
            radio, task = await run()
            while versions(GOOD) != [NEW] or versions(BAD)[-1:] != [OLD]:
                await asyncio.sleep(0.01)
            assert radio.status()["link"] == "up"
            await stop(task)

        good, bad = site.nodes[GOOD.id], site.nodes[BAD.id]
        assert good.running_version == NEW
        assert good.ota.counters.downloads_started_at_zero == 1
        assert good.ota.counters.downloads_thrown_away == 0
        assert good.ota.counters.bytes_received_twice == 0
        assert bad.running_version == OLD
        assert site.snapshot()[BAD.id]["reset_cause"] == "watchdog"  # type: ignore[index,call-overload]  # JSON


async def test_update_over_a_shared_channel_and_a_serial_line(journal: Any, images: Any, tmp_path: Path) -> None:
    clock = ScaledClock(5.0, time.time())
    image = build_ota_file(manufacturer=0x1049, image_type=1, version=NEW, size=2500)
    near = NodeSpec(0x00124B0000000011, reboot_s=0.5, self_test_s=0.5, mac_loss=0.05)
    far = NodeSpec(0x00124B0000000012, reboot_s=0.5, self_test_s=0.5, hops=2)
    channel = Channel(seed=3)
    order = TransferOrder("t1", images.add(image, NEW), 0, 1.0, datetime.now(UTC) + timedelta(days=1))
    site = ZigbeeSite([near, far], clock, channel=channel, pty=tmp_path / "dongle", baud=115_200)
    async with site, asyncio.timeout(60):
        radio = ZigbeeRadio(ZigbeeSettings(site.url, database=tmp_path / "zigbee.db"), clock)
        task = asyncio.create_task(radio.run(journal, images))
        await radio.put(order)
        await radio.direct([NodeDirective("t1", NodeId(spec.id), 1, Want.INSTALL) for spec in (near, far)])
        while len(running(journal)) < 2:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait({task})
    assert running(journal) == {near.id: NEW, far.id: NEW}
    assert all(site.nodes[spec.id].running_image == image for spec in (near, far))
    blocks = -(-len(image) // 50)
    assert channel.busy_s > lower_bound_s([(blocks, 1), (blocks, 2)], page_mode=True), "every block took its air"
    assert channel.retries, "and losses theirs"


def running(journal: Any) -> dict[str, int]:
    return {event.node: event.version for event in journal.events if event.fact is Fact.RUNNING}
