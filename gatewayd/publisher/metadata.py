"""TUF metadata of the publisher's repository: reading the current set, changing it, signing and writing the next one.

Everything is signed, in memory, before anything is written. The order of writes then makes a crash harmless, and every
moment a good one for a gateway to look: every file has its version in its name and nothing refers to it until
`timestamp.json` is replaced; a new root is written last of all. What a root's successor makes necessary is signed by the
keys that the old root names as well as by those of the new one, so that it is good under both.
"""

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import TypeAlias

from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined] # a public name, but not in its __all__
from tuf.api.exceptions import RepositoryError, UnsignedMetadataError
from tuf.api.metadata import (  # type: ignore[attr-defined] # public names, but not in its __all__
    DelegatedRole,
    Delegations,
    Key,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
    VerificationResult,
)

from gatewayd.errors import ConfigError, GatewaydError, StoreError, Unavailable
from gatewayd.folders import make_folder
from gatewayd.publisher.files import write_file
from gatewayd.publisher.keys import Keys, Role

Part: TypeAlias = Metadata[Root] | Metadata[Timestamp] | Metadata[Snapshot] | Metadata[Targets]

DAY_S = 86400
RELEASES_PATTERN = "releases/*/*"
Clock = Callable[[], float]
system_clock: Clock = time.time
TUF_ROLES = (Role.ROOT, Role.TARGETS, Role.SNAPSHOT, Role.TIMESTAMP)
OFFLINE = (Role.ROOT, Role.TARGETS, Role.RELEASES)  # their signatures may be gathered in several places
ONLINE = (Role.SNAPSHOT, Role.TIMESTAMP)  # signed where it is published, at every change
KEYED_ROLES = (*TUF_ROLES, Role.RELEASES)


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


