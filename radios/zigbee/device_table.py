"""zigpy's own table of devices (SQLite), made whole or not at all. SHELL.

zigpy creates it statement by statement, with the schema's version first: a process killed meanwhile leaves a file that says
it is complete, and in which every later start misses a table, for ever. So it is made here, in one transaction, before
zigpy opens it. Not responsible for what is in it, nor for zigpy's migrations, which are transactions.
"""

import contextlib
import logging
import sqlite3
from pathlib import Path
from typing import Final

from zigpy.appdb import DB_VERSION
from zigpy.appdb_schemas import SCHEMAS

_NAMES: Final = "SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"

_LOG = logging.getLogger(__name__)


def make_device_table(path: Path) -> None:
    """Make the file, or finish one whose making was cut off; one that is complete, or holds anything, is not touched.

    Durable on return. sqlite3.Error, OSError.
    """
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        found = set(database.execute(_NAMES))
        if version and (version not in SCHEMAS or found >= _complete(version)):
            return
        tables = [name for kind, name in found if kind == "table"]
        if any(database.execute(f'SELECT 1 FROM "{name}" LIMIT 1').fetchone() for name in tables):  # noqa: S608 - from SQLite itself
            return  # zigpy judges it
        if version:
            _LOG.warning("Zigbee: %s was not finished by the process that made it, which is done now", path)
        dropped = "".join(f'DROP TABLE "{name}";\n' for name in tables)
        database.executescript(f"BEGIN IMMEDIATE;\n{dropped}{SCHEMAS[DB_VERSION]}\nCOMMIT;")


def _complete(version: int) -> set[tuple[str, str]]:
    """Tables and indexes of a version of the schema."""
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.executescript(SCHEMAS[version])
        return set(database.execute(_NAMES))
