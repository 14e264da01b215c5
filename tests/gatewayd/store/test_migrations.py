"""A store of an earlier schema is brought to the present one with all that is in it."""

import sqlite3
from importlib import resources
from pathlib import Path

from gatewayd.campaign import rows
from gatewayd.campaign.node_update import State
from gatewayd.nodes.inventory import Inventory
from gatewayd.store.database import Database, schema_version


async def test_updates_and_nodes_of_the_first_schema_are_still_there(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with sqlite3.connect(path) as db:
        db.executescript((resources.files("gatewayd.store") / "schema" / "0001.sql").read_text())
        db.execute("PRAGMA user_version = 1")
        db.execute(
            "INSERT INTO node (id, radio, reset_cause, first_seen, last_seen) VALUES ('zigbee:1', 'zigbee', 'soft', 0, 0)"
        )
        db.execute(
            "INSERT INTO campaign VALUES ('c', 't', 'gateway:g', 1, 'd', x'00', 'r', 'running', '', '', 0, 1, '', 0, 0)"
        )
        db.execute(
            "INSERT INTO node_update (campaign, node, release, transfer, tier, target_version, state, resume, attempt, since,"
            " updated_at) VALUES ('c', 'zigbee:1', 'r', 't', 0, 2, 'failed', 'failed', 2, 0, 0)"
        )
    db.close()
    database = Database.open(path)
    assert await database.read(lambda db: db.execute("PRAGMA user_version").fetchone()[0]) == schema_version()
    update = (await database.read(lambda db: rows.updates_of_campaign(db, "c")))["zigbee:1"]
    assert (update.state, update.attempt) == (State.FAILED, 2)
    assert (update.revision, update.first_attempt, update.installing_at, update.reset_cause) == (0, 1, 0.0, "")
    node = (await Inventory.load(database)).get("zigbee:1")
    assert node is not None
    assert (node.reset_cause, node.reset_cause_at) == ("soft", None)
    database.close()
