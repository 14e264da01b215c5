"""A commit that fails stops its action: SQLite itself says that there is no page left, under the real loop and journal."""

import sqlite3
import time

import pytest

from gatewayd.campaign import rows
from gatewayd.campaign.node_update import State
from gatewayd.cloud.messages import Desired
from gatewayd.errors import StoreError
from radios.radio import Fact, NodeId, NodeObservation, Power, Record, TransferEvent, Want
from tests.gatewayd.campaign.conftest import METER, Gateway
from tests.gatewayd.trust.site import HARDWARE

pytestmark = pytest.mark.timeout(60)

NODES = [NodeId(f"lorawan:{number:016x}") for number in range(0x100, 0x100 + 300)]


def full(db: sqlite3.Connection) -> None:
    """No page more than there are, as on a disk without room."""
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    (free,) = db.execute("PRAGMA freelist_count").fetchone()
    assert free == 0
    db.execute(f"PRAGMA max_page_count = {pages}")


def roomy(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA max_page_count = 1000000")


async def test_a_decision_that_cannot_be_stored_reaches_no_radio_and_is_taken_again(gateway: Gateway) -> None:
    """300 nodes appear while the store takes no page: their rows cannot be written, so nobody is told of them."""
    await gateway.issue(gateway.document())
    await gateway.until_told(Want.DELIVER)
    reports = len(await gateway.reports())
    await gateway.database.write(full)
    for node in NODES:
        await gateway.inventory.observe(
            NodeObservation(node, time.time(), hardware=HARDWARE, version=1, power=Power.MAINS, joined=True)
        )
    await gateway.until(lambda: "full" in gateway.coordinator.store_problem)
    asked = gateway.clock.asked
    await gateway.until(lambda: gateway.clock.asked > asked)  # it has been tried once more
    assert {directive.node for directive in gateway.radio.told} == {METER}
    assert set(await gateway.database.read(lambda db: rows.updates_of_campaign(db, "meters"))) == {METER}
    assert len(await gateway.reports()) == reports
    await gateway.database.write(roomy)
    await gateway.until(lambda: {directive.node for directive in gateway.radio.told} == {METER, *NODES})
    await gateway.until(lambda: not gateway.coordinator.store_problem)
    assert len(gateway.radio.told) == 1 + len(NODES), "each is told once"


async def test_a_campaign_that_cannot_be_stored_is_not_acted_on_and_is_taken_when_it_comes_again(
    gateway: Gateway,
) -> None:
    document = gateway.document()
    named = tuple(sorted({METER, *NODES}))
    large = document.model_copy(update={"selection": document.selection.model_copy(update={"nodes": named})})
    await gateway.database.write(full)
    with pytest.raises(StoreError, match="full"):  # the link asks the broker for it again
        await gateway.issue(large)
    assert gateway.authority.campaigns == {}
    assert gateway.radio.told == []
    await gateway.database.write(roomy)
    await gateway.issue(large)
    await gateway.until_told(Want.DELIVER)


async def test_what_a_radio_cannot_commit_it_does_not_do_and_it_may_try_again(gateway: Gateway) -> None:
    """The journal raises, so the node is not told to install; neither record nor state nor report is half there."""
    await gateway.issue(gateway.document())
    await gateway.until_told(Want.DELIVER)
    size = (await gateway.update()).size
    for fact in (Fact.PROGRESS, Fact.COMPLETE, Fact.READY):
        await gateway.fact(fact, confirmed=size)
    await gateway.until_told(Want.INSTALL)
    update, reports = await gateway.update(), len(await gateway.reports())
    event = TransferEvent(update.transfer, METER, update.generation, Fact.INSTALLING, time.time())
    counters = Record("node", "frame-counters", 1, bytes(100_000))
    await gateway.database.write(full)
    with pytest.raises(StoreError, match="full"):
        await gateway.journal.commit([counters], [event])
    assert (await gateway.update()).state is State.READY
    assert await gateway.journal.load() == []
    assert len(await gateway.reports()) == reports
    await gateway.database.write(roomy)
    await gateway.journal.commit([counters], [event])
    assert (await gateway.update()).state is State.INSTALLING
    assert await gateway.journal.load() == [counters]


async def test_a_cancel_that_cannot_be_stored_is_not_told_to_a_radio(gateway: Gateway) -> None:
    await gateway.issue(gateway.document())
    await gateway.until_told(Want.DELIVER)
    document = gateway.document(revision=2, desired=Desired.CANCELLED)
    named = tuple(sorted({METER, *NODES}))
    cancel = document.model_copy(update={"selection": document.selection.model_copy(update={"nodes": named})})
    await gateway.database.write(full)
    with pytest.raises(StoreError, match="full"):
        await gateway.issue(cancel)
    assert gateway.radio.wants() == [Want.DELIVER]
    assert (await gateway.row()).revision == 1
    await gateway.database.write(roomy)
    await gateway.issue(cancel)
    await gateway.until_told(Want.DROP)
