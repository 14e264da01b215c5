"""The status endpoint's questions to the store. Reads only; runs in the store's reading thread."""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, replace

from gatewayd.campaign import plan_rows
from gatewayd.campaign.plan_rows import PlanRow
from gatewayd.campaign.versions import KnownRelease, Versions

_UPDATE_COLUMNS = (
    *("campaign", "release", "transfer", "tier", "target_version", "state", "resume", "code", "detail", "attempt"),
    *("want", "version_before", "version", "confirmed", "size", "since", "updated_at", "reset_cause"),
)

# What a person wants to see of a node with several campaigns: what runs, else the last that did something, else the rest.
_RANK = """CASE WHEN state IN ('skipped', 'superseded', 'cancelled') THEN 2
                WHEN state IN ('updated', 'failed', 'rolled_back') THEN 1 ELSE 0 END"""


@dataclass(frozen=True, slots=True)
class Outbox:
    reports: int
    bytes: int
    oldest_at: float | None  # Unix seconds


@dataclass(frozen=True, slots=True)
class Count:
    """Node updates of a campaign in one tier and state; sums of bytes."""

    tier: int
    state: str
    nodes: int
    confirmed: int
    size: int


def outbox(db: sqlite3.Connection) -> Outbox:
    row = db.execute("SELECT count(*), coalesce(sum(bytes), 0), min(at) FROM outbox").fetchone()
    return Outbox(row[0], row[1], row[2])


def nodes_by_radio(db: sqlite3.Connection) -> dict[str, int]:
    return {row[0]: row[1] for row in db.execute("SELECT radio, count(*) FROM node GROUP BY radio ORDER BY radio")}


def campaigns(db: sqlite3.Connection, campaign: str | None = None) -> list[sqlite3.Row]:
    """Campaign rows with the `version` of their release, when that is verified; the newest first."""
    return db.execute(
        """SELECT c.*, CASE WHEN json_valid(CAST(r.body AS TEXT))
                            THEN json_extract(CAST(r.body AS TEXT), '$.version') END AS version
           FROM campaign c LEFT JOIN release r ON r.path = c.release
           WHERE ?1 IS NULL OR c.id = ?1 ORDER BY c.adopted_at DESC, c.id""",
        (campaign,),
    ).fetchall()


def versions(db: sqlite3.Connection) -> Versions:
    """Those of the releases that were verified here."""
    found = db.execute(
        """SELECT json_extract(body, '$.hardware') AS hardware, json_extract(body, '$.version') AS version,
                  json_extract(body, '$.sequence') AS sequence, json_extract(body, '$.node_version') AS node_version
           FROM (SELECT CAST(body AS TEXT) AS body FROM release) WHERE json_valid(body)"""
    ).fetchall()
    return Versions(
        KnownRelease(tuple(json.loads(row["hardware"])), row["version"], row["sequence"], row["node_version"])
        for row in found
        if all(row[name] is not None for name in ("hardware", "version", "sequence", "node_version"))
    )


def update_counts(db: sqlite3.Connection, live: Mapping[tuple[str, str], int]) -> dict[str, list[Count]]:
    """By campaign; `live` (confirmed bytes by transfer and node) replaces what is stored."""
    counts: dict[tuple[str, int, str], Count] = {}
    for row in db.execute(
        """SELECT campaign, tier, state, count(*) AS nodes, sum(confirmed) AS confirmed, sum(size) AS size
           FROM node_update GROUP BY campaign, tier, state ORDER BY campaign, tier, state"""
    ):
        key = (row["campaign"], row["tier"], row["state"])
        counts[key] = Count(row["tier"], row["state"], row["nodes"], row["confirmed"], row["size"])
    for (transfer, node), confirmed in live.items():
        row = db.execute(
            "SELECT campaign, tier, state, confirmed FROM node_update WHERE transfer = ? AND node = ?", (transfer, node)
        ).fetchone()
        if row is not None:
            key = (row["campaign"], row["tier"], row["state"])
            counts[key] = replace(counts[key], confirmed=counts[key].confirmed + confirmed - row["confirmed"])
    by_campaign: dict[str, list[Count]] = {}
    for (campaign, _, _), count in counts.items():
        by_campaign.setdefault(campaign, []).append(count)
    return by_campaign


def plans(db: sqlite3.Connection, campaign: str | None = None) -> dict[str, list[PlanRow]]:
    """By campaign, in the order of tiers."""
    found: dict[str, list[PlanRow]] = {}
    for plan in plan_rows.plans(db, campaign):
        found.setdefault(plan.campaign, []).append(plan)
    return found


def nodes(
    db: sqlite3.Connection, *, limit: int, offset: int, radio: str, state: str, campaign: str, search: str
) -> tuple[list[sqlite3.Row], int]:
    """A page of node rows, each with the columns of its most telling update as `u_*`; and how many there are in all."""
    columns = ", ".join(f"u.{name} AS u_{name}" for name in _UPDATE_COLUMNS)
    source = f"""
        FROM node n LEFT JOIN node_update u ON u.rowid = (
            SELECT rowid FROM node_update WHERE node = n.id AND (:campaign = '' OR campaign = :campaign)
            ORDER BY {_RANK}, updated_at DESC, campaign LIMIT 1
        )
        WHERE (:radio = '' OR n.radio = :radio)
          AND (:campaign = '' OR u.campaign IS NOT NULL)
          AND (:state = '' OR u.state = :state OR (:state = 'none' AND u.state IS NULL))
          AND (:search = '' OR instr(lower(n.id || ' ' || coalesce(n.name, '') || ' ' || coalesce(n.model, '')),
                                     lower(:search)))"""  # noqa: S608 - own column names; values are parameters
    values = {"radio": radio, "campaign": campaign, "state": state, "search": search, "limit": limit, "offset": offset}
    total = db.execute(f"SELECT count(*) {source}", values).fetchone()[0]
    page = db.execute(f"SELECT n.*, {columns} {source} ORDER BY n.id LIMIT :limit OFFSET :offset", values).fetchall()
    return page, total


def node(db: sqlite3.Connection, node_id: str) -> tuple[sqlite3.Row | None, list[sqlite3.Row]]:
    """The node's row, and all its updates."""
    row = db.execute("SELECT * FROM node WHERE id = ?", (node_id,)).fetchone()
    updates = db.execute(
        f"SELECT * FROM node_update WHERE node = ? ORDER BY {_RANK}, updated_at DESC, campaign",  # noqa: S608 - own text
        (node_id,),
    ).fetchall()
    return row, updates
