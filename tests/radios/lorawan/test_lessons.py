"""What sessions found out about a node is durable with the commit that ends them, also in the last attempt."""

import asyncio
from dataclasses import replace

import pytest

from radios.lorawan.cohort import SessionSettings
from radios.lorawan.journal_codec import Known, read_known
from radios.lorawan.lessons import ALONE, learn, record_after
from radios.lorawan.messages import Observed, Release
from radios.lorawan.regions import EU868
from radios.radio import Fact, NodeDirective, Want
from tests.radios.lorawan.memory_site import node_id, order, site
from tests.radios.lorawan.world import World, new_image, spec

COHORT = World([spec(1)], new_image()).cohort
AGAIN = Release("01", again=True)


@pytest.mark.parametrize(("before", "seen", "after"), [(None, 7, 7), (9, 7, 7), (5, 7, 5), (0, 7, 0), (7, 0, 0)])
def test_a_limit_only_goes_down(before, seen, after):
    for lesson in (Observed("01", seen), replace(AGAIN, reason="no_space", limit=seen)):
        known = Known("01", redundancy_limit=before)
        learn(known, lesson, COHORT, EU868, dropping=False)
        assert known.redundancy_limit == after
        assert known.slower == {"t1": 4}


@pytest.mark.parametrize(("data_rate", "unicast"), [(0, False), (5, True)])
def test_who_loses_too_much_at_the_lowest_data_rate_or_alone_gets_each_fragment_confirmed(data_rate, unicast):
    known = Known("01")
    cohort = replace(COHORT, data_rate=data_rate, unicast=unicast)
    learn(known, replace(AGAIN, reason="no_space", limit=7), cohort, EU868, dropping=False)
    assert known.slower == {"t1": ALONE}


@pytest.mark.parametrize(
    ("reason", "attempts"), [("late", 1), ("redundancy", 1), ("no_multicast", 1), ("owner", 1), ("session_lost", 2)]
)
def test_what_is_no_fault_of_a_session_is_no_attempt(reason, attempts):
    known = Known("01", attempts={"t1": 2})
    learn(known, replace(AGAIN, reason=reason), COHORT, EU868, dropping=False)
    assert known.attempts == {"t1": attempts}
    assert known.no_multicast == (reason == "no_multicast")
    assert known.slower == ({"t1": 4} if reason == "redundancy" else {})


def test_a_retry_and_an_end_forget_the_transfer_and_no_other():
    for lesson, dropping in ((replace(AGAIN, reason="retry"), False), (Release("01", again=False), True)):
        known = Known("01", attempts={"t1": 3, "t2": 1}, slower={"t1": 2, "t2": 3})
        learn(known, lesson, COHORT, EU868, dropping=dropping)
        assert (known.attempts, known.slower) == ({"t2": 1}, {"t2": 3})


def test_what_is_journalled_beforehand_is_what_will_be():
    known = Known("01", attempts={"t1": 2}, snr_db={"a": 1.0})
    record = record_after(known, replace(AGAIN, reason="redundancy"), COHORT, EU868, dropping=False)
    assert (known.attempts, known.slower) == ({"t1": 2}, {})
    learn(known, replace(AGAIN, reason="redundancy"), COHORT, EU868, dropping=False)
    assert read_known(record) == known


async def test_a_limit_that_was_met_in_the_last_attempt_is_remembered():
    weak = spec(1, downlink_loss=0.4, redundancy_limit=3, tags={"gatewayd-redundancy": "1000"})
    image = new_image()
    async with site([weak], image, session=SessionSettings(attempts_most=1)) as (radio, journal, _):
        await radio.put(order(image))
        await radio.direct([NodeDirective("t1", node_id(weak), 1, Want.INSTALL)])
        await journal.until(Fact.FAILED, node_id(weak))
        told = [records for records, events in journal.batches if any(e.fact is Fact.FAILED for e in events)]
        known = [read_known(r) for r in told[0] if r.key.startswith("known/")]
        assert [e.code for e in journal.events if e.fact is Fact.FAILED] == ["no_space"]
        assert len(known) == 1
        assert known[0].redundancy_limit is not None
        assert known[0].slower == {"t1": 4}


async def test_why_a_node_left_is_durable_when_its_record_goes():
    weak = spec(1, downlink_loss=0.35, redundancy_limit=20, tags={"gatewayd-redundancy": "5"})
    others, image = [spec(2), spec(3)], new_image()
    async with site([weak, *others], image) as (radio, journal, _):
        await radio.put(order(image))
        await radio.direct([NodeDirective("t1", node_id(s), 1, Want.DELIVER) for s in (weak, *others)])
        gone = []
        while not gone:
            await asyncio.sleep(0.01)
            gone = [
                records
                for records, _ in journal.batches
                if any(not r.value and r.key.endswith(f"/{weak.dev_eui}") for r in records)
            ]
        known = [read_known(r) for r in gone[0] if r.key == f"known/{weak.dev_eui}"]
        assert [(k.slower, k.attempts) for k in known] == [({"t1": 4}, {"t1": 0})]
