"""Campaigns, watching and collecting over a real broker."""

import asyncio
import contextlib
import gc
import io
import json
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console
from securesystemslib.signer import CryptoSigner

from gatewayd.cloud import messages
from gatewayd.cloud.messages import (
    Acks,
    CampaignSummary,
    Desired,
    GatewayState,
    NumberedReport,
    Report,
    ReportBatch,
    ReportKind,
)
from gatewayd.demo.authority import Authority
from gatewayd.errors import ConfigError, Refused, Unavailable
from gatewayd.publisher import campaigns
from gatewayd.publisher.broker import BrokerSettings
from gatewayd.publisher.collector import ReportStore, collect
from gatewayd.publisher.keys import campaign_key
from gatewayd.publisher.progress import Outcome, Progress
from gatewayd.publisher.screen import Screen
from gatewayd.publisher.watch import watch
from gatewayd.trust.envelope import verify_campaign
from tests.support.mosquitto import CLOUD, Mosquitto

pytestmark = pytest.mark.services
RELEASE = "releases/meter/1.2.0.json"
SIGNER = CryptoSigner.generate_ecdsa()
AT = datetime(2026, 11, 1, tzinfo=UTC)
NODE = "zigbee:0000000000000001"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def mosquitto(tmp_path: Path, authority: Authority) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "broker", authority, {"gw-1": ("north",)}) as made:
        yield made


@pytest.fixture
def broker(mosquitto: Mosquitto, authority: Authority) -> BrokerSettings:
    return settings(mosquitto, authority, CLOUD)


def settings(mosquitto: Mosquitto, authority: Authority, name: str) -> BrokerSettings:
    identity = authority.client(name)
    url = f"mqtts://{mosquitto.host}:{mosquitto.port}"
    return BrokerSettings(url, authority.ca, identity.cert, identity.key, retained_wait_s=1.0)


def campaign(audience: str = "gateway:gw-1") -> messages.Campaign:
    return campaigns.new_campaign("meters", RELEASE, audience, time.time())


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_what_is_issued_is_what_a_gateway_takes(
    broker: BrokerSettings, mosquitto: Mosquitto, protocol: str
) -> None:
    await campaigns.start(replace(broker, protocol=protocol), campaign("fleet:north"), SIGNER)
    topic = "ota/v1/fleets/north/campaigns/meters"
    async with mosquitto.client("gw-1") as gateway:
        await gateway.subscribe(topic, qos=1)
        message = await anext(aiter(gateway.messages))
    keys = messages.CampaignKeys(keys=(campaign_key(SIGNER, ["fleet:*"]),))
    assert isinstance(message.payload, bytes)
    verified = verify_campaign(message.payload, keys, frozenset({"fleet:north"}), time.time(), topic)
    assert verified.document.release == RELEASE


async def test_changes_build_on_what_the_broker_holds(broker: BrokerSettings) -> None:
    await campaigns.start(broker, campaign(), SIGNER)
    await campaigns.change(broker, "gateway:gw-1", "meters", SIGNER, time.time(), desired=Desired.PAUSED)
    held = await campaigns.current(broker, "gateway:gw-1", "meters", SIGNER)
    assert held is not None
    assert (held.revision, held.desired) == (2, Desired.PAUSED)
    with pytest.raises(ConfigError, match="exists"):
        await campaigns.start(broker, campaign(), SIGNER)


async def test_a_forged_campaign_on_the_broker_is_not_signed_again(broker: BrokerSettings) -> None:
    stranger = CryptoSigner.generate_ecdsa()
    await campaigns.issue(broker, campaign(), stranger)
    with pytest.raises(Refused, match="unknown_key"):
        await campaigns.change(broker, "gateway:gw-1", "meters", SIGNER, time.time(), desired=Desired.RUNNING)


async def test_a_publication_that_the_broker_drops_is_noticed(mosquitto: Mosquitto, authority: Authority) -> None:
    """mosquitto acknowledges a message that its ACL refuses."""
    with pytest.raises(Unavailable, match="ACL"):
        await campaigns.issue(replace(settings(mosquitto, authority, "gw-1"), timeout_s=3.0), campaign(), SIGNER)


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # paho drops the socket of a failed handshake
async def test_a_stranger_to_the_broker(mosquitto: Mosquitto, tmp_path: Path, broker: BrokerSettings) -> None:
    with pytest.raises(Unavailable):
        await campaigns.issue(replace(broker, cert=None, key=None, timeout_s=2.0), campaign(), SIGNER)
    with pytest.raises(Unavailable, match="ertificate"):
        await campaigns.issue(replace(broker, ca=Authority(tmp_path / "other").ca), campaign(), SIGNER)
    with pytest.raises(ConfigError):
        await campaigns.issue(replace(broker, ca=tmp_path / "none.pem"), campaign(), SIGNER)
    gc.collect()  # what paho has dropped is told in this test, not in the next


def summary(**nodes: int) -> bytes:
    return messages.dump(
        CampaignSummary(
            campaign="meters", revision=1, state="running", open_tiers=1, gate="", nodes=nodes, tiers={}, updated=AT
        )
    )


