"""`gatewayd publish ...`: the publisher's commands. The work is done by the modules beside this one.

Exit status: 0 done, 1 failures (watch), 2 time is up (watch, gateway) or wrong usage, 3 refused or not configured, 4 broker
or token unavailable, 5 staged: kept until other keys have signed.
"""

import asyncio
from pathlib import Path

import click

from gatewayd.publisher import (
    campaign_commands,
    ceremony_commands,
    gateway_commands,
    key_commands,
    repository_commands,
)
from gatewayd.publisher.broker import BrokerSettings
from gatewayd.publisher.collector import ReportStore, collect
from gatewayd.publisher.options import PublisherGroup, broker_options


@click.group(cls=PublisherGroup)
def publish() -> None:
    """Keys, the repository, releases and campaigns: what the cloud side needs."""


publish.add_command(key_commands.keys)
repository_commands.register(publish)
ceremony_commands.register(publish)
publish.add_command(campaign_commands.campaign)
publish.add_command(gateway_commands.gateway)


@publish.command("collect")
@broker_options
@click.option(
    "--db", type=click.Path(path_type=Path), help="SQLite file for the reports; without it they are not kept."
)
def collect_command(broker: BrokerSettings, db: Path | None) -> None:
    """Store the reports of all gateways and acknowledge them, until interrupted."""
    store = ReportStore(db)
    try:
        asyncio.run(collect(broker, store))
    finally:
        store.close()
