"""TUF metadata that is already here, verified without a network. PURE.

The rules are TUF's client workflow minus fetching and minus expiry: every file is signed by whom its delegator names, and
is the version, length and hash that the file above it says, so a mix of versions does not pass. Dates are told, not
enforced: after an offline restart what runs may finish on expired metadata. Fetching (and expiry) is repository.py's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

from tuf.api.exceptions import (
    BadVersionNumberError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import (  # type: ignore[attr-defined] # public names, but not in its __all__
    Metadata,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization import DeserializationError

from gatewayd.errors import Refused

MAX_DELEGATIONS = 16

S = TypeVar("S", Root, Timestamp, Snapshot, Targets)


@dataclass(frozen=True, slots=True)
class MetadataFiles:
    """The bytes of one complete set, as signed. `roles` are delegated targets roles by name."""

    timestamp: bytes
    snapshot: bytes
    targets: bytes
    roles: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Found:
    """A target that the metadata lists, and until when the roles that list it are valid (Unix seconds)."""

    target: TargetFile
    expires: float


class TrustedMetadata:
    """One verified set. Only `verify` makes one."""

    def __init__(
        self, root: Root, timestamp: Timestamp, snapshot: Snapshot, targets: Targets, roles: Mapping[str, bytes]
    ) -> None:
        self.root = root
        self.timestamp = timestamp
        self.snapshot = snapshot
        self.targets = targets
        self._roles = roles
        # The date of the set as a whole: past any of these, nothing new is started on it.
        self.expires = min(s.expires.timestamp() for s in (root, timestamp, snapshot, targets))

    @classmethod
    def verify(cls, roots: Sequence[bytes], files: MetadataFiles) -> Self:
        """The set, or Refused (bad_signature, rolled_back, tampered, bad_document).

        `roots` begins with the bootstrap root and goes on version by version. Delegated roles are verified when used.
        """
        try:
            root = newest_root(roots)
            timestamp = _signed(Timestamp, files.timestamp, root, "timestamp")
            timestamp.snapshot_meta.verify_length_and_hashes(files.snapshot)
            snapshot = _signed(Snapshot, files.snapshot, root, "snapshot")
            _expect("snapshot", snapshot.version, timestamp.snapshot_meta.version)
            targets = _listed(snapshot, files.targets, root, "targets")
        except RepositoryError as error:
            raise refusal(error, "held metadata") from error
        return cls(root, timestamp, snapshot, targets, files.roles)

    def own_target(self, path: str) -> TargetFile:
        """A target of the top-level role itself, which no delegation can speak for. Refused("unknown_target")."""
        target = self.targets.targets.get(path)
        if target is None:
            raise Refused("unknown_target", f"{path} is not listed by the targets role")
        return target

    def find(self, path: str) -> Found | None:
        """The target, from the most trusted role that lists it; None when none does.

        Refused when a role that could list it is missing here or does not verify.
        """
        pending: list[tuple[str, Targets, float]] = []
        visited = {"targets"}
        role, expires = self.targets, self.targets.expires.timestamp()
        while len(visited) <= MAX_DELEGATIONS:
            if (target := role.targets.get(path)) is not None:
                return Found(target, expires)
            children = list(role.delegations.get_roles_for_target(path)) if role.delegations else []
            below: list[tuple[str, Targets, float]] = []
            for name, terminating in children:
                if name not in visited:
                    below.append((name, role, expires))
                if terminating:  # whoever comes later, at any level, has no say on this path
                    pending.clear()
                    break
            pending.extend(reversed(below))
            if not pending:
                return None
            name, delegator, until = pending.pop()
            visited.add(name)
            role = self._delegated(name, delegator)
            expires = min(until, role.expires.timestamp())
        return None

    def delegated_roles(self) -> list[str]:
        """Names of the roles that targets delegates to."""
        roles = self.targets.delegations.roles if self.targets.delegations else None
        return list(roles or ())

    def _delegated(self, name: str, delegator: Targets) -> Targets:
        if name not in self._roles:
            raise Refused("tampered", f"the metadata of the delegated role {name} is missing or was refused")
        try:
            return _listed(self.snapshot, self._roles[name], delegator, name)
        except RepositoryError as error:
            raise refusal(error, f"held metadata of {name}") from error


def newest_root(roots: Sequence[bytes]) -> Root:
    """The last of a chain in which every root is signed by its predecessor and by itself. RepositoryError."""
    trusted: Root | None = None
    for data in roots:
        candidate = _parsed(Root, data, "root")
        raw = Metadata[Root].from_bytes(data)
        if trusted is not None:
            _expect("root", candidate.version, trusted.version + 1)
            trusted.verify_delegate("root", raw.signed_bytes, raw.signatures)
        candidate.verify_delegate("root", raw.signed_bytes, raw.signatures)
        trusted = candidate
    if trusted is None:
        raise RepositoryError("no root")
    return trusted


def version_of(data: bytes) -> int | None:
    """The version that a metadata file claims; None when it cannot be read at all."""
    try:
        return int(Metadata[Targets].from_bytes(data).signed.version)
    except RepositoryError:
        return None


def refusal(error: RepositoryError, where: str) -> Refused:
    """A fault of the metadata as a Refused with a stable code."""
    if isinstance(error, ExpiredMetadataError):
        code = "expired"
    elif isinstance(error, BadVersionNumberError):
        code = "rolled_back"
    elif isinstance(error, UnsignedMetadataError):
        code = "bad_signature"
    elif isinstance(error, LengthOrHashMismatchError):
        code = "tampered"
    elif isinstance(error, DeserializationError):
        code = "bad_document"
    else:
        code = "tampered"
    return Refused(code, f"{where}: {error}")


def _listed(snapshot: Snapshot, data: bytes, delegator: Root | Targets, role: str) -> Targets:
    meta = snapshot.meta.get(f"{role}.json")
    if meta is None:
        raise RepositoryError(f"snapshot does not list {role}")
    meta.verify_length_and_hashes(data)
    signed = _signed(Targets, data, delegator, role)
    _expect(role, signed.version, meta.version)
    return signed


def _signed(kind: type[S], data: bytes, delegator: Root | Targets, role: str) -> S:
    signed = _parsed(kind, data, role)
    raw = Metadata[S].from_bytes(data)
    delegator.verify_delegate(role, raw.signed_bytes, raw.signatures)
    return signed


def _parsed(kind: type[S], data: bytes, role: str) -> S:
    signed = Metadata[S].from_bytes(data).signed
    if not isinstance(signed, kind):
        raise RepositoryError(f"{role}: expected {kind.type}, got {signed.type}")
    return signed


def _expect(role: str, version: int, expected: int) -> None:
    if version != expected:
        raise BadVersionNumberError(f"{role}: expected version {expected}, got {version}")
