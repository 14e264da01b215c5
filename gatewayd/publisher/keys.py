"""Keys of the publisher: making them, loading them, signing with them.

A key is a file `<role>.*` or `<role>-<anything>.*` in a folder (several files: several keys of the role): `.pem` holds the
key (PKCS#8), `.pkcs11` names a key on a token by its URI (hsm.py), `.pub` is the public half of a key that is elsewhere.
`Keys` and `ImageSigner` are the walls in front of them: the rest of the publisher asks for signers by role and never sees a
private key.
"""

import base64
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

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
    load_pem_public_key,
)
from securesystemslib.signer import (  # type: ignore[attr-defined] # public names, but not in its __all__
    CryptoSigner,
    Key,
    Signer,
    SSlibKey,
)

from gatewayd.cloud.messages import CampaignKey, Manufacturer, ManufacturerSignature, SignatureScheme, utc
from gatewayd.errors import ConfigError, GatewaydError, StoreError, Unavailable
from gatewayd.folders import make_folder, sync

if TYPE_CHECKING:  # hsm.py stands on this module, and needs a library that only some publishers have
    from gatewayd.publisher.hsm import TokenKey

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey
PRIVATE_SUFFIXES = (".pem", ".pkcs11")
SUFFIXES = (*PRIVATE_SUFFIXES, ".pub")


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

    def signers(self, role: Role) -> Iterator[Signer | GatewaydError]:
        """Every signer of the role at hand, in a stable order; none when the keys are elsewhere (offline).

        For one that cannot be used, a token that is away for example: what is wrong with it, in its place.
        """
        ...

    def unused(self, trouble: str) -> None:
        """Told of a key that could not sign where the others were enough."""
        ...

    def public_keys(self, role: Role) -> Sequence[SSlibKey]:
        """Every key of the role that is known here, those included whose private half is elsewhere."""
        ...


class ImageSigner(Protocol):
    """Makes the manufacturer's signature over an image."""

    def sign_digest(self, digest: bytes) -> ManufacturerSignature:
        """The signature over an image whose SHA-256 is `digest`."""
        ...


class DigestKey(Protocol):
    """A private key, in memory or on a token."""

    @property
    def public(self) -> PublicKey: ...

    def sign_digest(self, digest: bytes, scheme: SignatureScheme) -> bytes:
        """The signature over a SHA-256 digest by a scheme that fits the key; DER for ECDSA."""
        ...


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A file of a keys folder and the key that it stands for."""

    role: Role
    path: Path
    public: SSlibKey

    @property
    def kind(self) -> str:
        return kind_of(self.public)

    @property
    def keyid(self) -> str:
        """The id that the metadata and the trust lists call it by."""
        if self.role is not Role.MANUFACTURER:
            return str(self.public.keyid)
        key = load_pem_public_key(self.public.keyval["public"].encode())
        return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


class KeyFolder:
    """Keys in files of one folder. `passphrase` opens all of those that are encrypted; `unused` as `Keys` says."""

    def __init__(
        self, folder: Path, passphrase: bytes | None = None, unused: Callable[[str], None] = lambda _: None
    ) -> None:
        self.folder = folder
        self.passphrase = passphrase
        self.unused = unused

    def signers(self, role: Role) -> Iterator[Signer | GatewaydError]:
        for path in self._files(role):
            try:
                yield load_signer(path, self.passphrase)
            except (ConfigError, Unavailable) as error:
                yield error

    def public_keys(self, role: Role) -> Sequence[SSlibKey]:
        found = {file.public.keyid: file.public for file in self.files(role)}
        return list(found.values())

    def files(self, role: Role) -> list[KeyFile]:
        """Every file of the role with its public key."""
        return [KeyFile(role, path, load_public(path, self.passphrase)) for path in self._files(role, SUFFIXES)]

    def signer(self, role: Role) -> Signer:
        """The first signer of the role; ConfigError when there is none."""
        return load_signer(self._file(role), self.passphrase)

    def manufacturer(self, scheme: SignatureScheme | None = None) -> "ManufacturerSigner":
        """The first manufacturer key as an image signer; ConfigError when there is none."""
        return load_image_signer(self._file(Role.MANUFACTURER), self.passphrase, scheme)

    def _files(self, role: Role, suffixes: Sequence[str] = PRIVATE_SUFFIXES) -> list[Path]:
        named = [
            path
            for path in self.folder.glob(f"{role}*")
            if path.suffix in suffixes and path.stem.partition("-")[0] == role
        ]
        return sorted(named, key=lambda path: path.name)

    def _file(self, role: Role) -> Path:
        files = self._files(role)
        if not files:
            raise ConfigError(f"no {role} key in {self.folder} ({role}.pem or {role}.pkcs11)")
        return files[0]


class ManufacturerSigner:
    """A manufacturer's key. Without a scheme: ECDSA for a P-256 key, PKCS#1 v1.5 for an RSA key."""

    def __init__(self, key: DigestKey, scheme: SignatureScheme | None = None) -> None:
        is_rsa = isinstance(key.public, rsa.RSAPublicKey)
        self._key = key
        self.scheme = scheme or (SignatureScheme.RSA_PKCS1V15_SHA256 if is_rsa else _ECDSA)
        if is_rsa == (self.scheme is _ECDSA):
            raise ConfigError(f"{self.scheme} does not fit the manufacturer's key")
        self.public_der = key.public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.keyid = hashlib.sha256(self.public_der).hexdigest()

    def sign_digest(self, digest: bytes) -> ManufacturerSignature:
        value = base64.b64encode(self._key.sign_digest(digest, self.scheme)).decode()
        return ManufacturerSignature(scheme=self.scheme, keyid=self.keyid, value=value)

    def manufacturer(self, name: str, hardware: Sequence[str], valid_from: float, valid_until: float) -> Manufacturer:
        """The entry of `trust/manufacturers.json` for this key. Dates in Unix seconds."""
        return manufacturer_entry(self.public_der, name, hardware, valid_from, valid_until)


