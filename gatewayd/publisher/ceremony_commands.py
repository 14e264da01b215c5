"""Commands for what needs several people or keys: rotation, and gathering the signatures of a staged change."""

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import ParamSpec

import click

from gatewayd.cloud import messages
from gatewayd.errors import ConfigError
from gatewayd.publisher.keys import KeyFolder, Role, load_public
from gatewayd.publisher.metadata import KEYED_ROLES, KeyChange
from gatewayd.publisher.options import FILE, Number, json_option, keys_option, repo_option, show
from gatewayd.publisher.repository import Repository
from gatewayd.publisher.review import RoleReview

P = ParamSpec("P")
ROLES = click.Choice([role.value for role in KEYED_ROLES])
ID_DIGITS = 8  # of a key id, at least


def register(group: click.Group) -> None:
    """Mount these commands."""
    for command in (pending, sign, discard, role_group):
        group.add_command(command)


def thresholds_option(command: Callable[P, None]) -> Callable[P, None]:
    """`--threshold ROLE=N`, several times, as one argument `thresholds: dict[Role, int]`."""

    @click.option("--threshold", "given", multiple=True, help="ROLE=N: signatures that a role needs. Default: 1.")
    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        found = {}
        for text in kwargs.pop("given", ()):  # type: ignore[attr-defined] # click gives strings
            name, _, number = text.partition("=")
            if name not in KEYED_ROLES or not number.isascii() or not number.isdecimal():
                raise click.BadParameter(f"{text!r} is not ROLE=N with a role of {', '.join(KEYED_ROLES)}")
            found[Role(name)] = int(number)
        kwargs["thresholds"] = found
        command(*args, **kwargs)

    return wrapped


@click.command()
@repo_option
@json_option
def pending(repo: Path, as_json: bool) -> None:
    """Show the change that waits for signatures: what it is, and what it lacks."""
    _show_pending(Repository(repo, KeyFolder(repo)).staged(), as_json)


@click.command()
@repo_option
@keys_option
@click.option("--from", "others", type=FILE, help="Another copy of pending/change.json: take its signatures too.")
@json_option
def sign(repo: Path, keys: KeyFolder, others: Path | None, as_json: bool) -> None:
    """Sign the change that waits, with the keys of --keys; it is published when the signatures are enough."""
    repository = Repository(repo, keys)
    found = repository.staged()
    if not as_json:
        _show_pending(found, as_json)
    repository.sign(others)
    roles = [one.role.value for one in found]
    show(as_json, f"published {', '.join(roles)}" if roles else "published", published=roles)


@click.command()
@repo_option
@json_option
def discard(repo: Path, as_json: bool) -> None:
    """Forget the change that waits for signatures."""
    Repository(repo, KeyFolder(repo)).discard()
    show(as_json, "discarded", discarded=True)


@click.group("role")
def role_group() -> None:
    """Who signs what in the repository."""


@role_group.command("show")
@repo_option
@json_option
def role_show(repo: Path, as_json: bool) -> None:
    """Keys and threshold of every role."""
    for role, (keyids, threshold) in Repository(repo, KeyFolder(repo)).role_keys().items():
        text = "".join(f"\n  {keyid}" for keyid in keyids)
        show(
            as_json, f"{role}: {threshold} of {len(keyids)}{text}", role=role.value, threshold=threshold, keyids=keyids
        )


@role_group.command("rotate")
@repo_option
@keys_option
@click.argument("role", type=ROLES)
@click.option("--add", "files", multiple=True, type=FILE, help="A key to take in: .pem, .pkcs11 or a public key (PEM).")
@click.option("--revoke", "keyids", multiple=True, help=f"A key to take out: its id, or the first {ID_DIGITS}+ digits.")
@click.option("--threshold", type=Number(), help="Signatures that the role needs from now on.")
@json_option
def role_rotate(
    repo: Path,
    keys: KeyFolder,
    role: str,
    files: tuple[Path, ...],
    keyids: tuple[str, ...],
    threshold: int | None,
    as_json: bool,
) -> None:
    """Change who signs for ROLE. What that makes necessary is signed anew and published with it, or staged."""
    if not files and not keyids and threshold is None:
        raise click.UsageError("nothing to change: --add, --revoke or --threshold")
    repository = Repository(repo, keys)
    held = repository.role_keys()[Role(role)][0]
    add = tuple(load_public(path, keys.passphrase) for path in files)
    revoke = tuple(_whole(keyid, held, role) for keyid in keyids)
    repository.rotate(KeyChange(Role(role), add, revoke, threshold))
    now, needed = repository.role_keys()[Role(role)]
    show(as_json, f"{role}: {needed} of {len(now)} keys sign now", role=role, threshold=needed, keyids=now)


def _whole(start: str, held: Sequence[str], role: str) -> str:
    found = [keyid for keyid in held if keyid.startswith(start.lower())]
    if len(start) < ID_DIGITS or len(found) != 1:
        raise ConfigError(f"{start!r} is the id of {'no' if not found else 'no single'} key of {role}")
    return found[0]


def _show_pending(found: Sequence[RoleReview], as_json: bool) -> None:
    if not found and not as_json:
        click.echo("nothing waits for signatures")
    for one in found:
        ends = messages.utc(one.expires).isoformat()
        counts = [
            {"by": c.by, "need": c.need, "signed": list(c.signed), "unsigned": list(c.unsigned)} for c in one.signatures
        ]
        lines = [f"{one.role} {one.version}, until {ends}", *(f"  {line}" for line in one.changes)]
        for count in one.signatures:
            lines.append(f"  signatures by {count.by}: {len(count.signed)} of {count.need}")
            lines += [f"    signed {keyid}" for keyid in count.signed]
            lines += [f"    could be signed by {keyid}" for keyid in count.unsigned]
        show(
            as_json,
            "\n".join(lines),
            role=one.role.value,
            version=one.version,
            expires=ends,
            changes=one.changes,
            signatures=counts,
        )
