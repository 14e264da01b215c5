"""Going on from a backup: verified as a whole, made ready beside what is there, then put in its place. SHELL.

Whoever made the backup may have gone on for long. So every counter leaves a gap, the outbox opens a new epoch, and the
radios are told (`after_restore` of each) before the daemon runs on it. Old and new hardware must never run at the same
time; that they do not is for the operator to say.
"""

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Protocol

import structlog

from gatewayd.backup import archive, swap
from gatewayd.backup.archive import Manifest
from gatewayd.backup.sealed import MAGIC, Opener, is_sealed
from gatewayd.campaign.journal import put_record, records_of
from gatewayd.campaign.node_update import ENDED
from gatewayd.campaign.radio_time import stored_ahead_s
from gatewayd.campaign.reports import gateway_report
from gatewayd.cloud import outbox
from gatewayd.cloud.messages import utc
from gatewayd.errors import Refused, StoreError
from gatewayd.folders import replace_file
from gatewayd.store import witness
from gatewayd.store.database import Database, schema_version
from gatewayd.store.lock import StateLock
from gatewayd.store.snapshot import check
from radios.radio import Json, Record

GENERATION_GAP: Final = 1000  # directives that a node can have been given since
CLOCK_TOLERANCE_S: Final = 300.0
META_KEY: Final = "restored"
WITNESS: Final = "gatewayd.witness"


log = structlog.get_logger()


class AfterRestore(Protocol):
    """Of one radio: the records that replace others. `made_at` and `now` are by its clock, as far as labs let; `network`: of its newest backup."""

    def __call__(self, records: list[Record], made_at: float, now: float, network: Json) -> list[Record]: ...


@dataclass(frozen=True, slots=True)
class Restored:
    manifest: Manifest
    network_backup: str | None  # name in the state folder; None: the backup has none
    aside: Path | None  # where the state is that was there before


def look(file: Path, gateway: str, passphrase: str | None, *, other_gateway: bool = False) -> Manifest:
    """Verify the whole file and write nothing. Refused (bad_backup, sealed, wrong_gateway, newer), StoreError."""
    with _opened(file, passphrase) as source:
        return _read(source, None, file, gateway, other_gateway=other_gateway)


def restore(
    file: Path,
    state: Path,
    gateway: str,
    now: float,
    radios: dict[str, AfterRestore],
    *,
    passphrase: str | None = None,
    other_gateway: bool = False,
    force: bool = False,
) -> Restored:
    """Put the backup in the place of what is in `state`. `now`: Unix seconds. Errors as `look`, with nothing changed.

    StoreError too when a daemon runs there, or when there is a state and not `force`, which sets that aside.
    """
    with StateLock(state):
        try:
            swap.finish(state)  # of an attempt before, that was decided
            if (found := swap.present(state)) and not force:
                raise StoreError(f"{state}: is not empty ({', '.join(found[:5])}): --force sets what is there aside")
            with _made_ready(state) as new:
                with _opened(file, passphrase) as source:
                    manifest = _read(source, new, file, gateway, other_gateway=other_gateway)
                made_at = manifest.made_at.timestamp()
                if now < made_at - CLOCK_TOLERANCE_S:
                    # How much the old hardware can have done since is reckoned from the backup's age.
                    raise StoreError(
                        f"{file}: made at {manifest.made_at}, in the future: set this machine's clock first"
                    )
                network = _network_backup(manifest)
                _prepare(new, manifest, max(now, made_at), radios, network, _witness(state, new))
                swap.decide(state)
            aside = swap.finish(state)
        except OSError as error:
            raise StoreError(f"{state}: {error}") from error
        except sqlite3.Error as error:
            raise Refused("bad_backup", f"{file}: {archive.STORE}: {error}") from error
    return Restored(manifest, network, aside)


def finish(state: Path) -> None:
    """A restore that was decided and interrupted: what it left is neither the old state nor the new one. StoreError."""
    try:
        if (aside := swap.finish(state)) is not None:
            log.warning("restore_finished", set_aside=str(aside))
    except OSError as error:
        raise StoreError(f"{state}: a restore cannot be finished: {error}") from error


