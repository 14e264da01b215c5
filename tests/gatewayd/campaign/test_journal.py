"""What the radios' facts do to the node updates, in one transaction with records and reports."""

import asyncio
import json
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from gatewayd.campaign import rows
from gatewayd.campaign.journal import FIRST_PROGRESS_S, PROGRESS_FLUSH_S, RadioJournal, _after, _is_mere_progress
from gatewayd.campaign.node_update import NodeUpdate, State, UnknownTransition
from gatewayd.campaign.rows import CampaignRow, CampaignState
from gatewayd.errors import StoreError
from gatewayd.service.wall_clock import WallClock
from gatewayd.store.database import Database
from radios.radio import Fact, NodeId, Record, TransferEvent, Want

LAMP = NodeId("zigbee:00124b0001020304")
NEW, OLD = 2, 1


class Bench:
    """A journal on a store with one campaign and one node update."""

    def __init__(self, folder: Path) -> None:
        self.database = Database.open(folder / "s.db")
        self.wall = WallClock(now=lambda: 1_790_000_000.0, assume_synchronised=True)
        self.woken = 0
        self.told = 0
        self.journal = RadioJournal("zigbee", self.database, self.wall, self._wake, self._tell)

    def _wake(self) -> None:
        self.woken += 1

    def _tell(self) -> None:
        self.told += 1

    async def update(self, state: State, want: str = "deliver", size: int = 1000, generation: int = 0) -> None:
        campaign = CampaignRow(
            "c", "t", "gateway:g", 1, "d", b"e", "r", CampaignState.RUNNING, "", "", False, 1, "", 0, 0
        )
        update = NodeUpdate("c", LAMP, "r", "t", 0, NEW, state, state, want=want, size=size, generation=generation)

        def work(db: sqlite3.Connection) -> None:
            rows.put_campaign(db, campaign)
            rows.put_updates(db, [update], 0.0)

        await self.database.write(work)

    async def row(self) -> NodeUpdate:
        found = await self.database.read(lambda db: rows.update_of_transfer(db, "t", LAMP))
        assert found is not None
        return found

    async def reports(self) -> list[dict[str, object]]:
        found = await self.database.read(lambda db: db.execute("SELECT body FROM outbox ORDER BY seq").fetchall())
        return [json.loads(row[0]) for row in found]


def event(fact: Fact, **more: object) -> TransferEvent:
    return TransferEvent("t", LAMP, 1, fact, 5000.0, **more)  # type: ignore[arg-type]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_records_come_back_and_an_empty_value_deletes(bench: Bench) -> None:
    await bench.journal.commit([Record("node", "a", 1, b"x"), Record("group", "k", 2, b"key", secret=True)], [])
    await bench.journal.commit([Record("node", "a", 1, b"")], [])
    assert await bench.journal.load() == [Record("group", "k", 2, b"key", secret=True)]


async def test_records_of_another_radio_are_not_seen(bench: Bench) -> None:
    await RadioJournal("lorawan", bench.database, bench.wall, lambda: None, lambda: None).commit(
        [Record("node", "a", 1, b"x")], []
    )
    assert await bench.journal.load() == []


async def test_a_fact_moves_the_update_and_is_reported_in_the_same_transaction(bench: Bench) -> None:
    await bench.update(State.TRANSFERRING)
    await bench.journal.commit([], [event(Fact.READY, confirmed=1000)])
    row = await bench.row()
    assert (row.state, row.confirmed, row.radio_since) == (State.READY, 1000, 5000.0)
    assert [(r["state"], r["node"], r["confirmed"]) for r in await bench.reports()] == [("ready", LAMP, 1000)]
    assert bench.woken == 1


async def test_an_installation_that_nobody_wants_is_refused_with_its_records(bench: Bench) -> None:
    await bench.update(State.READY, want=Want.DELIVER)
    with pytest.raises(UnknownTransition):
        await bench.journal.commit([Record("node", "a", 1, b"installing")], [event(Fact.INSTALLING)])
    assert (await bench.row()).state is State.READY
    assert await bench.journal.load() == []


async def test_an_installation_that_is_wanted_is_committed(bench: Bench) -> None:
    await bench.update(State.READY, want=Want.INSTALL)
    await bench.journal.commit([], [event(Fact.INSTALLING)])
    assert (await bench.row()).state is State.INSTALLING


async def test_an_installation_in_an_unknown_transfer_is_refused(bench: Bench) -> None:
    with pytest.raises(StoreError, match="not known"):
        await bench.journal.commit([], [event(Fact.INSTALLING)])


