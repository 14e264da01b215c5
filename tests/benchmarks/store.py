"""A real gatewayd store with nodes in mid-transfer, for the benches that write progress."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from gatewayd.campaign import rows
from gatewayd.campaign.journal import RadioJournal
from gatewayd.campaign.node_update import NodeUpdate, State
from gatewayd.campaign.rows import CampaignRow, CampaignState
from gatewayd.service.wall_clock import WallClock
from gatewayd.store.database import Database
from radios.radio import Want

CAMPAIGN = "bench"
RELEASE = "releases/lamp/2.0.0.json"


async def store_in_transfer(path: Path, nodes: Sequence[str], transfer: str, size: int, version: int) -> Database:
    """A store where each node has an update in state `transferring`; close it in the end."""
    database = Database.open(path)
    campaign = CampaignRow(
        CAMPAIGN, "t", "gateway:g", 1, "0" * 64, b"{}", RELEASE, CampaignState.RUNNING, "", "", False, 1, "open", 0, 0
    )
    state = State.TRANSFERRING
    updates = [
        NodeUpdate(CAMPAIGN, node, RELEASE, transfer, 0, version, state, state, want=Want.DELIVER.value, size=size)
        for node in nodes
    ]

    def work(db: sqlite3.Connection) -> None:
        rows.put_campaign(db, campaign)
        rows.put_updates(db, updates, 0.0)

    await database.write(work)
    return database


def radio_journal(database: Database, kind: str) -> RadioJournal:
    """The daemon's journal of one radio; its own flushing is left to the caller."""
    return RadioJournal(kind, database, WallClock(assume_synchronised=True), lambda: None, lambda: None)
