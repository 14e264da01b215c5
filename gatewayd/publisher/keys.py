"""Keys of the publisher: making them, loading them, signing with them.

A key is a PEM PKCS#8 file, `<role>.pem` or `<role>-<anything>.pem` in a folder (several files: several keys of the role).
`Keys` is the wall behind which an HSM will stand: the rest of the publisher asks for signers by role and never sees a
private key.
"""

import base64
import hashlib
import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from securesystemslib.signer import (  # type: ignore[attr-defined] # public names, but not in its __all__
    CryptoSigner,
    Signer,
)

from gatewayd.cloud.messages import CampaignKey, Manufacturer, ManufacturerSignature, SignatureScheme, utc
from gatewayd.errors import ConfigError

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class Role(StrEnum):
    """What a key is for."""

    ROOT = "root"
    TARGETS = "targets"
    SNAPSHOT = "snapshot"
    TIMESTAMP = "timestamp"
    RELEASES = "releases"
    CAMPAIGN = "campaign"
    MANUFACTURER = "manufacturer"


class KeyKind(StrEnum):
    ECDSA_P256 = "ecdsa-p256"
    RSA_4096 = "rsa-4096"


class Keys(Protocol):
    """Where signers come from."""

    def signers(self, role: Role) -> Sequence[Signer]:
        """Every signer of the role at hand, in a stable order; empty when the keys are elsewhere (offline)."""
        ...


class ImageSigner(Protocol):
    """Makes the manufacturer's signature over an image."""

    def sign_digest(self, digest: bytes) -> ManufacturerSignature:
        """The signature over an image whose SHA-256 is `digest`."""
        ...


class KeyFolder:
    """Keys in files of one folder. `passphrase` opens all of those that are encrypted."""

    def __init__(self, folder: Path, passphrase: bytes | None = None) -> None:
        self.folder = folder
        self.passphrase = passphrase

    def signers(self, role: Role) -> Sequence[Signer]:
        return [load_signer(path, self.passphrase) for path in self._files(role)]

    def signer(self, role: Role) -> Signer:
        """The first signer of the role; ConfigError when there is none."""
        return load_signer(self._file(role), self.passphrase)

    def manufacturer(self, scheme: SignatureScheme | None = None) -> "FileImageSigner":
        """The first manufacturer key as an image signer; ConfigError when there is none."""
        return FileImageSigner(load_private(self._file(Role.MANUFACTURER), self.passphrase), scheme)

    def _files(self, role: Role) -> list[Path]:
        named = [path for path in self.folder.glob(f"{role}*.pem") if path.stem.partition("-")[0] == role]
        return sorted(named, key=lambda path: path.name)

    def _file(self, role: Role) -> Path:
        files = self._files(role)
        if not files:
            raise ConfigError(f"no {role} key in {self.folder} ({role}.pem)")
        return files[0]


class FileImageSigner:
    """A manufacturer's key in memory. Without a scheme: ECDSA for a P-256 key, PKCS#1 v1.5 for an RSA key."""

    def __init__(self, key: PrivateKey, scheme: SignatureScheme | None = None) -> None:
        natural = SignatureScheme.RSA_PKCS1V15_SHA256 if isinstance(key, rsa.RSAPrivateKey) else _ECDSA
        self._key = key
        self.scheme = scheme or natural
        if isinstance(key, rsa.RSAPrivateKey) == (self.scheme is _ECDSA):
            raise ConfigError(f"{self.scheme} does not fit the manufacturer's key")
        self.public_der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.keyid = hashlib.sha256(self.public_der).hexdigest()

    def sign_digest(self, digest: bytes) -> ManufacturerSignature:
        prehashed = Prehashed(SHA256())
        if isinstance(self._key, rsa.RSAPrivateKey):
            pss = padding.PSS(padding.MGF1(SHA256()), padding.PSS.DIGEST_LENGTH)
            chosen = pss if self.scheme is SignatureScheme.RSA_PSS_SHA256 else padding.PKCS1v15()
            value = self._key.sign(digest, chosen, prehashed)
        else:
            value = self._key.sign(digest, ec.ECDSA(prehashed))
        return ManufacturerSignature(scheme=self.scheme, keyid=self.keyid, value=base64.b64encode(value).decode())

    def manufacturer(self, name: str, hardware: Sequence[str], valid_from: float, valid_until: float) -> Manufacturer:
        """The entry of `trust/manufacturers.json` for this key. Dates in Unix seconds."""
        return manufacturer_entry(self.public_der, name, hardware, valid_from, valid_until)


def make_key(path: Path, kind: KeyKind = KeyKind.ECDSA_P256, passphrase: bytes | None = None) -> PrivateKey:
    """A new key in a new file (0600). ConfigError when the file exists: keys are never overwritten."""
    key: PrivateKey
    if kind is KeyKind.RSA_4096:
        key = rsa.generate_private_key(public_exponent=65537, key_size=4096)
    else:
        key = ec.generate_private_key(ec.SECP256R1())
    encryption: KeySerializationEncryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; nothing was overwritten") from error
    return key


def generate_all(
    folder: Path,
    kind: KeyKind = KeyKind.ECDSA_P256,
    passphrase: bytes | None = None,
    manufacturer: KeyKind | None = None,
) -> KeyFolder:
    """One key per role in a folder; `manufacturer` when that key is of another kind."""
    for role in Role:
        chosen = manufacturer if manufacturer and role is Role.MANUFACTURER else kind
        make_key(folder / f"{role}.pem", chosen, passphrase)
    return KeyFolder(folder, passphrase)


def load_private(path: Path, passphrase: bytes | None = None) -> PrivateKey:
    """The key in a PEM file. ConfigError names the file and what is wrong."""
    try:
        pem = path.read_bytes()
        key = load_pem_private_key(pem, passphrase if b"ENCRYPTED" in pem else None)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (ValueError, TypeError) as error:  # TypeError: encrypted, and no passphrase given
        raise ConfigError(f"{path}: {error}") from error
    if isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        return key
    raise ConfigError(f"{path}: neither an RSA nor an ECDSA key")


def load_signer(path: Path, passphrase: bytes | None = None) -> CryptoSigner:
    """A signer for TUF metadata and campaigns. ConfigError as `load_private`."""
    return CryptoSigner(load_private(path, passphrase))


def campaign_key(signer: Signer, audiences: Sequence[str]) -> CampaignKey:
    """The entry of `trust/campaign-keys.json` for a campaign signer."""
    public = signer.public_key
    return CampaignKey(keyid=public.keyid, public=public.keyval["public"], audiences=tuple(audiences))


def manufacturer_entry(
    public_der: bytes, name: str, hardware: Sequence[str], valid_from: float, valid_until: float
) -> Manufacturer:
    """The entry of `trust/manufacturers.json` for a public key. Dates in Unix seconds."""
    return Manufacturer(
        keyid=hashlib.sha256(public_der).hexdigest(),
        name=name,
        public=base64.b64encode(public_der).decode(),
        hardware=tuple(hardware),
        valid_from=utc(valid_from),
        valid_until=utc(valid_until),
    )


_ECDSA = SignatureScheme.ECDSA_P256_SHA256
