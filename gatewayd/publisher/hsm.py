"""Keys on a PKCS#11 token (an HSM, a smart card, SoftHSM): finding, making and signing with them. SHELL.

A key is named by a URI (RFC 7512) that also says which module and where the PIN is kept. The private key never leaves the
token: it signs digests. python-pkcs11 is needed on the publishing host only, and imported only when a token is used.
"""

import hashlib
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_to_bytes

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_der_public_key
from securesystemslib.signer import (  # type: ignore[attr-defined] # public names, but not in its __all__
    SecretsHandler,
    Signature,
    Signer,
    SSlibKey,
)

from gatewayd.cloud.messages import SignatureScheme
from gatewayd.errors import Bug, ConfigError, GatewaydError, StoreError, Unavailable
from gatewayd.publisher.keys import KeyKind, PublicKey
from gatewayd.publisher.pin_refusals import PinRefusals

if TYPE_CHECKING:
    import pkcs11

RSA_MINIMUM_BITS = 3072  # what gateways take
_PATH = ("token", "serial", "manufacturer", "model", "object", "id", "type")
_QUERY = ("module-path", "pin-source")
_SHA256_INFO = bytes.fromhex("3031300d060960864801650304020105000420")  # DigestInfo of PKCS#1 v1.5 (RFC 8017, 9.2)


@dataclass(frozen=True, slots=True)
class TokenUri:
    """Where a key is. `text` is the URI as written; `object` and `id` name the key on the token."""

    text: str
    module: Path
    pin_source: Path
    token: str | None
    serial: str | None
    manufacturer: str | None
    model: str | None
    object: str | None
    id: bytes | None

    @classmethod
    def parse(cls, text: str, folder: Path) -> "TokenUri":
        """ConfigError names the fault. A relative `pin-source` is taken from `folder`. The text is never shown whole."""
        if not text.startswith("pkcs11:"):
            raise ConfigError("a key on a token is named by a URI that begins with pkcs11:")
        path, _, query = text.removeprefix("pkcs11:").partition("?")
        named = {**_attributes(path, ";", _PATH), **_attributes(query, "&", _QUERY)}
        for name in _QUERY:
            if not named.get(name):
                raise ConfigError(f"the pkcs11 URI has no {name}")
        module, source = Path(_text(named, "module-path") or ""), _text(named, "pin-source") or ""
        if not module.is_absolute():
            raise ConfigError("the pkcs11 URI's module-path is not absolute")
        if source.startswith("|"):
            raise ConfigError("the pkcs11 URI's pin-source has to be a file")
        if "token" not in named and "serial" not in named:
            raise ConfigError("the pkcs11 URI names neither token nor serial")
        if named.get("type", b"private") != b"private":
            raise ConfigError("the pkcs11 URI's type is not private")
        return cls(
            text=text,
            module=module,
            pin_source=folder / source.removeprefix("file://").removeprefix("file:"),
            token=_text(named, "token"),
            serial=_text(named, "serial"),
            manufacturer=_text(named, "manufacturer"),
            model=_text(named, "model"),
            object=_text(named, "object"),
            id=named.get("id"),
        )

    @property
    def names_a_key(self) -> bool:
        return self.object is not None or self.id is not None

    def with_object(self, label: str) -> str:
        """The URI of a key with this label on the same token."""
        path, mark, query = self.text.partition("?")
        return f"{path.rstrip(';')};object={quote(label, safe='')}{mark}{query}"

    def __str__(self) -> str:
        """For messages: no paths, and nothing that could be a secret."""
        parts = [f"token {self.token or self.serial!r}"]
        parts += [f"object {self.object!r}"] if self.object is not None else []
        parts += [f"id {self.id.hex()}"] if self.id is not None else []
        return ", ".join(parts)


