"""Keys on a PKCS#11 token, against SoftHSM; what they sign is verified by the gateway's own code."""

import hashlib
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import aiohttp
import pkcs11
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gatewayd.cloud.messages import Manufacturers, SignatureScheme
from gatewayd.errors import ConfigError, GatewaydError, Unavailable
from gatewayd.publisher.campaigns import new_campaign, sign_campaign
from gatewayd.publisher.files import write_file
from gatewayd.publisher.firmware import FirmwareFile, ReleaseSpec
from gatewayd.publisher.hsm import TokenKey, TokenUri
from gatewayd.publisher.keys import KeyFolder, KeyKind, Role, campaign_key, make_key, make_token_key
from gatewayd.publisher.metadata import KEYED_ROLES, KeyChange
from gatewayd.publisher.repository import Repository
from gatewayd.trust.client import TrustSettings
from gatewayd.trust.envelope import verify_campaign
from gatewayd.trust.repository import TrustRepository
from gatewayd.trust.signature import manufacturer_key, verify_digest
from tests.gatewayd.trust.site import HARDWARE, RELEASE, YEAR_S, Site, obtained
from tests.support.softhsm import PIN, SoftHsm

pytestmark = pytest.mark.services

Token = Callable[[], str]
DIGEST = hashlib.sha256(b"image").digest()


@pytest.fixture(scope="module")
def softhsm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftHsm]:
    with SoftHsm(tmp_path_factory.mktemp("softhsm")) as made:
        yield made


@pytest.fixture(scope="module")
def labels() -> Iterator[int]:
    return itertools.count()


@pytest.fixture
def token(softhsm: SoftHsm, labels: Iterator[int]) -> str:
    """A token of the test's own: its URI, without an object."""
    return softhsm.token(f"token-{next(labels)}")


def named(uri: str, label: str) -> str:
    return TokenUri.parse(uri, Path("/")).with_object(label)


def label_of(uri: str) -> str:
    return str(TokenUri.parse(uri, Path("/")).token)


@pytest.mark.parametrize("kind", list(KeyKind))
def test_a_key_is_made_on_the_token_and_never_leaves_it(token: str, tmp_path: Path, kind: KeyKind) -> None:
    path = tmp_path / "keys" / "releases.pkcs11"
    assert make_token_key(path, named(token, "releases"), kind)
    assert path.stat().st_mode & 0o777 == 0o600
    assert PIN not in path.read_text()
    (file,) = KeyFolder(tmp_path / "keys").files(Role.RELEASES)
    assert file.kind == kind
    uri = TokenUri.parse(token, tmp_path)
    with pkcs11.lib(str(uri.module)).get_token(token_label=uri.token).open(user_pin=PIN) as session:
        (private,) = session.get_objects({pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY})
        assert private[pkcs11.Attribute.SENSITIVE]
        assert private[pkcs11.Attribute.NEVER_EXTRACTABLE]
        assert not private[pkcs11.Attribute.EXTRACTABLE]
        secret = pkcs11.Attribute.PRIVATE_EXPONENT if kind is KeyKind.RSA_4096 else pkcs11.Attribute.VALUE
        with pytest.raises(pkcs11.AttributeSensitive):
            private[secret]


def test_a_key_that_is_there_is_adopted(token: str, tmp_path: Path) -> None:
    uri = named(token, "shared")
    made = TokenKey.make(TokenUri.parse(uri, tmp_path), KeyKind.ECDSA_P256)
    assert not make_token_key(tmp_path / "campaign.pkcs11", uri)
    assert KeyFolder(tmp_path).signer(Role.CAMPAIGN).public_key.keyval["public"].encode() == pem(made)
    with pytest.raises(ConfigError, match="is ecdsa-p256, not rsa-4096"):
        make_token_key(tmp_path / "campaign-b.pkcs11", uri, KeyKind.RSA_4096)
    with pytest.raises(ConfigError, match="nothing was overwritten"):
        make_token_key(tmp_path / "campaign.pkcs11", uri)
    with pytest.raises(ConfigError, match="nothing was overwritten"):
        TokenKey.make(TokenUri.parse(uri, tmp_path), KeyKind.ECDSA_P256)


def pem(key: TokenKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    ("kind", "schemes"),
    [
        (KeyKind.ECDSA_P256, [SignatureScheme.ECDSA_P256_SHA256]),
        (KeyKind.RSA_4096, [SignatureScheme.RSA_PKCS1V15_SHA256, SignatureScheme.RSA_PSS_SHA256]),
    ],
)
def test_the_manufacturers_signature(token: str, tmp_path: Path, kind: KeyKind, schemes: list[SignatureScheme]) -> None:
    make_token_key(tmp_path / "manufacturer.pkcs11", named(token, "acme"), kind)
    keys = KeyFolder(tmp_path)
    assert keys.manufacturer().scheme is schemes[0]
    for scheme in schemes:
        signer = keys.manufacturer(scheme)
        signature = signer.sign_digest(DIGEST)
        assert signature.scheme is scheme
        listed = Manufacturers(keys=(signer.manufacturer("ACME", [HARDWARE], 0, YEAR_S),))
        verify_digest(manufacturer_key(signature, [HARDWARE], listed, 1.0), signature, DIGEST)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as made:
        yield made


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path / "www")
    application = web.Application()
    application.router.add_get("/{name:.*}", made.answer)
    server = TestServer(application)
    await server.start_server()
    made.url = str(server.make_url("/"))
    yield made
    await server.close()