@pytest.mark.parametrize(("version", "state"), [(NEW, State.CONFIRMING), (OLD, State.ROLLED_BACK)])
async def test_the_version_that_the_node_reports_decides(bench: Bench, version: int, state: State) -> None:
    await bench.update(State.INSTALLING, want=Want.INSTALL)
    await bench.journal.commit([], [event(Fact.RUNNING, version=version)])
    row = await bench.row()
    assert (row.state, row.version) == (state, version)


async def test_a_late_fact_changes_no_outcome_but_its_records_are_kept(bench: Bench) -> None:
    await bench.update(State.CANCELLED, want=Want.DROP)
    await bench.journal.commit([Record("node", "a", 1, b"x")], [event(Fact.PROGRESS, confirmed=500)])
    row = await bench.row()
    assert (row.state, row.confirmed) == (State.CANCELLED, 0)
    assert len(await bench.journal.load()) == 1
    assert await bench.reports() == []


async def test_a_drop_that_is_done_clears_the_want(bench: Bench) -> None:
    await bench.update(State.CANCELLED, want=Want.DROP)
    await bench.journal.commit([], [event(Fact.DROPPED)])
    assert (await bench.row()).want == ""


async def test_progress_is_batched_seen_at_once_and_written_with_the_next_commit(bench: Bench) -> None:
    await bench.update(State.TRANSFERRING)
    for confirmed in (100, 200, 300):
        bench.journal.progress([event(Fact.PROGRESS, confirmed=confirmed)], [Record("node", "a", 1, b"%d" % confirmed)])
    assert bench.journal.live == {("t", LAMP): 300}
    assert (await bench.row()).confirmed == 0
    await bench.journal.commit([], [])
    assert (await bench.row()).confirmed == 300
    assert [r.value for r in await bench.journal.load()] == [b"300"]
    assert bench.journal.live == {}


@pytest.mark.parametrize("state", [State.PREPARING, State.TRANSFERRING, State.VERIFYING, State.DEFERRED])
@pytest.mark.parametrize("code", ["", "silent"])
def test_mere_progress_is_what_the_state_machine_would_make_of_it(state: State, code: str) -> None:
    resume = State.TRANSFERRING if state is State.DEFERRED else state
    update = NodeUpdate("c", LAMP, "r", "t", 0, NEW, state, resume, code, "why", size=1000, confirmed=10, version=OLD)
    said = event(Fact.PROGRESS, confirmed=300)
    assert _is_mere_progress(update, said) is (state is State.TRANSFERRING and not code)
    if _is_mere_progress(update, said):
        assert _after(update, said, 9.0) == replace(update, confirmed=300)


async def test_a_failed_commit_does_not_lose_batched_progress(bench: Bench) -> None:
    await bench.update(State.TRANSFERRING)
    bench.journal.progress([event(Fact.PROGRESS, confirmed=400)])
    with pytest.raises(UnknownTransition):
        await bench.journal.commit([], [event(Fact.INSTALLING)])
    assert bench.journal.live == {("t", LAMP): 400}
    await bench.journal.flush()
    assert (await bench.row()).confirmed == 400


async def test_progress_is_reported_in_steps_of_a_tenth(bench: Bench) -> None:
    await bench.update(State.TRANSFERRING)
    for confirmed in range(10, 1000, 10):
        bench.journal.progress([event(Fact.PROGRESS, confirmed=confirmed)])
        await bench.journal.flush()
    reports = await bench.reports()
    assert [r["kind"] for r in reports] == ["progress"] * 9


async def test_who_sends_reports_hears_of_each_one_that_is_progress_alone_too(bench: Bench) -> None:
    await bench.update(State.TRANSFERRING)
    for confirmed, told in ((50, 0), (150, 1), (160, 1), (250, 2)):
        bench.journal.progress([event(Fact.PROGRESS, confirmed=confirmed)])
        await bench.journal.flush()
        assert (bench.told, len(await bench.reports())) == (told, told)
    assert bench.woken == 0  # nothing has changed that a campaign would act on
    await bench.journal.commit([], [event(Fact.READY, confirmed=1000)])
    assert (bench.told, bench.woken) == (3, 1)