class TokenKey:
    """A private key on a token. Every signature opens a session of its own and logs in."""

    def __init__(self, uri: TokenUri, public: PublicKey) -> None:
        self._uri = uri
        self.public = public

    @classmethod
    def find(cls, uri: TokenUri) -> "TokenKey":
        """ConfigError: no module, token or key, a wrong PIN, a kind that gateways do not take. Unavailable: no answer."""
        if not uri.names_a_key:
            raise ConfigError(f"{uri}: the pkcs11 URI names no key (object= or id=)")
        with _session(uri) as session:
            _object(session, uri, private=True)
            return cls(uri, _public(_object(session, uri, private=False), uri))

    @classmethod
    def make(cls, uri: TokenUri, kind: KeyKind) -> "TokenKey":
        """A new key, made on the token, which will not give it out. ConfigError when the name is taken; as `find`."""
        import pkcs11
        from pkcs11.util.ec import encode_named_curve_parameters

        template = {
            pkcs11.Attribute.PRIVATE: True,
            pkcs11.Attribute.SENSITIVE: True,
            pkcs11.Attribute.EXTRACTABLE: False,
        }
        wanted: dict[str, Any] = {
            "store": True,
            "label": uri.object,
            "id": uri.id if uri.id is not None else hashlib.sha256((uri.object or "").encode()).digest()[:8],
            "capabilities": pkcs11.MechanismFlag.SIGN | pkcs11.MechanismFlag.VERIFY,
            "private_template": template,
        }
        with _session(uri, rw=True) as session:
            if _objects(session, uri, private=True) or _objects(session, uri, private=False):
                raise ConfigError(f"{uri}: the key exists; nothing was overwritten")
            if kind is KeyKind.RSA_4096:
                session.generate_keypair(pkcs11.KeyType.RSA, 4096, **wanted)
            else:
                curve = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}
                domain = session.create_domain_parameters(pkcs11.KeyType.EC, curve, local=True)
                domain.generate_keypair(**wanted)
        return cls.find(uri)

    @classmethod
    def exists(cls, uri: TokenUri) -> bool:
        """Whether the token holds a private key of this name. Errors as `find`."""
        with _session(uri) as session:
            return bool(_objects(session, uri, private=True))

    def sign_digest(self, digest: bytes, scheme: SignatureScheme) -> bytes:
        """The signature over a SHA-256 digest: DER for ECDSA. Errors as `find`."""
        from pkcs11 import MGF, Mechanism

        with _session(self._uri, seen=True) as session:
            key: Any = _object(session, self._uri, private=True)
            if scheme is SignatureScheme.RSA_PSS_SHA256:
                parameters = (Mechanism.SHA256, MGF.SHA256, len(digest))
                return bytes(key.sign(digest, mechanism=Mechanism.RSA_PKCS_PSS, mechanism_param=parameters))
            if scheme is SignatureScheme.RSA_PKCS1V15_SHA256:
                return bytes(key.sign(_SHA256_INFO + digest, mechanism=Mechanism.RSA_PKCS))
            raw = bytes(key.sign(digest, mechanism=Mechanism.ECDSA))
        half = len(raw) // 2
        return encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))


class TokenSigner(Signer):
    """Signs TUF metadata and campaigns with a key on a token: ECDSA, or RSA-PSS, as a key file would."""

    def __init__(self, key: TokenKey) -> None:
        self._key = key
        self._public = SSlibKey.from_crypto(key.public)
        ecdsa = isinstance(key.public, ec.EllipticCurvePublicKey)
        self._scheme = SignatureScheme.ECDSA_P256_SHA256 if ecdsa else SignatureScheme.RSA_PSS_SHA256

    @property
    def public_key(self) -> SSlibKey:
        return self._public

    def sign(self, payload: bytes) -> Signature:
        return Signature(
            self._public.keyid, self._key.sign_digest(hashlib.sha256(payload).digest(), self._scheme).hex()
        )

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: object, secrets_handler: SecretsHandler | None = None
    ) -> "TokenSigner":
        raise Bug("signers on tokens are made from files in a keys folder")


