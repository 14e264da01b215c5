"""The cloud's commands: who may give them, that each is done once, and what resync and identify cause."""

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest
import structlog
from securesystemslib.signer import CryptoSigner

from gatewayd.campaign.commands import REFUSALS_MAX, RESYNC_MIN_S, Commands
from gatewayd.campaign.reports import gateway_report
from gatewayd.cloud.messages import (
    Acks,
    Campaign,
    Command,
    CommandKind,
    Desired,
    Gate,
    GatewayIdentity,
    RadioIdentity,
    Report,
    Rollout,
    Tier,
    gateway_topic,
    utc,
)
from gatewayd.cloud.outbox import append, new_epoch
from gatewayd.errors import StoreError
from gatewayd.publisher.gateways import new_command, sign_command
from gatewayd.publisher.keys import Role
from radios.radio import Fact, Want
from tests.gatewayd.campaign.conftest import METER, NEW, Gateway, Times
from tests.gatewayd.trust.site import Gateways, Publisher, Site

pytestmark = pytest.mark.timeout(60)

TOPIC = gateway_topic("gw-1", "commands")


class Link:
    """Counts how often everything is sent again."""

    resends = 0

    def resend(self) -> None:
        self.resends += 1


class Bench:
    """A gateway's core and its commands; the clock is moved by hand."""

    def __init__(self, core: Gateway, publisher: Publisher) -> None:
        self.core = core
        self.signer = publisher.keys.signer(Role.CAMPAIGN)
        self.link = Link()
        self.commands = self.restarted()

    def restarted(self) -> Commands:
        core = self.core
        return Commands(core.authority, core.database, core.outbox, self.link, core.wall, "gw-1", self.identity)

    def identity(self) -> GatewayIdentity:
        return GatewayIdentity(
            gateway="gw-1",
            version="1.0",
            uptime_s=5.0,
            epoch=self.core.outbox.epoch,
            reports_waiting=0,
            radios={"lorawan": RadioIdentity(up=True, nodes=1)},
            health={"clock": "ok"},
        )

    async def give(self, command: Command, topic: str = TOPIC) -> None:
        await self.commands.take(topic, sign_command(command, self.signer))

    async def answers(self) -> list[Report]:
        """All that speaks of a command, or of none that could be known."""
        return [r for r in await self.core.reports() if r.command is not None or r.state == "refused"]

    async def codes(self) -> list[str]:
        return [r.code for r in await self.answers() if r.state == "refused"]


class Still(Times):
    """Time that passes only by hand: what holds for minutes is judged to the second."""

    def __init__(self) -> None:
        super().__init__()
        self._wall, self._steady = time.time(), time.monotonic()

    def wall(self) -> float:
        return self._wall + self.passed_s + self.ahead_s

    def steady(self) -> float:
        return self._steady + self.passed_s


@pytest.fixture
async def bench(
    gateways: Gateways, site: Site, publisher: Publisher, session: aiohttp.ClientSession, tmp_path: Path
) -> AsyncIterator[Bench]:
    core = Gateway(gateways, tmp_path / "gateway")
    core.times = Still()
    await core.start()
    yield Bench(core, publisher)
    await core.stop()


@pytest.fixture
def make(bench: Bench) -> Callable[..., Command]:
    def made(kind: CommandKind = CommandKind.IDENTIFY, gateway: str = "gw-1", after_s: float = 0.0) -> Command:
        return new_command(gateway, kind, bench.core.times.wall() + after_s)

    return made


async def installed(core: Gateway, document: Campaign, version: int) -> None:
    """The core's meter has got its update, and comes back with a version."""
    await core.issue(document)
    await core.until_told(Want.DELIVER)
    size = core.payload().size
    await core.fact(Fact.PREPARING)
    await core.fact(Fact.READY, confirmed=size)
    await core.until_told(Want.INSTALL)
    await core.fact(Fact.INSTALLING)
    await core.fact(Fact.RUNNING, version=version)


async def updated(core: Gateway) -> None:
    await installed(core, core.document(), NEW)
    async with asyncio.timeout(20):
        while (await core.update()).state != "confirming":
            await asyncio.sleep(0.02)


async def acknowledge(core: Gateway) -> None:
    batch = await core.outbox.batch(0)
    assert batch is not None
    assert await core.outbox.acknowledge(Acks(epoch=core.outbox.epoch, seq=batch.last))
    assert await core.reports() == []


async def test_identify_is_answered_with_who_we_are_in_log_and_report(
    bench: Bench, make: Callable[..., Command]
) -> None:
    command = make()
    with structlog.testing.capture_logs() as logs:
        await bench.give(command)
    (answer,) = await bench.answers()
    assert (answer.state, answer.command) == ("identity", command.id)
    assert answer.identity == bench.identity()
    assert bench.core.outbox.epoch > 0
    assert [line["gateway"] for line in logs if line["event"] == "identity"] == ["gw-1"]
    assert bench.link.resends == 0


