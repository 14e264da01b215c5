"""Backups at intervals: the newest stay, others' files stay, and a folder that is not there is said."""

from collections.abc import Callable
from pathlib import Path

import pytest

from gatewayd.backup.restore import look
from gatewayd.backup.scheduled import ScheduledBackups
from gatewayd.errors import ConfigError
from tests.gatewayd.backup.conftest import GATEWAY, MADE

DAY = 86_400.0


class Clock:
    now = MADE.timestamp()

    def __call__(self) -> float:
        return self.now


class Fresh:
    asked = 0

    async def __call__(self) -> None:
        self.asked += 1


def scheduled(
    state: Path,
    folder: Path,
    clock: Clock,
    fresh: Fresh | None = None,
    passphrase: Callable[[], str | None] = lambda: None,
) -> ScheduledBackups:
    return ScheduledBackups(state, GATEWAY, folder, DAY, 2, clock, fresh or Fresh(), passphrase=passphrase)


async def test_the_newest_stay_and_files_of_others_too(state: Path, tmp_path: Path) -> None:
    folder, clock, fresh = tmp_path / "disk", Clock(), Fresh()
    folder.mkdir()
    others = ["gatewayd-gw-1-north-20260601T120000Z.backup", "gatewayd-gw-1-holiday.backup", "photo.jpg"]
    for name in others:
        (folder / name).write_text("mine")
    backups = scheduled(state, folder, clock, fresh)
    for _ in range(4):
        assert await backups.make()
        clock.now += DAY
    assert [path.name for path in backups.files()] == [f"gatewayd-gw-1-2026060{day}T120000Z.backup" for day in (3, 4)]
    assert all((folder / name).exists() for name in others)
    assert fresh.asked == 4, "the networks are backed up first"
    assert look(backups.files()[-1], GATEWAY, None).gateway == GATEWAY
    assert backups.status() == {
        "made_at": "2026-06-04T12:00:00+00:00", "age_s": 86_400, "failing": False, "error": "",
    }  # fmt: skip


async def test_a_disk_that_is_not_there_is_said_and_not_made(state: Path, tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    backups = scheduled(state, folder, Clock())
    assert not await backups.make()
    assert not folder.exists()
    assert "is no folder" in str(backups.status()["error"])
    folder.mkdir()
    assert await backups.make()
    assert backups.status()["error"] == ""


async def test_what_fails_and_what_is_overdue_is_the_gateways_health(state: Path, tmp_path: Path) -> None:
    folder, clock = tmp_path / "disk", Clock()
    backups = scheduled(state, folder, clock)
    assert backups.trouble() is None, "nothing is known yet: no end of an earlier trouble either"
    assert not await backups.make()
    code, detail = backups.trouble() or ("", "")
    assert (code, backups.status()["failing"]) == ("backup_failed", True)
    assert "is no folder; none was made" in detail
    folder.mkdir()
    assert await backups.make()
    assert backups.trouble() == ("", "")
    clock.now += 2 * DAY + 1  # whatever has kept it from the next one
    assert backups.trouble() == ("backup_overdue", "the last one was made 2026-06-01 12:00:00Z")
    assert backups.status()["age_s"] == 2 * DAY + 1
    (folder / backups.files()[0].name).rename(tmp_path / "elsewhere")
    folder.rmdir()
    assert not await backups.make()
    code, detail = backups.trouble() or ("", "")
    assert code == "backup_failed"
    assert "made 2026-06-01 12:00:00Z" in detail


async def test_backups_from_the_future_are_not_the_newest(state: Path, tmp_path: Path) -> None:
    """The clock leapt to 2036 and back: what is made now stays, and what was made then goes first."""
    folder, clock = tmp_path / "disk", Clock()
    folder.mkdir()
    backups = scheduled(state, folder, clock)
    clock.now += 10 * 365 * DAY
    for _ in range(2):
        assert await backups.make()
        clock.now += DAY
    clock.now = MADE.timestamp()
    for _ in range(3):
        assert await backups.make()
        clock.now += DAY
    assert [path.name for path in backups.files()] == [f"gatewayd-gw-1-2026060{day}T120000Z.backup" for day in (2, 3)]


async def test_they_are_sealed_and_none_is_made_without_the_passphrase(state: Path, tmp_path: Path) -> None:
    folder, clock = tmp_path / "disk", Clock()
    folder.mkdir()
    assert await scheduled(state, folder, clock, passphrase=lambda: "correct horse").make()
    (made,) = folder.iterdir()
    assert look(made, GATEWAY, "correct horse").gateway == GATEWAY

    def gone() -> str:
        raise ConfigError("secrets/backup: cannot be read")

    clock.now += DAY
    backups = scheduled(state, folder, clock, passphrase=gone)
    assert not await backups.make()
    assert backups.status()["error"] == "secrets/backup: cannot be read"
    assert list(folder.iterdir()) == [made], "never one in clear instead"


@pytest.mark.parametrize("broken", ["gatewayd.db", "zigbee.db"])
async def test_a_failure_removes_no_older_backup(state: Path, tmp_path: Path, broken: str) -> None:
    folder, clock = tmp_path / "disk", Clock()
    folder.mkdir()
    backups = scheduled(state, folder, clock)
    for _ in range(2):
        assert await backups.make()
        clock.now += DAY
    before = backups.files()
    for suffix in ("", "-wal", "-shm"):
        (state / f"{broken}{suffix}").unlink(missing_ok=True)
    (state / broken).write_bytes(b"x" * 5000)
    assert not await backups.make()
    assert backups.files() == before
