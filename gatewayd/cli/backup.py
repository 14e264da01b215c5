"""`gatewayd backup` and `gatewayd restore`: a whole gateway in one file, and other hardware that takes over from it.

Exit status: 0 done, 1 refused, 2 wrong usage or configuration.
"""

import functools
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

import click

from gatewayd.cli.client import Client
from gatewayd.cli.operator import DEFAULT_CONFIG, end
from gatewayd.errors import ConfigError, GatewaydError, Refused, Unavailable
from gatewayd.status.token import TOKEN_FILE

if TYPE_CHECKING:
    from gatewayd.backup.archive import Manifest
    from gatewayd.config import Config

P = ParamSpec("P")


def _with_config(command: Callable[P, None]) -> Callable[P, None]:
    """Adds the options that both have, and turns errors into a line and an exit status."""

    @click.option(
        "--config",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar="GATEWAYD_CONFIG",
        default=DEFAULT_CONFIG,
        show_default=True,
        help="The daemon's configuration file.",
    )
    @click.option(
        "--passphrase-file",
        type=click.Path(dir_okay=False, path_type=Path),
        help="The backup is sealed by the passphrase in this file.",
    )
    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except ConfigError as error:
            end(2, str(error))
        except Refused as error:
            end(1, error.detail)
        except GatewaydError as error:
            end(1, str(error))

    return wrapped


@click.command()
@_with_config
@click.option("--out", type=click.Path(path_type=Path), help="The new file, or a folder for it.  [default: .]")
@click.option("--payloads", is_flag=True, help="With the cached payloads, which are fetched again otherwise.")
def backup(config: Path, passphrase_file: Path | None, out: Path | None, payloads: bool) -> None:
    """Make a backup of store, trust, Zigbee network and counters, also while the daemon runs."""
    from gatewayd.backup.take import file_name, take

    settings, passphrase = _settings(config), _passphrase(passphrase_file)
    now = datetime.now(UTC)
    target = (out or Path()).absolute()
    if target.is_dir():
        target /= file_name(settings.gateway.id, now)
    state = settings.gateway.state_dir
    if settings.zigbee is not None and (reason := _fresh_network_backup(settings)):
        click.echo(f"gatewayd: the newest backup of the Zigbee network is taken, none was made now: {reason}", err=True)
    manifest = take(state, settings.gateway.id, target, now, passphrase=passphrase, payloads=payloads)
    for line in _described(manifest):
        click.echo(line)
    click.echo(
        f"{target}: {target.stat().st_size} bytes" + ("" if passphrase else ", with keys in clear: keep it safe")
    )


@click.command()
@_with_config
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--old-hardware-is-off",
    is_flag=True,
    help="Do it: neither the old gateway nor its dongle runs, or will ever run again with this state.",
)
@click.option("--force", is_flag=True, help="Set the state that is here aside.")
@click.option("--other-gateway", is_flag=True, help="The backup may be of a gateway with another id.")
@click.option(
    "--burn-address", is_flag=True, help="Write the coordinator's address into a dongle which takes that only once."
)
@click.option("--keep-address", is_flag=True, help="The dongle keeps its own address: nodes may have to join again.")
def restore(
    config: Path,
    file: Path,
    passphrase_file: Path | None,
    old_hardware_is_off: bool,
    force: bool,
    other_gateway: bool,
    burn_address: bool,
    keep_address: bool,
) -> None:
    """Go on from the backup in FILE on this machine. The daemon must not be running.

    Without --old-hardware-is-off the whole FILE is verified, and nothing is done. Two gateways with one state, or two
    coordinators of one network, harm the nodes.
    """
    if burn_address and keep_address:
        raise click.UsageError("either --burn-address or --keep-address")
    from gatewayd.backup.restore import look
    from gatewayd.backup.restore import restore as put_in_place

    settings, passphrase = _settings(config), _passphrase(passphrase_file)
    gateway = settings.gateway
    if not old_hardware_is_off:
        for line in _described(look(file, gateway.id, passphrase, other_gateway=other_gateway)):
            click.echo(line)
        click.echo(
            "it is whole. Nothing is done yet: switch the old gateway and its dongle off for good, then --old-hardware-is-off"
        )
        return
    from gatewayd.backup.radios import after_restore
    from radios.errors import RadioError

    try:
        done = put_in_place(
            file,
            gateway.state_dir,
            gateway.id,
            time.time(),
            after_restore(settings, burn_address=burn_address, keep_address=keep_address),
            passphrase=passphrase,
            other_gateway=other_gateway,
            force=force,
        )
    except RadioError as error:
        end(1, f"{file}: {error}")
    for line in _described(done.manifest):
        click.echo(line)
    if settings.zigbee is not None:
        click.echo(
            f"network     {done.network_backup}: goes into a dongle that has none, when the daemon starts"
            if done.network_backup
            else "network     there is none in the backup: a new dongle gets none, and the one that holds it goes on"
        )
    if done.aside is not None:
        click.echo(f"set aside   {done.aside}")
    click.echo(f"{gateway.state_dir}: restored; the daemon may start. The old hardware must never be switched on again")


def _fresh_network_backup(settings: "Config") -> str:
    """Ask the running daemon for one. Why there is none; empty: there is."""
    client = Client(settings.status.listen, settings.gateway.state_dir / TOKEN_FILE)
    try:
        client.post("radios", "zigbee", "backup", body={})
    except Unavailable:
        return "the daemon does not run"
    except Refused as error:
        return error.detail
    except ConfigError as error:
        return str(error)
    return ""


def _described(manifest: "Manifest") -> list[str]:
    names = [member.name for member in manifest.members]
    count = {folder: sum(name.startswith(f"{folder}/") for name in names) for folder in ("trust", "payloads")}
    network = next((name for name in names if name.startswith("backups/")), "none")
    return [
        f"gateway     {manifest.gateway}, made at {manifest.made_at:%Y-%m-%d %H:%M:%S} UTC by gatewayd {manifest.program}",
        f"store       schema {manifest.store_schema}; {count['trust']} files of trust, {count['payloads']} payloads",
        f"zigbee      network backup: {network}",
    ]


def _settings(config: Path) -> "Config":
    from gatewayd.config import load

    return load(config)


def _passphrase(file: Path | None) -> str | None:
    from gatewayd.config_values import SecretFile

    return None if file is None else SecretFile(file).read()
