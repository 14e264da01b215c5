"""`gatewayd run` and `gatewayd check-config`."""

import sys
from pathlib import Path

import click

from gatewayd.config import Config, load
from gatewayd.errors import ConfigError
from gatewayd.service.serial_names import better_name

EXIT_FAULTS = 1


@click.command()
@click.option(
    "--config",
    "file",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="GATEWAYD_CONFIG",
    help="The configuration file.",
)
def run(file: Path) -> None:
    """Run the daemon until SIGTERM or SIGINT."""
    config = _load(file)
    # Everything that the daemon needs is imported only after its configuration is known to be right.
    from gatewayd.app import run as run_daemon

    sys.exit(run_daemon(config))


@click.command("check-config")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def check_config(file: Path) -> None:
    """Name every fault in FILE at once; exit status 1 when there is one."""
    config = _load(file)
    radios = [name for name in ("zigbee", "lorawan") if getattr(config, name) is not None]
    if config.zigbee is not None and (better := better_name(config.zigbee.device)) is not None:
        click.echo(
            f"{file}: [zigbee] device: {config.zigbee.device} may be another one tomorrow: use {better}", err=True
        )
    click.echo(f"{file}: ok: gateway {config.gateway.id}, radios: {', '.join(radios) or 'none'}")


def _load(file: Path) -> Config:
    try:
        return load(file)
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(EXIT_FAULTS)
