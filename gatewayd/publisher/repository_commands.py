"""Commands for the repository, releases, and whom gateways trust."""

import base64
import time
from pathlib import Path

import click
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from gatewayd.cloud import messages
from gatewayd.cloud.messages import DeltaFormat, ManufacturerSignature, SignatureScheme
from gatewayd.publisher.ceremony_commands import thresholds_option
from gatewayd.publisher.delta import WORTH
from gatewayd.publisher.firmware import DeltaPlan, FirmwareFile, ReleaseSpec
from gatewayd.publisher.keys import (
    KeyFolder,
    ManufacturerSigner,
    Role,
    load_image_signer,
    load_public,
    manufacturer_entry,
)
from gatewayd.publisher.metadata import DAY_S
from gatewayd.publisher.options import FILE, Number, json_option, keys_option, repo_option, show
from gatewayd.publisher.repository import Repository
from gatewayd.publisher.review import campaign_key_line, floor_line, manufacturer_line

SCHEMES = click.Choice([scheme.value for scheme in SignatureScheme])


def register(group: click.Group) -> None:
    """Mount these commands."""
    for command in (init, refresh, add_release, withdraw, releases, trust):
        group.add_command(command)


@click.command()
@repo_option
@keys_option
@thresholds_option
@json_option
def init(repo: Path, keys: KeyFolder, thresholds: dict[Role, int], as_json: bool) -> None:
    """Make a repository that trusts no campaign key and no manufacturer yet."""
    made = Repository.create(repo, keys, thresholds=thresholds)
    root = str(made.root_path)
    show(as_json, f"made {repo}; put {root} on every gateway as [trust] root", repository=str(repo), root=root)


@click.command()
@repo_option
@keys_option
@json_option
def refresh(repo: Path, keys: KeyFolder, as_json: bool) -> None:
    """Renew timestamp and snapshot, and whatever else is due and has its key at hand. Made for a timer."""
    done = Repository(repo, keys).refresh()
    for warning in done.warnings:
        click.echo(f"warning: {warning}", err=True)
    ends = {role.value: messages.utc(at).isoformat() for role, at in done.expires.items()}
    renewed = [role.value for role in done.renewed]
    show(as_json, f"renewed {', '.join(renewed)}", renewed=renewed, expires=ends, warnings=done.warnings)


