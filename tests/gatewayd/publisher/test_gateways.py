"""Commands to a gateway over a real broker, and what the asker is told."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiomqtt
import pytest
from click.testing import CliRunner
from securesystemslib.signer import CryptoSigner

from gatewayd.cloud import messages
from gatewayd.cloud.messages import (
    CampaignKeys,
    Command,
    CommandKind,
    GatewayIdentity,
    NumberedReport,
    RadioIdentity,
    Report,
    ReportBatch,
    ReportKind,
)
from gatewayd.errors import ConfigError, Refused
from gatewayd.publisher import gateways
from gatewayd.publisher.broker import BrokerSettings
from gatewayd.publisher.commands import publish
from gatewayd.publisher.keys import KeyFolder, Role, campaign_key, make_key
from gatewayd.trust.envelope import verify_command
from tests.support.mosquitto import Mosquitto

pytestmark = pytest.mark.services

TOPIC = "ota/v1/gateways/gw-1/commands"
REPORTS = "ota/v1/gateways/gw-1/reports"
IDENTITY = GatewayIdentity(
    gateway="gw-1",
    version="1.2.3",
    uptime_s=60.0,
    epoch=1,
    reports_waiting=0,
    radios={"zigbee": RadioIdentity(up=True, nodes=7)},
    health={"clock": "ok"},
)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "broker") as made:
        yield made


@pytest.fixture
async def gateway(broker: Mosquitto) -> AsyncIterator[aiomqtt.Client]:
    """Played: hears commands, and answers what the test says."""
    async with broker.client("gw-1") as client:
        await client.subscribe(TOPIC, qos=1)
        yield client


def report(state: str, command: str | None, *, at: datetime | None = None, **more: object) -> Report:
    values = {"kind": ReportKind.GATEWAY, "at": at or messages.utc(time.time()), "state": state, "command": command}
    return Report.model_validate({**values, **more})


async def heard(gateway: aiomqtt.Client, keys: CampaignKeys) -> Command:
    message = await anext(aiter(gateway.messages))
    assert isinstance(message.payload, bytes)
    assert not message.retain
    command = verify_command(message.payload, keys, "gateway:gw-1", TOPIC)
    command.check_time(time.time())
    return command.document


async def say(gateway: aiomqtt.Client, *reports: Report) -> None:
    numbered = tuple(NumberedReport(seq=seq, report=each) for seq, each in enumerate(reports, 1))
    await gateway.publish(REPORTS, messages.dump(ReportBatch(epoch=1, after=0, reports=numbered)), qos=1)


async def test_what_is_signed_is_what_a_gateway_takes_and_its_answer_is_found_among_others(
    broker: Mosquitto, gateway: aiomqtt.Client
) -> None:
    signer = CryptoSigner.generate_ecdsa()
    keys = CampaignKeys(keys=(campaign_key(signer, ["gateway:*"]),))
    command = gateways.new_command("gw-1", CommandKind.RESYNC, time.time())
    settings = BrokerSettings(f"mqtt://127.0.0.1:{broker.port}")
    asking = asyncio.create_task(gateways.ask(settings, command, signer, 20))
    assert await heard(gateway, keys) == command
    old = datetime(2026, 1, 1, tzinfo=UTC)
    await gateway.publish(REPORTS, b"no batch", qos=1)
    await say(gateway, report("clock", None, code="clock_untrusted"), report("refused", None, at=old, code="replayed"))
    await say(gateway, report("identity", "another"), report("resync", command.id, detail="2 campaigns follow"))
    answer = await asking
    assert answer is not None
    assert (answer.state, answer.detail) == ("resync", "2 campaigns follow")


@pytest.mark.parametrize("known", [True, False])
async def test_a_refusal_is_told_also_by_a_gateway_that_does_not_know_the_id(
    broker: Mosquitto, gateway: aiomqtt.Client, known: bool
) -> None:
    command = gateways.new_command("gw-1", CommandKind.IDENTIFY, time.time())
    settings = BrokerSettings(f"mqtt://127.0.0.1:{broker.port}")
    asking = asyncio.create_task(gateways.ask(settings, command, CryptoSigner.generate_ecdsa(), 20))
    await anext(aiter(gateway.messages))
    refusal = report("refused", command.id if known else None, code="unknown_key", detail="no listed key")
    await say(gateway, refusal.model_copy(update={"at": command.issued + timedelta(seconds=1)}))
    with pytest.raises(Refused, match="unknown_key: gateway:gw-1 says: no listed key"):
        await asking


async def test_a_person_is_told_who_the_gateway_is(broker: Mosquitto, gateway: aiomqtt.Client, tmp_path: Path) -> None:
    make_key(tmp_path / "keys" / "campaign.pem")
    signer = KeyFolder(tmp_path / "keys").signer(Role.CAMPAIGN)
    url = f"mqtt://127.0.0.1:{broker.port}"
    command_line = ["gateway", "identify", "gw-1", "--broker", url, "--keys", str(tmp_path / "keys"), "--wait-s", "20"]
    asking = asyncio.create_task(asyncio.to_thread(CliRunner().invoke, publish, command_line))
    command = await heard(gateway, CampaignKeys(keys=(campaign_key(signer, ["gateway:gw-1"]),)))
    assert command.kind is CommandKind.IDENTIFY
    await say(gateway, report("identity", command.id, identity=IDENTITY))
    result = await asking
    assert result.exit_code == 0, result.output
    assert "version 1.2.3" in result.output
    assert "'nodes': 7" in result.output


def test_a_gateway_that_cannot_be_named_so() -> None:
    with pytest.raises(ConfigError, match="audience"):
        gateways.new_command("GW 1", CommandKind.IDENTIFY, time.time())