async def test_resync_tells_how_everything_stands_though_it_was_acknowledged(
    bench: Bench, make: Callable[..., Command]
) -> None:
    await updated(bench.core)
    await acknowledge(bench.core)
    update = await bench.core.update()
    command = make(CommandKind.RESYNC)
    await bench.give(command)
    first, campaign, node, last = await bench.core.reports()
    assert [r.command for r in (first, campaign, node, last)] == [command.id] * 4
    assert (first.state, last.state) == ("resync", "resynced")
    assert (campaign.campaign, campaign.state, campaign.revision) == ("meters", "running", 1)
    assert (node.node, node.state, node.version, node.attempt) == (METER, "confirming", NEW, 1)
    assert node.at == utc(update.since)  # when it came about, not when it was told again
    assert bench.link.resends == 1


async def test_resync_tells_again_what_a_gate_has_seen_also_after_a_restart(
    bench: Bench, make: Callable[..., Command]
) -> None:
    core = bench.core
    strict = Rollout(tiers=(Tier(name="all", percent=100.0),), gate=Gate(failure_ratio=0.0))
    await installed(core, core.document(rollout=strict), 1)
    await core.until_state("breached")
    (told,) = [r for r in await core.reports() if r.state == "breached"]
    assert told.evidence is not None
    await acknowledge(core)
    await core.stop()
    await core.start()
    bench.commands = bench.restarted()
    await bench.give(make(CommandKind.RESYNC))
    (again,) = [r for r in await core.reports() if r.state == "breached"]
    assert again.evidence == told.evidence
    await core.issue(core.document(rollout=strict, revision=2, desired=Desired.PAUSED))
    assert (await core.row()).evidence == ""  # which is judged anew


async def test_a_second_resync_replaces_what_is_left_of_the_first(bench: Bench, make: Callable[..., Command]) -> None:
    """Asked again and again while nobody acknowledges, the outbox does not grow."""
    await updated(bench.core)
    await acknowledge(bench.core)
    await bench.give(make(CommandKind.RESYNC))
    known = await bench.core.reports()
    again = make(CommandKind.RESYNC, after_s=1.0)
    bench.core.times.passed_s += 2.0
    await bench.give(again)
    assert await bench.codes() == ["too_soon"]
    bench.core.times.passed_s += RESYNC_MIN_S
    last = make(CommandKind.RESYNC)
    await bench.give(last)
    reports = await bench.core.reports()
    assert len([r for r in reports if r.state != "refused"]) == len(known)
    assert {r.command for r in reports} == {again.id, last.id}
    assert bench.link.resends == 2


async def test_a_resync_forgets_nothing_by_numbers_of_another_epoch(bench: Bench, make: Callable[..., Command]) -> None:
    """A restored store is numbered anew: what an earlier resync told has other numbers by then."""
    await updated(bench.core)
    await acknowledge(bench.core)
    await bench.give(make(CommandKind.RESYNC))
    await acknowledge(bench.core)

    def restored(db: sqlite3.Connection) -> int:
        epoch = new_epoch(db)
        append(db, [gateway_report("clock", f"news {number}", "", 0.0) for number in range(12)])
        return epoch

    await bench.core.outbox.adopt(await bench.core.database.write(restored))
    bench.core.times.passed_s += RESYNC_MIN_S + 1
    await bench.give(make(CommandKind.RESYNC))
    news = [r.code for r in await bench.core.reports() if r.state == "clock"]
    assert news == [f"news {number}" for number in range(12)]


async def test_the_same_command_again_does_nothing_and_an_older_one_is_refused_also_after_a_restart(
    bench: Bench, make: Callable[..., Command]
) -> None:
    older, newer = make(), make(after_s=0.001)
    await bench.give(newer)
    for _ in range(2):
        await bench.give(newer)
        assert len(await bench.answers()) == 1
        bench.commands = bench.restarted()
    await bench.give(older)
    await bench.give(older)
    assert await bench.codes() == ["replayed"]
    refusal = (await bench.answers())[-1]
    assert refusal.command == older.id
    assert newer.id in refusal.detail


async def test_the_mark_is_stored_with_what_it_stands_for_or_not_at_all(
    bench: Bench, make: Callable[..., Command]
) -> None:
    """Refused within the transaction, a command leaves no mark: what it wanted can still be asked for."""
    await bench.give(make(CommandKind.RESYNC))
    await bench.give(make(CommandKind.RESYNC, after_s=20.0))
    assert await bench.codes() == ["too_soon"]
    await bench.give(make(after_s=10.0))  # older than the refused one, newer than the one that was done
    assert (await bench.answers())[-1].state == "identity"


@pytest.mark.parametrize(
    ("shift_s", "code"), [(-700.0, "expired"), (-599.0, None), (299.0, None), (400.0, "not_yet_valid")]
)
async def test_a_command_holds_for_minutes(
    bench: Bench, make: Callable[..., Command], shift_s: float, code: str | None
) -> None:
    await bench.give(make(after_s=shift_s))
    assert await bench.codes() == ([] if code is None else [code])


