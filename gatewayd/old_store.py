"""What the daemon does when its database turns out to be an older one: the cloud is told, and takes new reports as new."""

import sqlite3
from pathlib import Path

from gatewayd.cloud.outbox import new_epoch
from gatewayd.health import tell_now
from gatewayd.service.wall_clock import WallClock
from gatewayd.store.database import Database
from gatewayd.store.witness import ROLLED_BACK, Witness


async def examined(database: Database, path: Path, wall: WallClock) -> Witness:
    """The witness beside the database, which has seen it: before anything else of the store is read."""

    def rolled_back(db: sqlite3.Connection, detail: str) -> None:
        new_epoch(db)
        code = ROLLED_BACK if database.set_aside is None else "store_corrupt"
        tell_now(db, "store", code, detail, wall.now())

    witness = Witness(path, database)
    await witness.examine(rolled_back)
    return witness
