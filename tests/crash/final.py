"""The state in which a campaign has ended, as far as it must not depend on whether and when the gateway was killed."""

import hashlib
import sqlite3
from pathlib import Path
from typing import Any

from gatewayd.campaign.node_update import ENDED, State
from gatewayd.campaign.rows import CampaignState
from gatewayd.store import witness
from tests.crash.world import World

# Whether a node was heard running the version that it rolled back from ("reverted") is a matter of when, as the gateway was
# away meanwhile or not; so is what was known of a node when it was cancelled (see the query), and what a gateway was heard to
# send in the band of the nodes' uplinks, in answer to them: nothing waits for that to be stored.

_OVER = frozenset({CampaignState.COMPLETED, CampaignState.CANCELLED})

_TABLES = {
    "campaign": "SELECT id, topic, audience, revision, digest, release, state, code, detail, hold, open_tiers, gate FROM campaign",
    "node_update": "SELECT campaign, node, release, transfer, tier, target_version, state, resume, CASE WHEN state != 'rolled_back' THEN code END, attempt, want,"
    " version_before, CASE WHEN state != 'cancelled' THEN version END, CASE WHEN state != 'cancelled' THEN confirmed END,"
    " size, revision, first_attempt FROM node_update",
    "node": "SELECT id, radio, hardware, version, power, joined, security_version FROM node",
    "release": "SELECT path, hex(body) FROM release",
    "radio_record": "SELECT radio, scope, key, version, secret FROM radio_record WHERE key NOT LIKE 'air/%/868.%'",
    "outbox": "SELECT kind FROM outbox",
}


def describe(state: Path, world: World) -> dict[str, Any]:
    """Rows, files, nodes and what the cloud was told; the store must be closed."""
    store = sqlite3.connect(state / "gatewayd.db")
    try:
        tables = {name: sorted(map(list, store.execute(query)), key=repr) for name, query in _TABLES.items()}
    finally:
        store.close()
    told = [report for report in world.told() if report.kind != "progress"]
    return {
        "tables": tables,
        "troubles": world.troubles,
        "faults": world.faults(),
        "guarded": _guarded(state / "gatewayd.witness"),
        "payloads": _files(state / "payloads"),
        "trust": sorted(_files(state / "trust")),
        "nodes": world.nodes(),
        "outcomes": sorted(
            [r.campaign or "", r.node, r.state, "" if r.state == State.ROLLED_BACK else r.code]
            for r in told
            if r.node and r.state in ENDED
        ),
        "campaigns": sorted([r.campaign or "", r.state, r.code] for r in told if r.node is None and r.state in _OVER),
    }


def _guarded(path: Path) -> dict[str, Any]:
    """What the witness beside the store holds; its mark rises with every start."""
    held = witness.read(path)
    assert held is not None
    return {"floors": dict(held.floors), "campaigns": {name: list(found) for name, found in held.campaigns.items()}}


def _files(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