def restored(db: sqlite3.Connection) -> dict[str, str]:
    """When the store was restored, and when its backup was made; empty: never."""
    row = db.execute("SELECT value FROM meta WHERE key = ?", (META_KEY,)).fetchone()
    return dict(json.loads(row["value"])) if row else {}


@contextmanager
def _made_ready(state: Path) -> Iterator[Path]:
    """The folder for the new state. What was refused leaves nothing behind: it may be as large as the disk, and holds keys."""
    new = swap.begin(state)
    try:
        yield new
    except Exception:
        shutil.rmtree(new, ignore_errors=True)
        raise


@contextmanager
def _opened(file: Path, passphrase: str | None) -> Iterator[archive.Source]:
    try:
        with file.open("rb") as raw:
            sealed = is_sealed(raw.read(len(MAGIC)))
            raw.seek(0)
            yield _source(raw, passphrase, sealed=sealed)
    except OSError as error:
        raise StoreError(f"{file}: {error}") from error
    except Refused as error:
        raise Refused(error.code, f"{file}: {error.detail}") from None


def _source(raw: IO[bytes], passphrase: str | None, *, sealed: bool) -> archive.Source:
    if not sealed:
        return raw
    if passphrase is None:
        raise Refused("sealed", "is sealed by a passphrase: --passphrase-file")
    return Opener(raw, passphrase)


def _read(source: archive.Source, folder: Path | None, file: Path, gateway: str, *, other_gateway: bool) -> Manifest:
    def accept(manifest: Manifest) -> None:
        if manifest.gateway != gateway and not other_gateway:
            raise Refused("wrong_gateway", f"is of gateway {manifest.gateway}, this one is {gateway}: --other-gateway")
        if manifest.store_schema > schema_version():
            raise Refused(
                "newer",
                f"was made by gatewayd {manifest.program}: schema {manifest.store_schema} is newer than "
                f"{schema_version()}, the newest that this gatewayd knows",
            )

    return archive.read(source, folder, accept)


def _network_backup(manifest: Manifest) -> str | None:
    return next((m.name for m in manifest.members if m.name.startswith("backups/")), None)


def _witness(state: Path, new: Path) -> witness.Guarded | None:
    """What the state that is here has seen holds in the new one too. A damaged witness goes aside with its state."""
    path = state / WITNESS
    try:
        guarded = witness.read(path)
    except Refused as error:
        log.warning("witness_not_read", error=error.detail)
        return None
    if guarded is not None:
        replace_file(new / WITNESS, path.read_bytes())
    return guarded


def _prepare(
    new: Path,
    manifest: Manifest,
    now: float,
    radios: dict[str, AfterRestore],
    network_backup: str | None,
    guarded: witness.Guarded | None,
) -> None:
    """Everything that must be so before a daemon runs on it."""
    path = new / archive.STORE
    if check(path) != manifest.store_schema:
        raise Refused("bad_backup", f"{archive.STORE}: is not of the schema that the manifest says")
    Database.open(path).close()  # migrated
    network = None if network_backup is None else _json(new / network_backup)
    made_at = manifest.made_at.timestamp()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA synchronous = FULL")
        db.execute("BEGIN IMMEDIATE")
        outbox.new_epoch(db)
        witness.accept(db, guarded)
        ended = ", ".join("?" * len(ENDED))
        db.execute(
            f"UPDATE node_update SET generation = generation + ? WHERE state NOT IN ({ended})",  # noqa: S608 - marks
            (GENERATION_GAP, *sorted(ENDED)),
        )
        ahead_s = stored_ahead_s(db)
        for kind, after_restore in radios.items():
            by_it = made_at - ahead_s, now - ahead_s
            for record in after_restore(records_of(db, kind), *by_it, network if kind == "zigbee" else None):
                put_record(db, kind, record)
        mark = {"made_at": utc(made_at).isoformat(), "at": utc(now).isoformat(), "gateway": manifest.gateway}
        db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (META_KEY, json.dumps(mark)))
        detail = f"from a backup of {mark['made_at']}"
        outbox.append(db, [gateway_report("store", "restored", detail, now)])
        db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _json(path: Path) -> Json:
    try:
        value: Json = json.loads(path.read_bytes())
    except ValueError:
        raise Refused("bad_backup", f"{path.name}: is no JSON") from None
    return value
