"""`gatewayd zigbee`: what an operator does with the network: who joins, who leaves, and bringing a backup back.

Install codes and keys are read from files or the terminal, given to the daemon on this machine, and shown by nobody.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import click

from gatewayd.cli.client import Answer, Client
from gatewayd.cli.operator import end, json_option, print_json, with_client

BACKUP_MAX_BYTES = 1000 * 1000


@click.group()
def zigbee() -> None:
    """The Zigbee network: joining, leaving, backups."""


@zigbee.command("permit-join")
@with_client
@click.argument("seconds", default=60, type=click.IntRange(0, 254))
@click.option("--through", help="Only through this router: zigbee:<eui64>.")
@click.option("--node", help="Only this node, which has the install code: zigbee:<eui64>.")
@click.option(
    "--install-code", "code", type=click.File(), help="A file with the install code that is printed on it; - asks."
)
def permit_join(client: Client, seconds: int, through: str | None, node: str | None, code: IO[str] | None) -> None:
    """Let nodes join for SECONDS (60); 0 closes the network."""
    if (node is None) != (code is None):
        raise click.UsageError("--node and --install-code belong together")
    if node is not None and through is not None:
        raise click.UsageError("either --node with its install code, or --through a router")
    arguments: Answer = {"seconds": seconds}
    if code is not None:
        asked = code.name == "<stdin>" and code.isatty()
        arguments["install_code"] = (click.prompt("install code", hide_input=True) if asked else code.read()).strip()
    _ask(client, "permit_join", node or through, arguments)
    if not seconds:
        click.echo("no node may join any more")
    else:
        click.echo(f"{node or 'nodes'} may join for {seconds} s" + (f" through {through}" if through else ""))


@zigbee.command()
@with_client
@click.argument("node")
def remove(client: Client, node: str) -> None:
    """Make NODE leave the network."""
    answer = _ask(client, "remove", node, {})
    click.echo(f"{node}: has left" if answer["left"] else f"{node}: {answer['why']}")


@zigbee.command()
@with_client
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--apply", is_flag=True, help="Do it. Without it nothing is written.")
@click.option("--overwrite", is_flag=True, help="The network that the dongle holds now is lost.")
@click.option(
    "--burn-address", is_flag=True, help="Write the coordinator's address, which this dongle takes only once."
)
@click.option("--keep-address", is_flag=True, help="Keep the dongle's own address: nodes may have to join again.")
@click.option("--counter-gap", type=click.IntRange(0, 2**32 - 1), help="Frames since the backup; default: by its age.")
@json_option
def restore(client: Client, file: Path, as_json: bool, **options: Any) -> None:
    """Bring the network in FILE into the dongle: a coordinator backup of zigbee2mqtt, ZHA or gatewayd.

    Stop the other software, and unplug its dongle, before: two coordinators of one network harm it. Without --apply it
    says what is in the file, and what would be done.
    """
    try:
        raw = file.read_bytes()
        if len(raw) > BACKUP_MAX_BYTES:
            end(2, f"{file}: larger than {BACKUP_MAX_BYTES} bytes: is no backup of a coordinator")
        backup = json.loads(raw)
    except OSError as error:
        end(2, f"{file}: cannot be read: {error.strerror}")
    except ValueError:
        end(2, f"{file}: is no JSON")
    arguments = {name: value for name, value in options.items() if value is not None}
    answer = _value(client.post("radios", "zigbee", "restore", body={"arguments": {"backup": backup, **arguments}}))
    if as_json:
        print_json(answer)
        return
    for line in _lines(answer, applied=options["apply"]):
        click.echo(line)


@zigbee.command()
@with_client
@click.option("--abandon", is_flag=True, help="The present network is lost: every node has to be paired again.")
def form(client: Client, abandon: bool) -> None:
    """Form a new network. Needed only where one was: a dongle that never had any gets one by itself."""
    answer = _ask(client, "form", None, {"abandon": abandon})
    click.echo("a new network is formed" + (f"; abandoned: {answer['abandoned']}" if answer["abandoned"] else ""))


@zigbee.command()
@with_client
def adopt(client: Client) -> None:
    """Take the network that the dongle holds for the right one, after another dongle was plugged in on purpose."""
    answer = _ask(client, "adopt", None, {})
    click.echo(f"the nodes are in PAN {answer['pan_id']}, extended {answer['extended_pan_id']}")


def _ask(client: Client, name: str, node: str | None, arguments: Answer) -> Any:
    """What the radio answers; ends with its reason when it refuses."""
    body: Answer = {"name": name, "arguments": arguments}
    if node is not None:
        body["node"] = node
    return _value(client.post("radios", "zigbee", "commands", body=body))


def _value(answer: Answer) -> Any:
    if not answer["ok"]:
        end(1, answer["detail"] or "the radio refused")
    return answer["value"]


def _lines(answer: Mapping[str, Any], *, applied: bool) -> list[str]:
    backup, dongle = answer["backup"], answer["dongle"]
    lines = [
        f"backup      {_network(backup)}",
        f"            by {backup['source']}, made {backup['made_at'] or 'at no known time'}",
        f"            {backup['devices']} nodes, without a short address {backup['without_address']}",
        f"            with a link key of their own {backup['with_link_key']}; frame counter {backup['frame_counter']}",
        f"dongle      {_network(dongle) if dongle else 'no network'}",
        f"address     {answer['address']}",
        f"counter     goes on at {answer['frame_counter_after']}",
        f"new nodes   {answer['new_devices']}, interviewed when they are heard",
    ]
    lines += [f"note        {note}" for note in answer["notes"]]
    if applied:
        return [*lines, "done: the dongle has this network; the other one must never be switched on again"]
    if answer["refused"]:
        return [*lines, *(f"refused     {reason}" for reason in answer["refused"])]
    return [*lines, "nothing is written yet: --apply does it"]


def _network(view: Mapping[str, Any]) -> str:
    return (
        f"PAN {view['pan_id']}, extended {view['extended_pan_id']}, channel {view['channel']}, "
        f"coordinator {view['coordinator']}"
    )
