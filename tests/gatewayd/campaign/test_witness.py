"""An old database that is put back goes back on nothing, and is noticed."""

import shutil
import sqlite3
from pathlib import Path

import pytest

from gatewayd.campaign.node_update import State
from gatewayd.cloud.messages import Acks, Desired, Report, ReportBatch, ReportKind, parse
from gatewayd.live_view import DaemonView
from gatewayd.publisher.firmware import ReleaseSpec
from gatewayd.store import witness
from radios.radio import Fact, Want
from tests.gatewayd.campaign.conftest import METER, NEW, Gateway
from tests.gatewayd.trust.site import HARDWARE, Publisher

pytestmark = pytest.mark.timeout(60)


def copy_of(gateway: Gateway, folder: Path) -> Path:
    """The whole database, as a backup has it."""
    shutil.copy(gateway.store_path, folder / "old.db")
    return folder / "old.db"


def put_back(gateway: Gateway, copy: Path) -> None:
    for suffix in ("-wal", "-shm"):
        gateway.store_path.with_name(gateway.store_path.name + suffix).unlink(missing_ok=True)
    shutil.copy(copy, gateway.store_path)


async def update(gateway: Gateway) -> None:
    """The floor of the node rises to 2."""
    await gateway.issue(gateway.document())
    await gateway.until_told(Want.DELIVER)
    size = (await gateway.update()).size
    await gateway.fact(Fact.PROGRESS, confirmed=1000)
    await gateway.fact(Fact.COMPLETE, confirmed=size)
    await gateway.fact(Fact.READY, confirmed=size)
    await gateway.until_told(Want.INSTALL)
    await gateway.fact(Fact.INSTALLING)
    await gateway.fact(Fact.RUNNING, version=NEW)
    gateway.node_version = NEW
    gateway.times.passed_s += 61
    gateway.coordinator.wake()
    await gateway.until_told(Want.DROP)  # after all that there is to store


def older(publisher: Publisher) -> str:
    """A release that is newer by its sequence, and less secure."""
    publisher.add(ReleaseSpec("meter", "1.9.0", 9, 1, NEW + 9, (HARDWARE,), "opaque"))
    return "releases/meter/1.9.0.json"


async def of_the_store(gateway: Gateway) -> list[Report]:
    return [r for r in await gateway.reports() if r.kind is ReportKind.GATEWAY and r.state == "store"]


def trouble(gateway: Gateway) -> tuple[str, str]:
    view = DaemonView(
        "gw-1", gateway.authority, gateway.coordinator, gateway.link, {}, {}, gateway.wall, gateway.database.set_aside,
        witness=gateway.witness,
    )  # fmt: skip
    return view.troubles()["store"]


async def downgraded(gateway: Gateway, publisher: Publisher) -> tuple[State, str]:
    await gateway.issue(gateway.document("back", release=older(publisher)))
    await gateway.until_state("completed", "back")
    ended = await gateway.update("back")
    return ended.state, ended.code


async def test_an_old_database_keeps_the_floor_and_is_reported_once(
    gateway: Gateway, publisher: Publisher, tmp_path: Path
) -> None:
    epoch = await gateway.outbox.load()
    await gateway.stop()
    old = copy_of(gateway, tmp_path)
    await gateway.start()
    await update(gateway)
    await gateway.stop()
    put_back(gateway, old)
    await gateway.start()
    (said,) = await of_the_store(gateway)
    assert said.code == "store_rolled_back"
    assert "1 floors and 1 revisions are older" in said.detail
    assert trouble(gateway)[0] == "store_rolled_back"
    assert await gateway.outbox.load() > epoch
    assert await downgraded(gateway, publisher) == (State.SKIPPED, "downgrade")
    await gateway.stop()
    await gateway.start()
    assert trouble(gateway) == ("ok", "")
    assert len(await of_the_store(gateway)) == 1
    known = gateway.inventory.get(METER)
    assert known is not None
    assert known.security_version == 2


