"""The store file: durable, versioned, and never thrown away."""

import asyncio
import os
import sqlite3
from pathlib import Path

import pytest

from gatewayd.errors import StoreError
from gatewayd.store.database import Database, schema_version


async def count(database: Database) -> int:
    return int(await database.read(lambda db: db.execute("SELECT count(*) FROM meta").fetchone()[0]))


async def test_what_was_written_is_there_after_reopening(tmp_path: Path) -> None:
    first = Database.open(tmp_path / "state" / "gatewayd.db")
    await first.write(lambda db: db.execute("INSERT INTO meta VALUES ('a', '1')"))
    first.close()
    second = Database.open(tmp_path / "state" / "gatewayd.db")
    assert await count(second) == 1
    assert second.set_aside is None
    second.close()


async def test_a_failing_transaction_leaves_nothing_behind(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "s.db")

    def work(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO meta VALUES ('a', '1')")
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        await database.write(work)
    assert await count(database) == 0
    await database.write(lambda db: db.execute("INSERT INTO meta VALUES ('b', '2')"))
    assert await count(database) == 1
    database.close()


async def test_a_cancelled_writer_neither_blocks_nor_breaks_the_next(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "s.db")
    task = asyncio.create_task(database.write(lambda db: db.execute("INSERT INTO meta VALUES ('a', '1')")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await database.write(lambda db: db.execute("INSERT INTO meta VALUES ('b', '2')"))
    assert await count(database) == 2
    database.close()


async def test_writes_are_synchronous_and_the_reader_cannot_write(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "s.db")
    assert await database.write(lambda db: db.execute("PRAGMA synchronous").fetchone()[0]) == 2
    assert await database.write(lambda db: db.execute("PRAGMA journal_mode").fetchone()[0]) == "wal"
    with pytest.raises(StoreError, match="readonly"):
        await database.read(lambda db: db.execute("DELETE FROM meta"))
    database.close()


def test_a_newer_schema_is_refused_and_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    Database.open(path).close()
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {schema_version() + 1}")
    db.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"schema \d+ is newer"):
        Database.open(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", ["header", "middle"])
async def test_a_corrupt_file_is_set_aside_and_said_so(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "s.db"
    database = Database.open(path)
    for n in range(200):
        key = f"{n}" * 50
        await database.write(lambda db, key=key: db.execute("INSERT INTO meta VALUES (?, ?)", (key, "x" * 200)))
    database.close()
    content = bytearray(path.read_bytes())
    where = 0 if damage == "header" else len(content) // 2
    content[where : where + 5000] = b"\xa5" * 5000
    path.write_bytes(content)
    database = Database.open(path)
    assert database.set_aside is not None
    assert database.set_aside.read_bytes() == bytes(content)
    assert await count(database) == 0
    database.close()


def test_a_locked_or_unreadable_place_is_no_corruption(tmp_path: Path) -> None:
    (tmp_path / "s.db").mkdir()
    with pytest.raises(StoreError):
        Database.open(tmp_path / "s.db")
    assert (tmp_path / "s.db").is_dir()


async def test_nobody_else_may_read_it_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        (tmp_path / "old.db").touch(0o644)
        for name in ("new.db", "old.db"):
            database = Database.open(tmp_path / name)
            await database.write(lambda db: db.execute("INSERT INTO meta VALUES ('a', 'b')"))
            modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob(f"{name}*")}
            assert modes == dict.fromkeys((name, f"{name}-wal", f"{name}-shm"), 0o600)
            database.close()
    finally:
        os.umask(before)