def reports(seq: int, confirmed: int) -> bytes:
    report = Report(
        kind=ReportKind.PROGRESS,
        at=AT,
        state="transferring",
        campaign="meters",
        node=NODE,
        confirmed=confirmed,
        size=400,
    )
    return messages.dump(ReportBatch(epoch=1, after=seq - 1, reports=(NumberedReport(seq=seq, report=report),)))


async def test_watching_to_the_end(broker: BrokerSettings, mosquitto: Mosquitto) -> None:
    progress = Progress("meters", expected=frozenset({"gw-1"}))
    seen = asyncio.Event()
    watching = asyncio.create_task(watch(broker, "gateway:gw-1", progress, 20, lambda _: seen.set()))
    base = "ota/v1/gateways/gw-1"
    async with mosquitto.client(CLOUD) as gateway:
        await gateway.publish(f"{base}/summary/meters", b"not json", qos=1)
        await gateway.publish(f"{base}/summary/meters", summary(pending=1), qos=1, retain=True)
        await seen.wait()
        await gateway.publish(f"{base}/reports", reports(1, 100), qos=1)
        await gateway.publish(f"{base}/summary/meters", summary(updated=1), qos=1, retain=True)
        assert await watching is Outcome.UPDATED
    assert progress.nodes["gw-1", NODE].confirmed == 100
    assert await watch(broker, "gateway:gw-1", Progress("meters"), 20, lambda _: None) is Outcome.UPDATED  # retained


async def test_a_fleet_is_watched_until_the_last_of_it_has_spoken(broker: BrokerSettings, mosquitto: Mosquitto) -> None:
    """One gateway is done long before the others say their first word; one that is in another fleet is not waited for."""
    progress = Progress("meters")
    quick = replace(broker, retained_wait_s=0.2)
    async with mosquitto.client(CLOUD) as gateways:
        for name, fleet in (("gw-1", "north"), ("gw-2", "north"), ("gw-3", "south")):
            state = GatewayState(state="offline", connection="", gateway=name, fleets=(fleet,))
            await gateways.publish(f"ota/v1/gateways/{name}/state", messages.dump(state), qos=1, retain=True)
        await gateways.publish("ota/v1/gateways/gw-1/summary/meters", summary(updated=1), qos=1, retain=True)
        watching = asyncio.create_task(watch(quick, "fleet:north", progress, 30, lambda _: None))
        async with asyncio.timeout(20):
            while not (progress.gateways and progress.members and progress.settled):
                await asyncio.sleep(0.01)
        assert progress.missing() == ["gw-2"]
        assert not watching.done()
        await gateways.publish("ota/v1/gateways/gw-2/summary/meters", summary(updated=1), qos=1, retain=True)
        assert await watching is Outcome.UPDATED
        assert await watch(quick, "fleet:north", Progress("meters"), 20, lambda _: None) is Outcome.UPDATED  # late


async def test_a_fleet_of_which_nobody_says_who_is_in_it_never_ends_well(
    broker: BrokerSettings, mosquitto: Mosquitto
) -> None:
    async with mosquitto.client(CLOUD) as gateway:
        await gateway.publish("ota/v1/gateways/gw-1/summary/meters", summary(updated=1), qos=1, retain=True)
    progress = Progress("meters")
    quick = replace(broker, retained_wait_s=0.0)
    watching = asyncio.create_task(watch(quick, "fleet:north", progress, 30, lambda _: None))
    async with asyncio.timeout(20):
        while not (progress.gateways and progress.settled):
            await asyncio.sleep(0.01)
    assert not watching.done()
    assert "--expect" in progress.view_problem()
    watching.cancel()
    await asyncio.wait({watching})
    by_number = Progress("meters", at_least=1)
    assert await watch(quick, "fleet:north", by_number, 20, lambda _: None) is Outcome.UPDATED


async def test_watching_outlives_the_broker(broker: BrokerSettings, mosquitto: Mosquitto) -> None:
    seen = asyncio.Event()
    watching = asyncio.create_task(watch(broker, "gateway:gw-1", Progress("meters"), 30, lambda _: seen.set()))
    topic = "ota/v1/gateways/gw-1/summary/meters"
    async with mosquitto.client(CLOUD) as gateway:
        await gateway.publish(topic, summary(pending=1), qos=1, retain=True)
        await seen.wait()
    mosquitto.restart()
    async with mosquitto.client(CLOUD) as gateway:
        await gateway.publish(topic, summary(updated=1), qos=1, retain=True)
    assert await watching is Outcome.UPDATED


async def test_watching_has_an_end(broker: BrokerSettings) -> None:
    assert await watch(broker, "fleet:north", Progress("meters"), 0.3, lambda _: None) is Outcome.TIMEOUT


