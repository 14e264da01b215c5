"""Commands for campaigns: plan, start, change, look at, watch."""

import asyncio
import json
import time
from functools import partial
from pathlib import Path

import click
from rich.console import Console

from gatewayd.cloud import messages
from gatewayd.cloud.messages import Campaign, Desired
from gatewayd.errors import ConfigError
from gatewayd.publisher import campaigns
from gatewayd.publisher.broker import BrokerSettings
from gatewayd.publisher.campaign_options import audience_option, checked, document_options
from gatewayd.publisher.collector import ReportStore
from gatewayd.publisher.forecast import forecast
from gatewayd.publisher.inventories import inventories, published
from gatewayd.publisher.keys import KeyFolder, Role
from gatewayd.publisher.options import FILE, FOLDER, Number, broker_options, json_option, keys_option, show
from gatewayd.publisher.plan_screen import show_plan
from gatewayd.publisher.progress import Progress
from gatewayd.publisher.screen import Screen
from gatewayd.publisher.watch import watch


@click.group()
def campaign() -> None:
    """Start, change and watch campaigns."""


@campaign.command("start")
@click.argument("name")
@broker_options
@keys_option
@document_options
@json_option
def start(broker: BrokerSettings, keys: KeyFolder, document: Campaign, as_json: bool) -> None:
    """Start the campaign NAME."""
    _told(asyncio.run(campaigns.start(broker, document, keys.signer(Role.CAMPAIGN))), as_json)


@campaign.command("plan")
@click.argument("name")
@broker_options
@click.option("--repo", type=FOLDER, required=True, help="Folder of the repository that holds the release.")
@document_options
@click.option(
    "--gateway", "gateways", multiple=True, help="Of a fleet only these. Default: all that say they are in it."
)
@json_option
def plan_command(
    broker: BrokerSettings, repo: Path, document: Campaign, gateways: tuple[str, ...], as_json: bool
) -> None:
    """Say what the campaign NAME would do, without starting it: which nodes, how many bytes, about how long."""
    now = time.time()
    release, releases, manufacturers = published(repo, document.release, now)
    found = asyncio.run(inventories(broker, document.audience, gateways))
    if not found:
        raise ConfigError(f"no gateway says that it is in {document.audience}; name them by --gateway")
    told = [forecast(document, release, manufacturers, releases, gateway, now) for gateway in found]
    show_plan(Console(), document, told, as_json)


def _changing(name: str, desired: Desired, help_text: str) -> None:
    @campaign.command(name, help=help_text)
    @click.argument("campaign_id", metavar="NAME")
    @broker_options
    @keys_option
    @audience_option
    @json_option
    def command(campaign_id: str, broker: BrokerSettings, keys: KeyFolder, audience: str, as_json: bool) -> None:
        signer = keys.signer(Role.CAMPAIGN)
        changed = campaigns.change(broker, audience, campaign_id, signer, time.time(), desired=desired)
        _told(asyncio.run(changed), as_json)


_changing("pause", Desired.PAUSED, "Hold the campaign NAME; nodes keep what they have.")
_changing("resume", Desired.RUNNING, "Let the campaign NAME go on.")
_changing("cancel", Desired.CANCELLED, "End the campaign NAME for good.")


@campaign.command("advance")
@click.argument("name")
@broker_options
@keys_option
@audience_option
@json_option
def advance(name: str, broker: BrokerSettings, keys: KeyFolder, audience: str, as_json: bool) -> None:
    """Open one more tier of the campaign NAME."""
    _told(asyncio.run(campaigns.advance(broker, audience, name, keys.signer(Role.CAMPAIGN), time.time())), as_json)


@campaign.command("retry")
@click.argument("name")
@broker_options
@keys_option
@audience_option
@click.option(
    "--outcome", "outcomes", multiple=True, type=click.Choice(["failed", "rolled_back", "moved"]), default=("failed",)
)
@click.option("--node", "nodes", multiple=True, help="Only these nodes. Default: all with such an outcome.")
@json_option
def retry(
    name: str,
    broker: BrokerSettings,
    keys: KeyFolder,
    audience: str,
    outcomes: tuple[str, ...],
    nodes: tuple[str, ...],
    as_json: bool,
) -> None:
    """Try nodes of the campaign NAME anew that have failed; with --outcome also others."""
    wanted = checked(messages.Retry, {"outcomes": list(outcomes), "nodes": list(nodes) or None}, "retry")
    signer = keys.signer(Role.CAMPAIGN)
    _told(asyncio.run(campaigns.retry(broker, audience, name, signer, time.time(), wanted)), as_json)


@campaign.command("show")
@click.argument("name")
@broker_options
@keys_option
@audience_option
def show_command(name: str, broker: BrokerSettings, keys: KeyFolder, audience: str) -> None:
    """Print the campaign NAME as the broker holds it."""
    held = asyncio.run(campaigns.current(broker, audience, name, keys.signer(Role.CAMPAIGN)))
    if held is None:
        raise ConfigError(f"the broker holds no campaign {name} for {audience}")
    click.echo(json.dumps(held.model_dump(mode="json", exclude_none=True), indent=2))


@campaign.command("watch")
@click.argument("name")
@broker_options
@audience_option
@click.option("--revision", type=Number(), default=0, help="Ignore what gateways said of earlier revisions.")
@click.option("--gateway", "gateways", multiple=True, help="Wait for these gateways. Default: see below.")
@click.option("--expect", type=click.IntRange(min=1), help="Wait for so many gateways, whichever they are.")
@click.option("--db", type=FILE, help="The collector's file: what was reported before is known, too.")
@click.option("--accept-deferred", is_flag=True, help="Do not wait for nodes that wait for something (a battery).")
@click.option("--timeout-s", type=float, help="Give up after so long, with exit status 2.")
@json_option
def watch_command(
    name: str,
    broker: BrokerSettings,
    audience: str,
    revision: int,
    gateways: tuple[str, ...],
    expect: int | None,
    db: Path | None,
    accept_deferred: bool,
    timeout_s: float | None,
    as_json: bool,
) -> None:
    """Follow the campaign NAME. Exit status: 0 all updated, 1 failures, 2 time is up.

    For a fleet it waits for every gateway that has said to be in it (by its retained `state`), or has reported of the campaign,
    unless --gateway or --expect says otherwise. Where nobody says which gateways there are, no end is called good.
    """
    if gateways and expect:
        raise click.UsageError("--gateway and --expect: one of the two says whom to wait for")
    progress = Progress(name, revision, frozenset(gateways), accept_deferred, at_least=expect or 0)
    click.echo(f"{name}: waiting for what {audience} says of it; Ctrl-C ends this, not the campaign", err=True)
    store = ReportStore(db) if db else None
    try:
        history = None if store is None else partial(store.reports, name)
        with Screen(Console(), as_json) as screen:
            outcome = asyncio.run(watch(broker, audience, progress, timeout_s, screen.update, history))
            screen.end(progress, outcome)
    finally:
        if store is not None:
            store.close()
    raise SystemExit(int(outcome))


def _told(document: Campaign, as_json: bool) -> None:
    text = f"campaign {document.id} revision {document.revision}: {document.desired}, until {document.expires}"
    show(
        as_json,
        text,
        campaign=document.id,
        revision=document.revision,
        desired=document.desired.value,
        open_tiers=document.rollout.open_tiers,
        expires=document.expires.isoformat(),
    )
