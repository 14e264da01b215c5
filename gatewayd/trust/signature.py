"""The manufacturer's signature over an image, checked in a stream before a byte of it goes on air. PURE.

RSA of at least 3072 bits with PKCS#1 v1.5 or PSS, ECDSA P-256; SHA-256 each: what the node's bootloader verifies too.
"""

import base64
import binascii
import hashlib
from collections.abc import Iterable, Sequence

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, AsymmetricPadding, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from gatewayd.cloud import messages
from gatewayd.cloud.messages import SignatureScheme
from gatewayd.errors import Refused

RSA_MINIMUM_BITS = 3072

PublicKey = RSAPublicKey | EllipticCurvePublicKey


def verify_image(
    chunks: Iterable[bytes],
    payload: messages.Payload,
    hardware: Sequence[str],
    manufacturers: messages.Manufacturers,
    now: float | None,
) -> None:
    """The bytes are the payload, and a manufacturer who may speak for all of `hardware` signed the image.

    A delta's signature is over the image it makes, which its digest names. `now` in Unix seconds, None while the clock is
    not known (validity dates are then not judged: only for what was verified before). Refused: unknown_manufacturer,
    key_revoked, key_not_valid, wrong_hardware, bad_signature, tampered.
    """
    key = manufacturer_key(payload.signature, hardware, manufacturers, now)
    hasher, size = hashlib.sha256(), 0
    for chunk in chunks:
        size += len(chunk)
        if size > payload.size:
            break
        hasher.update(chunk)
    if size != payload.size or hasher.hexdigest() != payload.sha256:
        raise Refused("tampered", f"payload {payload.sha256}: {size} bytes with SHA-256 {hasher.hexdigest()} instead")
    verify_digest(key, payload.signature, bytes.fromhex(payload.image_sha256 or payload.sha256))


def manufacturer_key(
    signature: messages.ManufacturerSignature,
    hardware: Sequence[str],
    manufacturers: messages.Manufacturers,
    now: float | None,
) -> PublicKey:
    """The key of a signature, when it is listed, in force, and may speak for all of the hardware; Refused otherwise."""
    entry = next((key for key in manufacturers.keys if key.keyid == signature.keyid), None)
    if entry is None:
        raise Refused("unknown_manufacturer", f"manufacturer key {signature.keyid} is not listed")
    what = f"key {entry.keyid} of {entry.name}"
    if entry.revoked:
        raise Refused("key_revoked", what)
    if now is not None and not entry.valid_from.timestamp() <= now < entry.valid_until.timestamp():
        raise Refused("key_not_valid", f"{what}: valid from {entry.valid_from} until {entry.valid_until}")
    if missing := sorted(set(hardware) - set(entry.hardware)):
        raise Refused("wrong_hardware", f"{what} does not cover {', '.join(missing)}")
    return _load(entry, what)


def verify_digest(key: PublicKey, signature: messages.ManufacturerSignature, digest: bytes) -> None:
    """The signature over the SHA-256 `digest` is good; Refused("bad_signature") otherwise."""
    what = f"manufacturer's signature by {signature.keyid}"
    try:
        value = base64.b64decode(signature.value, validate=True)
    except binascii.Error as error:
        raise Refused("bad_signature", f"{what}: {error}") from None
    prehashed = Prehashed(SHA256())
    try:
        if isinstance(key, RSAPublicKey) and (padding := _padding(signature.scheme)) is not None:
            key.verify(value, digest, padding, prehashed)
        elif isinstance(key, EllipticCurvePublicKey) and signature.scheme is SignatureScheme.ECDSA_P256_SHA256:
            key.verify(value, digest, ECDSA(prehashed))
        else:
            raise Refused("bad_signature", f"{what}: the key is not for {signature.scheme}")
    except InvalidSignature:
        raise Refused("bad_signature", f"{what} ({signature.scheme}) does not fit SHA-256 {digest.hex()}") from None


def _load(entry: messages.Manufacturer, what: str) -> PublicKey:
    try:
        der = base64.b64decode(entry.public, validate=True)
        key = load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Refused("key_not_valid", f"{what}: {error}") from None
    if hashlib.sha256(der).hexdigest() != entry.keyid:
        raise Refused("key_not_valid", f"{what}: the id is not the key's")
    if isinstance(key, RSAPublicKey) and key.key_size >= RSA_MINIMUM_BITS:
        return key
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return key
    raise Refused("key_not_valid", f"{what}: neither RSA of {RSA_MINIMUM_BITS} bits nor ECDSA P-256")


def _padding(scheme: SignatureScheme) -> AsymmetricPadding | None:
    if scheme is SignatureScheme.RSA_PKCS1V15_SHA256:
        return PKCS1v15()
    if scheme is SignatureScheme.RSA_PSS_SHA256:
        return PSS(mgf=MGF1(SHA256()), salt_length=PSS.AUTO)
    return None