@click.command("add-release")
@repo_option
@keys_option
@click.option("--name", required=True)
@click.option("--version", required=True, help="Semantic version, e.g. 1.2.0.")
@click.option("--sequence", type=Number(), required=True, help="Orders the versions of a name.")
@click.option("--security-version", type=Number(), required=True)
@click.option("--node-version", type=Number(), required=True, help="What a node reports that runs it, e.g. 0x01020000.")
@click.option("--hardware", multiple=True, required=True, help="zigbee:<mfr>-<type> or lorawan:<HWversion>, in hex.")
@click.option("--container", type=click.Choice(["zigbee-ota", "mcuboot", "opaque"]), required=True)
@click.option("--self-test-s", type=Number(), default=60, show_default=True)
@click.option("--notes", default="")
@click.option("--image", type=FILE, required=True, help="The firmware file.")
@click.option("--delta-from", "bases", multiple=True, help="Version of this name to offer a delta from; several times.")
@click.option(
    "--delta-format",
    "formats",
    multiple=True,
    type=click.Choice([form.value for form in DeltaFormat]),
    default=(DeltaFormat.DETOOLS.value,),
    show_default=True,
)
@click.option("--delta-ram", type=Number(), help="Bytes of RAM that applying a delta takes on the node.")
@click.option(
    "--manufacturer-key",
    type=FILE,
    help="Signs the image now (.pem or .pkcs11). Default: the manufacturer key of --keys.",
)
@click.option("--signature", type=FILE, help="The manufacturer's detached signature (raw or base64) instead.")
@click.option("--manufacturer-public", type=FILE, help="With --signature: whose it is (PEM).")
@click.option("--scheme", type=SCHEMES, help="With an RSA key. Default: rsa-pkcs1v15-sha256.")
@json_option
def add_release(
    repo: Path,
    keys: KeyFolder,
    image: Path,
    manufacturer_key: Path | None,
    signature: Path | None,
    manufacturer_public: Path | None,
    scheme: str | None,
    as_json: bool,
    bases: tuple[str, ...],
    formats: tuple[str, ...],
    delta_ram: int | None,
    **fields: object,
) -> None:
    """Publish a firmware, after all the checks that a gateway would make; deltas that are not worth it are left out."""
    spec = ReleaseSpec(**fields)  # type: ignore[arg-type] # click has made each of them what the option says
    chosen = SignatureScheme(scheme) if scheme else None
    source: ManufacturerSignature | ManufacturerSigner
    if signature is not None:
        if manufacturer_public is None:
            raise click.UsageError("--signature needs --manufacturer-public")
        source = _detached(signature, manufacturer_public, chosen)
    elif manufacturer_key is not None:
        source = load_image_signer(manufacturer_key, keys.passphrase, chosen)
    else:
        source = keys.manufacturer(chosen)
    paths = tuple(f"releases/{spec.name}/{version}.json" for version in bases)
    plan = DeltaPlan(paths, tuple(DeltaFormat(form) for form in formats), delta_ram)
    document = Repository(repo, keys).add_release(spec, FirmwareFile(image, source), plan)
    full = document.payloads[0]
    deltas = [
        {
            "format": p.delta_format,
            "base_version": p.base_version,
            "bytes": p.size,
            "of_full": round(p.size / full.size, 3),
        }
        for p in document.payloads[1:]
    ]
    text = "".join(
        f"\n  delta {d['format']} from {d['base_version']:#010x}: {d['bytes']} bytes, {d['of_full']:.0%}"
        for d in deltas
    )
    if bases and len(deltas) < len(bases) * len(plan.formats):
        text += f"\n  left out: {len(bases) * len(plan.formats) - len(deltas)} that are not below {WORTH:.0%} of the full image"
    show(as_json, f"published {spec.path}{text}", release=spec.path, deltas=deltas)


@click.command()
@repo_option
@keys_option
@click.argument("release")
@json_option
def withdraw(repo: Path, keys: KeyFolder, release: str, as_json: bool) -> None:
    """Take RELEASE (releases/<name>/<version>.json) out of the signed metadata."""
    Repository(repo, keys).withdraw_release(release)
    show(as_json, f"withdrew {release}", withdrawn=release)


@click.command()
@repo_option
@json_option
def releases(repo: Path, as_json: bool) -> None:
    """List what is published."""
    for document in Repository(repo, KeyFolder(repo)).releases():
        path = f"releases/{document.name}/{document.version}.json"
        text = f"{path}  sequence {document.sequence}  security {document.security_version}  {', '.join(document.hardware)}"
        show(as_json, text, release=path, sequence=document.sequence, hardware=document.hardware)


@click.group()
def trust() -> None:
    """Whom gateways trust: campaign keys, manufacturers, floors."""


@trust.command("show")
@repo_option
@json_option
def trust_show(repo: Path, as_json: bool) -> None:
    """Campaign keys, manufacturers' keys and floors."""
    repository = Repository(repo, KeyFolder(repo))
    for key in repository.campaign_keys().keys:
        show(as_json, campaign_key_line(key), campaign_key=key.keyid, audiences=key.audiences)
    held = repository.manufacturers()
    for maker in held.keys:
        show(as_json, manufacturer_line(maker), manufacturer=maker.name, keyid=maker.keyid, revoked=maker.revoked)
    for floor in held.floors:
        minimum = floor.minimum_security_version
        show(as_json, floor_line(floor), hardware=floor.hardware, minimum_security_version=minimum)


