"""Commands for keys: in files, and on PKCS#11 tokens."""

from pathlib import Path

import click

from gatewayd.publisher.hsm import TokenUri
from gatewayd.publisher.keys import KeyFile, KeyFolder, KeyKind, Role, load_public, make_key, make_token_key
from gatewayd.publisher.options import FILE, FOLDER, json_option, keys_option, passphrase, show

KINDS = click.Choice([kind.value for kind in KeyKind])


@click.group()
def keys() -> None:
    """Keys in files and on PKCS#11 tokens."""


@keys.command("make")
@click.option("--keys", "folder", type=FOLDER, required=True, help="Folder to put them in (made with mode 0700).")
@click.option("--role", "roles", multiple=True, type=click.Choice([role.value for role in Role]), help="Default: all.")
@click.option("--name", help="Makes <role>-<name>.pem: a further key of the role.")
@click.option("--kind", type=KINDS, help=f"Default: {KeyKind.ECDSA_P256}.")
@click.option("--passphrase-file", type=FILE, help="Encrypts the files.")
@click.option(
    "--pkcs11",
    "uri",
    help="Make the key on this token, or adopt the one that is there: pkcs11:token=..;object=..?module-path=..&pin-source=.. "
    "(object: default <role>[-<name>]).",
)
@json_option
def keys_make(
    folder: Path,
    roles: tuple[str, ...],
    name: str | None,
    kind: str | None,
    passphrase_file: Path | None,
    uri: str | None,
    as_json: bool,
) -> None:
    """Make keys, one per role; files that exist are never overwritten."""
    if uri is not None and passphrase_file is not None:
        raise click.UsageError("a key on a token has a PIN (pin-source in the URI), not a passphrase")
    wanted = KeyKind(kind) if kind else None
    parsed = TokenUri.parse(uri, folder) if uri is not None else None
    if parsed is not None and parsed.names_a_key and len(roles) != 1:
        raise click.UsageError("a URI that names one key needs one --role")
    for role in roles or tuple(Role):
        stem = f"{role}-{name}" if name else role
        made = True
        if parsed is None:
            path = folder / f"{stem}.pem"
            make_key(path, wanted or KeyKind.ECDSA_P256, passphrase(passphrase_file))
        else:
            path = folder / f"{stem}.pkcs11"
            made = make_token_key(path, parsed.text if parsed.names_a_key else parsed.with_object(stem), wanted)
        file = KeyFile(Role(role), path, load_public(path, passphrase(passphrase_file)))
        if not made:
            click.echo(f"{path}: adopted the {file.kind} key that is there", err=True)
        show(as_json, str(path), role=role, file=str(path), kind=file.kind, keyid=file.keyid, made=made)


@keys.command("show")
@keys_option
@json_option
def keys_show(keys: KeyFolder, as_json: bool) -> None:
    """List the keys of a folder with their ids and kinds."""
    for role in Role:
        for file in keys.files(role):
            key, kind = file.keyid, file.kind
            show(as_json, f"{file.path}  {kind}  {key}", role=role.value, file=str(file.path), kind=kind, keyid=key)
