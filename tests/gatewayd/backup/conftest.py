"""A gateway's state folder with something in all of it."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gatewayd.backup.take import take
from gatewayd.campaign.journal import put_record
from gatewayd.campaign.reports import gateway_report
from gatewayd.cloud import outbox
from gatewayd.store.database import Database
from radios.radio import Record
from tests.support import zigbee_backups

MADE = datetime(2026, 6, 1, 12, tzinfo=UTC)
GATEWAY = "gw-1"
PAYLOAD = "ab" * 32


def fill(db: sqlite3.Connection) -> None:
    outbox.new_epoch(db)
    outbox.append(db, [gateway_report("clock", "clock_untrusted", "", MADE.timestamp())])
    db.execute(
        "INSERT INTO campaign (id, topic, audience, revision, digest, envelope, release, state, adopted_at, updated_at)"
        " VALUES ('spring', 't', 'a', 1, 'd', x'00', 'r', 'running', 0, 0)"
    )
    for node, state in (("zigbee:00124b0000000001", "transferring"), ("zigbee:00124b0000000002", "updated")):
        db.execute(
            "INSERT INTO node_update (campaign, node, release, transfer, tier, target_version, state, resume, generation,"
            " since, updated_at) VALUES ('spring', ?, 'r', 't1', 0, 2, ?, 'pending', 5, 0, 0)",
            (node, state),
        )
    put_record(db, "lorawan", Record("network", "air/00800000a0000001/", 1, b"ledger"))


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """As a daemon leaves it that is killed: what was committed last is still in the log, as long as it is not closed."""
    folder = tmp_path / "old"
    for name in ("trust/metadata/root_history", "backups", "payloads"):
        (folder / name).mkdir(parents=True)
    database = Database.open(folder / "gatewayd.db")
    database._writer.execute("BEGIN")
    fill(database._writer)
    database._writer.execute("COMMIT")
    with closing(sqlite3.connect(folder / "zigbee.db")) as table:
        table.execute("CREATE TABLE devices (ieee TEXT)")
        table.commit()
    (folder / "trust/metadata/timestamp.json").write_text("{}")
    (folder / "trust/metadata/root_history/1.root.json").write_text("{}")
    (folder / "trust/.trusted.json.new").write_text("half a file")
    for day in (1, 2):
        (folder / f"backups/zigbee-2026060{day}T000000Z.json").write_text(json.dumps(zigbee_backups.zha()))
    (folder / f"payloads/{PAYLOAD}").write_bytes(b"firmware" * 20_000)
    (folder / f"payloads/{'cd' * 32}.part").write_bytes(b"half")
    (folder / "operator.token").write_text("secret of this machine")
    yield folder
    database.close()


@pytest.fixture
def made(state: Path, tmp_path: Path) -> Path:
    """A backup of it, with the payloads."""
    target = tmp_path / "gw-1.backup"
    take(state, GATEWAY, target, MADE, payloads=True)
    return target