@dataclass(frozen=True, slots=True)
class Shortfall:
    """Signatures that a role lacks. `by` is who asks for them: `root 3`, `targets 7`."""

    role: Role
    by: str
    have: int
    need: int
    foreign: bool  # there are keys for the role at hand, but none that counts

    def __str__(self) -> str:
        if self.foreign:
            return f"the {self.role} keys at hand are not those of the repository ({self.have} of {self.need} by {self.by})"
        return f"the {self.role} key is not at hand ({self.have} of {self.need} signatures by {self.by})"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which signatures of a role count for `by`, and whether the role is refused when they are too few."""

    by: str
    needed: bool
    result: VerificationResult


@dataclass(frozen=True, slots=True)
class KeyChange:
    """A rotation: keys of a role to take in and to take out (key ids), and its new threshold, None to keep it."""

    role: Role
    add: tuple[SSlibKey, ...] = ()
    revoke: tuple[str, ...] = ()
    threshold: int | None = None


class MetadataSet:
    """The set that `timestamp.json` names, open for changes; `commit` writes the next one.

    `staged` are the roles whose next version is in the making: counted up, and signed again.
    """

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
        self.served = copy.deepcopy(parts[0].signed)  # what gateways go by until a new root is there; version 0: none
        self.staged: set[Role] = set()
        self._sound = {role for role in (Role.TARGETS, Role.RELEASES) if self._accepted(role)}

    @classmethod
    def empty(cls, folder: Path, keys: Keys, lifetimes: Lifetimes, now: float) -> "MetadataSet":
        """Before the first set: no key, nothing written, every version 0."""
        delegated = DelegatedRole(Role.RELEASES.value, [], 1, terminating=True, paths=[RELEASES_PATTERN])
        targets = Targets(delegations=Delegations({}, {Role.RELEASES.value: delegated}))
        root, timestamp, snapshot, releases = Root(consistent_snapshot=True), Timestamp(), Snapshot(), Targets()
        for signed in (root, timestamp, snapshot, targets, releases):
            signed.version = 0
        parts = (Metadata(root), Metadata(timestamp), Metadata(snapshot), Metadata(targets), Metadata(releases))
        return cls(folder, keys, lifetimes, now, parts)

    @classmethod
    def create(
        cls, folder: Path, keys: Keys, lifetimes: Lifetimes, now: float, thresholds: Mapping[Role, int] | None = None
    ) -> "MetadataSet":
        """A first set with every key that is known, nothing written yet. ConfigError when a role has too few keys."""
        made = cls.empty(folder, keys, lifetimes, now)
        for role in KEYED_ROLES:
            public = tuple(keys.public_keys(role))
            if not public:
                raise ConfigError(f"the {role} key is not at hand, nor its public half ({role}.pub)")
            made.rotate(KeyChange(role, add=public, threshold=(thresholds or {}).get(role, 1)))
        return made

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
        except (OSError, KeyError, ValueError, RepositoryError) as error:
            raise ConfigError(f"{folder} holds no repository: {error}") from error
        return cls(folder, keys, lifetimes, now, (root, timestamp, snapshot, targets, releases))

    def part(self, role: Role) -> Part:
        """The metadata of a TUF role."""
        found: Part = getattr(self, role.value)
        return found

    def put(self, role: Role, part: Part) -> None:
        """Take a next version that was made earlier, with the signatures that it has."""
        setattr(self, role.value, part)
        self.staged.add(role)

    def expires(self) -> dict[Role, float]:
        """When each role's current metadata ends, Unix seconds."""
        return {role: self.part(role).signed.expires.timestamp() for role in (*OFFLINE, *ONLINE)}

    def keys_of(self, role: Role) -> tuple[dict[str, Key], int]:
        """Keys of a role by id, and its threshold, as this set says."""
        delegator = self.targets.signed if role is Role.RELEASES else self.root.signed
        named = delegator.get_delegated_role(role.value)
        return {keyid: delegator.get_key(keyid) for keyid in named.keyids}, named.threshold

    def rotate(self, change: KeyChange) -> Role:
        """Change who signs for a role; the answer is the role whose metadata says so. ConfigError when it makes no sense."""
        role, held = change.role, self.keys_of(change.role)[0]
        delegator = self.targets.signed if role is Role.RELEASES else self.root.signed
        for key in change.add:
            if key.keyid in held:
                raise ConfigError(f"{key.keyid} is a key of {role} already")
            delegator.add_key(key, role.value)
        for keyid in change.revoke:
            if keyid not in held:
                raise ConfigError(f"{keyid} is no key of {role}")
            delegator.revoke_key(keyid, role.value)
        named = delegator.get_delegated_role(role.value)
        threshold = named.threshold if change.threshold is None else change.threshold
        if not 1 <= threshold <= len(named.keyids):
            raise ConfigError(f"{role}: a threshold of {threshold} with {len(named.keyids)} keys cannot be met")
        named.threshold = threshold
        return Role.TARGETS if role is Role.RELEASES else Role.ROOT

    def advance(self, role: Role) -> None:
        """The role's next version, with a new date and without signatures; once however often it is changed."""
        part = self.part(role)
        if role not in self.staged:
            part.signed.version += 1
            self.staged.add(role)
        part.signed.expires = self._now + timedelta(seconds=self._lifetimes.lifetime_s(role))
        part.signatures.clear()

    def follow(self) -> None:
        """Stage what a change of keys makes necessary: roles whose signatures were enough, and are no longer."""
        for role in sorted(self._sound - self.staged):
            if not self._accepted(role):
                self.advance(role)

    def sign(self, role: Role) -> None:
        """Add the signatures of the keys at hand that count, before or after the change.

        A key that cannot be used (a token that is away) is done without where the others are enough; else ConfigError or
        Unavailable, with what is wrong with it.
        """
        self.prune(role)
        part = self.part(role)
        wanted = {keyid for verdict in self.verdicts(role) for keyid in verdict.result.unsigned}
        troubles: list[GatewaydError] = []
        for signer in self._keys.signers(role):
            if isinstance(signer, GatewaydError):
                troubles.append(signer)
            elif signer.public_key.keyid in wanted:
                try:
                    part.sign(signer, append=True)
                except UnsignedMetadataError as error:
                    if not isinstance(error.__cause__, ConfigError | Unavailable):
                        raise
                    troubles.append(error.__cause__)
        if not troubles:
            return
        if not self._accepted(role):
            raise troubles[0]
        for trouble in troubles:
            self._keys.unused(f"{role} is signed without a key that is in the folder: {trouble}")

    def prune(self, role: Role) -> None:
        """Drop the signatures that do not verify, or count for nobody."""
        part = self.part(role)
        good = {keyid for verdict in self.verdicts(role) for keyid in verdict.result.signed}
        part.signatures = {keyid: signature for keyid, signature in part.signatures.items() if keyid in good}

    def verdicts(self, role: Role) -> list[Verdict]:
        """What those say of the role's signatures whose word it is: the new set's and, while another root is served, that one."""
        part = self.part(role)
        delegators: list[tuple[str, Root | Targets, bool]] = []
        if role is Role.RELEASES:
            delegators.append((f"targets {self.targets.signed.version}", self.targets.signed, True))
        else:
            if Role.ROOT in self.staged and self.served.version:
                # Of other roles than root this is good to have, while both are in use; but the key may be lost.
                delegators.append((f"root {self.served.version}", self.served, role is Role.ROOT))
            delegators.append((f"root {self.root.signed.version}", self.root.signed, True))
        return [
            Verdict(by, needed, delegator.get_verification_result(role.value, part.signed_bytes, part.signatures))
            for by, delegator, needed in delegators
        ]

    def shortfalls(self, role: Role) -> list[Shortfall]:
        """What the role lacks to be accepted."""
        found = []
        for verdict in self.verdicts(role):
            result = verdict.result
            if verdict.needed and not result.verified:
                ids = {key.keyid for key in self._keys.public_keys(role)}
                foreign = bool(ids) and not ids & {*result.signed, *result.unsigned}
                found.append(Shortfall(role, verdict.by, len(result.signed), result.threshold, foreign))
        return found

    def renew(self, role: Role) -> str | None:
        """The role's next version, signed by the keys at hand; else why not, and the role is as it was."""
        before = copy.deepcopy(self.part(role))
        try:
            self.advance(role)
            self.sign(role)
            short = self.shortfalls(role)
        except (ConfigError, Unavailable) as error:
            why = str(error)
        else:
            if not short:
                return None
            why = "; ".join(str(one) for one in short)
        setattr(self, role.value, before)
        self.staged.discard(role)
        return why

    def commit(self, changed: set[Role]) -> None:
        """Write the next version of what changed or is staged, and of snapshot and timestamp.

        ConfigError when a key is missing or is not the one that the metadata above names; then nothing is written.
        """
        for role in changed:
            self.advance(role)
        if short := [*self.seal(*OFFLINE), *self.seal(*ONLINE)]:
            raise ConfigError("; ".join(str(one) for one in short))
        self.write()

    def seal(self, *roles: Role) -> list[Shortfall]:
        """Sign what is staged of the roles; snapshot and timestamp always are. What is lacking then."""
        lacking = []
        for role in roles:
            if role is Role.SNAPSHOT:
                for other in sorted(self.staged & {Role.TARGETS, Role.RELEASES}):
                    self.snapshot.signed.meta[f"{other}.json"] = self._described(other)
            elif role is Role.TIMESTAMP:
                self.timestamp.signed.snapshot_meta = self._described(Role.SNAPSHOT)
            if role in ONLINE:
                self.advance(role)
            if role in self.staged:
                self.sign(role)
                lacking += self.shortfalls(role)
        return lacking

    def write(self) -> None:
        """Write what is staged, in the order that is safe (see above). Everything has to be signed."""
        first = self.served.version == 0
        names = [(role, f"{self.part(role).signed.version}.{role}.json") for role in KEYED_ROLES if role in self.staged]
        order = {Role.ROOT: 0 if first else 4, Role.RELEASES: 1, Role.TARGETS: 1, Role.SNAPSHOT: 2, Role.TIMESTAMP: 3}
        for role, name in sorted(names, key=lambda item: order[item[0]]):
            write_file(
                self._folder / ("timestamp.json" if role is Role.TIMESTAMP else name), self.part(role).to_bytes()
            )
            if role is Role.ROOT:
                write_file(self._folder / "root.json", self.root.to_bytes())

    def _accepted(self, role: Role) -> bool:
        return all(verdict.result.verified for verdict in self.verdicts(role) if verdict.needed)

    def _described(self, role: Role) -> MetaFile:
        part = self.part(role)
        return MetaFile.from_data(part.signed.version, part.to_bytes(), ["sha256"])


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One publisher at a time, a timer's refresh included. StoreError when the folder cannot be written."""
    try:
        make_folder(folder)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise StoreError(f"{error.filename or folder}: {error.strerror}") from error
    with lock:
        flock(lock, LOCK_EX)
        yield


def target_file(path: str, data: bytes) -> TargetFile:
    """The entry of a target with its length and SHA-256."""
    return TargetFile.from_data(path, data, ["sha256"])


def _newest_root(folder: Path) -> int:
    return max(int(path.name.partition(".")[0]) for path in folder.glob("*.root.json"))
