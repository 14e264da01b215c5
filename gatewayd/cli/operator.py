"""The local operator's commands: what the daemon on this machine does, and the few things that can be asked of it.

Exit status: 0 done, 1 the daemon refuses, 2 wrong usage or configuration, 4 no daemon answers.
"""

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, ParamSpec

import click

from gatewayd.cli.client import Answer, Client
from gatewayd.errors import ConfigError, Refused, Unavailable
from gatewayd.status.token import TOKEN_FILE

DEFAULT_CONFIG = Path("/etc/gatewayd/gatewayd.toml")
DEFAULT_URL = "http://127.0.0.1:8470"
PAGE = 500

P = ParamSpec("P")


def with_client(command: Callable[P, None]) -> Callable[P, None]:
    """Adds the options that say which daemon, and turns errors into a line and an exit status."""

    @click.option(
        "--config",
        "config",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar="GATEWAYD_CONFIG",
        help=f"The daemon's configuration file.  [default: {DEFAULT_CONFIG}, if there]",
    )
    @click.option("--url", help="The status endpoint, instead: http://127.0.0.1:8470 or unix:/path.")
    @click.option(
        "--token-file", type=click.Path(dir_okay=False, path_type=Path), help=f"{TOKEN_FILE} of the state folder."
    )
    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        options: dict[str, Any] = kwargs
        which = (options.pop("config"), options.pop("url"), options.pop("token_file"))
        try:
            options["client"] = _client(*which)
            command(*args, **kwargs)
        except ConfigError as error:
            end(2, str(error))
        except Refused as error:
            end(1, error.detail)
        except Unavailable as error:
            end(4, str(error))

    return wrapped


json_option = click.option("--json", "as_json", is_flag=True, help="The API's answer as it is.")


@click.command()
@with_client
@json_option
def status(client: Client, as_json: bool) -> None:
    """Show the gateway, its campaigns and its nodes; exit status 1 when the gateway is not ready."""
    gateway, campaigns = client.get("gateway"), client.get("campaigns")
    found = _all_nodes(client, {})
    if as_json:
        print_json({"gateway": gateway, **campaigns, "nodes": found})
    else:
        from gatewayd.cli import tables

        tables.show(tables.gateway(gateway), tables.campaigns(campaigns["campaigns"]), tables.nodes(found))
    sys.exit(0 if gateway["ready"] else 1)


@click.command()
@with_client
@click.option("--radio", default="", help="zigbee or lorawan.")
@click.option("--state", default="", help="Of the node's update; none: nodes without one.")
@click.option("--campaign", default="", help="Nodes in this campaign.")
@click.option("--search", default="", help="Part of id, name or model.")
@json_option
def nodes(client: Client, as_json: bool, **filters: str) -> None:
    """List the nodes."""
    found = _all_nodes(client, {name: value for name, value in filters.items() if value})
    if not found and (radio := filters["radio"]):
        gateway = client.get("gateway")
        radios = sorted({*gateway["radios"], *gateway["nodes"]})
        if radio not in radios:
            end(1, f"there is no radio {radio!r} here; there is: {', '.join(radios) or 'none'}")
    if as_json:
        print_json(found)
        return
    from gatewayd.cli import tables

    tables.show(tables.nodes(found))


@click.command()
@with_client
@click.argument("campaign")
@json_option
def plan(client: Client, campaign: str, as_json: bool) -> None:
    """Show what the transfers of CAMPAIGN were planned to take on this gateway, tier by tier, before their first byte."""
    made = client.get("campaigns", campaign)["plan"]
    if as_json:
        print_json(made)
        return
    from gatewayd.cli import tables

    tables.show(*tables.plans(made))


@click.command()
@with_client
@click.argument("campaign")
def hold(client: Client, campaign: str) -> None:
    """Hold CAMPAIGN on this gateway: nodes keep what they have, nothing more is sent."""
    client.post("campaigns", campaign, "hold", body={})
    click.echo(f"{campaign}: held; lift it with: gatewayd resume {campaign}")


@click.command()
@with_client
@click.argument("campaign")
def resume(client: Client, campaign: str) -> None:
    """Lift the operator's hold on CAMPAIGN. What the cloud or a gate has paused stays paused."""
    answer = client.post("campaigns", campaign, "resume", body={})
    paused = f"; the cloud wants it {answer['desired']}" if answer["desired"] not in (None, "running") else ""
    click.echo(f"{campaign}: not held any more{paused}")


def _client(config: Path | None, url: str | None, token_file: Path | None) -> Client:
    if url is not None:
        return Client.at(url, token_file)
    if config is None and not DEFAULT_CONFIG.exists():
        return Client.at(DEFAULT_URL, token_file)
    from gatewayd.config import load

    settings = load(config or DEFAULT_CONFIG)
    return Client(settings.status.listen, token_file or settings.gateway.state_dir / TOKEN_FILE)


def _all_nodes(client: Client, filters: dict[str, str]) -> list[Answer]:
    found: list[Answer] = []
    while True:
        answer = client.get("nodes", limit=PAGE, offset=len(found), **filters)
        found += answer["nodes"]
        if not answer["nodes"] or len(found) >= answer["total"]:
            return found


def print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def end(code: int, text: str) -> NoReturn:
    """Say it and exit."""
    click.echo(f"gatewayd: {text}", err=True)
    sys.exit(code)
