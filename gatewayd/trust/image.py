"""Whether the bytes in the cache may go on air for a release: signature, digest, and what the file says of itself. PURE."""

from collections.abc import Iterable, Iterator

from gatewayd.cloud import messages
from gatewayd.trust.container import ContainerCheck
from gatewayd.trust.release import VerifiedRelease
from gatewayd.trust.signature import manufacturer_key, verify_image


def verify_payload(
    chunks: Iterable[bytes],
    payload: messages.Payload,
    release: VerifiedRelease,
    manufacturers: messages.Manufacturers,
    now: float | None,
) -> None:
    """All checks on a payload file in one pass: Refused as `verify_image`, or header_mismatch."""
    verify_file(chunks, payload, release.document, manufacturers, now)


def verify_signer(
    payload: messages.Payload, release: VerifiedRelease, manufacturers: messages.Manufacturers, now: float | None
) -> None:
    """What newer metadata can change of a payload that was verified: whether the key that signed it still counts.

    A key's id is its digest, so the signature that was good is good. Refused: unknown_manufacturer, key_revoked,
    key_not_valid, wrong_hardware.
    """
    manufacturer_key(payload.signature, release.document.hardware, manufacturers, now)


def verify_file(
    chunks: Iterable[bytes],
    payload: messages.Payload,
    release: messages.Release,
    manufacturers: messages.Manufacturers,
    now: float | None,
) -> None:
    """The same for a release that nobody has signed yet: what the publisher asks before he does."""
    container = ContainerCheck(payload, release)

    def passed() -> Iterator[bytes]:
        for chunk in chunks:
            container.feed(chunk)
            yield chunk

    verify_image(passed(), payload, release.hardware, manufacturers, now)
    container.finish()