async def test_a_corrupt_database_loses_no_floor(gateway: Gateway, publisher: Publisher) -> None:
    await update(gateway)
    await gateway.stop()
    data = bytearray(gateway.store_path.read_bytes())
    data[4096:12288] = bytes(8192)
    gateway.store_path.write_bytes(data)
    await gateway.start()
    assert gateway.database.set_aside is not None
    assert [r.code for r in await of_the_store(gateway)] == ["store_corrupt"]
    assert trouble(gateway)[0] == "store_corrupt"
    assert await downgraded(gateway, publisher) == (State.SKIPPED, "downgrade")


async def test_an_old_database_takes_no_old_revision_and_waits_for_the_newest(gateway: Gateway, tmp_path: Path) -> None:
    first = gateway.document()
    await gateway.issue(first)
    await gateway.until_told(Want.DELIVER)
    await gateway.stop()
    old = copy_of(gateway, tmp_path)
    await gateway.start()
    paused = gateway.document(revision=3, desired=Desired.PAUSED)
    await gateway.issue(paused)
    await gateway.until_state("paused")
    await gateway.stop()
    put_back(gateway, old)
    await gateway.start()
    await gateway.until_told(Want.HOLD)
    assert (await gateway.row()).code == "store_rolled_back"
    await gateway.issue(gateway.document("other"))  # which need not wait for it
    await gateway.until(lambda: gateway.radio.wants() == [Want.HOLD, Want.DROP])
    for stale in (first, gateway.document(revision=2)):
        await gateway.issue(stale)
    await gateway.issue(gateway.document(revision=3))  # running: other bytes than those that were adopted
    refused = [(r.state, r.code) for r in await gateway.reports() if r.state == "refused"]
    assert refused == [("refused", "replayed"), ("refused", "replayed"), ("refused", "conflict")]
    await gateway.issue(paused)
    await gateway.until_state("paused")
    assert (await gateway.row()).revision == 3
    await gateway.stop()
    await gateway.start()
    assert gateway.witness.trouble is None


async def test_a_crash_before_the_witness_is_written_raises_no_alarm(gateway: Gateway) -> None:
    before = gateway.witness_path.read_bytes()
    await update(gateway)
    await gateway.stop()
    gateway.witness_path.write_bytes(before)
    await gateway.start()
    assert gateway.witness.trouble is None
    held = witness.read(gateway.witness_path)
    assert held is not None
    assert held.floors == {METER: 2}


@pytest.mark.parametrize("left", [None, b"", b"{", b'{"format": 1}', "changed"])
async def test_a_damaged_witness_is_said_and_made_anew(gateway: Gateway, left: bytes | str | None) -> None:
    await update(gateway)
    await gateway.stop()
    whole = gateway.witness_path.read_bytes()
    gateway.witness_path.unlink()
    if left is not None:
        changed = whole.replace(b'": 2', b'": 1')
        assert changed != whole
        gateway.witness_path.write_bytes(changed if isinstance(left, str) else left)
    await gateway.start()
    assert trouble(gateway)[0] == "witness_lost"
    held = witness.read(gateway.witness_path)
    assert held is not None
    assert held.floors == {METER: 2}
    known = gateway.inventory.get(METER)
    assert known is not None
    assert known.security_version == 2


async def test_a_gateway_that_lost_both_is_a_new_one(gateway: Gateway) -> None:
    await update(gateway)
    await gateway.stop()
    gateway.witness_path.unlink()
    gateway.store_path.unlink()
    await gateway.start()
    assert trouble(gateway) == ("ok", "")
    assert await of_the_store(gateway) == []


async def test_a_restore_that_is_meant_raises_no_alarm_and_keeps_the_floor(
    gateway: Gateway, publisher: Publisher, tmp_path: Path
) -> None:
    await gateway.stop()
    old = copy_of(gateway, tmp_path)
    await gateway.start()
    await update(gateway)
    await gateway.stop()
    restored = sqlite3.connect(old)
    restored.row_factory = sqlite3.Row
    with restored:
        witness.accept(restored, witness.read(gateway.witness_path))
    restored.close()
    put_back(gateway, old)
    await gateway.start()
    assert gateway.witness.trouble is None
    assert await downgraded(gateway, publisher) == (State.SKIPPED, "downgrade")


