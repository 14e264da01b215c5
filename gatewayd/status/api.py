"""What the status endpoint tells: the store's rows, and what only lives in memory, as plain JSON objects.

Responsible for queries and for the shape of the answers (described in openapi.py); not for HTTP, and it changes nothing
but through `LiveView`. Times are ISO 8601 in UTC; those of nodes are on their radio's clock. No secrets.
"""

import base64
import binascii
import json
import math
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Protocol

from gatewayd.campaign.node_update import ENDED, EXECUTED
from gatewayd.campaign.plan_rows import PlanRow
from gatewayd.campaign.versions import Versions
from gatewayd.cloud import messages
from gatewayd.errors import Refused
from gatewayd.service.logging import without_secrets
from gatewayd.service.version import version
from gatewayd.status import queries
from gatewayd.store.database import Database
from radios.radio import CommandResult, Json, NodeCommand

LIMIT_DEFAULT = 100
LIMIT_MOST = 500

Object = dict[str, Json]
Live = Mapping[tuple[str, str], int]
"""Confirmed bytes by (transfer, node), newer than the store's."""


class LiveView(Protocol):
    """What the running daemon knows beyond its tables, and the few things an operator may ask of it."""

    def gateway(self) -> Mapping[str, Json]:
        """About the gateway: `id`, and objects such as `clock`, `trust`, `payload`. Shown as they are; no secrets."""
        ...

    def radios(self) -> Mapping[str, Mapping[str, Json]]:
        """`Radio.status()` by kind."""
        ...

    def cloud(self) -> Mapping[str, Json]:
        """The link: `connected` (bool) and what else is known."""
        ...

    def live_progress(self) -> Live:
        """Confirmed bytes by (transfer, node) that are not in the store yet."""
        ...

    def ready(self) -> list[str]:
        """Why the daemon cannot do its work now, each in words; empty when it can."""
        ...

    async def hold(self, campaign: str) -> bool:
        """The operator's hold, durable on return; False when there is no such campaign."""
        ...

    async def resume(self, campaign: str) -> bool:
        """Lift the operator's hold, and nothing else; False when there is no such campaign."""
        ...

    async def command(self, kind: str, command: NodeCommand) -> CommandResult:
        """To a radio that `radios()` names. RadioError when it cannot be done now."""
        ...

    async def back_up(self, kind: str) -> str:
        """Keep a backup of the network of a radio that `radios()` names; the file's name. RadioError when there is none."""
        ...


@dataclass(frozen=True, slots=True)
class NodeFilter:
    """Which nodes, and which part of them. Empty texts do not filter."""

    limit: int = LIMIT_DEFAULT
    offset: int = 0
    radio: str = ""
    state: str = ""  # of the node's update; "none": without one
    campaign: str = ""
    search: str = ""  # part of id, name or model