async def test_a_campaign_does_not_pass_as_a_command_nor_the_other_way_round(
    bench: Bench, make: Callable[..., Command]
) -> None:
    core = bench.core
    await bench.commands.take(TOPIC, core.signed(core.document()))
    renamed = json.loads(core.signed(core.document()))
    renamed["payloadType"] = "application/vnd.gatewayd.command+json"
    await bench.commands.take(TOPIC, json.dumps(renamed).encode())
    assert await bench.codes() == ["bad_document", "bad_signature"]
    command = json.loads(sign_command(make(), bench.signer))
    await core.campaign("ota/v1/gateways/gw-1/campaigns/meters", json.dumps(command).encode())
    command["payloadType"] = "application/vnd.gatewayd.campaign+json"
    await core.campaign("ota/v1/gateways/gw-1/campaigns/meters", json.dumps(command).encode())
    assert (await bench.codes())[2:] == ["bad_document", "bad_signature"]


@pytest.mark.parametrize("gateway", ["gw-2", "gw-1"])
async def test_a_command_is_for_one_gateway_and_comes_on_its_topic(
    bench: Bench, make: Callable[..., Command], gateway: str
) -> None:
    elsewhere = gateway_topic("gw-2", "commands")
    await bench.give(make(gateway=gateway), elsewhere if gateway == "gw-1" else TOPIC)
    assert await bench.codes() == ["wrong_audience"]


async def test_an_unlisted_key_is_looked_up_once_and_refused_once(bench: Bench, make: Callable[..., Command]) -> None:
    raw = sign_command(make(), CryptoSigner.generate_ecdsa())
    asked = bench.core._gateways.site.asked.count("metadata/timestamp.json")
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            await bench.commands.take(TOPIC, raw)
    (refusal,) = await bench.answers()
    assert (refusal.code, refusal.command) == ("unknown_key", None)  # nothing of what it says is believed
    assert [line["code"] for line in logs if line["event"] == "command_refused"] == ["unknown_key"]
    assert bench.core._gateways.site.asked.count("metadata/timestamp.json") == asked + 1


async def test_a_clock_that_cannot_be_believed_lets_nothing_through(bench: Bench, make: Callable[..., Command]) -> None:
    bench.core.times.ahead_s = 1_000_000.0 - time.time()
    await bench.give(make())
    assert await bench.codes() == ["clock_untrusted"]


async def test_expired_metadata_vouch_for_nobody(bench: Bench, make: Callable[..., Command]) -> None:
    bench.core.times.passed_s += 400 * 86400.0
    await bench.give(make())
    assert await bench.codes() == ["trust_expired"]


async def test_a_flood_of_junk_does_not_fill_the_outbox(bench: Bench) -> None:
    with structlog.testing.capture_logs() as logs:
        for number in range(REFUSALS_MAX + 10):
            await bench.commands.take(TOPIC, b"junk %d" % number)
    assert await bench.codes() == ["bad_document"] * REFUSALS_MAX
    assert sum(line["event"] == "command_refused" for line in logs) == REFUSALS_MAX + 10


async def test_a_command_that_meets_a_full_store_leaves_no_mark_and_is_done_when_it_is_tried_again(
    bench: Bench, make: Callable[..., Command]
) -> None:
    await updated(bench.core)
    await acknowledge(bench.core)
    command = make(CommandKind.RESYNC)
    await bench.core.database.write(no_more_reports)
    with pytest.raises(StoreError):
        await bench.give(command)
    assert (await bench.core.reports(), bench.link.resends) == ([], 0)
    await bench.core.database.write(reports_again)
    await bench.give(command)
    assert [r.state for r in await bench.answers()] == ["resync", "running", "confirming", "resynced"]
    assert bench.link.resends == 1


async def test_what_nobody_listed_has_signed_is_not_kept_for_a_full_store(
    bench: Bench, make: Callable[..., Command]
) -> None:
    await bench.core.database.write(no_more_reports)
    await bench.commands.take(TOPIC, b"junk")
    await bench.give(make(after_s=-700.0), gateway_topic("gw-2", "commands"))  # nor what is for somebody else
    with pytest.raises(StoreError):  # but it is said to who may ask that it came too late
        await bench.give(make(after_s=-700.0))
    await bench.core.database.write(reports_again)
    await bench.commands.take(TOPIC, b"junk")
    assert await bench.codes() == ["bad_document"]


def no_more_reports(db: sqlite3.Connection) -> None:
    """As when there is no room: whatever writes a report fails, with all that is in its transaction."""
    db.execute("CREATE TEMP TRIGGER no_room BEFORE INSERT ON outbox BEGIN SELECT RAISE(ABORT, 'no room'); END")


def reports_again(db: sqlite3.Connection) -> None:
    db.execute("DROP TRIGGER no_room")


def test_a_command_that_holds_for_days_is_none() -> None:
    command = new_command("gw-1", CommandKind.IDENTIFY, 1_790_000_000.0)
    values = {name: getattr(command, name) for name in Command.model_fields}
    with pytest.raises(ValueError, match="an hour at the most"):
        Command.model_validate(values | {"expires": command.issued + timedelta(hours=2)})
