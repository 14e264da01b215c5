"""What the collector may acknowledge, and in which order it tells what it has."""

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gatewayd.cloud.messages import Acks, NumberedReport, Report, ReportBatch, ReportKind
from gatewayd.publisher.collector import ReportStore

AT = datetime(2026, 11, 1, tzinfo=UTC)


def batch(*seqs: int, after: int | None = None, epoch: int = 1) -> ReportBatch:
    """`after`: what the gateway holds before them; the number before the first where nothing else is said."""
    reports = tuple(
        NumberedReport(
            seq=seq,
            report=Report(
                kind=ReportKind.NODE, at=AT, state=f"{epoch}.{seq}", campaign="lamps", node="zigbee:0000000000000001"
            ),
        )
        for seq in seqs
    )
    return ReportBatch(epoch=epoch, after=seqs[0] - 1 if after is None else after, reports=reports)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ReportStore]:
    made = ReportStore(tmp_path / "reports.db")
    yield made
    made.close()


def acked(store: ReportStore, given: ReportBatch, now: float = 0.0) -> int:
    acks = store.store("gw", given, now)
    assert acks.epoch == given.epoch
    return acks.seq


def states(store: ReportStore) -> list[str]:
    return [report.state for _, report in store.reports("lamps")]


def test_in_order(store: ReportStore) -> None:
    assert acked(store, batch(1, 2, 3)) == 3
    assert acked(store, batch(4)) == 4


def test_again(store: ReportStore) -> None:
    assert acked(store, batch(1, 2)) == 2
    assert acked(store, batch(1, 2)) == 2
    assert acked(store, batch(2, 3)) == 3
    assert len(store.reports("lamps")) == 3


def test_gaps_inside_a_batch_and_before_it_were_dropped_by_the_gateway(store: ReportStore) -> None:
    assert acked(store, batch(1, 5, 9)) == 9
    assert acked(store, batch(20, 22, after=9)) == 22


def test_a_missed_batch_is_waited_for(store: ReportStore) -> None:
    assert acked(store, batch(1)) == 1
    assert acked(store, batch(4, 5)) == 1  # 2 and 3 may be on their way again
    assert acked(store, batch(6)) == 1
    assert acked(store, batch(2, 3)) == 3
    assert acked(store, batch(4, 5)) == 5


def test_a_missed_batch_that_is_missed_again_is_still_waited_for(store: ReportStore) -> None:
    """The gateway goes back and we miss its first batch once more: what was seen before proves nothing of what lies below."""
    assert acked(store, batch(1)) == 1
    assert acked(store, batch(4, 5)) == 1
    assert acked(store, batch(4, 5)) == 1
    assert acked(store, batch(4, 5, after=0)) == 5  # the gateway has dropped 2 and 3


def test_a_collector_without_history_takes_the_oldest_there_is_and_says_0_to_all_else(store: ReportStore) -> None:
    """0 makes the gateway go back."""
    assert acked(store, batch(42, after=41)) == 0
    assert acked(store, batch(40, 41, after=0)) == 41
    assert acked(store, batch(42, after=41)) == 42


def test_epochs_are_told_apart_also_when_they_come_mixed(store: ReportStore) -> None:
    """A gateway restored from a backup: numbered anew in a higher epoch, while what it said before is still on its way."""
    assert acked(store, batch(1, 2, 3, epoch=7), 1.0) == 3
    assert acked(store, batch(2, after=0, epoch=9), 2.0) == 2  # the backup was made at 2
    assert acked(store, batch(5, 6, epoch=7), 3.0) == 3  # 4 has been missed, in its own epoch
    assert acked(store, batch(3, epoch=9), 4.0) == 3
    assert acked(store, batch(4, epoch=7), 5.0) == 4
    assert acked(store, batch(4, 5, epoch=9), 6.0) == 5
    assert acked(store, batch(5, 6, epoch=7), 7.0) == 6
    assert states(store) == ["7.1", "7.2", "7.3", "7.4", "7.5", "7.6", "9.2", "9.3", "9.4", "9.5"]
    assert acked(store, batch(6, epoch=9), 8.0) == 6
    assert store.watermarks() == [("gw", Acks(epoch=9, seq=6))]


def test_an_epoch_may_be_lower_where_the_clock_was_behind(store: ReportStore) -> None:
    assert acked(store, batch(1, 2, 3, epoch=7)) == 3
    assert acked(store, batch(1, epoch=5)) == 1
    assert states(store)[-1] == "5.1"


def test_what_is_told_again_to_a_gateway_is_of_the_epoch_that_it_spoke_in_last(store: ReportStore) -> None:
    for epoch, now in ((7, 1.0), (9, 2.0), (5, 3.0)):
        acked(store, batch(1, epoch=epoch), now)
    store.seed("gw", Acks(epoch=11, seq=50))  # held by the broker, never heard by us
    assert store.watermarks() == [("gw", Acks(epoch=5, seq=1))]
    acked(store, batch(2, epoch=9), 4.0)
    assert store.watermarks() == [("gw", Acks(epoch=9, seq=2))]


def test_what_came_late_is_told_in_its_place(store: ReportStore) -> None:
    """A gap that is filled later must not make an older state look like the newest."""
    acked(store, batch(1), 1.0)
    acked(store, batch(3), 2.0)
    acked(store, batch(2), 3.0)
    assert states(store) == ["1.1", "1.2", "1.3"]


def test_what_the_broker_holds_stands_in_for_lost_history(store: ReportStore) -> None:
    store.seed("gw", Acks(epoch=1, seq=39))
    assert acked(store, batch(40, 41)) == 41
    store.seed("gw", Acks(epoch=1, seq=99))  # ours, or a stranger's: the store knows better
    assert acked(store, batch(42)) == 42


def test_gateways_do_not_mix(store: ReportStore) -> None:
    store.store("a", batch(1, 2), 0.0)
    assert store.store("b", batch(1), 0.0).seq == 1


def test_a_restart_goes_on(store: ReportStore, tmp_path: Path) -> None:
    acked(store, batch(1, 2, 3))
    again = ReportStore(tmp_path / "reports.db")
    assert acked(again, batch(4)) == 4
    assert len(again.reports()) == 4
    again.close()


def test_a_file_of_an_older_collector_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    old = sqlite3.connect(path)
    old.executescript(
        "CREATE TABLE watermark (gateway TEXT NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL,"
        " seen INTEGER NOT NULL, PRIMARY KEY (gateway, epoch)) STRICT;"
        "INSERT INTO watermark VALUES ('gw', 1, 39, 41), ('gw', 2, 5, 5);"
    )
    old.close()
    for _ in range(2):
        store = ReportStore(path)
        assert store.watermarks() == [("gw", Acks(epoch=2, seq=5))]
        store.close()
    store = ReportStore(path)
    assert acked(store, batch(40, 41)) == 41
    store.close()
