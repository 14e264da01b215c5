"""A payload file as a whole: signature, digest, and the header of a Zigbee OTA file against the release."""

import hashlib
import struct

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from gatewayd.cloud import messages
from gatewayd.cloud.messages import Manufacturers
from gatewayd.errors import Refused
from gatewayd.publisher.keys import FileImageSigner
from gatewayd.trust.image import verify_file, verify_payload
from gatewayd.trust.release import VerifiedRelease
from gatewayd.trust.seal import SEAL
from tests.support.documents import HARDWARE, NEW, START_S, payload, release

SIGNER = FileImageSigner(ec.generate_private_key(ec.SECP256R1()))
MAKERS = Manufacturers(keys=(SIGNER.manufacturer("ACME", [HARDWARE], START_S - 1, START_S + 1),))
OTHER = "zigbee:117c-2102"
WIDE_MAKERS = Manufacturers(keys=(SIGNER.manufacturer("ACME", [HARDWARE, OTHER], START_S - 1, START_S + 1),))


def ota(manufacturer: int = 0x117C, kind: int = 0x2101, version: int = NEW, size: int | None = None) -> bytes:
    body = bytes(range(250)) * 8
    total = 56 + len(body) if size is None else size
    head = struct.pack("<LHHHHHLH32sL", 0x0BEEF11E, 0x0100, 56, 0, manufacturer, kind, version, 2, b"lamp", total)
    return head + body


def made(image: bytes, container: str = "zigbee-ota") -> tuple[messages.Payload, VerifiedRelease]:
    base = release()
    signature = SIGNER.sign_digest(hashlib.sha256(image).digest())
    entry = payload(image).model_copy(update={"signature": signature})
    document = base.document.model_copy(update={"container": container, "payloads": (entry,)})
    return entry, VerifiedRelease(base.path, document, b"", START_S, START_S + 1, SEAL)


def test_a_good_file_in_pieces_of_any_size() -> None:
    entry, verified = made(ota())
    for step in (1, 13, 56, 100_000):
        pieces = [ota()[at : at + step] for at in range(0, len(ota()), step)]
        verify_payload(pieces, entry, verified, MAKERS, START_S)


@pytest.mark.parametrize(
    "image",
    [
        ota(version=NEW - 1),
        ota(manufacturer=0x117D),
        ota(kind=0x2102),
        ota(size=1000),
        b"\x00" + ota(),
        ota()[:40],
    ],
    ids=["version", "manufacturer", "type", "size", "magic", "short"],
)
def test_a_well_signed_file_that_says_something_else(image: bytes) -> None:
    entry, verified = made(image)
    with pytest.raises(Refused) as caught:
        verify_payload([image], entry, verified, MAKERS, START_S)
    assert caught.value.code == "header_mismatch"
    verify_payload([image], *made(image, "opaque"), MAKERS, START_S)  # opaque: nothing to compare


def test_tampered_comes_before_the_header() -> None:
    entry, verified = made(ota())
    with pytest.raises(Refused) as caught:
        verify_payload([ota(version=1)], entry, verified, MAKERS, START_S)
    assert caught.value.code == "tampered"


def test_a_release_for_more_than_the_file_is_for() -> None:
    entry, verified = made(ota())
    wide = verified.document.model_copy(update={"hardware": (HARDWARE, OTHER)})
    with pytest.raises(Refused) as caught:
        verify_file([ota()], entry, wide, WIDE_MAKERS, START_S)
    assert caught.value.code == "header_mismatch"
