from enum import StrEnum
from typing import Any

import pytest

from gatewayd.status.api import NodeFilter, StatusApi, jsonable, signed_document
from gatewayd.status.metrics import NUMBERS_MOST, numbers, render
from gatewayd.store.database import Database

KITCHEN = "zigbee:00124b0000000002"


@pytest.fixture
def api(filled: Database, daemon: Any) -> StatusApi:
    return StatusApi(filled, daemon)


async def test_live_progress_is_ahead_of_the_store(api: StatusApi, daemon: Any) -> None:
    before = await api.campaign("spring")
    daemon.progress[("spring/1", KITCHEN)] = 30_720
    after = await api.campaign("spring")
    assert before is not None
    assert after is not None
    assert after["confirmed_bytes"] == 142_880 - 20_000 + 30_720
    detail = await api.node(KITCHEN)
    assert detail is not None
    assert isinstance(detail["updates"], list)
    assert isinstance(detail["updates"][0], dict)
    assert (detail["updates"][0]["confirmed"], detail["updates"][0]["percent"]) == (30_720, 50.0)
    listed = await api.nodes(NodeFilter(search="kitchen"))
    assert isinstance(listed["nodes"], list)
    assert listed["nodes"][0]["update"]["percent"] == 50.0  # type: ignore[index,call-overload]


async def test_live_progress_of_nobody_known_is_ignored(api: StatusApi, daemon: Any) -> None:
    daemon.progress[("other", KITCHEN)] = 5
    campaign = await api.campaign("spring")
    assert campaign is not None
    assert campaign["confirmed_bytes"] == 142_880


async def test_tiers_have_the_names_of_the_signed_document(api: StatusApi) -> None:
    campaign = await api.campaign("spring")
    assert campaign is not None
    assert campaign["tiers"] == [
        {"name": "canary", "percent": 10.0, "open": True, "nodes": {"skipped": 1, "updated": 1}},
        {
            "name": "everyone",
            "percent": 100.0,
            "open": True,
            "nodes": {"deferred": 1, "rolled_back": 1, "transferring": 1},
        },
    ]
    assert (campaign["executed"], campaign["ended"], campaign["total"]) == (2, 3, 5)


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        (NodeFilter(radio="lorawan"), ["0001"]),
        (NodeFilter(radio="zigbee", limit=2, offset=1), ["0002", "0003"]),
        (NodeFilter(state="deferred"), ["0003"]),
        (NodeFilter(state="none"), ["00ff"]),
        (NodeFilter(campaign="field-test"), ["0001"]),
        (NodeFilter(campaign="spring", state="updated"), ["0001"]),
        (NodeFilter(search="GARAGE"), ["0004"]),
        (NodeFilter(search="%"), []),
        (NodeFilter(search="' OR 1=1 --"), []),
        (NodeFilter(offset=100), []),
    ],
)
async def test_nodes_are_filtered_and_paged(api: StatusApi, wanted: NodeFilter, ids: list[str]) -> None:
    answer = await api.nodes(wanted)
    assert isinstance(answer["nodes"], list)
    assert [node["id"][-4:] for node in answer["nodes"]] == ids  # type: ignore[index,call-overload]


async def test_the_total_does_not_depend_on_the_page(api: StatusApi) -> None:
    assert (await api.nodes(NodeFilter(limit=1)))["total"] == 6
    assert (await api.nodes(NodeFilter(limit=1, offset=50, radio="zigbee")))["total"] == 5


async def test_an_update_that_did_something_is_shown_before_a_superseded_one(api: StatusApi) -> None:
    answer = await api.nodes(NodeFilter(search="hall"))
    assert isinstance(answer["nodes"], list)
    assert answer["nodes"][0]["update"]["state"] == "updated"  # type: ignore[index,call-overload]
    detail = await api.node("zigbee:00124b0000000001")
    assert detail is not None
    assert isinstance(detail["updates"], list)
    assert [update["campaign"] for update in detail["updates"]] == ["spring", "field-test"]  # type: ignore[index,call-overload]