class StatusApi:
    """The answers. Every method may raise StoreError."""

    def __init__(self, database: Database, live: LiveView) -> None:
        self._database = database
        self.live = live

    async def gateway(self) -> Object:
        outbox, nodes = await self._database.read(lambda db: (queries.outbox(db), queries.nodes_by_radio(db)))
        reasons = await self.not_ready()
        return {
            **_object(self.live.gateway()),
            "version": version(),
            "ready": not reasons,
            "reasons": list(reasons),
            "cloud": _object(self.live.cloud()),
            "radios": {kind: _object(status) for kind, status in self.live.radios().items()},
            "outbox": {"reports": outbox.reports, "bytes": outbox.bytes, "oldest_at": _time(outbox.oldest_at)},
            "nodes": dict(nodes.items()),
            "store": {"corrupt_file_set_aside": self._database.set_aside is not None},
        }

    async def not_ready(self) -> list[str]:
        """Reasons; a store that cannot be read raises."""
        await self._database.read(lambda db: db.execute("SELECT 1 FROM meta LIMIT 1").fetchall())
        return self.live.ready()

    async def campaigns(self) -> Object:
        live = self.live.live_progress()
        rows, counts, plans = await self._database.read(  # one read: nothing moves in between
            lambda db: (queries.campaigns(db), queries.update_counts(db, live), queries.plans(db))
        )
        return {"campaigns": [_campaign(row, counts.get(row["id"], []), plans.get(row["id"], [])) for row in rows]}

    async def campaign(self, campaign: str) -> Object | None:
        """As in the list, with the signed document."""
        live = self.live.live_progress()
        rows, counts, plans = await self._database.read(
            lambda db: (queries.campaigns(db, campaign), queries.update_counts(db, live), queries.plans(db, campaign))
        )
        if not rows:
            return None
        document = signed_document(rows[0]["envelope"])
        return {
            **_campaign(rows[0], counts.get(campaign, []), plans.get(campaign, [])),
            "document": None if document is None else document.model_dump(mode="json"),
        }

    async def nodes(self, wanted: NodeFilter) -> Object:
        (rows, total), versions = await self._database.read(
            lambda db: (
                queries.nodes(
                    db,
                    limit=wanted.limit,
                    offset=wanted.offset,
                    radio=wanted.radio,
                    state=wanted.state,
                    campaign=wanted.campaign,
                    search=wanted.search,
                ),
                queries.versions(db),
            )
        )
        live = self.live.live_progress()
        nodes: list[Json] = [{**_node(row, versions), "update": _update_of(row, versions, live)} for row in rows]
        return {"total": total, "limit": wanted.limit, "offset": wanted.offset, "nodes": nodes}

    async def node(self, node: str) -> Object | None:
        """The node with its update in every campaign, the newest first."""
        live = self.live.live_progress()
        (row, updates), versions = await self._database.read(lambda db: (queries.node(db, node), queries.versions(db)))
        if row is None:
            return None
        shown: list[Json] = [_update(update, row["hardware"], versions, live) for update in updates]
        return {**_node(row, versions), "updates": shown}


def jsonable(value: object) -> Json:
    """The value as JSON can say it: no NaN, no bytes, texts for what is none; secrets replaced."""
    return _jsonable(without_secrets(value))


def signed_document(envelope: bytes) -> messages.Campaign | None:
    """What a stored envelope says, to be shown; who signed it is trust's business. None when it cannot be read."""
    try:
        payload = base64.b64decode(json.loads(envelope)["payload"])
        return messages.parse(messages.Campaign, payload, "campaign")
    except (ValueError, KeyError, TypeError, binascii.Error, Refused):
        return None


def _campaign(row: sqlite3.Row, counts: Iterable[queries.Count], plans: Iterable[PlanRow]) -> Object:
    counts = list(counts)
    document = signed_document(row["envelope"])
    states: dict[str, int] = {}
    for count in counts:
        states[count.state] = states.get(count.state, 0) + count.nodes
    moving = [count for count in counts if count.state not in ("skipped", "superseded", "cancelled")]
    return {
        "id": row["id"],
        "audience": row["audience"],
        "revision": row["revision"],
        "release": row["release"],
        "version": row["version"],
        "state": row["state"],
        "code": row["code"],
        "detail": row["detail"],
        "held": bool(row["hold"]),
        "desired": None if document is None else document.desired.value,
        "issued": None if document is None else _time(document.issued.timestamp()),
        "expires": None if document is None else _time(document.expires.timestamp()),
        "adopted_at": _time(row["adopted_at"]),
        "updated_at": _time(row["updated_at"]),
        "gate": {
            "state": row["gate"],
            "rule": None if document is None else document.rollout.gate.model_dump(mode="json"),
        },
        "open_tiers": row["open_tiers"],
        "tiers": _tiers(document, row["open_tiers"], counts),
        "nodes": dict(sorted(states.items())),
        "executed": sum(c.nodes for c in counts if c.state in EXECUTED),
        "ended": sum(c.nodes for c in counts if c.state in ENDED),
        "total": sum(c.nodes for c in counts),
        "confirmed_bytes": sum(c.confirmed for c in moving),
        "size_bytes": sum(c.size for c in moving),
        "plan": [_plan(document, plan) for plan in plans],
    }


