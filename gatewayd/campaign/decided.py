"""Decisions into the database: the rows and the reports about them in the caller's transaction, together or not at all. SQL.

Nothing is decided here (`planner.py`), and nobody is told: that comes after the commit (`coordinator.py`).
"""

import sqlite3
from collections.abc import Mapping
from dataclasses import replace

from gatewayd.campaign import rows
from gatewayd.campaign.node_update import NodeUpdate
from gatewayd.campaign.reports import campaign_report, news_of, node_report
from gatewayd.campaign.rows import CampaignRow, CampaignState
from gatewayd.campaign.situation import Decision
from gatewayd.cloud import outbox
from gatewayd.cloud.messages import Report, dump
from radios.radio import Want

REVOKED = "revoked"  # code of a campaign whose key may not sign any more
_STANDING = frozenset({CampaignState.COMPLETED, CampaignState.CANCELLED, CampaignState.BREACHED})


def store(
    db: sqlite3.Connection, current: CampaignRow, before: Mapping[str, NodeUpdate], decision: Decision, now: float
) -> list[Report]:
    """What of the decision is news, written and reported; `before` are the campaign's updates as stored. The reports."""
    reports: list[Report] = []
    row = decision.row
    if decision.evidence is not None:
        row = replace(row, evidence=dump(decision.evidence).decode())
    told = (row.state, row.code, row.open_tiers)
    if told != (current.state, current.code, current.open_tiers):
        reports.append(campaign_report(row, now, decision.evidence))
    if replace(row, updated_at=current.updated_at) != current:
        rows.put_campaign(db, replace(row, updated_at=now))
    for update in decision.updates:
        old = before.get(update.node)
        if old is None or news_of(old) != news_of(update):
            reports.append(node_report(update, now))
    reports.extend(node_report(update, now) for update in decision.superseded)
    rows.put_updates(db, (*decision.updates, *decision.superseded), now)
    if reports:
        outbox.append(db, reports)
    return reports


def freeze(
    db: sqlite3.Connection, row: CampaignRow, code: str, detail: str, now: float
) -> tuple[CampaignRow, dict[str, NodeUpdate]] | None:
    """The campaign waits for `code`, and who could still take bytes is held. None: a newer revision was adopted meanwhile."""
    current = rows.campaign(db, row.id)
    if current is None or current.revision != row.revision:
        return None
    updates = rows.updates_of_campaign(db, row.id)
    held = {
        node: replace(update, want=Want.HOLD, install_at=0.0, generation=update.generation + 1)
        for node, update in updates.items()
        if update.needs_payload
    }
    rows.put_updates(db, held.values(), now)
    # What is over waits for nothing when its key is changed, and a breach lasts until the next revision.
    stands = code == REVOKED and current.state in _STANDING
    if current.code != code and not stands:
        current = replace(current, state=CampaignState.WAITING, code=code, detail=detail)
        rows.put_campaign(db, replace(current, updated_at=now))
        outbox.append(db, [campaign_report(current, now)])
    return current, updates | held
