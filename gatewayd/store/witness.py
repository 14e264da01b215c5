"""A second copy of what must never go back, in a file of its own: it tells when an old database was put back.

It holds the security floor of every node, the newest revision of every campaign, and a mark that rises with each of them and
with each start. The mark is in the database too, in the transaction of what it guards; the file is replaced after that
transaction. So it may be behind the database (a crash in between), and is then made anew; it is never ahead of it, unless
the database is an older one. Not responsible for the database itself (`database.py`), nor for who put the old one back.
"""

import asyncio
import hashlib
import json
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from gatewayd.errors import Refused, StoreError
from gatewayd.folders import replace_file
from gatewayd.store.database import Database

ROLLED_BACK = "store_rolled_back"
LOST = "witness_lost"

_MARK = "witness.mark"
_AWAITED = "witness.awaited"
_FORMAT = 1
_FIRST_MARK = 1  # of a database that guards nothing yet

Revision = tuple[int, str]  # and the digest of its signed payload

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Guarded:
    """What must never go back."""

    mark: int = 0
    floors: Mapping[str, int] = field(default_factory=dict)  # by node
    campaigns: Mapping[str, Revision] = field(default_factory=dict)

    def missing_from(self, other: "Guarded") -> str:
        """In words, what of this `other` does not know; empty when there is nothing."""
        floors = sum(floor > other.floors.get(node, 0) for node, floor in self.floors.items())
        campaigns = sum(held[0] > other.campaigns.get(name, (0, ""))[0] for name, held in self.campaigns.items())
        if self.mark <= other.mark and not floors and not campaigns:
            return ""
        return f"at mark {other.mark} instead of {self.mark}, {floors} floors and {campaigns} revisions are older"

    def with_(self, other: "Guarded") -> "Guarded":
        """The newest of both."""
        floors = {n: max(self.floors.get(n, 0), other.floors.get(n, 0)) for n in {*self.floors, *other.floors}}
        campaigns = {
            name: max((side.campaigns[name] for side in (self, other) if name in side.campaigns), key=lambda r: r[0])
            for name in {*self.campaigns, *other.campaigns}
        }
        return Guarded(max(self.mark, other.mark), floors, campaigns)


class Witness:
    """One per daemon. `trouble`: (code, detail) of what was found at the start, None when nothing was."""

    def __init__(self, path: Path, database: Database) -> None:
        self._path = path
        self._database = database
        self._turn = asyncio.Lock()
        self.trouble: tuple[str, str] | None = None

    async def examine(self, rolled_back: Callable[[sqlite3.Connection, str], None]) -> None:
        """At the start, before the store is used. An old database keeps the floors and refuses the revisions of the newer one.

        `rolled_back(db, detail)` is called inside the transaction that sees to it.
        """

        def transaction(db: sqlite3.Connection) -> tuple[str, str] | None:
            held = guarded(db)
            try:
                witness = read(self._path)
            except Refused as error:
                touch(db)
                return LOST, f"{error.detail}; made anew from the database"
            if witness is None:
                # At the first mark the first start, and any after it, ended between its transaction and the file: the mark
                # stays there until the file is seen.
                if held.mark != _FIRST_MARK:
                    touch(db)
                lost = held.mark > _FIRST_MARK
                return (LOST, f"{self._path.name} is gone; made anew from the database") if lost else None
            detail = witness.missing_from(held)
            if detail:
                accept(db, witness)
                rolled_back(db, detail)
            touch(db)
            return (ROLLED_BACK, f"an older database was put back, or the newer one lost: {detail}") if detail else None

        self.trouble = await self._database.write(transaction)
        if self.trouble is not None:
            log.error(self.trouble[0], detail=self.trouble[1])
        await self.write()

    async def write(self) -> None:
        """After a transaction that raised a floor or adopted a revision. What fails is logged, and made good by the next."""
        async with self._turn:
            try:
                held = await self._database.write(guarded)
                await asyncio.to_thread(replace_file, self._path, _dumped(held))
            except (OSError, StoreError) as error:
                log.error("witness_not_written", error=str(error))


