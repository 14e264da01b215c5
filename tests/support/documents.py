"""Ready-made documents, nodes and situations for the campaign tests."""

import hashlib
from datetime import UTC, datetime, timedelta

from gatewayd.cloud import messages
from gatewayd.nodes.node import Node
from gatewayd.trust.release import VerifiedRelease
from gatewayd.trust.seal import SEAL
from radios.radio import Power, radio_of

START = datetime(2026, 11, 1, tzinfo=UTC)
START_S = START.timestamp()
HARDWARE = "zigbee:117c-2101"
IMAGE = b"\x5a" * 5000
OLD, NEW = 0x00010000, 0x00020000


def payload(image: bytes = IMAGE, chunk_size: int = 4096) -> messages.Payload:
    digest = hashlib.sha256(image).hexdigest()
    return messages.Payload(
        size=len(image),
        sha256=digest,
        chunk_size=chunk_size,
        chunks=tuple(hashlib.sha256(image[i : i + chunk_size]).hexdigest() for i in range(0, len(image), chunk_size)),
        path=f"payloads/{digest}",
        signature=messages.ManufacturerSignature(
            scheme=messages.SignatureScheme.ECDSA_P256_SHA256, keyid="0" * 64, value="AAAA"
        ),
    )


def release(
    name: str = "lamp",
    version: str = "2.0.0",
    security_version: int = 2,
    node_version: int = NEW,
    self_test_s: int = 60,
) -> VerifiedRelease:
    document = messages.Release(
        name=name,
        version=version,
        sequence=node_version,
        security_version=security_version,
        node_version=node_version,
        hardware=(HARDWARE,),
        container="opaque",
        self_test_s=self_test_s,
        payloads=(payload(),),
    )
    path = f"releases/{name}/{version}.json"
    return VerifiedRelease(path, document, messages.dump(document), START_S, START_S + 90 * 86400, SEAL)


def campaign(**changes: object) -> messages.Campaign:
    values: dict[str, object] = {
        "id": "lamps",
        "audience": "gateway:gw-1",
        "revision": 1,
        "issued": START,
        "expires": START + timedelta(days=10),
        "desired": messages.Desired.RUNNING,
        "release": "releases/lamp/2.0.0.json",
    }
    return messages.Campaign.model_validate({**values, **changes})


def node(number: int, **changes: object) -> Node:
    identity = str(changes.pop("id", f"zigbee:{number:016x}"))
    values: dict[str, object] = {
        "id": identity,
        "radio": radio_of(identity),
        "hardware": HARDWARE,
        "version": OLD,
        "power": Power.MAINS,
        "joined": True,
    }
    return Node(**{**values, **changes})  # type: ignore[arg-type]
