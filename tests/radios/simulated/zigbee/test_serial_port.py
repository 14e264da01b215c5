"""The dongle on a pseudo-terminal that the unmodified bellows opens by its path, and the pace of the line."""

import asyncio
import contextlib
import os
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import zigpy.types as t
from bellows.zigbee.application import ControllerApplication

from radios.clock import SystemClock
from radios.simulated.zigbee.mesh import Mesh
from radios.simulated.zigbee.ncp import Ncp
from radios.simulated.zigbee.network_state import ready_made
from radios.simulated.zigbee.node_spec import NodeSpec
from radios.simulated.zigbee.ota_terms import OtaTiming
from radios.simulated.zigbee.serial_port import LinePace, PtyPort
from radios.simulated.zigbee.site import ZigbeeSite

EUI64 = 0x00124B00_00000001
QUIET = OtaTiming(boot_query_delay_s=(1e6, 1e6))
SPEC = NodeSpec(eui64=EUI64, timing=QUIET)


class Host(ControllerApplication):  # type: ignore[misc]  # bellows has no types
    lost: Any = None

    def connection_lost(self, exc: Any) -> None:
        self.lost = exc or OSError("closed")


@contextlib.asynccontextmanager
async def host(path: str) -> AsyncIterator[Host]:
    app = Host(
        {
            "device": {"path": path, "baudrate": 115200},
            "use_thread": False,
            "ota": {"enabled": False},
            "backup_enabled": False,
            "topology_scan_enabled": False,
            "watchdog_enabled": False,
        }
    )
    await app.startup(auto_form=False)
    try:
        yield app
    finally:
        await app.shutdown()


async def send(app: Any, nwk: int, size: int = 5) -> None:
    await app.send_packet(
        t.ZigbeePacket(
            src=t.AddrModeAddress(t.AddrMode.NWK, 0),
            src_ep=1,
            dst=t.AddrModeAddress(t.AddrMode.NWK, t.NWK(nwk)),
            dst_ep=1,
            tsn=1,
            profile_id=0x0104,
            cluster_id=0x0019,
            data=t.SerializableBytes(b"\x18\x01\x0b\x00\x00".ljust(size, b"\0")),
            tx_options=t.TransmitOptions.NONE,
        )
    )


async def eventually(condition: Callable[[], object], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def test_bellows_opens_the_port_by_path_and_again_after_it_was_pulled_out(tmp_path: Path) -> None:
    link = tmp_path / "usb-dongle"
    async with ZigbeeSite([SPEC], SystemClock(), pty=link, baud=115_200) as site:
        assert site.url == str(link)
        assert not site.dongle.connected
        async with host(site.url) as app:
            assert site.dongle.connected
            assert app.state.node_info.nwk == 0
            await send(app, site.nodes[SPEC.id].nwk)
            site.dongle.unplug()
            assert not link.exists()
            await eventually(lambda: app.lost)
        await site.dongle.start()
        async with host(site.url) as app:
            await send(app, site.nodes[SPEC.id].nwk)
        async with host(site.url) as app:  # what the last host did not read does not harm the next one
            await send(app, site.nodes[SPEC.id].nwk)
            site.dongle.reset_ncp()
            await eventually(lambda: app.lost)
    assert not link.exists()


async def test_tcp_can_be_unplugged_too() -> None:
    async with ZigbeeSite([SPEC], SystemClock()) as site:
        async with host(site.url) as app:
            site.dongle.unplug()
            await eventually(lambda: app.lost)
            with pytest.raises(OSError):
                await asyncio.open_connection("127.0.0.1", site.dongle.port)
        await site.dongle.start()
        async with host(site.url) as app:
            await send(app, site.nodes[SPEC.id].nwk)


async def test_what_nobody_reads_is_lost_and_stops_nothing(tmp_path: Path) -> None:
    received: list[bytes] = []
    port = PtyPort(tmp_path / "port", received.append)
    for _ in range(100):
        port.write(bytes(1_000))
    assert port.dropped_bytes > 0
    port.forget_unread()
    fd = os.open(tmp_path / "port", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        with pytest.raises(BlockingIOError):
            os.read(fd, 100)
        os.write(fd, b"\x7e\x11\x0a")
        await eventually(lambda: b"".join(received) == b"\x7e\x11\x0a")
        port.write(b"\x0a\x0d\x1a")
        await asyncio.sleep(0)
        assert os.read(fd, 100) == b"\x0a\x0d\x1a", "raw: nothing is translated"
    finally:
        os.close(fd)
        port.abort()


def test_a_line_takes_ten_bits_a_byte_each_way_and_a_scaled_one_less() -> None:
    line = LinePace(115_200)
    assert line.through_at(1.0, 1152) == pytest.approx(1.1)
    assert line.through_at(1.05, 1152) == pytest.approx(1.2), "behind what is already on the line"
    assert line.through_at(5.0, 1152) == pytest.approx(5.1)
    assert LinePace(115_200, 10.0).through_at(1.0, 1152) == pytest.approx(1.01)
    assert LinePace(None).through_at(1.0, 1152) == 1.0


async def test_a_paced_line_bounds_what_a_host_can_send(tmp_path: Path) -> None:
    """A lower bound only: how much slower it gets is the machine's business."""
    async with ZigbeeSite([SPEC], SystemClock(), baud=19_200) as site, host(site.url) as app:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for _ in range(10):
            await send(app, site.nodes[SPEC.id].nwk, size=60)
        assert loop.time() - begun > 10 * (60 + 40) * 10 / 19_200


def test_the_ncp_takes_so_many_messages_at_a_time_and_forgets_them_at_a_reset() -> None:
    now = 0.0
    mesh = Mesh([SPEC])
    ncp = Ncp(mesh, lambda: now, ready_made(), 1)
    mesh.coordinator = ncp
    sent: list[bytes] = []
    ncp.send = sent.append
    mesh.power_on(0.0)

    def unicast() -> int:
        sent.clear()
        body = struct.pack("<BHHHBBHHBBB", 0, 0x0BAD, 0x0104, 0x0019, 1, 1, 0, 0, 0, 7, 1) + b"\0"
        ncp.receive(struct.pack("<BHH", 3, 0x0100, 0x0034) + body)
        return sent[0][5]

    ncp.network_is_up = True
    ncp.receive(struct.pack("<BHHBH", 3, 0x0100, 0x0053, 0x03, 5))  # setConfigurationValue
    assert [unicast() for _ in range(6)] == [0x00] * 5 + [0x72]
    ncp.reset()
    ncp.network_is_up = True
    ncp.receive(struct.pack("<BHHBH", 3, 0x0100, 0x0053, 0x03, 5))
    assert unicast() == 0x00