def _plan(document: messages.Campaign | None, plan: PlanRow) -> Json:
    names = [] if document is None else [tier.name for tier in document.rollout.tiers]
    parts: list[Json] = [dict(part) for part in plan.parts]
    return {
        "tier": names[plan.tier] if plan.tier < len(names) else f"tier {plan.tier}",
        "radio": plan.radio,
        "payload": plan.kind,
        "size": plan.size,
        "nodes": len(plan.nodes),
        "skipped": plan.skipped,
        "reasons": dict(plan.reasons),
        "frames": plan.frames,
        "airtime_s": plan.airtime_s,
        "eta_s": plan.eta_s,
        "node_energy_j": plan.node_energy_j,
        "parts": parts,
        "assumptions": plan.assumptions,
        "problem": plan.problem,
        "made_at": _time(plan.made_at),
    }


def _tiers(document: messages.Campaign | None, open_tiers: int, counts: Iterable[queries.Count]) -> list[Json]:
    by_tier: dict[int, dict[str, Json]] = {}
    for count in counts:
        by_tier.setdefault(count.tier, {})[count.state] = count.nodes
    if document is None:
        return [
            {"name": f"tier {tier}", "percent": None, "open": tier < open_tiers, "nodes": by_tier[tier]}
            for tier in sorted(by_tier)
        ]
    return [
        {"name": tier.name, "percent": tier.percent, "open": index < open_tiers, "nodes": by_tier.get(index, {})}
        for index, tier in enumerate(document.rollout.tiers)
    ]


def _node(row: sqlite3.Row, versions: Versions) -> Object:
    plain = (
        "id radio name manufacturer model hardware hardware_version version power battery_percent lqi rssi_dbm snr_db "
        "reset_cause security_version"
    )
    return {
        **{name: row[name] for name in plain.split()},
        "firmware": None if row["version"] is None else versions.name(row["hardware"], row["version"]),
        "version_at": _time(row["version_at"]),
        "battery_at": _time(row["battery_at"]),
        "sleepy": None if row["sleepy"] is None else bool(row["sleepy"]),
        "joined": None if row["joined"] is None else bool(row["joined"]),
        "tags": _stored(row["tags"]),
        "details": _stored(row["details"]),
        "first_seen": _time(row["first_seen"]),
        "last_seen": _time(row["last_seen"] or None),
    }


def _stored(text: str) -> Json:
    try:
        return jsonable(json.loads(text))
    except ValueError:
        return {}


def _update_of(row: sqlite3.Row, versions: Versions, live: Live) -> Json:
    return None if row["u_campaign"] is None else _update(row, row["hardware"], versions, live, "u_")


def _update(row: sqlite3.Row, hardware: str | None, versions: Versions, live: Live, prefix: str = "") -> Object:
    def value(name: str) -> Json:
        return row[prefix + name]  # type: ignore[no-any-return] # a column of SQLite

    size = int(row[prefix + "size"])
    node = row["id"] if prefix else row["node"]
    confirmed = live.get((row[prefix + "transfer"], node), int(row[prefix + "confirmed"]))
    return {
        **{name: value(name) for name in ("campaign", "release", "tier", "state", "code", "detail", "attempt", "want")},
        "resume": value("resume") if value("state") == "deferred" else None,
        "version_before": value("version_before"),
        "version": value("version"),
        "target_version": value("target_version"),
        "target_firmware": versions.name(hardware, row[prefix + "target_version"]),
        "reset_cause": value("reset_cause") or None,
        "confirmed": confirmed,
        "size": size,
        "percent": round(100 * min(confirmed, size) / size, 1) if size else None,
        "since": _time(row[prefix + "since"]),
        "updated_at": _time(row[prefix + "updated_at"]),
    }


def _object(value: Mapping[str, Json]) -> Object:
    plain = jsonable(dict(value))
    return plain if isinstance(plain, dict) else {}


def _jsonable(value: object) -> Json:
    match value:
        case Enum():
            return _jsonable(value.value)
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case datetime():
            return _time(value.timestamp())
        case bytes() | bytearray():
            return value.hex()
        case Mapping():
            return {str(key): _jsonable(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_jsonable(item) for item in value]
        case _:
            return str(value)


def _time(when: float | None) -> str | None:
    if when is None:
        return None
    try:
        return datetime.fromtimestamp(when, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return None
