"""Going on from a backup: everything in its place or nothing, gaps in all counters, and nobody's state is ever deleted."""

import contextlib
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from gatewayd.backup import archive, swap
from gatewayd.backup.restore import GENERATION_GAP, WITNESS, look, restore, restored
from gatewayd.backup.take import take
from gatewayd.errors import Refused, StoreError
from gatewayd.store.database import Database, schema_version
from gatewayd.store.lock import StateLock
from gatewayd.store.witness import Guarded, Witness, _dumped, guarded
from radios.radio import Json, Record
from tests.gatewayd.backup.conftest import GATEWAY, MADE, PAYLOAD
from tests.support import zigbee_backups

NOW = MADE.timestamp() + 3600.0


def again(made: Path, state: Path, radios: dict[str, Any] | None = None, **options: Any) -> Any:
    return restore(made, state, GATEWAY, options.pop("now", NOW), radios or {}, **options)


@contextmanager
def store(state: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(state / "gatewayd.db")) as db:
        db.row_factory = sqlite3.Row
        yield db


def files(folder: Path) -> dict[str, bytes]:
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {name: data for name, data in found.items() if name != "lock"}


def test_everything_is_in_its_place(made: Path, state: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    done = again(made, new)
    assert done.network_backup == "backups/zigbee-20260602T000000Z.json"
    assert done.aside is None
    found, before = files(new), files(state)
    same = [name for name in found if name not in ("gatewayd.db", "zigbee.db")]
    assert sorted(same) == [
        "backups/zigbee-20260602T000000Z.json",
        f"payloads/{PAYLOAD}",
        "trust/metadata/root_history/1.root.json",
        "trust/metadata/timestamp.json",
    ]
    assert all(found[name] == before[name] for name in same)
    assert all(p.stat().st_mode & 0o077 == 0 for p in (new, *new.rglob("*")))


def test_every_counter_leaves_a_gap_and_the_store_is_marked(made: Path, state: Path, tmp_path: Path) -> None:
    asked: list[Any] = []

    def after(records: list[Record], made_at: float, now: float, network: Json) -> list[Record]:
        asked.append((records, made_at, now, network))
        return [Record("network", "air/00800000a0000001/", 1, b"fuller"), Record("network", "more", 1, b"x", True)]

    again(made, tmp_path / "new", {"lorawan": after, "zigbee": lambda r, m, n, network: asked.append(network) or []})
    assert asked[0] == ([Record("network", "air/00800000a0000001/", 1, b"ledger")], MADE.timestamp(), NOW, None)
    assert asked[1] == zigbee_backups.zha(), "the newest backup of the network"
    with store(state) as old, store(tmp_path / "new") as new:
        epochs = [
            int(db.execute("SELECT value FROM meta WHERE key = 'outbox_epoch'").fetchone()[0]) for db in (old, new)
        ]
        assert epochs[1] > epochs[0]
        assert [tuple(row) for row in new.execute("SELECT state, generation FROM node_update ORDER BY node")] == [
            ("transferring", 5 + GENERATION_GAP),
            ("updated", 5),
        ]
        records = {row["key"]: bytes(row["value"]) for row in new.execute("SELECT * FROM radio_record")}
        assert records == {"air/00800000a0000001/": b"fuller", "more": b"x"}
        mark = restored(new)
        assert (mark["made_at"], mark["at"], mark["gateway"]) == (
            "2026-06-01T12:00:00+00:00",
            "2026-06-01T13:00:00+00:00",
            GATEWAY,
        )
        assert restored(old) == {}
        told = [json.loads(row["body"]) for row in new.execute("SELECT body FROM outbox ORDER BY seq")]
        assert [report["code"] for report in told] == ["clock_untrusted", "restored"], (
            "what was not acknowledged goes too"
        )


def test_a_radio_is_told_by_its_own_clock(made: Path, state: Path, tmp_path: Path) -> None:
    """Which the steps of the old machine's wall clock did not move."""
    with store(state) as db, db:
        db.execute("INSERT INTO meta (key, value) VALUES ('radio_time.ahead_s', '1000.5')")
    target = tmp_path / "stepped.backup"
    take(state, GATEWAY, target, MADE)
    asked: list[float] = []
    again(target, tmp_path / "new", {"lorawan": lambda r, made_at, now, n: asked.extend((made_at, now)) or []})
    assert asked == [MADE.timestamp() - 1000.5, NOW - 1000.5]


def test_an_old_store_is_migrated(state: Path, tmp_path: Path) -> None:
    with store(state) as db:
        db.execute("PRAGMA user_version = 1")
        for column in ("revision", "first_attempt", "installing_at", "reset_cause", "install_at"):
            db.execute(f"ALTER TABLE node_update DROP COLUMN {column}")
        db.execute("ALTER TABLE node DROP COLUMN reset_cause_at")
        db.execute("ALTER TABLE campaign DROP COLUMN evidence")
        db.execute("DROP TABLE transfer_plan")
        db.execute("ALTER TABLE node DROP COLUMN details")
        db.commit()
    take(state, GATEWAY, tmp_path / "b", MADE)
    again(tmp_path / "b", tmp_path / "new")
    with store(tmp_path / "new") as db:
        assert db.execute("PRAGMA user_version").fetchone()[0] == schema_version()
        assert db.execute("SELECT count(*) FROM node_update").fetchone()[0] == 2


async def test_what_a_state_that_is_set_aside_has_seen_still_holds(made: Path, state: Path) -> None:
    """And no start after the restore, here or on a new machine, takes it for an old database that somebody put back."""
    node = "zigbee:00124b0000000001"
    guard = Guarded(mark=9, floors={node: 3}, campaigns={"spring": (7, "d7")})
    (state / WITNESS).write_bytes(_dumped(guard))
    again(made, state, force=True)
    again(made, state.parent / "elsewhere")
    for folder, floor in ((state, 3), (state.parent / "elsewhere", 0)):
        database = Database.open(folder / "gatewayd.db")
        guardian = Witness(folder / WITNESS, database)
        await guardian.examine(lambda db, detail: None)
        assert guardian.trouble is None
        held = await database.read(guarded)
        assert (held.floors.get(node, 0), held.campaigns["spring"][0]) == (floor, 7 if floor else 1)
        database.close()


def test_a_damaged_witness_goes_aside_with_its_state(made: Path, state: Path) -> None:
    (state / WITNESS).write_text("rotten")
    done = again(made, state, force=True)
    assert (done.aside / WITNESS).read_text() == "rotten"
    assert not (state / WITNESS).exists()


# -- refusals --------------------------------------------------------------------------------------------------------


def test_a_daemon_that_runs_there_is_not_disturbed(made: Path, state: Path) -> None:
    before = files(state)
    with StateLock(state), pytest.raises(StoreError, match=rf"in use by another gatewayd \(process {os.getpid()}\)"):
        again(made, state, force=True)
    assert files(state) == before


def test_a_state_that_is_there_is_kept_unless_told(made: Path, state: Path) -> None:
    before = files(state)
    with pytest.raises(StoreError, match="is not empty"):
        again(made, state)
    assert files(state) == before

    done = again(made, state, force=True)
    assert done.aside == state / "replaced-1"
    assert files(state / "replaced-1") == before, "with its log: without it the store would be an older one"
    assert "operator.token" not in {p.name for p in state.iterdir()}
    assert again(made, state, force=True).aside == state / "replaced-2"
    assert files(state / "replaced-1") == before


@pytest.mark.parametrize("dry", [True, False])
def test_a_backup_of_another_gateway(made: Path, tmp_path: Path, dry: bool) -> None:
    def attempt(**options: Any) -> None:
        if dry:
            look(made, "gw-2", None, **options)
        else:
            restore(made, tmp_path / "new", "gw-2", NOW, {}, **options)

    with pytest.raises(Refused, match="is of gateway gw-1, this one is gw-2") as refused:
        attempt()
    assert refused.value.code == "wrong_gateway"
    assert swap.present(tmp_path / "new") == []
    attempt(other_gateway=True)


def test_a_newer_schema_is_refused_before_anything_is_written(state: Path, tmp_path: Path) -> None:
    with store(state) as db:
        db.execute(f"PRAGMA user_version = {schema_version() + 1}")
    take(state, GATEWAY, tmp_path / "b", MADE)
    with pytest.raises(Refused, match="is newer than") as refused:
        again(tmp_path / "b", tmp_path / "new")
    assert refused.value.code == "newer"
    assert swap.present(tmp_path / "new") == []


def test_a_tampered_file_changes_nothing(made: Path, state: Path) -> None:
    raw = bytearray(made.read_bytes())
    at = raw.rindex(b"firmware")
    raw[at] ^= 1
    made.write_bytes(raw)
    before = files(state)
    for attempt in (lambda: look(made, GATEWAY, None), lambda: again(made, state, force=True)):
        with pytest.raises(Refused, match=f"payloads/{PAYLOAD}: is not what the manifest says"):
            attempt()
    assert files(state) == before, "nor is left of it what was good"


def test_a_clock_in_the_past_is_said(made: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="in the future: set this machine's clock"):
        again(made, tmp_path / "new", now=MADE.timestamp() - 86400)
    assert swap.present(tmp_path / "new") == []


def test_a_sealed_backup_needs_its_passphrase(state: Path, tmp_path: Path) -> None:
    take(state, GATEWAY, tmp_path / "b", MADE, passphrase="correct horse", payloads=True)
    assert b"firmware" not in (tmp_path / "b").read_bytes()
    with pytest.raises(Refused, match="sealed by a passphrase"):
        look(tmp_path / "b", GATEWAY, None)
    with pytest.raises(Refused, match="another passphrase"):
        again(tmp_path / "b", tmp_path / "new", passphrase="correct house")
    assert swap.present(tmp_path / "new") == []
    again(tmp_path / "b", tmp_path / "new", passphrase="correct horse")
    assert (tmp_path / "new" / "payloads" / PAYLOAD).exists()


def test_a_sealed_backup_is_not_believed_before_its_last_piece(state: Path, tmp_path: Path) -> None:
    take(state, GATEWAY, tmp_path / "b", MADE, passphrase="correct horse")
    (tmp_path / "b").write_bytes((tmp_path / "b").read_bytes()[:-20])
    with pytest.raises(Refused):
        look(tmp_path / "b", GATEWAY, "correct horse")


def test_looking_writes_nothing(made: Path, tmp_path: Path) -> None:
    before = sorted(p.name for p in tmp_path.iterdir())
    assert look(made, GATEWAY, None).gateway == GATEWAY
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nothing-here"):
        look(tmp_path / "nothing-here", GATEWAY, None)


def test_a_store_without_its_tables_is_refused(made: Path, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    with closing(sqlite3.connect(tmp_path / "s" / "gatewayd.db")) as db:
        db.execute(f"PRAGMA user_version = {schema_version()}")
    manifest = look(made, GATEWAY, None).model_copy(
        update={"members": (archive.member(tmp_path / "s", "gatewayd.db"),)}
    )
    with (tmp_path / "b").open("wb") as file:
        archive.write(file, manifest, lambda name: tmp_path / "s" / name)
    with pytest.raises(Refused, match=r"gatewayd\.db: no such table"):
        again(tmp_path / "b", tmp_path / "new")
    assert files(tmp_path / "new") == {}


def test_a_store_that_is_corrupt_within_is_refused(made: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "s.db")) as db:
        db.execute(f"PRAGMA user_version = {schema_version() - 1}")
    entry = archive.Member(name="gatewayd.db", size=0, sha256="0" * 64)
    manifest = look(made, GATEWAY, None)
    (tmp_path / "s").mkdir()
    (tmp_path / "s.db").rename(tmp_path / "s" / "gatewayd.db")
    entry = archive.member(tmp_path / "s", "gatewayd.db")
    with (tmp_path / "b").open("wb") as file:
        archive.write(file, manifest.model_copy(update={"members": (entry,)}), lambda name: tmp_path / "s" / name)
    with pytest.raises(Refused, match="not of the schema"):
        again(tmp_path / "b", tmp_path / "new")
    assert swap.present(tmp_path / "new") == []


# -- interruptions ---------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """As SIGKILL: nobody handles it."""


@contextmanager
def killed_after(changes: int) -> Iterator[None]:
    """The process ends before its so many-th change of a folder."""
    left = [changes]

    def counted(real: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return real(*arguments, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in ("rename", "mkdir", "rmdir"):
            patch.setattr(os, name, counted(getattr(os, name)))
        yield


def test_it_may_be_killed_at_any_moment(made: Path, state: Path, tmp_path: Path) -> None:
    """Either the old state is all there, or the next start makes the new one whole; the old one is in one folder then."""
    old = files(state)
    kept = new = after = 0
    done = False
    while not done:
        copy = tmp_path / f"copy-{after}"
        shutil.copytree(state, copy)
        with contextlib.suppress(Killed), killed_after(after):
            again(made, copy, force=True)
            done = True
        with StateLock(copy):
            swap.finish(copy)  # what the daemon does at its start
        now = {n: d for n, d in files(copy).items() if not n.startswith((swap.NEW, swap.REPLACED))}
        if now == old:
            kept += 1
            assert again(made, copy, force=True).aside is not None, "and the next attempt succeeds"
        else:
            new += 1
        with store(copy) as db:
            assert restored(db)
        assert {p.name for p in copy.iterdir()} == {
            *("lock", "gatewayd.db", "zigbee.db", "trust", "backups", "payloads", "replaced-1")
        }
        assert files(copy / "replaced-1") == old
        after += 1
    assert min(kept, new) > 10


async def test_the_restored_store_is_one_that_a_daemon_opens(made: Path, tmp_path: Path) -> None:
    again(made, tmp_path / "new")
    database = Database.open(tmp_path / "new" / "gatewayd.db")
    assert database.set_aside is None
    assert (await database.read(restored))["gateway"] == GATEWAY
    database.close()
