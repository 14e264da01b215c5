"""A transfer through unmodified bellows while the dongle does what dongles do: unplugged, reset, busy, hung. It goes on at the
node's own offset: nothing is sent twice from the start, nothing is thrown away, the image is the same byte by byte."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from radios.clock import SystemClock
from radios.radio import NodeDirective, NodeId, TransferOrder, Want
from radios.simulated.zigbee.firmware import build_ota_file
from radios.simulated.zigbee.node_spec import NodeSpec
from radios.simulated.zigbee.ota_terms import OtaTiming
from radios.simulated.zigbee.site import ZigbeeSite
from radios.zigbee.driver import ZigbeeRadio
from radios.zigbee.settings import RADIO_LIBRARY_MODULES, ZigbeeSettings

NEW = 0x00020000
# A node asks again for so long that no fault here makes it give up; what it holds it would keep even then.
TIMING = OtaTiming(
    think_s=0.002, response_timeout_s=(0.5, 0.7), verify_s=0.01, boot_query_delay_s=(0.05, 0.1), retry_later_s=0.5
)
SPEC = NodeSpec(0x00124B0000000001, timing=TIMING, reboot_s=0.1, self_test_s=0.1)


class Transfer:
    """One node that loads an image through a dongle."""

    def __init__(self, site: ZigbeeSite, radio: ZigbeeRadio, file: bytes) -> None:
        self.site, self.radio, self.file = site, radio, file
        self.node = site.nodes[SPEC.id]

    async def reaches(self, offset: int, seconds: float = 60.0) -> None:
        async with asyncio.timeout(seconds):
            while len(self.node.ota.staged) < offset and self.node.running_version != NEW:
                await asyncio.sleep(0.005)

    async def ends_well(self) -> None:
        async with asyncio.timeout(90):
            while self.node.running_version != NEW:
                await asyncio.sleep(0.01)
        counters = self.node.ota.counters
        assert self.node.running_image == self.file
        assert counters.downloads_started_at_zero == 1
        assert counters.downloads_thrown_away == 0

    async def link_is(self, state: str) -> None:
        async with asyncio.timeout(60):
            while self.radio.status()["link"] != state:
                await asyncio.sleep(0.005)


Begin = Callable[..., contextlib.AbstractAsyncContextManager[Transfer]]


@pytest.fixture
def begin(journal: Any, images: Any, tmp_path: Path) -> Begin:
    """A transfer under way on TCP, or on a pseudo-terminal under a by-id name."""

    @contextlib.asynccontextmanager
    async def begin(*, pty: bool = False, baud: int | None = None, size: int = 4000) -> AsyncIterator[Transfer]:
        file = build_ota_file(manufacturer=SPEC.manufacturer_code, image_type=SPEC.image_type, version=NEW, size=size)
        order = TransferOrder("t", images.add(file, NEW), 0, 1.0, datetime.now(UTC) + timedelta(days=1))
        link = tmp_path / "usb-Dongle-if00" if pty else None
        async with ZigbeeSite([SPEC], SystemClock(), pty=link, baud=baud) as site:
            settings = ZigbeeSettings(site.url, database=tmp_path / "zigbee.db", max_reconnect_wait_s=0.2)
            radio = ZigbeeRadio(settings, SystemClock())
            task = asyncio.create_task(radio.run(journal, images))
            await radio.put(order)
            await radio.direct([NodeDirective("t", NodeId(SPEC.id), 1, Want.INSTALL)])
            transfer = Transfer(site, radio, file)
            try:
                await transfer.reaches(600)
                yield transfer
            finally:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    return begin


@pytest.mark.parametrize("pty", [False, True], ids=["tcp", "pty"])
async def test_unplugged_and_plugged_in_again(begin: Begin, pty: bool) -> None:
    async with begin(pty=pty, baud=115_200 if pty else None) as transfer:
        dongle, held = transfer.site.dongle, len(transfer.node.ota.staged)
        dongle.unplug()
        await transfer.link_is("down")
        assert transfer.radio.status()["error"]
        await asyncio.sleep(1.0)  # time for tries that fail
        assert transfer.radio.status()["link"] == "down"
        assert len(transfer.node.ota.staged) >= held
        await dongle.start()
        await transfer.link_is("up")
        assert transfer.radio.status()["error"] == ""
        await transfer.ends_well()


async def test_the_connection_is_cut_twice(begin: Begin) -> None:
    async with begin() as transfer:
        for offset in (600, 1800):
            await transfer.reaches(offset)
            transfer.site.dongle.drop_connection()
            await transfer.link_is("down")
        await transfer.ends_well()


@pytest.mark.parametrize("pty", [False, True], ids=["tcp", "pty"])
async def test_the_ncp_resets_by_itself(begin: Begin, pty: bool) -> None:
    async with begin(pty=pty) as transfer:
        transfer.site.dongle.reset_ncp()
        await transfer.link_is("down")
        await transfer.ends_well()


async def test_the_dongle_hangs_and_is_woken_by_the_next_reset(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    # bellows asks five times and waits twice as long each time, up to this: 3.2 s as it is.
    monkeypatch.setattr("bellows.ash.T_RX_ACK_MAX", 0.8)
    async with begin() as transfer:
        transfer.site.dongle.faults.hung = True
        await transfer.link_is("down")
        transfer.site.dongle.faults.hung = False
        await transfer.ends_well()


async def test_busy_undelivered_and_swallowed_messages(begin: Begin) -> None:
    """A few each: how slow the pacing gets by that is another matter."""
    async with begin(size=1600) as transfer:
        faults = transfer.site.dongle.faults
        for offset, name, count in ((600, "busy", 2), (800, "undelivered", 2), (1000, "swallowed", 1)):
            await transfer.reaches(offset)
            setattr(faults, name, count)
            async with asyncio.timeout(60):
                while getattr(faults, name) and transfer.node.running_version != NEW:
                    await asyncio.sleep(0.01)
        await transfer.ends_well()
        assert transfer.radio.status()["starts"] == 1
        assert (faults.busy, faults.undelivered, faults.swallowed) == (0, 0, 0)


async def test_a_line_at_115200_baud_is_enough(begin: Begin) -> None:
    async with begin(pty=True, baud=115_200, size=3000) as transfer:
        await transfer.ends_well()
        assert transfer.radio.status()["starts"] == 1


async def test_a_library_that_is_not_installed_is_named(
    journal: Any, images: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, RADIO_LIBRARY_MODULES["zboss"], None)  # as the import system says "not there"
    radio = ZigbeeRadio(ZigbeeSettings("/dev/null", "zboss", max_reconnect_wait_s=0.1), SystemClock())
    task = asyncio.create_task(radio.run(journal, images))
    try:
        async with asyncio.timeout(10):
            while not radio.status()["error"]:
                await asyncio.sleep(0.01)
        assert "install gatewayd[zboss]" in str(radio.status()["error"])
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
