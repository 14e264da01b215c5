"""The SQLite file: opening, checking, migrating, and who may touch it when.

All writes happen in one thread, one transaction each (WAL, synchronous=FULL: durable on return); reads have a connection
and a thread of their own and see the last commit. What the tables mean is the business of the rooms that use them.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Self, TypeVar

from gatewayd.errors import StoreError

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]


class Database:
    """The open store. Use `await write(work)` and `await read(work)`; `work` gets a connection and returns plain data."""

    def __init__(
        self, path: Path, writer: sqlite3.Connection, reader: sqlite3.Connection, set_aside: Path | None
    ) -> None:
        self.path = path
        self.set_aside = set_aside  # where a corrupt predecessor was moved to
        self._writer = writer
        self._reader = reader
        self._write_thread = ThreadPoolExecutor(1, "store-writer")
        self._read_thread = ThreadPoolExecutor(1, "store-reader")

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open or make the file. A corrupt one is moved aside (see `set_aside`), never deleted.

        StoreError when the schema is newer than this program, or the file cannot be opened.
        """
        set_aside = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists() and not _healthy(path):
                set_aside = _move_aside(path)
            _keep_private(path)
            writer = _connect(path)
            _migrate(writer, path)
            reader = _connect(path)
            reader.execute("PRAGMA query_only = ON")
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{path}: {error}") from error
        return cls(path, writer, reader, set_aside)

    async def write(self, work: Work[T]) -> T:
        """Run `work` in one transaction; durable on return, rolled back on any exception."""

        def transaction() -> T:
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                try:
                    result = work(self._writer)
                    self._writer.execute("COMMIT")
                except BaseException:
                    if self._writer.in_transaction:
                        self._writer.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise StoreError(f"{self.path}: {error}") from error
            return result

        # Shielded: a cancelled caller must not leave the thread in the middle of a transaction it cannot see.
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._write_thread, transaction))

    async def read(self, work: Work[T]) -> T:
        """Run `work` on the reading connection."""

        def query() -> T:
            try:
                return work(self._reader)
            except sqlite3.Error as error:
                raise StoreError(f"{self.path}: {error}") from error

        return await asyncio.get_running_loop().run_in_executor(self._read_thread, query)

    def close(self) -> None:
        """Wait for running work, then close; the WAL is folded back into the file."""
        self._read_thread.shutdown()
        self._write_thread.shutdown()
        self._reader.close()
        self._writer.close()


def schema_version() -> int:
    """The newest schema this program knows."""
    return len(_migrations())


def _connect(path: Path) -> sqlite3.Connection:
    # The thread pools hold one thread each, so every connection has one user at a time.
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def _keep_private(path: Path) -> None:
    """It holds multicast keys: nobody else reads it, whatever the umask. SQLite gives its log the same mode."""
    if not path.exists():
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    for part in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        if part.exists() and part.stat().st_mode & 0o077:
            part.chmod(0o600)


def _healthy(path: Path) -> bool:
    try:
        connection = sqlite3.connect(path, timeout=5.0)
        try:
            return bool(connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",))
        finally:
            connection.close()
    except sqlite3.OperationalError:
        raise  # locked or not readable: that is no corruption, and moving the file would lose it
    except sqlite3.DatabaseError:
        return False


def _move_aside(path: Path) -> Path:
    number = 1
    while (target := path.with_name(f"{path.name}.corrupt-{number}")).exists():
        number += 1
    # The file itself first: without it SQLite drops a log that a crash leaves behind, while the file without its log would
    # be an older state, with counters that were used already.
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(target.with_name(target.name + suffix))
    return target


def _migrations() -> list[str]:
    folder = resources.files("gatewayd.store") / "schema"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)
    return [f.read_text() for f in files]


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    known = _migrations()
    (at,) = connection.execute("PRAGMA user_version").fetchone()
    if at > len(known):
        raise StoreError(f"{path}: schema {at} is newer than {len(known)}, the newest this gatewayd knows; not touched")
    for number in range(at, len(known)):
        connection.executescript(f"BEGIN;\n{known[number]}\nPRAGMA user_version = {number + 1};\nCOMMIT;")