async def test_a_restore_on_a_new_machine_raises_no_alarm(gateway: Gateway) -> None:
    await update(gateway)
    await gateway.stop()
    gateway.witness_path.unlink()
    restored = sqlite3.connect(gateway.store_path)
    with restored:
        witness.accept(restored, witness.read(gateway.witness_path))
    restored.close()
    await gateway.start()
    assert gateway.witness.trouble is None
    held = witness.read(gateway.witness_path)
    assert held is not None
    assert held.floors == {METER: 2}


async def test_a_witness_that_cannot_be_written_stops_nothing(gateway: Gateway) -> None:
    gateway.witness_path.with_name(gateway.witness_path.name + ".part").mkdir()
    await update(gateway)
    assert (await gateway.update()).state is State.UPDATED


@pytest.mark.parametrize("starts", [1, 2, 5])
async def test_first_starts_that_ended_before_the_file_was_written_raise_no_alarm(
    gateway: Gateway, starts: int
) -> None:
    for _ in range(starts):
        await gateway.stop()
        gateway.witness_path.unlink()
        await gateway.start()
        assert trouble(gateway) == ("ok", "")
    assert witness.read(gateway.witness_path) is not None
    for _ in range(2):  # but once the file was seen it may not be missing
        await gateway.stop()
        await gateway.start()
    await gateway.stop()
    gateway.witness_path.unlink()
    await gateway.start()
    assert trouble(gateway)[0] == "witness_lost"


async def acknowledged(gateway: Gateway) -> Acks:
    """The cloud has stored all there is."""
    batch = await gateway.outbox.batch(0)
    assert batch is not None
    acks = Acks(epoch=gateway.outbox.epoch, seq=batch.last)
    assert await gateway.outbox.acknowledge(acks)
    return acks


async def test_a_state_put_back_with_its_witness_is_noticed_by_what_the_cloud_has_acknowledged(
    gateway: Gateway, tmp_path: Path
) -> None:
    await gateway.issue(gateway.document())
    await gateway.until_told(Want.DELIVER)
    await acknowledged(gateway)
    await gateway.stop()
    old, old_witness = copy_of(gateway, tmp_path), gateway.witness_path.read_bytes()
    await gateway.start()
    await gateway.fact(Fact.PREPARING)
    await gateway.fact(Fact.READY, confirmed=gateway.payload().size)
    acks = await acknowledged(gateway)
    await gateway.stop()
    put_back(gateway, old)
    gateway.witness_path.write_bytes(old_witness)

    await gateway.start()
    assert trouble(gateway) == ("ok", "")  # nothing here can tell
    await gateway.fact(Fact.PREPARING)  # which makes a report, whose number the cloud knows already
    gateway.outbox.heard(acks)
    assert await gateway.outbox.batch(0) is not None  # and nearly sent them
    assert not await gateway.outbox.acknowledge(acks)
    assert trouble(gateway)[0] == "store_rolled_back"
    assert gateway.outbox.epoch > acks.epoch
    (said,) = await of_the_store(gateway)
    assert said.code == "store_rolled_back"
    assert f"report {acks.seq} of epoch {acks.epoch}" in said.detail
    told = [(r.campaign, r.node, r.state) for r in await gateway.reports() if r.campaign and r.node]
    assert told == [("meters", METER, "preparing")] * 2  # what waited, and how it stands
    batch = await gateway.outbox.batch(0)
    assert batch is not None
    assert parse(ReportBatch, batch.payload, "reports").epoch == gateway.outbox.epoch

    # Once is enough: whoever can forge such acks makes no gateway talk for ever.
    epoch = gateway.outbox.epoch
    assert not await gateway.outbox.acknowledge(acks)
    assert not await gateway.outbox.acknowledge(Acks(epoch=epoch, seq=10**6))
    assert gateway.outbox.epoch == epoch
    assert await gateway.outbox.acknowledge(Acks(epoch=epoch, seq=batch.last))
    await gateway.stop()
    await gateway.start()
    assert trouble(gateway) == ("ok", "")
    assert await gateway.outbox.load() == epoch