@pytest.mark.parametrize("kind", list(KeyKind))
async def test_the_whole_life_of_a_repository(
    token: str, site: Site, session: aiohttp.ClientSession, tmp_path: Path, kind: KeyKind
) -> None:
    """Init, trust, a release, a campaign, a refresh, and from key files to the token.

    RSA only where it says something new: SoftHSM takes seconds for each such key.
    """
    folder = tmp_path / "keys"
    for role in Role:
        if role in (Role.SNAPSHOT, Role.RELEASES):
            make_key(folder / f"{role}.pem")  # folders mix
        else:
            online = role in (Role.TARGETS, Role.TIMESTAMP)
            make_token_key(folder / f"{role}.pkcs11", named(token, role), KeyKind.ECDSA_P256 if online else kind)
    keys = KeyFolder(folder)
    repository = Repository.create(site.folder, keys)
    repository.allow_campaign_key(campaign_key(keys.signer(Role.CAMPAIGN), ["gateway:*"]))
    signer = keys.manufacturer()
    now = time.time()
    repository.allow_manufacturer(signer.manufacturer("ACME", [HARDWARE], now - YEAR_S, now + YEAR_S))
    (tmp_path / "image.bin").write_bytes(bytes(70000))
    wanted = ReleaseSpec("meter", "1.2.0", 3, 2, 0x01020000, (HARDWARE,), "opaque")
    repository.add_release(wanted, FirmwareFile(tmp_path / "image.bin", signer))
    repository.refresh()

    settings = TrustSettings(repository.root_path, f"{site.url}metadata", f"{site.url}targets", tmp_path / "gateway")
    trust = TrustRepository(settings, session)
    view = await trust.refresh()
    assert (await obtained(trust, RELEASE)).document.version == "1.2.0"
    envelope = sign_campaign(new_campaign("meters", RELEASE, "gateway:gw-1", now), keys.signer(Role.CAMPAIGN))
    assert verify_campaign(envelope, view.campaign_keys, frozenset({"gateway:gw-1"}), now, None).keyid

    for role, wanted_kind in ((Role.SNAPSHOT, KeyKind.ECDSA_P256), (Role.RELEASES, kind)):
        (before,) = repository.role_keys()[role][0]
        make_token_key(folder / f"{role}-hsm.pkcs11", named(token, f"{role}-hsm"), wanted_kind)
        added = tuple(key for key in keys.public_keys(role) if key.keyid != before)
        repository.rotate(KeyChange(role, added, (before,)))
        (folder / f"{role}.pem").unlink()
    repository.refresh()
    view = await trust.refresh()
    assert view.root_version == 2
    assert not view.problems
    assert (await obtained(trust, RELEASE)).document.version == "1.2.0"
    trust.close()


def test_a_token_that_is_not_there_does_not_keep_the_timestamp_from_being_renewed(
    softhsm: SoftHsm, token: str, tmp_path: Path
) -> None:
    clock = [time.time()]
    folder = tmp_path / "keys"
    for role in KEYED_ROLES:
        make_key(folder / f"{role}.pem")
    (folder / "releases.pem").unlink()
    make_token_key(folder / "releases.pkcs11", named(token, "releases"))
    repository = Repository.create(tmp_path / "www", KeyFolder(folder), clock=lambda: clock[0])
    softhsm.unplug(label_of(token))
    clock[0] += 80 * 86400
    done = repository.refresh()
    assert Role.TIMESTAMP in done.renewed
    assert Role.RELEASES not in done.renewed
    (warning,) = done.warnings
    assert "releases.pkcs11" in warning


def test_a_token_that_is_removed_in_the_middle(softhsm: SoftHsm, token: str, tmp_path: Path) -> None:
    make_token_key(tmp_path / "campaign.pkcs11", named(token, "campaign"))
    signer = KeyFolder(tmp_path).signer(Role.CAMPAIGN)
    assert signer.sign(b"before").signature
    softhsm.unplug(label_of(token))
    with pytest.raises(Unavailable, match=f"'{label_of(token)}'.* has been removed"):
        signer.sign(b"after")


