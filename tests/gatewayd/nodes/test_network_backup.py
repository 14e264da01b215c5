"""Backups of the network as files: private, whole, rotated, and nothing of them told."""

import asyncio
import json
import stat
from pathlib import Path
from typing import Any

import pytest
import structlog

from gatewayd.nodes import network_backup
from gatewayd.nodes.network_backup import NEWEST_KEPT, NetworkBackups
from radios.errors import LinkError
from radios.radio import CommandResult, NodeCommand, NodeId, NodeObservation

KEY = "00112233445566778899aabbccddeeff"
DAY_S = 86_400.0


class Radio:
    """What is asked of a radio here."""

    kind = "zigbee"

    def __init__(self) -> None:
        self.answer: CommandResult | LinkError = CommandResult(True, value={"network_key": {"key": KEY}})
        self.asked = 0

    async def manage(self, command: NodeCommand) -> CommandResult:
        assert command == NodeCommand("backup")
        self.asked += 1
        if isinstance(self.answer, LinkError):
            raise self.answer
        return self.answer


class Bench:
    def __init__(self, folder: Path, every_s: float = DAY_S) -> None:
        self.radio: Any = Radio()
        self.now = 1_800_000_000.0
        self.folder = folder / "backups"
        self.backups = NetworkBackups(self.radio, self.folder, every_s, 3, lambda: self.now)

    @property
    def names(self) -> list[str]:
        return [path.name for path in self.backups.files()]


async def test_a_backup_is_private_and_whole(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    with structlog.testing.capture_logs() as logs:
        path = await bench.backups.take("before-restore")
    assert path is not None
    assert path.name == "zigbee-20270115T080000Z-before-restore.json"
    assert json.loads(path.read_text()) == {"network_key": {"key": KEY}}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert bench.backups.status() == {"made_at": "2027-01-15T08:00:00+00:00", "error": ""}
    assert KEY not in str(logs) + str(bench.backups.status())


async def test_the_newest_of_each_day_and_the_newest_few_are_kept(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    (bench.folder).mkdir()
    (bench.folder / "operators-own.json").write_text("{}")
    for _ in range(8 * 4):  # four a day
        await bench.backups.take()
        bench.now += DAY_S / 4
    days = [name[7:15] for name in bench.names]
    assert days[-NEWEST_KEPT:] == ["20270122"] * 4 + ["20270123"]
    assert days[:-NEWEST_KEPT] == ["20270121"]
    assert (bench.folder / "operators-own.json").exists()


async def test_half_a_backup_of_a_killed_process_is_removed(tmp_path: Path) -> None:
    """It holds the network key, and nobody would look for it there."""
    bench = Bench(tmp_path)
    bench.folder.mkdir()
    (bench.folder / ".zigbee-20270114T080000Z.json.new").write_text(KEY)
    (bench.folder / ".other-20270114T080000Z.json.new").write_text("of another radio")
    await bench.backups.take()
    assert sorted(path.name for path in bench.folder.iterdir()) == [
        ".other-20270114T080000Z.json.new",
        "zigbee-20270115T080000Z.json",
    ]


async def test_what_fails_is_said_once_and_changes_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.backups.take()
    with structlog.testing.capture_logs() as logs:
        bench.radio.answer = CommandResult(False, "the Zigbee radio is not available")
        assert await bench.backups.take() is None
        assert await bench.backups.take() is None
        bench.radio.answer = LinkError("timed out")
        assert await bench.backups.take() is None
        bench.radio.answer = Radio().answer
        (bench.folder).chmod(0o500)
        bench.folder.rename(tmp_path / "elsewhere")
        bench.folder.write_text("no folder")
        assert await bench.backups.take() is None
    assert [entry["error"][:8] for entry in logs] == ["the Zigb", "timed ou", str(bench.folder)[:8]]
    assert "backups" in str(bench.backups.status()["error"])


async def test_one_is_made_when_due_and_when_nodes_come_or_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_backup, "SETTLE_S", 0.01)
    monkeypatch.setattr(network_backup, "RETRY_S", 0.01)
    bench = Bench(tmp_path, every_s=0.02)
    bench.radio.answer = LinkError("starting")
    task = asyncio.create_task(bench.backups.run())
    try:
        async with asyncio.timeout(10):
            while bench.radio.asked < 2:  # tried again
                await asyncio.sleep(0.005)
            bench.radio.answer = Radio().answer
            while len(bench.names) < 1:
                await asyncio.sleep(0.005)
            bench.now += 1
            while len(bench.names) < 2:  # by the clock
                await asyncio.sleep(0.005)
            asked = bench.radio.asked
            await asyncio.sleep(0.1)
            assert bench.radio.asked == asked, "nothing is due"
            node = NodeId("zigbee:0000000000000001")
            bench.backups.observe(NodeObservation(node, 0.0, lqi=7))
            bench.backups.observe(NodeObservation(node, 0.0, joined=False))
            await asyncio.sleep(0.1)
            assert bench.radio.asked == asked
            bench.backups.observe(NodeObservation(node, 0.0, joined=True))
            bench.backups.observe(NodeObservation(node, 0.0, joined=True))
            while bench.radio.asked == asked:
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.1)
            assert bench.radio.asked == asked + 1
    finally:
        task.cancel()
