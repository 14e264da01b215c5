"""Commands to one gateway: tell everything again, say who you are."""

import asyncio
import time

import click

from gatewayd.cloud.messages import CommandKind, Report
from gatewayd.publisher import gateways
from gatewayd.publisher.broker import BrokerSettings
from gatewayd.publisher.keys import KeyFolder, Role
from gatewayd.publisher.options import broker_options, json_option, keys_option, show

NO_ANSWER = 2


@click.group()
def gateway() -> None:
    """Ask one gateway for something, by a signed command. Exit status 2: no answer came in time."""


def _asking(kind: CommandKind, help_text: str) -> None:
    @gateway.command(kind.value, help=help_text)
    @click.argument("gateway_id", metavar="GATEWAY")
    @broker_options
    @keys_option
    @click.option("--wait-s", type=float, default=15.0, show_default=True, help="For the answer.")
    @json_option
    def command(gateway_id: str, broker: BrokerSettings, keys: KeyFolder, wait_s: float, as_json: bool) -> None:
        made = gateways.new_command(gateway_id, kind, time.time())
        answer = asyncio.run(gateways.ask(broker, made, keys.signer(Role.CAMPAIGN), wait_s))
        if answer is None:
            text = f"{gateway_id} has not answered in {wait_s:g} s; commands are not kept for a gateway that is offline"
            show(as_json, text, command=made.id, answer=None)
            raise SystemExit(NO_ANSWER)
        fields = answer.model_dump(mode="json", exclude_none=True)
        show(as_json, f"{gateway_id}: {_text(answer)}", command=made.id, answer=fields)


_asking(CommandKind.RESYNC, "Have GATEWAY tell everything again; for a collector that has lost its reports.")
_asking(CommandKind.IDENTIFY, "Have GATEWAY say who it is: version, radios, nodes, health.")


def _text(answer: Report) -> str:
    if (identity := answer.identity) is None:
        return f"{answer.state}: {answer.detail}"
    lines = [f"{name} {value}" for name, value in identity.model_dump(mode="json", exclude_none=True).items() if value]
    return "\n  ".join(["", *lines])
