"""A consistent copy of an SQLite file that others may be writing. SHELL.

By SQLite's own online backup, in one step: it sees the last commit, whether or not it is still in the write-ahead log, and
keeps no writer waiting.
"""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from gatewayd.errors import StoreError


def snapshot(source: Path, target: Path) -> None:
    """Copy to a new file (mode 0600), which is whole by itself. StoreError, also when the copy is corrupt."""
    try:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        uri = f"file:{quote(str(source.absolute()))}?mode=rw"
        with closing(sqlite3.connect(uri, uri=True, timeout=30.0)) as live, closing(sqlite3.connect(target)) as copy:
            live.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
        check(target)
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"{source}: cannot be copied: {error}") from error


def check(path: Path) -> int:
    """The schema's number. StoreError when the file is corrupt or is none of SQLite."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)) as copy:
            if copy.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                raise StoreError(f"{path.name}: is corrupt")
            return int(copy.execute("PRAGMA user_version").fetchone()[0])
    except sqlite3.Error as error:
        raise StoreError(f"{path.name}: {error}") from error