def touch(db: sqlite3.Connection) -> None:
    """Inside a transaction that raises a floor or adopts a revision; `Witness.write` follows it."""
    db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (_MARK, str(_mark(db) + 1)))


def awaited(db: sqlite3.Connection) -> dict[str, Revision]:
    """Campaigns of which a newer revision was adopted than the database knows: by a database that was lost."""
    row = db.execute("SELECT value FROM meta WHERE key = ?", (_AWAITED,)).fetchone()
    found = json.loads(row["value"]) if row else {}
    return {name: (revision, digest) for name, (revision, digest) in found.items()}


def check_revision(db: sqlite3.Connection, campaign: str, revision: int, digest: str) -> None:
    """Refused("replayed") for a revision older than an awaited one, Refused("conflict") for the same with other bytes."""
    known, held = awaited(db).get(campaign, (0, ""))
    if revision < known:
        raise Refused("replayed", f"campaign {campaign}: revision {revision} after {known}, which a lost database knew")
    if revision == known and digest != held:
        raise Refused("conflict", f"campaign {campaign}: revision {revision} comes with other bytes than once before")


def accept(db: sqlite3.Connection, witness: Guarded | None) -> None:
    """Inside a transaction of a database that is older by intention, or found to be: nothing that is guarded goes back.

    For a restore: `accept(db, read(path))` before the daemon starts, and it raises no alarm; None where there is no witness,
    on a new machine.
    """
    if witness is None:
        db.execute("DELETE FROM meta WHERE key = ?", (_MARK,))  # as one that never had a witness
        return
    merged = guarded(db).with_(witness)
    for node, floor in merged.floors.items():
        db.execute(
            "INSERT INTO node (id, radio, first_seen, last_seen, security_version) VALUES (?, ?, 0, 0, ?)"
            " ON CONFLICT (id) DO UPDATE SET security_version = max(security_version, excluded.security_version)",
            (node, node.partition(":")[0], floor),
        )
    rows = {row["id"]: row["revision"] for row in db.execute("SELECT id, revision FROM campaign")}
    newer = {name: held for name, held in merged.campaigns.items() if held[0] > rows.get(name, 0)}
    db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (_AWAITED, json.dumps(newer)))
    db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (_MARK, str(merged.mark + 1)))


def guarded(db: sqlite3.Connection) -> Guarded:
    """What the database knows, with the revisions that it awaits."""
    nodes = db.execute("SELECT id, security_version FROM node WHERE security_version > 0")
    campaigns = db.execute("SELECT id, revision, digest FROM campaign")
    held = Guarded(
        _mark(db),
        {row["id"]: row["security_version"] for row in nodes},
        {row["id"]: (row["revision"], row["digest"]) for row in campaigns},
    )
    return held.with_(Guarded(campaigns=awaited(db)))


def read(path: Path) -> Guarded | None:
    """The witness; None when there is none. Refused("tampered") when it is damaged, StoreError when it cannot be read."""
    try:
        stored = json.loads(path.read_bytes())
        body = stored["guarded"]
        if stored["format"] != _FORMAT or stored["sha256"] != _digest(body):
            raise Refused("tampered", f"{path.name} is damaged")
        campaigns = {name: (int(revision), str(digest)) for name, (revision, digest) in body["campaigns"].items()}
        return Guarded(int(body["mark"]), {node: int(floor) for node, floor in body["floors"].items()}, campaigns)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path}: {error}") from error
    except (ValueError, TypeError, KeyError, AttributeError):
        raise Refused("tampered", f"{path.name} is damaged") from None


def _mark(db: sqlite3.Connection) -> int:
    row = db.execute("SELECT value FROM meta WHERE key = ?", (_MARK,)).fetchone()
    return int(row["value"]) if row else 0


def _dumped(held: Guarded) -> bytes:
    body = {
        "mark": held.mark,
        "floors": dict(held.floors),
        "campaigns": {n: list(r) for n, r in held.campaigns.items()},
    }
    return json.dumps({"format": _FORMAT, "sha256": _digest(body), "guarded": body}, sort_keys=True).encode()


def _digest(body: object) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