async def test_a_stall_says_why_and_moving_again_clears_it(bench: Bench) -> None:
    await bench.update(State.TRANSFERRING)
    await bench.journal.commit([], [event(Fact.STALLED, code="unreachable", detail="silent for 60 s")])
    assert (await bench.row()).code == "unreachable"
    await bench.journal.commit([], [event(Fact.PROGRESS, confirmed=10)])
    assert (await bench.row()).code == ""


@pytest.mark.parametrize("state", [State.PREPARING, State.TRANSFERRING])
async def test_a_stall_right_after_progress_does_not_lose_the_bytes(bench: Bench, state: State) -> None:
    await bench.update(state)
    bench.journal.progress([event(Fact.PROGRESS, confirmed=400)])
    bench.journal.progress([event(Fact.STALLED, code="silent", confirmed=400)])
    assert bench.journal.live == {("t", LAMP): 400}
    await bench.journal.flush()
    row = await bench.row()
    assert (row.state, row.confirmed, row.code) == (State.TRANSFERRING, 400, "silent")


async def test_a_stall_of_a_node_that_has_its_image_moves_nothing(bench: Bench) -> None:
    await bench.update(State.READY)
    await bench.journal.commit([], [event(Fact.STALLED, code="silent", confirmed=400)])
    assert ((await bench.row()).state, (await bench.row()).confirmed) == (State.READY, 0)


async def test_progress_that_comes_back_from_a_failed_commit_is_not_written_over_newer_facts(bench: Bench) -> None:
    await bench.update(State.TRANSFERRING)
    bench.journal.progress([event(Fact.PROGRESS, confirmed=400)], [Record("node", "a", 1, b"old")])
    refused, taken = await asyncio.gather(
        bench.journal.commit([], [event(Fact.INSTALLING)]),
        bench.journal.commit([Record("node", "a", 1, b"new")], [event(Fact.READY, confirmed=1000)]),
        return_exceptions=True,
    )
    assert isinstance(refused, UnknownTransition)
    assert taken is None
    await bench.journal.flush()
    assert (await bench.row()).state is State.READY
    assert [r.value for r in await bench.journal.load()] == [b"new"]


async def test_a_cancelled_commit_is_finished_and_its_batch_not_written_again(bench: Bench) -> None:
    await bench.update(State.TRANSFERRING)
    bench.journal.progress([event(Fact.PROGRESS, confirmed=400)], [Record("node", "a", 1, b"old")])
    task = asyncio.create_task(
        bench.journal.commit([Record("node", "a", 1, b"new")], [event(Fact.READY, confirmed=1000)])
    )
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await bench.journal.commit([], [])  # behind it in the writer's queue
    assert (await bench.row()).state is State.READY
    assert [r.value for r in await bench.journal.load()] == [b"new"]


async def test_an_installation_that_was_refused_does_not_keep_its_drop_from_being_stored(bench: Bench) -> None:
    await bench.update(State.CANCELLED, want=Want.DROP)
    await bench.journal.commit([Record("node", "a", 1, b"")], [event(Fact.INSTALLING), event(Fact.DROPPED)])
    row = await bench.row()
    assert (row.state, row.want) == (State.CANCELLED, "")


async def test_a_late_drop_of_an_older_directive_does_not_clear_what_is_wanted_now(bench: Bench) -> None:
    await bench.update(State.TRANSFERRING, generation=5)
    await bench.journal.commit([], [event(Fact.DROPPED)])
    assert (await bench.row()).want == Want.DELIVER


async def test_a_store_that_fails_ends_neither_the_flushing_nor_the_stop(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.update(State.TRANSFERRING)
    await bench.database.write(lambda db: db.execute("ALTER TABLE node_update RENAME TO elsewhere"))
    bench.journal.progress([event(Fact.PROGRESS, confirmed=400)])
    task = asyncio.create_task(bench.journal.run())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.journal.live == {("t", LAMP): 400}


async def test_that_a_node_has_begun_is_stored_without_waiting_for_the_batch(bench: Bench) -> None:
    await bench.update(State.PREPARING)
    task = asyncio.create_task(bench.journal.run())
    bench.journal.progress([event(Fact.PROGRESS, confirmed=50)])
    async with asyncio.timeout(PROGRESS_FLUSH_S / 2):
        while (await bench.row()).state is not State.TRANSFERRING:
            await asyncio.sleep(0.01)
    bench.journal.progress([event(Fact.PROGRESS, confirmed=100)])
    await asyncio.sleep(2 * FIRST_PROGRESS_S)
    assert (await bench.row()).confirmed == 50  # what goes on is batched
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await bench.row()).confirmed == 100
