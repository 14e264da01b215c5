"""Whether the bytes in the cache may go on air for a release: signature, digest, and what the file says of itself. PURE."""

import itertools
from collections.abc import Iterable

from gatewayd.cloud import messages
from gatewayd.errors import Refused
from gatewayd.trust.release import VerifiedRelease
from gatewayd.trust.signature import verify_image
from radios.errors import FrameError
from radios.zigbee.ota_image import MAX_HEADER_BYTES, parse_ota_header


def verify_payload(
    chunks: Iterable[bytes],
    payload: messages.Payload,
    release: VerifiedRelease,
    manufacturers: messages.Manufacturers,
    now: float | None,
) -> None:
    """All checks on a payload file in one pass: Refused as `verify_image` and `check_header`."""
    stream = iter(chunks)
    head = b""
    while len(head) < MAX_HEADER_BYTES and (piece := next(stream, None)) is not None:
        head += piece
    verify_image(itertools.chain([head], stream), payload, release.document.hardware, manufacturers, now)
    check_header(head, payload, release.document)


def check_header(head: bytes, payload: messages.Payload, release: messages.Release) -> None:
    """The container's header agrees with the release; Refused("header_mismatch") otherwise.

    `head` is the beginning of the file. An opaque image and a delta say nothing of themselves: protection against a
    downgrade then rests on the release's key and the node.
    """
    if release.container != "zigbee-ota" or payload.kind != "full":
        return
    what = f"{release.name} {release.version}, payload {payload.sha256}"
    try:
        header = parse_ota_header(head[:MAX_HEADER_BYTES])
    except FrameError as error:
        raise Refused("header_mismatch", f"{what}: {error}") from None
    if header.version != release.node_version:
        raise Refused(
            "header_mismatch", f"{what}: file version {header.version:#010x}, not {release.node_version:#010x}"
        )
    hardware = f"zigbee:{header.manufacturer:04x}-{header.image_type:04x}"
    if release.hardware != (hardware,):
        raise Refused("header_mismatch", f"{what}: the file is for {hardware}, the release for {release.hardware}")
    if header.total_size != payload.size:
        raise Refused("header_mismatch", f"{what}: the file says {header.total_size} bytes, it has {payload.size}")
