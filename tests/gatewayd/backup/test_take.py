"""What is in a backup, whoever is writing meanwhile."""

import sqlite3
import stat
import tarfile
import threading
from contextlib import closing
from pathlib import Path

import pytest

from gatewayd.backup.take import _WORK, _work_folder, file_name, take
from gatewayd.errors import StoreError
from gatewayd.store.database import Database
from gatewayd.store.snapshot import snapshot
from tests.gatewayd.backup.conftest import GATEWAY, MADE, PAYLOAD


def names(backup: Path) -> list[str]:
    with tarfile.open(backup) as tar:
        return tar.getnames()


def test_store_trust_zigbee_and_the_newest_network_are_in_it(state: Path, tmp_path: Path) -> None:
    manifest = take(state, GATEWAY, tmp_path / "b", MADE)
    assert names(tmp_path / "b") == [
        "manifest.json",
        "gatewayd.db",
        "zigbee.db",
        "trust/metadata/root_history/1.root.json",
        "trust/metadata/timestamp.json",
        "backups/zigbee-20260602T000000Z.json",
    ]
    assert (manifest.gateway, manifest.made_at, manifest.format) == (GATEWAY, MADE, 1)
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == [], "nothing is left beside it"


def test_whole_payloads_are_in_it_when_they_are_wanted(made: Path) -> None:
    assert [name for name in names(made) if name.startswith("payloads/")] == [f"payloads/{PAYLOAD}"]


def test_what_is_in_the_log_of_a_store_is_in_it(state: Path, made: Path, tmp_path: Path) -> None:
    assert (state / "gatewayd.db-wal").stat().st_size > 0
    with tarfile.open(made) as tar:
        tar.extract("gatewayd.db", tmp_path, filter="data")
    with closing(sqlite3.connect(tmp_path / "gatewayd.db")) as db:
        assert db.execute("SELECT count(*) FROM node_update").fetchone() == (2,)
        assert db.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_a_copy_holds_whole_transactions_while_others_write(tmp_path: Path) -> None:
    """Pairs are written together: a copy with half of one would be torn."""
    database = Database.open(tmp_path / "s.db")
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            database._writer.execute("BEGIN IMMEDIATE")
            for half in "ab":
                row = (f"{number}{half}", "x" * 2000)
                database._writer.execute("INSERT INTO meta VALUES (?, ?)", row)
            database._writer.execute("COMMIT")
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        counts = []
        for copy in range(20):
            snapshot(tmp_path / "s.db", tmp_path / f"{copy}.db")
            with closing(sqlite3.connect(tmp_path / f"{copy}.db")) as db:
                counts.append(db.execute("SELECT count(*) FROM meta").fetchone()[0])
    finally:
        stop.set()
        writer.join()
        database.close()
    assert all(count % 2 == 0 for count in counts)
    assert counts[-1] > counts[0], "the writer was not kept waiting"


def test_a_backup_is_never_written_over(state: Path, made: Path) -> None:
    before = made.read_bytes()
    with pytest.raises(StoreError, match="exists already"):
        take(state, GATEWAY, made, MADE)
    assert made.read_bytes() == before


def test_a_corrupt_store_makes_no_backup(state: Path, tmp_path: Path) -> None:
    raw = bytearray((state / "zigbee.db").read_bytes())
    raw[100:200] = b"\xff" * 100
    (state / "zigbee.db").write_bytes(raw)
    with pytest.raises(StoreError, match=r"zigbee\.db"):
        take(state, GATEWAY, tmp_path / "b", MADE)
    assert not (tmp_path / "b").exists()


def test_where_no_daemon_has_run_there_is_nothing_to_back_up(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no gatewayd has run here"):
        take(tmp_path, GATEWAY, tmp_path / "b", MADE)


def test_a_folder_that_is_not_there_is_said(state: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nowhere"):
        take(state, GATEWAY, tmp_path / "nowhere" / "b", MADE)


def test_its_name_says_whose_and_when() -> None:
    assert file_name("gw-1", MADE) == "gatewayd-gw-1-20260601T120000Z.backup"


def test_what_a_killed_backup_left_is_removed_and_what_another_one_works_on_stays(state: Path, tmp_path: Path) -> None:
    """It holds the store, with its keys, and each time it would take more of the disk."""
    folder = tmp_path / "disk"
    folder.mkdir()
    with _work_folder(folder) as used:
        (used / "gatewayd.db").write_text("keys")
        (folder / f"{_WORK}killed").mkdir()
        (folder / f"{_WORK}killed" / "gatewayd.db").write_text("keys")
        (folder / "mine").mkdir()
        take(state, GATEWAY, folder / "b", MADE)
        assert {path.name for path in folder.iterdir()} == {"b", "mine", used.name}
        assert (used / "gatewayd.db").exists()
    assert {path.name for path in folder.iterdir()} == {"b", "mine"}
