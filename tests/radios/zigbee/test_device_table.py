"""zigpy's table of devices after its making was cut off: finished, and never touched once there is anything in it."""

import asyncio
import contextlib
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from zigpy.appdb import DB_VERSION
from zigpy.appdb_schemas import SCHEMAS

from radios.clock import ScaledClock
from radios.simulated.zigbee.mesh import Mesh
from radios.simulated.zigbee.node_spec import NodeSpec
from radios.simulated.zigbee.zigpy_radio import radio_library
from radios.zigbee.device_table import make_device_table
from radios.zigbee.driver import ZigbeeRadio
from radios.zigbee.settings import ZigbeeSettings

STATEMENTS = [statement for statement in SCHEMAS[DB_VERSION].split(";") if statement.strip()]


def cut_off(path: Path, after: int, version: int = DB_VERSION) -> None:
    """As zigpy leaves the file when its process ends after so many statements."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        for statement in SCHEMAS[version].split(";")[:after]:
            database.execute(statement)


def content(path: Path) -> tuple[int, list[tuple[str, ...]]]:
    with contextlib.closing(sqlite3.connect(path)) as database:
        names = database.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name").fetchall()
        return database.execute("PRAGMA user_version").fetchone()[0], names


@pytest.fixture
def whole(tmp_path: Path) -> tuple[int, list[tuple[str, ...]]]:
    cut_off(tmp_path / "whole.db", len(STATEMENTS))
    return content(tmp_path / "whole.db")


def test_a_new_table_is_what_zigpy_would_make(tmp_path: Path, whole: object) -> None:
    make_device_table(tmp_path / "new.db")
    assert content(tmp_path / "new.db") == whole


def test_one_cut_off_anywhere_is_finished(tmp_path: Path, whole: object) -> None:
    assert len(STATEMENTS) > 30
    for after in range(len(STATEMENTS) + 1):
        path = tmp_path / f"{after}.db"
        cut_off(path, after)
        make_device_table(path)
        assert content(path) == whole, after


def test_one_cut_off_in_an_older_zigpy_is_made_anew(tmp_path: Path, whole: object) -> None:
    cut_off(tmp_path / "old.db", 7, DB_VERSION - 1)
    make_device_table(tmp_path / "old.db")
    assert content(tmp_path / "old.db") == whole


@pytest.mark.parametrize(("after", "version"), [(7, DB_VERSION), (len(STATEMENTS), DB_VERSION), (999, DB_VERSION - 1)])
def test_what_holds_a_device_is_left_alone(tmp_path: Path, after: int, version: int) -> None:
    path = tmp_path / "used.db"
    cut_off(path, after, version)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(f"INSERT INTO devices_v{version} VALUES ('00:12:4b:00:00:00:00:01', 1, 2, 3.0)")
    before = content(path)
    make_device_table(path)
    assert content(path) == before
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute(f"SELECT nwk FROM devices_v{version}").fetchall() == [(1,)]


@pytest.mark.parametrize("version", [DB_VERSION - 1, DB_VERSION + 1])
def test_an_older_or_newer_one_is_zigpys_business(tmp_path: Path, version: int) -> None:
    path = tmp_path / "other.db"
    cut_off(path, 999, min(version, DB_VERSION))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(f"PRAGMA user_version = {version}")
    before = content(path)
    make_device_table(path)
    assert content(path) == before


async def test_the_radio_comes_up_with_a_table_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "zigbee.db"
    cut_off(path, len(STATEMENTS) // 2)
    clock = ScaledClock(10.0, time.time())
    mesh = Mesh([NodeSpec(0x00124B00_00000001)])
    settings = ZigbeeSettings("simulated", database=path, max_reconnect_wait_s=0.1)
    radio = ZigbeeRadio(settings, clock, radio_library(mesh, clock.now, interviewed=True))
    running = asyncio.create_task(radio.run(Nothing(), Nothing()))
    try:
        async with asyncio.timeout(20):
            while radio.status()["link"] != "up":
                assert not running.done()
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
        await asyncio.wait({running})


class Nothing:
    """A journal and an image store without anything in them."""

    async def load(self) -> list[Any]:
        return []

    async def commit(self, records: object, events: object) -> None: ...

    def progress(self, events: object, records: object = ()) -> None: ...

    def read(self, digest: str, offset: int, length: int) -> bytes:
        raise NotImplementedError

    def size(self, digest: str) -> int:
        raise NotImplementedError
