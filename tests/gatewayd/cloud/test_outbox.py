"""The outbox: numbered, in order, bounded, and forgotten only below the cloud's watermark."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gatewayd.cloud import messages
from gatewayd.cloud.messages import Acks, Report, ReportBatch, ReportKind
from gatewayd.cloud.outbox import Batch, Outbox, Pending, append, new_epoch
from gatewayd.errors import Bug, StoreError
from gatewayd.store.database import Database


def report(number: int, kind: ReportKind = ReportKind.NODE, detail: str = "") -> Report:
    return Report(
        kind=kind, at=messages.utc(1000.0 + number), state=f"s{number}", detail=detail, node="zigbee:" + "0" * 16
    )


def read(batch: Batch | None) -> ReportBatch:
    assert batch is not None
    return messages.parse(ReportBatch, batch.payload, "reports")


def states(batch: Batch | None) -> list[str]:
    return [entry.report.state for entry in read(batch).reports]


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database.open(tmp_path / "s.db")
    yield database
    database.close()


async def fill(database: Database, *reports: Report) -> None:
    await database.write(lambda db: append(db, reports))


async def test_batches_hold_the_reports_in_order_and_go_on_where_asked(database: Database) -> None:
    outbox = Outbox(database, 10**6)
    await fill(database, *(report(n) for n in range(250)))
    first = await outbox.batch(0)
    assert first is not None
    assert (first.first, first.last, first.count) == (1, 100, 100)
    assert states(first) == [f"s{n}" for n in range(100)]
    third = await outbox.batch(200)
    assert states(third) == [f"s{n}" for n in range(200, 250)]
    assert read(third).epoch == outbox.epoch > 0
    assert await outbox.batch(250) is None


async def test_a_batch_says_what_is_held_before_it(database: Database) -> None:
    """So that whoever stores them knows whether it has missed some."""
    outbox = Outbox(database, 10**6)
    await outbox.load()
    await fill(database, *(report(n) for n in range(8)))
    await database.write(lambda db: db.execute("DELETE FROM outbox WHERE seq IN (3, 4, 7)"))
    assert read(await outbox.batch(0, limit=2)).after == 0
    assert read(await outbox.batch(2, limit=1)).after == 2  # 3 and 4 have been dropped
    assert read(await outbox.batch(7)).after == 6
    assert await outbox.acknowledge(Acks(epoch=outbox.epoch, seq=5))
    assert read(await outbox.batch(5)).after == 0


async def test_a_batch_keeps_the_documents_limit(database: Database) -> None:
    outbox = Outbox(database, 10**7)
    await fill(database, *(report(n, detail="\U0001f4a1" * 500) for n in range(100)))
    after, seen = 0, []
    while (batch := await outbox.batch(after)) is not None:
        assert len(batch.payload) <= messages.DOCUMENT_MAX_BYTES
        seen += [entry.seq for entry in read(batch).reports]
        after = batch.last
    assert seen == list(range(1, 101))


async def test_what_failed_with_its_transaction_is_not_reported(database: Database) -> None:
    def work(db: object) -> None:
        append(db, [report(1)])  # type: ignore[arg-type]
        raise StoreError("the change did not work out")

    with pytest.raises(StoreError):
        await database.write(work)
    assert await Outbox(database, 10**6).batch(0) is None


async def test_an_impossible_report_is_our_bug(database: Database) -> None:
    huge = report(1).model_copy(update={"campaign": "x" * 20000})
    with pytest.raises(Bug):
        await fill(database, huge)


async def test_only_what_is_below_the_watermark_is_forgotten(database: Database) -> None:
    outbox = Outbox(database, 10**6)
    epoch = await outbox.load()
    await fill(database, *(report(n) for n in range(10)))
    await outbox.batch(0)
    assert await outbox.acknowledge(Acks(epoch=epoch, seq=7))
    assert [entry.seq for entry in read(await outbox.batch(0)).reports] == [8, 9, 10]
    assert outbox.depth.reports == 3


async def test_acks_of_another_epoch_forget_nothing(database: Database) -> None:
    outbox = Outbox(database, 10**6)
    await fill(database, report(1))
    await outbox.batch(0)
    assert not await outbox.acknowledge(Acks(epoch=await outbox.load() + 1, seq=1))
    assert await outbox.batch(0) is not None


async def test_acks_beyond_what_was_sent_forget_nothing(database: Database) -> None:
    outbox = Outbox(database, 10**6)
    epoch = await outbox.load()
    await fill(database, *(report(n) for n in range(10)))
    await outbox.batch(0, limit=4)
    assert not await outbox.acknowledge(Acks(epoch=epoch, seq=5))
    assert await outbox.acknowledge(Acks(epoch=epoch, seq=4))
    assert [entry.seq for entry in read(await outbox.batch(0)).reports] == [5, 6, 7, 8, 9, 10]


async def test_after_a_restart_the_epoch_stays_and_older_acks_count(database: Database) -> None:
    before = Outbox(database, 10**6)
    epoch = await before.load()
    await fill(database, report(1), report(2))
    await before.batch(0)
    after = Outbox(database, 10**6)
    assert await after.load() == epoch
    assert not await after.acknowledge(Acks(epoch=epoch, seq=3))
    assert await after.acknowledge(Acks(epoch=epoch, seq=2))
    assert await after.batch(0) is None
    await fill(database, report(3))
    assert [entry.seq for entry in read(await after.batch(0)).reports] == [3], "a number is never used twice"


async def test_a_restored_store_opens_a_higher_epoch(database: Database) -> None:
    epoch = await Outbox(database, 10**6).load()
    assert await database.write(new_epoch) > epoch
    assert await Outbox(database, 10**6).load() > epoch


async def test_a_new_epoch_is_numbered_from_1_in_the_same_order(database: Database) -> None:
    """A collector waits for what seems missing before the first number that it sees."""
    before = Outbox(database, 10**6)
    epoch = await before.load()
    await fill(database, *(report(n) for n in range(1, 6)))
    await before.batch(0)
    await before.acknowledge(Acks(epoch=epoch, seq=3))
    await database.write(new_epoch)
    after = Outbox(database, 10**6)
    await after.load()
    batch = read(await after.batch(0))
    assert [(entry.seq, entry.report.state) for entry in batch.reports] == [(1, "s4"), (2, "s5")]
    await fill(database, report(6))
    assert [entry.seq for entry in read(await after.batch(2)).reports] == [3]


async def test_trimming_drops_the_oldest_progress_and_no_outcome(database: Database) -> None:
    reports = [report(n, ReportKind.PROGRESS if n % 2 else ReportKind.NODE, "x" * 100) for n in range(100)]
    await fill(database, *reports)
    size = len(messages.dump(reports[10]))
    outbox = Outbox(database, max_bytes=size * 80)
    assert await outbox.trim() > 0
    left = [int(state[1:]) for state in states(await outbox.batch(0))]
    assert [n for n in left if n % 2 == 0] == list(range(0, 100, 2))
    odd = [n for n in left if n % 2]
    assert odd == list(range(100 - 2 * len(odd) + 1, 100, 2)), "the newest progress stays"
    assert 0 < outbox.depth.bytes <= size * 80
    assert await outbox.trim() == 0


async def test_outcomes_alone_may_exceed_the_bound(database: Database) -> None:
    outbox = Outbox(database, max_bytes=10)
    await fill(database, report(1), report(2, ReportKind.PROGRESS))
    await outbox.trim()
    assert states(await outbox.batch(0)) == ["s1"]


async def test_pending_tells_outcomes_from_progress(database: Database) -> None:
    outbox = Outbox(database, 10**6)
    assert await outbox.pending(0) == Pending(0, 0)
    await fill(database, report(1), report(2, ReportKind.PROGRESS), report(3, ReportKind.PROGRESS))
    assert await outbox.pending(0) == Pending(3, 1)
    assert await outbox.pending(1) == Pending(2, 0)


async def test_notify_wakes_the_waiter_also_when_it_came_first(database: Database) -> None:
    outbox = Outbox(database, 10**6)
    outbox.notify()
    await outbox.wait(None)
    waiting = asyncio.create_task(outbox.wait(None))
    await asyncio.sleep(0)
    assert not waiting.done()
    outbox.notify()
    await waiting
    await outbox.wait(0.0)  # returns by its time-out


async def test_the_same_bytes_as_the_documents_own_serialisation(database: Database) -> None:
    outbox = Outbox(database, 10**6)
    await fill(database, report(1, detail='quotes " and ümlauts'), report(2))
    batch = await outbox.batch(0)
    assert batch is not None
    assert json.loads(batch.payload) == json.loads(messages.dump(read(batch)))
