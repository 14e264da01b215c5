"""What several publisher commands share: options, errors as exit status, printing."""

import json
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import IO, Any, ParamSpec, TypeVar

import click

from gatewayd.errors import GatewaydError, Unavailable
from gatewayd.publisher.broker import BrokerSettings
from gatewayd.publisher.keys import KeyFolder
from gatewayd.publisher.staging import Staged

P = ParamSpec("P")
R = TypeVar("R")

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)

repo_option = click.option("--repo", type=FOLDER, required=True, help="Folder of the repository.")


class PublisherGroup(click.Group):
    """Turns the daemon's errors into one line on stderr and an exit status, for every command below it."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except GatewaydError as error:
            kind: type[click.ClickException] = _RefusedError
            if isinstance(error, Unavailable):
                kind = _UnavailableError
            elif isinstance(error, Staged):
                kind = _StagedError
            raise kind(str(error)) from error


class _RefusedError(click.ClickException):
    exit_code = 3


class _UnavailableError(click.ClickException):
    exit_code = 4


class _StagedError(click.ClickException):
    exit_code = 5

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(self.message, file=file, err=file is None)


class Number(click.ParamType[int]):
    """An integer, decimal or 0x..."""

    name = "number"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return value if isinstance(value, int) else int(str(value), 0)
        except ValueError:
            self.fail(f"{value!r} is no number", param, ctx)


def keys_option(command: Callable[..., R]) -> Callable[..., R]:
    """`--keys` and `--passphrase-file` as one argument `keys: KeyFolder`."""

    @click.option("--keys", "keys_folder", type=FOLDER, required=True, help="Folder of the key files.")
    @click.option("--passphrase-file", type=FILE, help="Opens encrypted key files.")
    @wraps(command)
    def wrapped(*args: object, keys_folder: Path, passphrase_file: Path | None, **kwargs: object) -> R:
        keys = KeyFolder(
            keys_folder, passphrase(passphrase_file), lambda text: click.echo(f"warning: {text}", err=True)
        )
        return command(*args, keys=keys, **kwargs)

    return wrapped


def broker_options(command: Callable[..., R]) -> Callable[..., R]:
    """Where the broker is, as one argument `broker: BrokerSettings`."""

    @click.option(
        "--broker", "url", required=True, envvar="GATEWAYD_BROKER", help="mqtts://host[:8883] or mqtt://host[:1883]."
    )
    @click.option("--ca", type=FILE, help="PEM file of the authority that the broker's certificate is from.")
    @click.option("--cert", type=FILE, help="Client certificate (PEM).")
    @click.option("--cert-key", type=FILE, help="Key of the client certificate (PEM).")
    @click.option("--username")
    @click.option("--password-file", type=FILE)
    @click.option("--mqtt", type=click.Choice(["5", "3.1.1"]), default="5", show_default=True)
    @wraps(command)
    def wrapped(
        *args: object,
        url: str,
        ca: Path | None,
        cert: Path | None,
        cert_key: Path | None,
        username: str | None,
        password_file: Path | None,
        mqtt: str,
        **kwargs: object,
    ) -> R:
        broker = BrokerSettings(url, ca, cert, cert_key, username, password_file, mqtt)
        return command(*args, broker=broker, **kwargs)

    return wrapped


def passphrase(file: Path | None) -> bytes | None:
    """The first line of a file, without its end."""
    return file.read_bytes().split(b"\n", 1)[0].rstrip(b"\r") if file else None


def show(as_json: bool, text: str, **fields: object) -> None:
    """One line for people, or one JSON object for machines."""
    click.echo(json.dumps(fields) if as_json else text)


json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object a line, for machines.")