class FileImageSigner(ManufacturerSigner):
    """A manufacturer's key in memory."""

    def __init__(self, key: PrivateKey, scheme: SignatureScheme | None = None) -> None:
        super().__init__(_MemoryKey(key), scheme)


def make_key(path: Path, kind: KeyKind = KeyKind.ECDSA_P256, passphrase: bytes | None = None) -> PrivateKey:
    """A new key in a new file (0600). ConfigError when the file exists: keys are never overwritten."""
    key: PrivateKey
    if kind is KeyKind.RSA_4096:
        key = rsa.generate_private_key(public_exponent=65537, key_size=4096)
    else:
        key = ec.generate_private_key(ec.SECP256R1())
    encryption: KeySerializationEncryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    return key


def make_token_key(path: Path, uri: str, kind: KeyKind | None = None) -> bool:
    """A key on a token, named by a new file (0600) with the URI; True when it was made, False when it was there already.

    Made when the token holds none of that name: never extractable, of `kind` (default ECDSA P-256). ConfigError when the
    file exists, when the key that is there is of another kind, and as hsm.py says; Unavailable when the token is.
    """
    from gatewayd.publisher.hsm import TokenKey, TokenUri

    if path.exists():
        raise ConfigError(f"{path}: File exists; nothing was overwritten")
    parsed = TokenUri.parse(uri, path.parent)
    made = not TokenKey.exists(parsed)
    key = TokenKey.make(parsed, kind or KeyKind.ECDSA_P256) if made else TokenKey.find(parsed)
    held = kind_of(SSlibKey.from_crypto(key.public))
    if kind is not None and held != kind:
        raise ConfigError(f"{parsed}: the key that is there is {held}, not {kind}")
    write_private(path, f"{uri}\n".encode())
    return made


def write_private(path: Path, data: bytes) -> None:
    """A new file (0600), durable on return. ConfigError when it exists: keys are never overwritten.

    StoreError when the disk would not: then nothing of it is left, and the command may be given again.
    """
    try:
        make_folder(path.parent, 0o700)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; nothing was overwritten") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        sync(path.parent)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise StoreError(f"{path}: {error.strerror}; the key was not made") from error


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


def load_signer(path: Path, passphrase: bytes | None = None) -> Signer:
    """A signer for TUF metadata and campaigns. ConfigError as `load_private`; Unavailable for a token."""
    if path.suffix == ".pkcs11":
        from gatewayd.publisher.hsm import TokenSigner

        return TokenSigner(_token_key(path))
    return CryptoSigner(load_private(path, passphrase))


def load_image_signer(
    path: Path, passphrase: bytes | None = None, scheme: SignatureScheme | None = None
) -> ManufacturerSigner:
    """A signer of images. ConfigError as `load_private`; Unavailable for a token."""
    if path.suffix == ".pkcs11":
        return ManufacturerSigner(_token_key(path), scheme)
    return FileImageSigner(load_private(path, passphrase), scheme)


def load_public(path: Path, passphrase: bytes | None = None) -> SSlibKey:
    """The public key of any key file: a PEM public key, a private one, or one on a token. ConfigError as `load_private`."""
    try:
        pem = b"" if path.suffix == ".pkcs11" else path.read_bytes()
        if b"PUBLIC KEY" not in pem:
            public: object = load_signer(path, passphrase).public_key
        else:
            loaded = load_pem_public_key(pem)
            usual = isinstance(loaded, rsa.RSAPublicKey) or (
                isinstance(loaded, ec.EllipticCurvePublicKey) and isinstance(loaded.curve, ec.SECP256R1)
            )
            public = SSlibKey.from_crypto(loaded) if usual else None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    if isinstance(public, SSlibKey):
        return public
    raise ConfigError(f"{path}: neither an RSA nor an ECDSA P-256 key")


def kind_of(key: Key) -> str:
    """`ecdsa-p256`, `rsa-4096`, ..."""
    if key.keytype == "ecdsa":
        return KeyKind.ECDSA_P256.value
    loaded = load_pem_public_key(key.keyval["public"].encode())
    return f"{key.keytype}-{loaded.key_size}" if isinstance(loaded, rsa.RSAPublicKey) else key.keytype


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


class _MemoryKey:
    def __init__(self, key: PrivateKey) -> None:
        self._key = key
        self.public: PublicKey = key.public_key()

    def sign_digest(self, digest: bytes, scheme: SignatureScheme) -> bytes:
        prehashed = Prehashed(SHA256())
        if isinstance(self._key, rsa.RSAPrivateKey):
            pss = padding.PSS(padding.MGF1(SHA256()), padding.PSS.DIGEST_LENGTH)
            chosen = pss if scheme is SignatureScheme.RSA_PSS_SHA256 else padding.PKCS1v15()
            return self._key.sign(digest, chosen, prehashed)
        return self._key.sign(digest, ec.ECDSA(prehashed))


def _token_key(path: Path) -> "TokenKey":
    from gatewayd.publisher.hsm import TokenKey, TokenUri

    try:
        lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: it is no text") from error
    if len(lines) != 1:
        raise ConfigError(f"{path}: one line with the key's pkcs11 URI is expected, there are {len(lines)}")
    try:
        return TokenKey.find(TokenUri.parse(lines[0].strip(), path.parent))
    except (ConfigError, Unavailable) as error:
        raise type(error)(f"{path}: {error}") from error


_ECDSA = SignatureScheme.ECDSA_P256_SHA256
