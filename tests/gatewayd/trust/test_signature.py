"""The manufacturer's signature: whose, for which hardware, over which bytes."""

import hashlib
from collections.abc import Callable
from functools import lru_cache, partial

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from gatewayd.cloud.messages import (
    DeltaFormat,
    Manufacturer,
    Manufacturers,
    ManufacturerSignature,
    Payload,
    SignatureScheme,
)
from gatewayd.errors import ConfigError, Refused
from gatewayd.publisher.keys import FileImageSigner, PrivateKey
from gatewayd.trust.signature import verify_image

HARDWARE = ("zigbee:117c-2101",)
IMAGE = bytes(range(256)) * 40
YEAR_S = 365 * 86400.0
NOW = 1_800_000_000.0


def rsa_key(bits: int = 3072) -> rsa.RSAPrivateKey:
    return _rsa_key(bits)


@lru_cache
def _rsa_key(bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def ec_key(name: str = "ours") -> ec.EllipticCurvePrivateKey:
    return _ec_key(name)


@lru_cache
def _ec_key(name: str) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def ours() -> FileImageSigner:
    return FileImageSigner(ec_key())


def listed(signer: FileImageSigner, **changes: object) -> Manufacturers:
    entry = signer.manufacturer("ACME", HARDWARE, NOW - YEAR_S, NOW + YEAR_S)
    return Manufacturers(keys=(entry.model_copy(update=changes),))


def payload(signature: ManufacturerSignature, image: bytes = IMAGE, **changes: object) -> Payload:
    digest = hashlib.sha256(image).hexdigest()
    values = {
        "size": len(image),
        "sha256": digest,
        "chunk_size": 65536,
        "chunks": (digest,),
        "path": f"payloads/{digest}",
        "signature": signature,
    }
    return Payload.model_validate({**values, **changes})


def signed(signer: FileImageSigner, image: bytes = IMAGE) -> Payload:
    return payload(signer.sign_digest(hashlib.sha256(image).digest()), image)


def pieces(image: bytes) -> list[bytes]:
    return [image[at : at + 1000] for at in range(0, len(image), 1000)]


def refusal(
    entry: Payload,
    manufacturers: Manufacturers,
    image: bytes = IMAGE,
    hardware: tuple[str, ...] = HARDWARE,
    now: float | None = NOW,
) -> str:
    with pytest.raises(Refused) as caught:
        verify_image(pieces(image), entry, hardware, manufacturers, now)
    return caught.value.code


# Keys are made when a test asks for one: at import every worker would make its own, seconds of it, also those that run none.
@pytest.mark.parametrize(
    ("key", "scheme"),
    [
        (ec_key, None),
        (rsa_key, None),
        (rsa_key, SignatureScheme.RSA_PSS_SHA256),
        (partial(rsa_key, 4096), None),
        (partial(rsa_key, 4096), SignatureScheme.RSA_PSS_SHA256),
    ],
    ids=["p256", "rsa3072-pkcs1", "rsa3072-pss", "rsa4096-pkcs1", "rsa4096-pss"],
)
def test_every_scheme(key: Callable[[], PrivateKey], scheme: SignatureScheme | None) -> None:
    signer = FileImageSigner(key(), scheme)
    verify_image(pieces(IMAGE), signed(signer), HARDWARE, listed(signer), NOW)
    assert refusal(signed(signer), listed(signer), IMAGE[:-1] + b"x") == "tampered"
    other = signer.sign_digest(hashlib.sha256(b"other").digest())
    assert refusal(payload(other), listed(signer)) == "bad_signature"


def test_pkcs1_is_not_pss() -> None:
    plain = signed(FileImageSigner(rsa_key()))
    as_pss = plain.signature.model_copy(update={"scheme": SignatureScheme.RSA_PSS_SHA256})
    assert refusal(payload(as_pss), listed(FileImageSigner(rsa_key()))) == "bad_signature"


def test_a_scheme_of_another_kind_of_key() -> None:
    as_rsa = signed(ours()).signature.model_copy(update={"scheme": SignatureScheme.RSA_PKCS1V15_SHA256})
    assert refusal(payload(as_rsa), listed(ours())) == "bad_signature"
    with pytest.raises(ConfigError):
        FileImageSigner(ec_key(), SignatureScheme.RSA_PSS_SHA256)


@pytest.mark.parametrize("image", [b"", IMAGE[:-1], IMAGE + b"\x00", bytes(len(IMAGE))])
def test_other_bytes(image: bytes) -> None:
    assert refusal(signed(ours()), listed(ours()), image) == "tampered"


def test_too_many_bytes_are_not_read_to_the_end() -> None:
    def endless() -> object:
        for _ in range(1000):
            yield IMAGE
        pytest.fail("read on, far behind the size")

    with pytest.raises(Refused):
        verify_image(endless(), signed(ours()), HARDWARE, listed(ours()), NOW)  # type: ignore[arg-type]


def test_a_stranger() -> None:
    stranger = FileImageSigner(ec_key("stranger"))
    assert refusal(signed(stranger), listed(ours())) == "unknown_manufacturer"
    as_ours = signed(stranger).signature.model_copy(update={"keyid": ours().keyid})
    assert refusal(payload(as_ours), listed(ours())) == "bad_signature"


def test_a_revoked_key() -> None:
    assert refusal(signed(ours()), listed(ours(), revoked=True)) == "key_revoked"


def test_validity() -> None:
    for now in (NOW - 2 * YEAR_S, NOW + 2 * YEAR_S, NOW + YEAR_S):
        assert refusal(signed(ours()), listed(ours()), now=now) == "key_not_valid"
    verify_image(pieces(IMAGE), signed(ours()), HARDWARE, listed(ours()), None)  # the clock is not known


def test_hardware_that_the_key_is_not_for() -> None:
    assert refusal(signed(ours()), listed(ours()), hardware=("zigbee:117c-2102",)) == "wrong_hardware"
    assert refusal(signed(ours()), listed(ours()), hardware=(*HARDWARE, "lorawan:00000001")) == "wrong_hardware"


@pytest.mark.parametrize("public", ["", "AAAA", "!", "MFkw"])
def test_a_key_that_is_none(public: str) -> None:
    assert refusal(signed(ours()), listed(ours(), public=public)) == "key_not_valid"


def test_a_key_under_the_id_of_another() -> None:
    stranger = FileImageSigner(ec_key("stranger")).manufacturer("X", HARDWARE, NOW - YEAR_S, NOW + YEAR_S)
    assert refusal(signed(ours()), listed(ours(), public=stranger.public)) == "key_not_valid"


@pytest.mark.parametrize(
    "key", [partial(rsa_key, 2048), partial(ec.generate_private_key, ec.SECP384R1())], ids=["rsa2048", "p384"]
)
def test_weak_and_other_keys(key: Callable[[], PrivateKey]) -> None:
    signer = FileImageSigner(key())
    entry: Manufacturer = signer.manufacturer("ACME", HARDWARE, NOW - YEAR_S, NOW + YEAR_S)
    assert refusal(signed(signer), Manufacturers(keys=(entry,))) == "key_not_valid"


def test_a_delta_is_signed_for_the_image_that_it_makes() -> None:
    patch = b"patch" * 100
    made = hashlib.sha256(IMAGE)
    changes = {
        "kind": "delta",
        "base_sha256": "1" * 64,
        "base_version": 1,
        "image_sha256": made.hexdigest(),
        "delta_format": DeltaFormat.DETOOLS,
    }
    good = payload(ours().sign_digest(made.digest()), patch, **changes)
    verify_image([patch], good, HARDWARE, listed(ours()), NOW)
    over_patch = payload(ours().sign_digest(hashlib.sha256(patch).digest()), patch, **changes)
    assert refusal(over_patch, listed(ours()), patch) == "bad_signature"