def test_two_keys_of_one_name_have_to_be_told_apart(token: str, tmp_path: Path) -> None:
    for number in (b"%01", b"%02"):
        path, _, query = named(token, "twin").partition("?")
        TokenKey.make(TokenUri.parse(f"{path};id={number.decode()}?{query}", tmp_path), KeyKind.ECDSA_P256)
    (tmp_path / "campaign.pkcs11").write_text(named(token, "twin"))
    with pytest.raises(ConfigError, match="2 such private keys; add id="):
        KeyFolder(tmp_path).signer(Role.CAMPAIGN)
    path, _, query = named(token, "twin").partition("?")
    (tmp_path / "campaign.pkcs11").write_text(f"# the second\n{path};id=%02?{query}\n")
    assert KeyFolder(tmp_path).signer(Role.CAMPAIGN).sign(b"x").signature


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda uri: uri.replace("module-path=/", "module-path=/nowhere/"), "there is no PKCS#11 module"),
        (lambda uri: uri.replace("token=token", "token=other"), "knows no such token"),
        (lambda uri: uri.replace("object=campaign", "object=champagne"), "holds no such private key"),
        (lambda uri: uri.replace("pin-source=/", "pin-source=/nowhere/"), "PIN file .* cannot be read"),
        (lambda uri: uri.replace("/pin", "/empty"), "is empty"),
        (lambda uri: uri.replace("/pin", "/wrong"), "the PIN is wrong"),
        (lambda uri: uri.replace(";object=campaign", ""), "names no key"),
        (lambda uri: uri.replace("pkcs11:", "pkcs12:"), "begins with pkcs11:"),
        (lambda uri: f"{uri}\n{uri}", "one line"),
        (lambda uri: "", "one line"),
    ],
)
def test_faults_name_the_file_and_what_is_wrong(
    softhsm: SoftHsm, token: str, tmp_path: Path, change: Callable[[str], str], complaint: str
) -> None:
    uri = named(token, "campaign")
    make_token_key(tmp_path / "keys" / "campaign.pkcs11", uri)
    (softhsm.folder / "empty").write_text("\n")
    (softhsm.folder / "wrong").write_text("9999-wrong\n")
    (tmp_path / "keys" / "campaign.pkcs11").write_text(change(uri))
    with pytest.raises(ConfigError, match=complaint) as caught:
        KeyFolder(tmp_path / "keys").signer(Role.CAMPAIGN)
    said = str(caught.value)
    assert "campaign.pkcs11" in said
    assert "\n" not in said
    assert PIN not in said
    assert "9999-wrong" not in said


def test_a_file_that_is_no_module(token: str, tmp_path: Path) -> None:
    write_file(tmp_path / "module.so", b"not a shared library")
    uri = TokenUri.parse(f"pkcs11:token=x;object=y?module-path={tmp_path}/module.so&pin-source=pin", tmp_path)
    with pytest.raises(ConfigError, match="cannot be used as a PKCS#11 module"):
        TokenKey.find(uri)


@pytest.mark.parametrize(
    ("uri", "complaint"),
    [
        ("pkcs11:token=a;object=b?pin-source=p", "no module-path"),
        ("pkcs11:token=a;object=b?module-path=/m", "no pin-source"),
        ("pkcs11:token=a;object=b?module-path=m&pin-source=p", "not absolute"),
        ("pkcs11:object=b?module-path=/m&pin-source=p", "neither token nor serial"),
        ("pkcs11:token=a?module-path=/m&pin-source=p&pin-value=4711", "holds a PIN"),
        ("pkcs11:token=a?module-path=/m&pin-source=%7Ccat", "has to be a file"),
        ("pkcs11:token=a;slot-id=1?module-path=/m&pin-source=p", "'slot-id' is not one of"),
        ("pkcs11:token=a;token=b?module-path=/m&pin-source=p", "names token twice"),
        ("pkcs11:token=%FF?module-path=/m&pin-source=p", "no UTF-8"),
        ("pkcs11:token=a;type=cert?module-path=/m&pin-source=p", "type is not private"),
    ],
)
def test_a_uri_that_will_not_do(uri: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        TokenUri.parse(uri, tmp_path)
    assert "4711" not in str(caught.value)


def test_a_uri(tmp_path: Path) -> None:
    text = "pkcs11:token=ACME%20HSM;id=%01%ff;object=a%3Bb?module-path=/lib/m.so&pin-source=file:secret/pin"
    uri = TokenUri.parse(text, tmp_path)
    assert (uri.token, uri.object, uri.id) == ("ACME HSM", "a;b", b"\x01\xff")
    assert uri.pin_source == tmp_path / "secret" / "pin"
    plain = TokenUri.parse("pkcs11:token=t?module-path=/m&pin-source=/p", tmp_path)
    assert TokenUri.parse(plain.with_object("ä;b"), tmp_path).object == "ä;b"


def test_the_errors_are_the_daemons(token: str, tmp_path: Path) -> None:
    uri = TokenUri.parse(named(token, "nothing"), tmp_path)
    with pytest.raises(GatewaydError):
        TokenKey.find(uri)
    assert not TokenKey.exists(uri)