async def test_collecting(broker: BrokerSettings, mosquitto: Mosquitto, tmp_path: Path) -> None:
    store = ReportStore(tmp_path / "reports.db")
    collecting = asyncio.create_task(collect(broker, store))
    async with mosquitto.client("gw-1") as gateway:
        await gateway.subscribe("ota/v1/gateways/gw-1/acks", qos=1)
        acks: list[Acks] = []
        async with asyncio.timeout(20):
            await gateway.publish("ota/v1/gateways/gw-1/reports", b"{", qos=1)
            while not acks:  # the collector may not be there yet: an outbox sends again
                await gateway.publish("ota/v1/gateways/gw-1/reports", reports(1, 100), qos=1)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.2):
                        message = await anext(aiter(gateway.messages))
                        assert isinstance(message.payload, bytes)
                        acks.append(messages.parse(Acks, message.payload, "acks"))
            mosquitto.restart()
    assert acks[0] == Acks(epoch=1, seq=1)
    async with asyncio.timeout(20):
        while len(store.reports("meters")) < 2:  # goes on after the broker was away
            with contextlib.suppress(Exception):
                async with mosquitto.client("gw-1") as gateway:
                    await gateway.publish("ota/v1/gateways/gw-1/reports", reports(2, 200), qos=1)
            await asyncio.sleep(0.1)
    collecting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await collecting
    store.close()


async def test_collecting_can_be_ended_while_the_broker_hangs(broker: BrokerSettings, mosquitto: Mosquitto) -> None:
    """The farewell fails then; it must not take the place of the cancellation."""
    process = mosquitto._process
    assert process is not None
    store = ReportStore()
    collecting = asyncio.create_task(collect(broker, store))
    async with mosquitto.client("gw-1") as gateway, asyncio.timeout(20):
        await gateway.subscribe("ota/v1/gateways/gw-1/acks", qos=1)
        answered = asyncio.ensure_future(anext(aiter(gateway.messages)))
        while not answered.done():
            await gateway.publish("ota/v1/gateways/gw-1/reports", reports(1, 100), qos=1)
            await asyncio.wait({answered}, timeout=0.2)
    process.send_signal(signal.SIGSTOP)
    try:
        collecting.cancel()
        done, _ = await asyncio.wait({collecting}, timeout=30)
        assert done
        assert collecting.cancelled()
    finally:
        process.send_signal(signal.SIGCONT)
        store.close()


def test_an_expired_campaign_is_given_its_lifetime_again() -> None:
    old = campaigns.new_campaign("meters", RELEASE, "gateway:gw-1", 1_700_000_000.0, lifetime_s=86400)
    now = old.expires.timestamp() + 1000
    revised = campaigns.revise(old, now, desired=Desired.CANCELLED)
    assert (revised.expires - revised.issued).total_seconds() == 86400
    with pytest.raises(ConfigError, match="for good"):
        campaigns.revise(revised, now)
    with pytest.raises(ConfigError, match="tiers"):
        campaigns.revise(old, now, open_tiers=2)


def test_a_campaign_too_large_for_a_gateway() -> None:
    nodes = tuple(f"zigbee:{number:016x}" for number in range(1500))
    selection = messages.Selection(nodes=nodes)
    policy = messages.Policy()
    document = campaigns.new_campaign("m", RELEASE, "gateway:x", 1e9, selection=selection, policy=policy)
    raw = campaigns.sign_campaign(document, SIGNER)
    assert len(raw) <= messages.DOCUMENT_MAX_BYTES
    wide = messages.Rollout(tiers=(messages.Tier(name="lab", nodes=nodes), messages.Tier(name="all", percent=100.0)))
    with pytest.raises(Refused, match="too_large"):
        campaigns.sign_campaign(document.model_copy(update={"rollout": wide}), SIGNER)


def test_json_lines_are_json(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress("meters")
    progress.summary("gw-1", messages.parse(CampaignSummary, summary(updated=2), ""))
    with Screen(Console(), as_json=True) as screen:
        screen.update(progress)
        screen.end(progress, Outcome.UPDATED)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[-1]["outcome"] == "updated"
    assert lines[-1]["nodes"] == {"updated": 2}


def test_a_person_sees_nodes_refusals_and_the_end() -> None:
    shown = io.StringIO()
    progress = Progress("meters")
    tiers = {"canary": {"updated": 1}, "all": {"updated": 1, "pending": 3}}
    said = messages.parse(CampaignSummary, summary(updated=2), "").model_copy(update={"tiers": tiers})
    progress.summary("gw-1", said)
    for numbered in messages.parse(ReportBatch, reports(1, 100), "").reports:
        progress.report("gw-1", numbered.report)
    progress.refused["gw-2"] = "expired: yesterday"
    failed = Report(
        kind=ReportKind.NODE, at=AT, state="failed", code="lost", campaign="meters", node="zigbee:" + "f" * 16
    )
    progress.report("gw-2", failed)
    with Screen(Console(file=shown, width=120), as_json=False) as screen:
        screen.update(progress)
        screen.end(progress, Outcome.FAILED)
    assert NODE in shown.getvalue()
    assert "transferring" in shown.getvalue()
    assert "tier canary" in shown.getvalue()
    assert "gw-2 refused it: expired: yesterday" in shown.getvalue()
    assert f"gw-2 zigbee:{'f' * 16}: failed lost" in shown.getvalue()
    assert "meters: failed (2 updated)" in shown.getvalue()
