"""Commands to one gateway: made, signed, sent, and the gateway's answer waited for. SHELL.

A command is not retained: a gateway that is offline never gets it, and whoever asks is told that no answer came.
"""

import asyncio
import json
import uuid

from securesystemslib.dsse import Envelope
from securesystemslib.signer import Signer  # type: ignore[attr-defined] # a public name, but not in its __all__

from gatewayd.cloud import messages
from gatewayd.cloud.messages import Command, CommandKind, Report, ReportBatch, ReportKind
from gatewayd.errors import Refused
from gatewayd.publisher.broker import QOS, BrokerSettings, connected, payload_bytes, subscribe_all
from gatewayd.publisher.campaigns import validated
from gatewayd.trust.envelope import COMMAND_PAYLOAD_TYPE

LIFETIME_S = 600.0  # for clocks that differ and a gateway that is just coming back


def new_command(gateway: str, kind: CommandKind, now: float, lifetime_s: float = LIFETIME_S) -> Command:
    """A command with an id of its own. ConfigError names every field that is out of range."""
    values = {
        "id": f"{kind}-{uuid.uuid4().hex[:12]}",
        "audience": f"gateway:{gateway}",
        "kind": kind,
        "issued": messages.utc(now),  # not cut to seconds: it has to rise
        "expires": messages.utc(now + lifetime_s),
    }
    return validated(Command, values, f"command to {gateway}")


def sign_command(command: Command, signer: Signer) -> bytes:
    """The envelope as it goes on the wire."""
    envelope = Envelope(messages.dump(command), COMMAND_PAYLOAD_TYPE, {})
    envelope.sign(signer)
    return json.dumps(envelope.to_dict(), separators=(",", ":")).encode()


async def ask(broker: BrokerSettings, command: Command, signer: Signer, wait_s: float) -> Report | None:
    """Send it and return the gateway's answer; None when none came in time. Refused when the gateway refused it.

    A gateway that could not verify the signature does not know the command's id: its refusal is taken for one of this
    command when it comes while we wait. Unavailable.
    """
    gateway = command.audience.partition(":")[2]
    async with connected(broker) as client:
        await subscribe_all(client, [messages.gateway_topic(gateway, "reports")])
        topic = messages.gateway_topic(gateway, "commands")
        await client.publish(topic, sign_command(command, signer), qos=QOS, timeout=broker.timeout_s)
        try:
            async with asyncio.timeout(wait_s):
                async for message in client.messages:
                    if (answer := _answer(command, payload_bytes(message))) is not None:
                        return answer
        except TimeoutError:
            return None
    return None


def _answer(command: Command, raw: bytes) -> Report | None:
    try:
        batch = messages.parse(ReportBatch, raw, "reports")
    except Refused:
        return None  # not ours to judge; the collector says so
    for numbered in batch.reports:
        report = numbered.report
        if report.kind is not ReportKind.GATEWAY:
            continue
        ours = report.command == command.id
        if report.state == "refused" and (ours or (report.command is None and report.at >= command.issued)):
            raise Refused(report.code, f"{command.audience} says: {report.detail}")
        if ours:
            return report
    return None
