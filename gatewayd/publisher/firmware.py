"""From a firmware file to what a release says of it: size, digests, chunks, signature."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from gatewayd.cloud.messages import (
    RELEASE_MAX_BYTES,
    DeltaFormat,
    ManufacturerSignature,
    Payload,
    Release,
    dump,
    parse,
)
from gatewayd.errors import ConfigError
from gatewayd.publisher.delta import OTA_DELTA_TAG, Delta
from gatewayd.publisher.keys import ImageSigner
from gatewayd.trust.release import RELEASE_PATH

CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class FirmwareFile:
    """A full image on disk, with its manufacturer's signature or with a signer that makes one now."""

    path: Path
    signature: ManufacturerSignature | ImageSigner


@dataclass(frozen=True, slots=True)
class DeltaPlan:
    """Which deltas to offer beside the full image: from these published releases, in these formats."""

    bases: tuple[str, ...]  # paths, "releases/<name>/<version>.json"
    formats: tuple[DeltaFormat, ...] = (DeltaFormat.DETOOLS,)
    needs_ram: int | None = None  # bytes that applying one takes on the node
    tag: int = OTA_DELTA_TAG  # of the element in a Zigbee OTA file


NO_DELTAS = DeltaPlan(())


@dataclass(frozen=True, slots=True)
class ReleaseSpec:
    """What the publisher says about a release, apart from its files; fields as in `messages.Release`."""

    name: str
    version: str
    sequence: int
    security_version: int
    node_version: int
    hardware: tuple[str, ...]
    container: str  # "zigbee-ota" or "opaque"
    self_test_s: int = 60
    chunk_bytes: int = CHUNK_BYTES
    notes: str = ""

    @property
    def path(self) -> str:
        return f"releases/{self.name}/{self.version}.json"


def describe(firmware: FirmwareFile, chunk_bytes: int = CHUNK_BYTES) -> Payload:
    """The payload entry of a full image. ConfigError when the file cannot be read or is empty, ValidationError."""
    whole, chunks, size = hashlib.sha256(), [], 0
    try:
        with firmware.path.open("rb") as file:
            while chunk := file.read(chunk_bytes):
                whole.update(chunk)
                chunks.append(hashlib.sha256(chunk).hexdigest())
                size += len(chunk)
    except OSError as error:
        raise ConfigError(f"{firmware.path}: {error.strerror}") from error
    if not size:
        raise ConfigError(f"{firmware.path}: the file is empty")
    signature = firmware.signature
    if not isinstance(signature, ManufacturerSignature):
        signature = signature.sign_digest(whole.digest())
    return Payload(
        size=size,
        sha256=whole.hexdigest(),
        chunk_size=chunk_bytes,
        chunks=tuple(chunks),
        path=f"payloads/{whole.hexdigest()}",
        signature=signature,
    )


def describe_delta(delta: Delta, base: Payload, base_version: int, full: Payload, needs_ram: int | None) -> Payload:
    """The payload entry of a delta: signed by what signs the image that it makes."""
    size = full.chunk_size
    pieces = [delta.data[at : at + size] for at in range(0, len(delta.data), size)]
    digest = hashlib.sha256(delta.data).hexdigest()
    return Payload(
        kind="delta",
        size=len(delta.data),
        sha256=digest,
        chunk_size=size,
        chunks=tuple(hashlib.sha256(piece).hexdigest() for piece in pieces),
        path=f"payloads/{digest}",
        signature=full.signature,
        base_sha256=base.sha256,
        base_version=base_version,
        image_sha256=full.sha256,
        delta_format=delta.format,
        needs_ram=needs_ram,
    )


def release_document(spec: ReleaseSpec, *payloads: Payload) -> Release:
    """The release; pydantic's ValidationError when the spec is out of range."""
    return Release.model_validate(
        {
            "name": spec.name,
            "version": spec.version,
            "sequence": spec.sequence,
            "security_version": spec.security_version,
            "node_version": spec.node_version,
            "hardware": spec.hardware,
            "container": spec.container,
            "self_test_s": spec.self_test_s,
            "notes": spec.notes,
            "payloads": payloads,
        }
    )


def with_deltas(spec: ReleaseSpec, document: Release, deltas: Sequence[Payload]) -> Release:
    """The document with deltas beside the full image, as a gateway will read it, its size limit included."""
    whole = document.model_copy(update={"payloads": (*document.payloads, *deltas)})
    return parse(Release, dump(whole), spec.path, RELEASE_MAX_BYTES)


def described(spec: ReleaseSpec, firmware: FirmwareFile) -> Release:
    """The document of a full image as a gateway will read it. ConfigError names every fault of the spec."""
    what = f"release {spec.name} {spec.version}"
    if not RELEASE_PATH.fullmatch(spec.path):
        raise ConfigError(f"{what}: {spec.path!r} is no path of a release (lower case, digits, dots, dashes)")
    try:
        document = release_document(spec, describe(firmware, spec.chunk_bytes))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"{what}: {faults}") from error
    return parse(Release, dump(document), spec.path, RELEASE_MAX_BYTES)
