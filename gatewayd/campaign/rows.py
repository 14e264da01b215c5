"""The `campaign`, `release` and `node_update` tables: rows in and out, nothing decided here."""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from operator import attrgetter

from gatewayd.campaign.node_update import NodeUpdate, State

_NAMES = NodeUpdate.__slots__
_COLUMNS = ", ".join(_NAMES)
_STATE, _RESUME = _NAMES.index("state"), _NAMES.index("resume")
_SELECT_UPDATES = f"SELECT {_COLUMNS} FROM node_update WHERE "  # noqa: S608 - own names
_values = attrgetter(*_NAMES)
# Not INSERT OR REPLACE: that rewrites every index, and flash wears out.
_PUT_UPDATE = (
    f"INSERT INTO node_update ({_COLUMNS}, updated_at) VALUES ({', '.join('?' for _ in _NAMES)}, ?) "  # noqa: S608 - own names
    "ON CONFLICT (campaign, node) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in (*_NAMES, "updated_at") if name not in {"campaign", "node"})
)


class CampaignState(StrEnum):
    """What a campaign does on this gateway. Stored and reported; never rename."""

    WAITING = "waiting"  # verified, but its release or payload is not there yet; `code` says why
    RUNNING = "running"
    PAUSED = "paused"  # the cloud said so
    HELD = "held"  # the local operator said so
    BREACHED = "breached"  # a gate said so
    COMPLETED = "completed"  # every node that it means has an outcome
    CANCELLED = "cancelled"  # the cloud said so, for good
    EXPIRED = "expired"  # no new node starts


@dataclass(frozen=True, slots=True)
class CampaignRow:
    """A campaign as stored: the signed envelope, and what this gateway has made of it."""

    id: str
    topic: str
    audience: str
    revision: int
    digest: str
    envelope: bytes
    release: str
    state: CampaignState
    code: str
    detail: str
    hold: bool
    open_tiers: int
    gate: str
    adopted_at: float
    updated_at: float
    evidence: str = ""  # JSON of what the gate saw that paused it in this revision; empty: it did not


def campaigns(db: sqlite3.Connection) -> list[CampaignRow]:
    return [_campaign(row) for row in db.execute("SELECT * FROM campaign ORDER BY adopted_at, id")]


def campaign(db: sqlite3.Connection, campaign_id: str) -> CampaignRow | None:
    row = db.execute("SELECT * FROM campaign WHERE id = ?", (campaign_id,)).fetchone()
    return _campaign(row) if row else None


def put_campaign(db: sqlite3.Connection, row: CampaignRow) -> None:
    """Insert or replace, all but the operator's hold."""
    names = CampaignRow.__slots__
    updates = ", ".join(f"{name} = excluded.{name}" for name in names if name not in {"id", "hold"})
    db.execute(
        f"INSERT INTO campaign ({', '.join(names)}) VALUES ({', '.join('?' for _ in names)}) "  # noqa: S608 - own names
        f"ON CONFLICT (id) DO UPDATE SET {updates}",
        tuple(getattr(row, name) for name in names),
    )


def set_hold(db: sqlite3.Connection, campaign_id: str, hold: bool) -> bool:
    """The operator's hold; False when there is no such campaign."""
    return db.execute("UPDATE campaign SET hold = ? WHERE id = ?", (hold, campaign_id)).rowcount == 1


def releases(db: sqlite3.Connection) -> dict[str, bytes]:
    return {row["path"]: bytes(row["body"]) for row in db.execute("SELECT path, body FROM release")}


def put_release(db: sqlite3.Connection, path: str, body: bytes, verified_at: float) -> None:
    db.execute("INSERT OR REPLACE INTO release (path, body, verified_at) VALUES (?, ?, ?)", (path, body, verified_at))


def updates_of_campaign(db: sqlite3.Connection, campaign_id: str) -> dict[str, NodeUpdate]:
    rows = db.execute(_SELECT_UPDATES + "campaign = ? ORDER BY node", (campaign_id,))
    return {row["node"]: _update(row) for row in rows}


def update_of_transfer(db: sqlite3.Connection, transfer: str, node: str) -> NodeUpdate | None:
    row = db.execute(_SELECT_UPDATES + "transfer = ? AND node = ?", (transfer, node)).fetchone()
    return _update(row) if row else None


def active_elsewhere(db: sqlite3.Connection, campaign_id: str) -> dict[str, NodeUpdate]:
    """For every node that its radio handles for another campaign: that update. Rows nobody has acted on hold no node."""
    # Where one that is being dropped has been done without, the one that has the node now is told of.
    rows = db.execute(_SELECT_UPDATES + "campaign != ? AND want != '' ORDER BY want != 'drop'", (campaign_id,))
    return {row["node"]: _update(row) for row in rows}


def own_versions(db: sqlite3.Connection, campaign_id: str, nodes: Iterable[str]) -> dict[str, frozenset[int]]:
    """By node: the versions that other campaigns of this gateway may have brought it to, or back to."""
    found = {}
    for node in nodes:
        rows = db.execute(
            "SELECT target_version, version_before FROM node_update WHERE campaign != ? AND node = ? AND state IN "
            "('installing', 'confirming', 'updated', 'rolled_back', 'failed')",
            (campaign_id, node),
        )
        found[node] = frozenset(version for row in rows for version in row if version is not None)
    return found


def under_way(db: sqlite3.Connection) -> dict[str, frozenset[str]]:
    """By campaign: its transfers of which a radio is wanted something that needs the payload, or ends in an installation."""
    found: dict[str, set[str]] = {}
    for row in db.execute("SELECT DISTINCT campaign, transfer FROM node_update WHERE want NOT IN ('', 'drop')"):
        found.setdefault(row["campaign"], set()).add(row["transfer"])
    return {campaign: frozenset(transfers) for campaign, transfers in found.items()}


def put_updates(db: sqlite3.Connection, updates: Iterable[NodeUpdate], now: float) -> None:
    db.executemany(_PUT_UPDATE, [(*_values(update), now) for update in updates])


def put_progress(db: sqlite3.Connection, update: NodeUpdate, now: float) -> None:
    """Of an update that is there, and in which nothing else has changed."""
    db.execute(
        "UPDATE node_update SET confirmed = ?, updated_at = ? WHERE campaign = ? AND node = ?",
        (update.confirmed, now, update.campaign, update.node),
    )


def _campaign(row: sqlite3.Row) -> CampaignRow:
    values = {name: row[name] for name in CampaignRow.__slots__}
    values.update(state=CampaignState(row["state"]), hold=bool(row["hold"]), envelope=bytes(row["envelope"]))
    return CampaignRow(**values)


def _update(row: sqlite3.Row) -> NodeUpdate:
    """Of a row of `_COLUMNS`, by position: there are a hundred thousand of them where a site is big."""
    values = list(row)
    values[_STATE], values[_RESUME] = State(values[_STATE]), State(values[_RESUME])
    return NodeUpdate(*values)
