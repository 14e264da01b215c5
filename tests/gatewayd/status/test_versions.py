"""Versions as people see them: those of the releases that are known here, else what the node reports."""

import json
import sqlite3
from typing import Any

import pytest

from gatewayd.status.api import NodeFilter, StatusApi
from gatewayd.store.database import Database

KITCHEN = "zigbee:00124b0000000002"


@pytest.fixture
async def api(filled: Database, daemon: Any) -> StatusApi:
    """The nodes report 5; the campaign brings 6, of which release 1.10.0 is known."""

    def work(db: sqlite3.Connection) -> None:
        for version, sequence, node_version in (("1.9.0", 9, 5), ("1.10.0", 10, 6)):
            body = {"hardware": ["zigbee:x"], "version": version, "sequence": sequence, "node_version": node_version}
            path = f"releases/known/{version}.json"
            db.execute("INSERT INTO release VALUES (?, ?, 0)", (path, json.dumps(body).encode()))

    await filled.write(work)
    return StatusApi(filled, daemon)


async def test_a_known_release_has_its_version(api: StatusApi) -> None:
    listed = (await api.nodes(NodeFilter(search="kitchen")))["nodes"]
    assert isinstance(listed, list)
    node: Any = listed[0]
    assert (node["version"], node["firmware"]) == (5, "1.9.0")
    assert (node["update"]["target_version"], node["update"]["target_firmware"]) == (6, "1.10.0")
    detail: Any = await api.node(KITCHEN)
    assert (detail["firmware"], detail["updates"][0]["target_firmware"]) == ("1.9.0", "1.10.0")


async def test_a_release_for_other_hardware_or_none_is_not_guessed(api: StatusApi) -> None:
    listed: Any = (await api.nodes(NodeFilter(radio="lorawan")))["nodes"]
    assert {node["firmware"] for node in listed} == {None}
    unheard: Any = await api.node("zigbee:00124b00000000ff")
    assert unheard["firmware"] is None


async def test_a_rollback_tells_the_cause_of_the_reset(api: StatusApi, filled: Database) -> None:
    sql = "UPDATE node_update SET reset_cause = 'watchdog' WHERE state = 'rolled_back'"
    await filled.write(lambda db: db.execute(sql))
    listed: Any = (await api.nodes(NodeFilter()))["nodes"]
    told = {node["update"]["state"]: node["update"]["reset_cause"] for node in listed if node["update"]}
    assert (told["rolled_back"], told["deferred"]) == ("watchdog", None)