@trust.command("campaign-key")
@repo_option
@keys_option
@click.option(
    "--public", type=FILE, help="Its file: .pem, .pkcs11 or a public key (PEM). Default: the campaign key of --keys."
)
@click.option(
    "--audience", "audiences", multiple=True, required=True, help="gateway:<id>, fleet:<id>, gateway:*, fleet:*."
)
@json_option
def trust_campaign_key(
    repo: Path, keys: KeyFolder, public: Path | None, audiences: tuple[str, ...], as_json: bool
) -> None:
    """Let a key sign campaigns for the audiences (replaces what it was allowed before)."""
    key = load_public(public, keys.passphrase) if public else keys.signer(Role.CAMPAIGN).public_key
    entry = messages.CampaignKey(keyid=key.keyid, public=key.keyval["public"], audiences=audiences)
    Repository(repo, keys).allow_campaign_key(entry)
    show(as_json, entry.keyid, campaign_key=entry.keyid, audiences=entry.audiences)


@trust.command("revoke-campaign-key")
@repo_option
@keys_option
@click.argument("keyid")
@json_option
def trust_revoke_campaign_key(repo: Path, keys: KeyFolder, keyid: str, as_json: bool) -> None:
    """Let KEYID sign no campaigns any more."""
    Repository(repo, keys).revoke_campaign_key(keyid)
    show(as_json, f"revoked {keyid}", revoked=keyid)


@trust.command("manufacturer")
@repo_option
@keys_option
@click.option(
    "--public",
    type=FILE,
    help="Its file: .pem, .pkcs11 or a public key (PEM). Default: the manufacturer key of --keys.",
)
@click.option("--name", required=True)
@click.option("--hardware", multiple=True, required=True)
@click.option("--days", type=Number(), default=3650, show_default=True, help="How long the key is valid.")
@json_option
def trust_manufacturer(
    repo: Path, keys: KeyFolder, public: Path | None, name: str, hardware: tuple[str, ...], days: int, as_json: bool
) -> None:
    """Take images for the hardware that are signed by this key (replaces what it was allowed before)."""
    der = _der(public, keys.passphrase) if public else keys.manufacturer().public_der
    now = time.time()
    entry = manufacturer_entry(der, name, hardware, now - DAY_S, now + days * DAY_S)
    Repository(repo, keys).allow_manufacturer(entry)
    ends = entry.valid_until.isoformat()
    show(as_json, entry.keyid, manufacturer=name, keyid=entry.keyid, hardware=entry.hardware, valid_until=ends)


@trust.command("revoke-manufacturer")
@repo_option
@keys_option
@click.argument("keyid")
@json_option
def trust_revoke_manufacturer(repo: Path, keys: KeyFolder, keyid: str, as_json: bool) -> None:
    """Refuse images signed by KEYID from now on, those in the caches of gateways too."""
    Repository(repo, keys).revoke_manufacturer(keyid)
    show(as_json, f"revoked {keyid}", revoked=keyid)


@trust.command("floor")
@repo_option
@keys_option
@click.argument("hardware")
@click.argument("minimum", type=Number())
@json_option
def trust_floor(repo: Path, keys: KeyFolder, hardware: str, minimum: int, as_json: bool) -> None:
    """Deliver nothing to HARDWARE that has a security version below MINIMUM."""
    Repository(repo, keys).set_floor(hardware, minimum)
    show(as_json, f"floor of {hardware} is {minimum}", hardware=hardware, minimum_security_version=minimum)


def _der(path: Path, passphrase: bytes | None = None) -> bytes:
    key = load_pem_public_key(load_public(path, passphrase).keyval["public"].encode())
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _detached(file: Path, public: Path, scheme: SignatureScheme | None) -> ManufacturerSignature:
    raw = file.read_bytes()
    try:
        value = base64.b64encode(base64.b64decode(raw.strip(), validate=True))
    except ValueError:
        value = base64.b64encode(raw)  # as a signing tool writes it
    der = _der(public)
    entry = manufacturer_entry(der, "", ("lorawan:00000000",), 0, 1)
    return ManufacturerSignature(
        scheme=scheme or SignatureScheme.ECDSA_P256_SHA256, keyid=entry.keyid, value=value.decode()
    )