@pytest.mark.parametrize("envelope", [b"", b"{", b"[]", b'{"payload": "!!"}', b'{"payload": "e30="}', b"\xff"])
async def test_an_envelope_that_cannot_be_read_is_no_error(api: StatusApi, filled: Database, envelope: bytes) -> None:
    assert signed_document(envelope) is None
    await filled.write(lambda db: db.execute("UPDATE campaign SET envelope = ?", (envelope,)))
    campaign = await api.campaign("spring")
    assert campaign is not None
    assert (campaign["desired"], campaign["document"]) == (None, None)
    assert [tier["name"] for tier in campaign["tiers"]] == ["tier 0", "tier 1"]  # type: ignore[union-attr,index,call-overload]


async def test_an_empty_store_answers(database: Database, daemon: Any) -> None:
    api = StatusApi(database, daemon)
    assert await api.campaigns() == {"campaigns": []}
    assert (await api.nodes(NodeFilter()))["nodes"] == []
    assert (await api.gateway())["nodes"] == {}
    assert b"gatewayd_ready 1.0" in await render(api)


def test_only_what_json_can_say_is_told() -> None:
    class Colour(StrEnum):
        RED = "red"

    value = {"a": float("inf"), "b": b"\x01", "c": Colour.RED, "d": {1: (2, None)}, "e": 2j, "root_password": "x"}
    assert jsonable(value) == {
        "a": None,
        "b": "01",
        "c": "red",
        "d": {"1": [2, None]},
        "e": "2j",
        "root_password": "***",
    }


def test_numbers_of_an_object() -> None:
    value: Any = {"a": 1, "b": {"c": True, "d": "x", "e": [1]}, "f": None}
    assert list(numbers(value)) == [("a", 1.0), ("b.c", 1.0)]


async def test_a_radio_with_a_number_per_node_does_not_flood_the_metrics(filled: Database, daemon: Any) -> None:
    class Chatty(type(daemon)):  # type: ignore[misc]
        def radios(self) -> Any:
            return {"zigbee": {f"node_{n}": n for n in range(10 * NUMBERS_MOST)}}

    text = await render(StatusApi(filled, Chatty()))
    assert text.count(b"\ngatewayd_radio_status{") == NUMBERS_MOST


async def test_what_only_the_radio_knows_of_a_node_is_shown_and_who_was_never_heard_was_never_seen(
    api: StatusApi, filled: Database
) -> None:
    change = "UPDATE node SET details = ?, last_seen = 0 WHERE id = ?"
    await filled.write(
        lambda db: db.execute(change, ('{"class": "B", "margin_db": 7, "root_password": "hunter2"}', KITCHEN))
    )
    node = await api.node(KITCHEN)
    assert node is not None
    assert node["details"] == {"class": "B", "margin_db": 7, "root_password": "***"}
    assert node["last_seen"] is None


async def test_what_was_planned_is_told_tier_by_tier(api: StatusApi) -> None:
    campaign = await api.campaign("spring")
    assert campaign is not None
    first, second = campaign["plan"]  # type: ignore[misc]
    assert (first["tier"], first["radio"], first["problem"]) == ("canary", "zigbee", "no link")  # type: ignore[index,call-overload]
    assert second == {
        "tier": "everyone",
        "radio": "lorawan",
        "payload": "full",
        "size": 61_440,
        "nodes": 2,
        "skipped": 1,
        "reasons": {"lorawan:2": "another gateway owns it"},
        "frames": 539,
        "airtime_s": 199.4,
        "eta_s": 2400.0,
        "node_energy_j": 1.25,
        "parts": [
            {
                "name": name,
                "nodes": 1,
                "frames": frames,
                "airtime_s": airtime_s,
                "eta_s": eta_s,
                "node_energy_j": energy_j,
            }
            for name, frames, airtime_s, eta_s, energy_j in (
                ("DR5 multicast", 500, 190.0, 2400.0, 1.25),
                ("DR0 unicast", 39, 9.4, 9.4, None),
            )
        ],
        "assumptions": "15% coded fragments",
        "problem": "",
        "made_at": second["made_at"],  # type: ignore[index,call-overload]
    }
    listed = await api.campaigns()
    assert [len(row["plan"]) for row in listed["campaigns"]] == [2, 0]  # type: ignore[union-attr,index,call-overload,arg-type]