def _attributes(text: str, separator: str, known: tuple[str, ...]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for item in filter(None, text.split(separator)):
        name, mark, value = item.partition("=")
        if name == "pin-value":
            raise ConfigError("the pkcs11 URI holds a PIN: keep it in a file, and name that with pin-source")
        if name not in known or not mark:
            raise ConfigError(f"the pkcs11 URI's attribute {name!r} is not one of {', '.join(known)}")
        if name in found:
            raise ConfigError(f"the pkcs11 URI names {name} twice")
        found[name] = unquote_to_bytes(value)
    return found


def _text(named: dict[str, bytes], name: str) -> str | None:
    try:
        return named[name].decode() if name in named else None
    except UnicodeDecodeError:
        raise ConfigError(f"the pkcs11 URI's {name} is no UTF-8") from None


@contextmanager
def _session(uri: TokenUri, *, rw: bool = False, seen: bool = False) -> Iterator["pkcs11.Session"]:
    """A session with the token, logged in. The library's errors become ours, each naming the token.

    `seen`: the token was there a moment ago.
    """
    try:
        import pkcs11
    except ImportError:
        raise ConfigError(
            f"{uri}: keys on a token need python-pkcs11, from the package's extra named publisher"
        ) from None
    try:
        token, pin, refusals = _token(uri, seen), _pin(uri), PinRefusals(uri.pin_source)
        name = f"{token.label} {token.serial.decode(errors='replace')}"
        if (when := refusals.known(name)) is not None:
            raise ConfigError(
                f"{uri}: the token has refused the PIN in {uri.pin_source} ({when}); it is not tried again, which would lock "
                "the token, until that file has changed"
            )
        try:
            opened = token.open(rw=rw, user_pin=pin)
        except (pkcs11.exceptions.PinIncorrect, pkcs11.exceptions.PinInvalid, pkcs11.exceptions.PinLenRange) as error:
            raise _refused(error, uri, refusals, name) from error
        with opened as session:
            refusals.forget(name)
            yield session
    except pkcs11.PKCS11Error as error:
        raise _explained(error, uri) from error


def _refused(error: "pkcs11.PKCS11Error", uri: TokenUri, refusals: PinRefusals, name: str) -> ConfigError:
    """Noted before it is told."""
    try:
        refusals.add(name, time.time())
        then = f"it is not tried again until {uri.pin_source} has changed"
    except (StoreError, OSError) as trouble:
        then = f"that could not be noted ({trouble}): stop what would try it again, before the token locks itself"
    return ConfigError(f"{_explained(error, uri)}; {then}")


def _token(uri: TokenUri, seen: bool) -> "pkcs11.Token":
    import pkcs11

    if not uri.module.is_file():
        raise ConfigError(f"{uri}: there is no PKCS#11 module {uri.module}")
    try:
        library = pkcs11.lib(str(uri.module))
    except pkcs11.PKCS11Error as error:
        raise ConfigError(f"{uri}: {uri.module} cannot be used as a PKCS#11 module: {error}") from error
    found = _tokens(library, uri)
    if not found:
        library.reinitialize()  # a token may have been plugged in, or set up, since the module was loaded
        found = _tokens(library, uri)
    if not found and seen:
        raise Unavailable(f"{uri}: the token has been removed")
    if not found:
        raise ConfigError(f"{uri}: the module knows no such token (is it plugged in?)")
    if len(found) > 1:
        raise ConfigError(f"{uri}: {len(found)} tokens are called that; add serial= to the URI")
    return found[0]


def _tokens(library: Any, uri: TokenUri) -> list["pkcs11.Token"]:
    import pkcs11

    found = []
    for slot in library.get_slots(token_present=True):
        try:
            token = slot.get_token()
        except pkcs11.PKCS11Error:
            continue  # another one's trouble, or ours: then it is missed below
        if (
            pkcs11.TokenFlag.TOKEN_INITIALIZED in token.flags
            and uri.token in (None, token.label)
            and uri.serial in (None, token.serial.decode(errors="replace"))
            and uri.manufacturer in (None, token.manufacturer_id)
            and uri.model in (None, token.model)
        ):
            found.append(token)
    return found


def _pin(uri: TokenUri) -> str:
    try:
        pin = uri.pin_source.read_text().split("\n", 1)[0].rstrip("\r")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigError(f"{uri}: the PIN file {uri.pin_source} cannot be read: {why}") from None
    if not pin:
        raise ConfigError(f"{uri}: the PIN file {uri.pin_source} is empty")
    return pin


def _objects(session: "pkcs11.Session", uri: TokenUri, *, private: bool) -> list[Any]:
    import pkcs11

    wanted: dict[pkcs11.Attribute, Any] = {
        pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY if private else pkcs11.ObjectClass.PUBLIC_KEY
    }
    if uri.object is not None:
        wanted[pkcs11.Attribute.LABEL] = uri.object
    if uri.id is not None:
        wanted[pkcs11.Attribute.ID] = uri.id
    return list(session.get_objects(wanted))


def _object(session: "pkcs11.Session", uri: TokenUri, *, private: bool) -> Any:
    found = _objects(session, uri, private=private)
    what = "private" if private else "public"
    if not found:
        raise ConfigError(f"{uri}: the token holds no such {what} key")
    if len(found) > 1:
        raise ConfigError(f"{uri}: the token holds {len(found)} such {what} keys; add id= to the URI")
    return found[0]


def _public(found: Any, uri: TokenUri) -> PublicKey:
    import pkcs11
    from pkcs11.util.ec import encode_ec_public_key

    key: object = None
    if found.key_type is pkcs11.KeyType.RSA:
        modulus, exponent = (
            int.from_bytes(found[name], "big") for name in (pkcs11.Attribute.MODULUS, pkcs11.Attribute.PUBLIC_EXPONENT)
        )
        key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
        if key.key_size >= RSA_MINIMUM_BITS:
            return key
    elif found.key_type is pkcs11.KeyType.EC:
        key = load_der_public_key(encode_ec_public_key(found))
        if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
            return key
    raise ConfigError(f"{uri}: neither ECDSA P-256 nor RSA of {RSA_MINIMUM_BITS} bits: gateways take nothing else")


def _explained(error: "pkcs11.PKCS11Error", uri: TokenUri) -> GatewaydError:
    """What the operator has to mend, or that the token does not answer (any more)."""
    import pkcs11

    said = {
        pkcs11.exceptions.PinIncorrect: "the PIN is wrong",
        pkcs11.exceptions.PinInvalid: "the PIN is wrong",
        pkcs11.exceptions.PinLenRange: "the PIN has a length that the token does not take",
        pkcs11.exceptions.PinLocked: "the PIN is locked",
        pkcs11.exceptions.PinExpired: "the PIN has expired",
        pkcs11.exceptions.UserPinNotInitialized: "the token has no user PIN yet",
        pkcs11.exceptions.TokenWriteProtected: "the token is write-protected",
        pkcs11.exceptions.MechanismInvalid: "the token cannot make this kind of signature or key",
        pkcs11.exceptions.MechanismParamInvalid: "the token cannot make this kind of signature or key",
    }
    for kind, text in said.items():
        if isinstance(error, kind):
            return ConfigError(f"{uri}: {text}")
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()
    return Unavailable(f"{uri}: the token does not answer as it should ({name}); was it removed?")
