"""Which of a release's payloads a node is sent: a delta from what it runs, or the full image. PURE.

What a node can take is stated by its tags: `delta` (formats, separated by commas) and `ram` (bytes free for a patch). Devices
of a LoRaWAN network server have tags of their own; where nodes have none, the operator states them by hardware
(`[[models]]`). A node of which nothing is stated gets full images.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from gatewayd.cloud.messages import Campaign, DeltaFormat, Payload
from gatewayd.nodes.node import Node
from gatewayd.trust.release import VerifiedRelease
from radios.radio import ImageRef, TransferOrder

FORMATS_TAG = "delta"
RAM_TAG = "ram"


def as_stated(node: Node, models: Mapping[str, Mapping[str, str]]) -> Node:
    """The node with the tags that are stated for its hardware; those it has itself win."""
    stated = models.get(node.hardware or "")
    return node if not stated else replace(node, tags={**stated, **node.tags})


def full_image(release: VerifiedRelease) -> Payload:
    """The release's full image; every release has one (checked when it was verified)."""
    return next(p for p in release.document.payloads if p.kind == "full")


def payload_for(node: Node, release: VerifiedRelease, attempt: int, unusable: Collection[str] = ()) -> Payload:
    """The smallest payload that the node can make the image of. `unusable` are digests of deltas that cannot be had."""
    return payloads_for(node, release, attempt, unusable)[0]


def payloads_for(node: Node, release: VerifiedRelease, attempt: int, unusable: Collection[str] = ()) -> list[Payload]:
    """All payloads that the node can make the image of, the smallest first; the full image is the last.

    Only a first attempt is made with a delta: what a delta has failed at, the full image mends.
    """
    full = full_image(release)
    if attempt > 1:
        return [full]
    usable = (p for p in _deltas(node, release) if p.sha256 not in unusable and p.size < full.size)
    return [*sorted(usable, key=lambda p: (p.size, p.sha256)), full]


def deltas_for(nodes: Iterable[Node], release: VerifiedRelease) -> dict[str, Payload]:
    """The deltas, by digest, that one of the nodes could be sent."""
    return {payload.sha256: payload for node in nodes for payload in _deltas(node, release)}


def payload_of(transfer: str, release: VerifiedRelease) -> Payload | None:
    """The payload that a transfer delivers; None when the release has none such (any more)."""
    return next((p for p in release.document.payloads if is_transfer_of(transfer, p.sha256)), None)


def transfer_id(campaign: str, payload: Payload, attempt: int) -> str:
    """A new attempt is a transfer of its own: a radio may need a fresh session for it."""
    return f"{campaign}.{payload.sha256[:12]}.{attempt}"


def is_transfer_of(transfer: str, digest: str) -> bool:
    """Whether the transfer delivers the payload of that digest."""
    return transfer.split(".")[1:2] == [digest[:12]]


def order_for(document: Campaign, release: VerifiedRelease, payload: Payload, transfer: str) -> TransferOrder:
    """What a radio is told of a transfer of the payload."""
    return TransferOrder(
        transfer=transfer,
        image=ImageRef(payload.sha256, payload.size, release.document.node_version),
        priority=document.policy.priority,
        air_share=document.policy.air_share,
        expires=document.expires,
    )


def _deltas(node: Node, release: VerifiedRelease) -> list[Payload]:
    formats = {text.strip() for text in node.tags.get(FORMATS_TAG, "").split(",")} & set(DeltaFormat)
    if not formats or node.version is None:
        return []
    stated = node.tags.get(RAM_TAG, "")
    ram = int(stated) if stated.isascii() and stated.isdigit() else 0
    return [
        payload
        for payload in release.document.payloads
        if payload.delta_format in formats and payload.base_version == node.version and (payload.needs_ram or 0) <= ram
    ]
