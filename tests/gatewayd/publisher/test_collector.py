"""What the collector may acknowledge."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gatewayd.cloud.messages import Acks, NumberedReport, Report, ReportBatch, ReportKind
from gatewayd.publisher.collector import ReportStore

AT = datetime(2026, 11, 1, tzinfo=UTC)


def batch(*seqs: int, epoch: int = 1) -> ReportBatch:
    report = Report(kind=ReportKind.NODE, at=AT, state="updated", campaign="lamps", node="zigbee:0000000000000001")
    return ReportBatch(epoch=epoch, reports=tuple(NumberedReport(seq=seq, report=report) for seq in seqs))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ReportStore]:
    made = ReportStore(tmp_path / "reports.db")
    yield made
    made.close()


def acked(store: ReportStore, given: ReportBatch) -> tuple[int, int] | None:
    acks = store.store("gw", given, 0.0)
    return (acks.epoch, acks.seq) if acks else None


def test_in_order(store: ReportStore) -> None:
    assert acked(store, batch(1, 2, 3)) == (1, 3)
    assert acked(store, batch(4)) == (1, 4)


def test_again(store: ReportStore) -> None:
    assert acked(store, batch(1, 2)) == (1, 2)
    assert acked(store, batch(1, 2)) == (1, 2)
    assert acked(store, batch(2, 3)) == (1, 3)
    assert len(store.reports("lamps")) == 3


def test_gaps_inside_a_batch_were_dropped_by_the_gateway(store: ReportStore) -> None:
    assert acked(store, batch(1, 5, 9)) == (1, 9)


def test_a_missed_batch_is_waited_for(store: ReportStore) -> None:
    assert acked(store, batch(1)) == (1, 1)
    assert acked(store, batch(4, 5)) == (1, 1)  # 2 and 3 may be on their way again
    assert acked(store, batch(6)) == (1, 1)
    assert acked(store, batch(2, 3)) == (1, 3)
    assert acked(store, batch(4, 5)) == (1, 5)


def test_a_batch_sent_again_is_the_oldest_there_is(store: ReportStore) -> None:
    assert acked(store, batch(40, 41)) is None  # a collector without history
    assert acked(store, batch(42)) is None
    assert acked(store, batch(40, 41)) == (1, 41)
    assert acked(store, batch(42)) == (1, 42)


def test_sent_again_after_more_was_dropped_in_between(store: ReportStore) -> None:
    assert acked(store, batch(40, 41, 42)) is None
    assert acked(store, batch(42, 43)) == (1, 43)


def test_epochs_are_told_apart(store: ReportStore) -> None:
    assert acked(store, batch(1, 2, 3, epoch=7)) == (7, 3)
    assert acked(store, batch(1, epoch=5)) == (5, 1)  # a restored gateway whose clock was behind
    assert acked(store, batch(4, epoch=7)) == (7, 4)
    assert len(store.reports()) == 5


def test_what_the_broker_holds_stands_in_for_lost_history(store: ReportStore) -> None:
    store.seed("gw", Acks(epoch=1, seq=39))
    assert acked(store, batch(40, 41)) == (1, 41)
    store.seed("gw", Acks(epoch=1, seq=99))  # ours, or a stranger's: the store knows better
    assert acked(store, batch(42)) == (1, 42)


def test_gateways_do_not_mix(store: ReportStore) -> None:
    store.store("a", batch(1, 2), 0.0)
    acks = store.store("b", batch(1), 0.0)
    assert acks is not None
    assert acks.seq == 1


def test_a_restart_goes_on(store: ReportStore, tmp_path: Path) -> None:
    acked(store, batch(1, 2, 3))
    again = ReportStore(tmp_path / "reports.db")
    assert acked(again, batch(4)) == (1, 4)
    assert len(again.reports()) == 4
    again.close()
