"""What the daemon does when its database turns out to be an older one: the cloud is told, and takes new reports as new.

The witness beside the database shows it at the start. Where both were put back together, the cloud's own memory does: it has
acknowledged a report that this database never made.
"""

import sqlite3
from pathlib import Path

import structlog

from gatewayd.campaign.commands import Resender, standing
from gatewayd.cloud.messages import Acks
from gatewayd.cloud.outbox import Outbox, append, new_epoch
from gatewayd.health import tell_now
from gatewayd.service.wall_clock import WallClock
from gatewayd.store.database import Database
from gatewayd.store.witness import ROLLED_BACK, Witness

log = structlog.get_logger()


async def examined(database: Database, path: Path, wall: WallClock) -> Witness:
    """The witness beside the database, which has seen it: before anything else of the store is read."""

    def rolled_back(db: sqlite3.Connection, detail: str) -> None:
        new_epoch(db)
        code = ROLLED_BACK if database.set_aside is None else "store_corrupt"
        tell_now(db, "store", code, detail, wall.now())

    witness = Witness(path, database)
    await witness.examine(rolled_back)
    return witness


def watch_acks(outbox: Outbox, database: Database, link: Resender, witness: Witness, wall: WallClock) -> None:
    """From now on an acknowledgement that proves the database to be an old one opens a new epoch, in which all is told again."""

    async def beyond(acks: Acks, sent: int) -> None:
        now = wall.now()
        detail = (
            f"the cloud holds report {acks.seq} of epoch {acks.epoch}, of which this store has made {sent} and no more: an"
            " older copy of the whole state was put back; floors of nodes may have gone back with it"
        )

        def transaction(db: sqlite3.Connection) -> int:
            epoch = new_epoch(db)
            tell_now(db, "store", ROLLED_BACK, detail, now)
            append(db, standing(db, now))
            return epoch

        await outbox.adopt(await database.write(transaction))
        witness.trouble = ROLLED_BACK, detail
        log.error(ROLLED_BACK, detail=detail)
        link.resend()

    outbox.beyond = beyond
