"""TUF metadata of the publisher's repository: reading the current set, changing it, signing and writing the next one.

The order of writes is what makes a crash harmless: every file has its version (or digest) in its name and nothing refers
to it until `timestamp.json` is replaced, last. What a crash leaves behind is overwritten by the next run.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import TypeVar

from securesystemslib.signer import Signer  # type: ignore[attr-defined] # a public name, but not in its __all__
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (  # type: ignore[attr-defined] # public names, but not in its __all__
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from gatewayd.errors import ConfigError
from gatewayd.publisher.files import write_file
from gatewayd.publisher.keys import Keys, Role

S = TypeVar("S", Root, Timestamp, Snapshot, Targets)

DAY_S = 86400
RELEASES_PATTERN = "releases/*/*"
Clock = Callable[[], float]
system_clock: Clock = time.time
TUF_ROLES = (Role.ROOT, Role.TARGETS, Role.SNAPSHOT, Role.TIMESTAMP)


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long new metadata is valid."""

    root_s: float = 365 * DAY_S
    targets_s: float = 90 * DAY_S
    releases_s: float = 90 * DAY_S
    snapshot_s: float = 7 * DAY_S
    timestamp_s: float = DAY_S

    def lifetime_s(self, role: Role) -> float:
        return float(getattr(self, f"{role}_s"))


DEFAULT_LIFETIMES = Lifetimes()


class MetadataSet:
    """The set that `timestamp.json` names, open for changes; `commit` writes the next one."""

    def __init__(
        self,
        folder: Path,
        keys: Keys,
        lifetimes: Lifetimes,
        now: float,
        parts: tuple[Metadata[Root], Metadata[Timestamp], Metadata[Snapshot], Metadata[Targets], Metadata[Targets]],
    ) -> None:
        self._folder = folder
        self._keys = keys
        self._lifetimes = lifetimes
        self._now = datetime.fromtimestamp(now, UTC).replace(microsecond=0)
        self.root, self.timestamp, self.snapshot, self.targets, self.releases = parts

    @classmethod
    def create(cls, folder: Path, keys: Keys, lifetimes: Lifetimes, now: float) -> "MetadataSet":
        """A first set, nothing written yet. ConfigError when a key is missing."""
        root = Root(consistent_snapshot=True)
        for role in TUF_ROLES:
            for signer in _signers(keys, role):
                root.add_key(signer.public_key, role.value)
        delegated = DelegatedRole(Role.RELEASES.value, [], 1, terminating=True, paths=[RELEASES_PATTERN])
        targets = Targets(delegations=Delegations({}, {Role.RELEASES.value: delegated}))
        for signer in _signers(keys, Role.RELEASES):
            targets.add_key(signer.public_key, Role.RELEASES.value)
        timestamp, snapshot, releases = Timestamp(), Snapshot(), Targets()
        for signed in (root, timestamp, snapshot, targets, releases):
            signed.version = 0  # `commit` counts up
        parts = (Metadata(root), Metadata(timestamp), Metadata(snapshot), Metadata(targets), Metadata(releases))
        return cls(folder, keys, lifetimes, now, parts)

    @classmethod
    def load(cls, folder: Path, keys: Keys, lifetimes: Lifetimes, now: float) -> "MetadataSet":
        """The current set. ConfigError when the folder holds none."""
        try:
            timestamp = Metadata[Timestamp].from_bytes((folder / "timestamp.json").read_bytes())
            at = timestamp.signed.snapshot_meta.version
            snapshot = Metadata[Snapshot].from_bytes((folder / f"{at}.snapshot.json").read_bytes())
            targets, releases = (
                Metadata[Targets].from_bytes(
                    (folder / f"{snapshot.signed.meta[f'{role}.json'].version}.{role}.json").read_bytes()
                )
                for role in (Role.TARGETS, Role.RELEASES)
            )
            root = Metadata[Root].from_bytes((folder / f"{_newest_root(folder)}.root.json").read_bytes())
        except (OSError, KeyError, RepositoryError) as error:
            raise ConfigError(f"{folder} holds no repository: {error}") from error
        return cls(folder, keys, lifetimes, now, (root, timestamp, snapshot, targets, releases))

    def expires(self) -> dict[Role, float]:
        """When each role's current metadata ends, Unix seconds."""
        return {
            Role.ROOT: self.root.signed.expires.timestamp(),
            Role.TARGETS: self.targets.signed.expires.timestamp(),
            Role.RELEASES: self.releases.signed.expires.timestamp(),
            Role.SNAPSHOT: self.snapshot.signed.expires.timestamp(),
            Role.TIMESTAMP: self.timestamp.signed.expires.timestamp(),
        }

    def commit(self, changed: set[Role]) -> None:
        """Write the next version of what changed, and of snapshot and timestamp.

        ConfigError when a key is missing or is not the one that the metadata above names; then nothing refers to what
        was written so far.
        """
        if Role.ROOT in changed:
            self._write(self.root, Role.ROOT)
            write_file(self._folder / "root.json", self.root.to_bytes())
        snapshot = self.snapshot.signed
        if Role.RELEASES in changed:
            snapshot.meta["releases.json"] = self._write(self.releases, Role.RELEASES)
        if Role.TARGETS in changed:
            snapshot.meta["targets.json"] = self._write(self.targets, Role.TARGETS)
        self.timestamp.signed.snapshot_meta = self._write(self.snapshot, Role.SNAPSHOT)
        self._write(self.timestamp, Role.TIMESTAMP)

    def _write(self, part: Metadata[S], role: Role) -> MetaFile:
        signed = part.signed
        signed.version += 1
        signed.expires = self._now + timedelta(seconds=self._lifetimes.lifetime_s(role))
        part.signatures.clear()
        for signer in _signers(self._keys, role):
            part.sign(signer, append=True)
        delegator = self.targets.signed if role is Role.RELEASES else self.root.signed
        try:
            delegator.verify_delegate(role.value, part.signed_bytes, part.signatures)
        except RepositoryError as error:
            raise ConfigError(f"the {role} keys at hand are not those of the repository: {error}") from error
        data = part.to_bytes()
        name = "timestamp.json" if role is Role.TIMESTAMP else f"{signed.version}.{role}.json"
        write_file(self._folder / name, data)
        return MetaFile.from_data(signed.version, data, ["sha256"])


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One publisher at a time, a timer's refresh included."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        flock(file, LOCK_EX)
        yield


def target_file(path: str, data: bytes) -> TargetFile:
    """The entry of a target with its length and SHA-256."""
    return TargetFile.from_data(path, data, ["sha256"])


def _signers(keys: Keys, role: Role) -> Sequence[Signer]:
    signers = keys.signers(role)
    if not signers:
        raise ConfigError(f"the {role} key is not at hand")
    return signers


def _newest_root(folder: Path) -> int:
    return max(int(path.name.partition(".")[0]) for path in folder.glob("*.root.json"))
