"""A release document that the signed metadata vouches for. PURE.

Says what "vouched for" means for the bytes of one release: listed in the metadata with this length and hash, well formed,
and about what its path says. Fetching and the metadata themselves belong to repository.py and metadata.py.
"""

import re
from dataclasses import InitVar, dataclass

from tuf.api.exceptions import LengthOrHashMismatchError
from tuf.api.metadata import TargetFile  # type: ignore[attr-defined] # a public name, but not in its __all__

from gatewayd.cloud import messages
from gatewayd.errors import Refused
from gatewayd.trust.seal import SEAL, check_seal

RELEASE_PATH = re.compile(r"releases/[a-z0-9-]{1,64}/[a-z0-9.+-]{1,64}\.json")


@dataclass(frozen=True, slots=True)
class VerifiedRelease:
    """A release as authorised by TUF. Later code takes nothing else for a release; only trust/ can make one."""

    path: str  # "releases/<name>/<version>.json"
    document: messages.Release
    body: bytes  # as signed: keep it, and verify it again after a restart
    verified_at: float  # Unix seconds
    expires: float  # Unix seconds: until when the roles that authorise it (targets and delegated) are valid
    seal: InitVar[object]

    def __post_init__(self, seal: object) -> None:
        check_seal(seal, "VerifiedRelease")

    def expired(self, now: float) -> bool:
        """Whether the authorising roles are past their date: nothing new starts, what runs may finish."""
        return now >= self.expires


def verify_release(path: str, body: bytes, target: TargetFile, expires: float, now: float) -> VerifiedRelease:
    """The release, or Refused: tampered, too_large, bad_document. `target` must come from verified metadata."""
    try:
        target.verify_length_and_hashes(body)
    except LengthOrHashMismatchError as error:
        raise Refused("tampered", f"{path}: {error}") from None
    document = messages.parse(messages.Release, body, path, messages.RELEASE_MAX_BYTES)
    if (stated := f"releases/{document.name}/{document.version}.json") != path:
        raise Refused("bad_document", f"{path}: the document is about {stated}")
    _check_payloads(path, document)
    return VerifiedRelease(path, document, body, now, expires, SEAL)


def _check_payloads(path: str, document: messages.Release) -> None:
    full = next(payload for payload in document.payloads if payload.kind == "full")
    for payload in document.payloads:
        if payload.path != f"payloads/{payload.sha256}":
            raise Refused("bad_document", f"{path}: payload {payload.sha256} is said to be at {payload.path}")
        if payload.kind == "delta" and payload.image_sha256 != full.sha256:
            raise Refused("bad_document", f"{path}: delta {payload.sha256} does not make the full payload")
