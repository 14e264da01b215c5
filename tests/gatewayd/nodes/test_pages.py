"""The inventory as the cloud gets it: pages, published when they say something new, cleared when they are too many."""

from dataclasses import replace
from pathlib import Path

import pytest

from gatewayd.cloud.messages import DOCUMENT_MAX_BYTES, Document, InventoryPage, InventorySite, dump, utc
from gatewayd.nodes.inventory import Inventory
from gatewayd.nodes.node import Node
from gatewayd.nodes.pages import NODES_PER_PAGE, REFRESH_S, InventoryPages, pages
from gatewayd.store.database import Database
from radios.radio import NodeId, NodeObservation, Power


class Broker:
    """Keeps what is retained, and counts."""

    def __init__(self) -> None:
        self.retained: dict[str, Document] = {}
        self.published = 0

    async def publish_retained(self, topic_leaf: str, document: Document | None) -> None:
        self.published += 1
        if document is None:
            self.retained.pop(topic_leaf, None)
        else:
            self.retained[topic_leaf] = document


def nodes(count: int) -> dict[str, Node]:
    return {f"zigbee:{n:016x}": Node(f"zigbee:{n:016x}", "zigbee", version=1) for n in range(count)}


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database.open(tmp_path / "s.db")


def test_pages_are_numbered_full_and_fit_into_a_document() -> None:
    full = Node("zigbee:ffffffffffffffff", "zigbee", hardware="zigbee:117c-2101", version=2**32 - 1, last_seen=1.8e9)
    full_page = pages([full] * (2 * NODES_PER_PAGE + 1))
    assert [(p.page, p.pages, len(p.nodes)) for p in full_page] == [(0, 3, 200), (1, 3, 200), (2, 3, 1)]
    assert len(dump(full_page[0])) < DOCUMENT_MAX_BYTES
    assert pages([]) == [InventoryPage(page=0, pages=1, nodes=())]


def test_nodes_that_say_much_take_more_pages() -> None:
    """Each fits into a document, and none is lost."""
    talkative = [
        Node(
            f"lorawan:{n:016x}",
            "lorawan",
            hardware="lorawan:00000007",
            model="M" * 64,
            version=1,
            power=Power.BATTERY,
            battery_percent=77.5,
            battery_at=1.8e9,
            rssi_dbm=-101.5,
            snr_db=-7.25,
            tags={"place": "\U0001f3e0" * 50, "delta": "detools,vcdiff"},
        )
        for n in range(450)
    ]
    made = pages(talkative, InventorySite(region="north", timezone="Europe/Berlin"))
    assert len(made) > 3
    assert all(len(dump(page)) <= DOCUMENT_MAX_BYTES for page in made)
    assert [node.id for page in made for node in page.nodes] == [node.id for node in talkative]
    assert {(page.pages, page.site.region) for page in made} == {(len(made), "north")}


async def test_a_page_says_what_campaigns_ask_for_with_the_tags_that_are_stated(database: Database) -> None:
    known = replace(nodes(1)["zigbee:" + "0" * 16], lqi=70, joined=True, security_version=3, battery_at=1000.0)
    broker = Broker()

    def stated(node: Node) -> Node:
        return replace(node, tags={"site": "roof", **node.tags})

    inventory = Inventory(database, {known.id: known})
    await InventoryPages(inventory, database, broker, InventorySite(region="north"), stated).publish(0.0)
    page = broker.retained["inventory/0"]
    assert isinstance(page, InventoryPage)
    (said,) = page.nodes
    assert (said.lqi, said.joined, said.security_version, said.tags) == (70, True, 3, {"site": "roof"})
    assert said.battery_at == utc(1000.0)
    assert page.site.region == "north"


async def test_only_pages_with_something_telling_are_published_again(database: Database) -> None:
    inventory = Inventory(database, nodes(NODES_PER_PAGE + 1))
    broker = Broker()
    publisher = InventoryPages(inventory, database, broker)
    assert await publisher.publish(0.0) == 2
    last = NodeId(f"zigbee:{NODES_PER_PAGE:016x}")
    await inventory.observe(NodeObservation(last, 5.0, lqi=3, rssi_dbm=-90.0, snr_db=3.0))
    assert await publisher.publish(30.0) == 0
    await inventory.observe(NodeObservation(last, 50.0, power=Power.BATTERY, battery_percent=80.0))
    assert await publisher.publish(60.0) == 1
    page = broker.retained["inventory/1"]
    assert isinstance(page, InventoryPage)
    assert (page.nodes[0].id, page.nodes[0].battery_percent) == (last, 80.0)
    assert page.nodes[0].last_seen is not None
    assert await publisher.publish(REFRESH_S) == 2


async def test_higher_pages_of_an_earlier_life_are_cleared(database: Database) -> None:
    broker = Broker()
    await InventoryPages(Inventory(database, nodes(2 * NODES_PER_PAGE + 1)), database, broker).publish(0.0)
    assert sorted(broker.retained) == ["inventory/0", "inventory/1", "inventory/2"]
    again = InventoryPages(Inventory(database, nodes(3)), database, broker)  # a store that was lost or replaced
    await again.publish(0.0)
    assert sorted(broker.retained) == ["inventory/0"]
    said = broker.published
    await again.publish(30.0)
    assert broker.published == said
