"""The TUF repository that gateways trust: a folder that any web server can serve.

`metadata/` (signed), `targets/` (release and trust documents), `payloads/` (firmware by SHA-256). Written by one publisher
at a time; readable at every moment, also after a crash (see metadata.py for the order of writes).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gatewayd.cloud import messages
from gatewayd.errors import ConfigError
from gatewayd.folders import make_folder
from gatewayd.publisher import trust_lists
from gatewayd.publisher.delta import make_delta
from gatewayd.publisher.documents import Documents
from gatewayd.publisher.files import check_file, copy_file, write_file
from gatewayd.publisher.firmware import (
    NO_DELTAS,
    DeltaPlan,
    FirmwareFile,
    ReleaseSpec,
    describe_delta,
    described,
    with_deltas,
)
from gatewayd.publisher.history import images_before
from gatewayd.publisher.keys import Keys, Role
from gatewayd.publisher.metadata import (
    DAY_S,
    DEFAULT_LIFETIMES,
    KEYED_ROLES,
    OFFLINE,
    Clock,
    KeyChange,
    Lifetimes,
    MetadataSet,
    locked,
    system_clock,
)
from gatewayd.publisher.review import RoleReview, review
from gatewayd.publisher.staging import Pending, Staged, add_signatures, outstanding, overlay, read_change
from gatewayd.trust.image import verify_file
from gatewayd.trust.repository import CAMPAIGN_KEYS, MANUFACTURERS
from gatewayd.trust.rollback import check_rollback

WARN_BEFORE_S = 14 * DAY_S


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What a refresh did. `expires` in Unix seconds by role; `warnings` need a person with an offline key."""

    renewed: tuple[Role, ...]
    expires: dict[Role, float]
    warnings: tuple[str, ...]


class Repository:
    """A repository on disk. Every change is published when the call returns.

    When keys of root, targets or releases are elsewhere, or those of snapshot and timestamp are, a change raises Staged
    instead: it is kept in `pending/` until `sign` has seen enough of them. What is served stays as it was.
    """

    def __init__(
        self, path: Path, keys: Keys, lifetimes: Lifetimes = DEFAULT_LIFETIMES, clock: Clock = system_clock
    ) -> None:
        self.path = path
        self._keys = keys
        self._lifetimes = lifetimes
        self._clock = clock
        self._metadata = path / "metadata"
        self._targets = path / "targets"
        self._payloads = path / "payloads"
        self._documents = Documents(self._targets)
        self._pending = Pending(path)

    @classmethod
    def create(
        cls,
        path: Path,
        keys: Keys,
        lifetimes: Lifetimes = DEFAULT_LIFETIMES,
        clock: Clock = system_clock,
        thresholds: Mapping[Role, int] | None = None,
    ) -> "Repository":
        """A new repository that trusts no campaign key and no manufacturer yet; needs to know the keys of all TUF roles.

        `root_path` is then what goes on every gateway. ConfigError when there is one already, or a key is missing.
        """
        repository = cls(path, keys, lifetimes, clock)
        with locked(path):
            if (repository._metadata / "timestamp.json").exists():
                raise ConfigError(f"{path} holds a repository already")
            if repository._pending.load():
                raise ConfigError(f"{path} holds one already that waits for signatures")
            for folder in (repository._metadata, repository._targets, repository._payloads):
                make_folder(folder)
            current = MetadataSet.create(repository._metadata, keys, lifetimes, clock(), thresholds)
            repository._documents.put(current, CAMPAIGN_KEYS, messages.dump(messages.CampaignKeys(keys=())))
            repository._documents.put(current, MANUFACTURERS, messages.dump(messages.Manufacturers(keys=())))
            repository._publish(current, OFFLINE)
        return repository

    @property
    def root_path(self) -> Path:
        """The first root: the bootstrap of every gateway."""
        return self._metadata / "1.root.json"

    def add_release(self, spec: ReleaseSpec, firmware: FirmwareFile, deltas: DeltaPlan = NO_DELTAS) -> messages.Release:
        """Publish a firmware; needs the keys of releases, snapshot and timestamp. The document says which deltas were worth it.

        Everything that a gateway would check is checked first: Refused as a gateway would say it (unknown_manufacturer,
        wrong_hardware, bad_signature, header_mismatch, below_floor, ...). ConfigError for a wrong spec or file, and for a
        version or sequence that is published already: a published version never changes.
        """
        with locked(self.path):
            current = self._open(Role.RELEASES)
            document = described(spec, firmware)
            payload = document.payloads[0]
            self._check_new(current, document, spec)
            made = list(self._deltas(current, spec, firmware, payload, deltas))
            document = with_deltas(spec, document, [entry for entry, _ in made])
            manufacturers = self._documents.manufacturers(current)
            with firmware.path.open("rb") as file:
                blocks = iter(lambda: file.read(1 << 20), b"")
                verify_file(blocks, payload, document, manufacturers, self._clock())
            for hardware in document.hardware:
                check_rollback(document, hardware, manufacturers, node_floor=0)
            copy_file(firmware.path, self.path / payload.path, payload.sha256)
            for entry, data in made:
                write_file(self.path / entry.path, data)
            self._documents.put_release(current, spec.path, messages.dump(document))
            self._publish(current, (Role.RELEASES,))
        return document

    def withdraw_release(self, path: str) -> None:
        """Take a release out of the signed metadata; gateways then refuse it. ConfigError when it is not listed."""
        with locked(self.path):
            current = self._open(Role.RELEASES)
            if current.releases.signed.targets.pop(path, None) is None:
                raise ConfigError(f"{path} is not published")
            self._publish(current, (Role.RELEASES,))

    def releases(self) -> list[messages.Release]:
        """Every published release, by name and sequence."""
        found = [document for _, document in self._documents.releases(self._load())]
        return sorted(found, key=lambda document: (document.name, document.sequence))

    def campaign_keys(self) -> messages.CampaignKeys:
        """Who may sign campaigns now."""
        return self._documents.campaign_keys(self._load())

    def manufacturers(self) -> messages.Manufacturers:
        """The manufacturers' keys and the floors now."""
        return self._documents.manufacturers(self._load())

    def set_campaign_keys(self, keys: Sequence[messages.CampaignKey]) -> None:
        """Replace the list; needs the keys of targets, snapshot and timestamp, as all that follow."""
        self._change_campaign_keys(lambda _: messages.CampaignKeys(keys=tuple(keys)))

    def allow_campaign_key(self, key: messages.CampaignKey) -> None:
        """List a key, in place of what it was allowed before."""
        self._change_campaign_keys(lambda held: trust_lists.with_campaign_key(held, key))

    def revoke_campaign_key(self, keyid: str) -> None:
        """Take a key off the list. ConfigError when it is not listed."""
        self._change_campaign_keys(lambda held: trust_lists.without_campaign_key(held, keyid))

    def set_manufacturers(
        self, keys: Sequence[messages.Manufacturer], floors: Sequence[messages.Floor] | None = None
    ) -> None:
        """Replace the list of keys, and the floors unless None."""
        self._change_manufacturers(
            lambda held: messages.Manufacturers(
                keys=tuple(keys), floors=held.floors if floors is None else tuple(floors)
            )
        )

    def allow_manufacturer(self, key: messages.Manufacturer) -> None:
        """List a key, in place of what it was allowed before."""
        self._change_manufacturers(lambda held: trust_lists.with_manufacturer(held, key))

    def revoke_manufacturer(self, keyid: str) -> None:
        """Refuse what a key has signed, for good. ConfigError when it is not listed."""
        self._change_manufacturers(lambda held: trust_lists.with_manufacturer_revoked(held, keyid))

    def set_floor(self, hardware: str, minimum_security_version: int) -> None:
        """Set the fleet's floor for one hardware. ConfigError when it would sink: a floor only rises."""
        self._change_manufacturers(lambda held: trust_lists.with_floor(held, hardware, minimum_security_version))

    def role_keys(self) -> dict[Role, tuple[tuple[str, ...], int]]:
        """Key ids and threshold of every TUF role, as served."""
        current = self._load()
        found = {role: current.keys_of(role) for role in KEYED_ROLES}
        return {role: (tuple(keys), threshold) for role, (keys, threshold) in found.items()}

    def rotate(self, change: KeyChange) -> None:
        """Change who signs for a role; what that makes necessary is signed anew with it. ConfigError when it makes no sense."""
        with locked(self.path):
            current = self._open(*OFFLINE)
            self._publish(current, (current.rotate(change),))

    def staged(self) -> list[RoleReview]:
        """The change that waits for signatures, role by role; empty when none does."""
        if not self._pending.load():
            return []
        return review(self._base(), self._open(*OFFLINE), self._documents.read)

    def sign(self, others: Path | None = None) -> None:
        """Add the signatures of the keys at hand, and those of another copy of the staged change; publish when they are enough.

        Staged when they are not. ConfigError when nothing is staged, or something that it lists is not here.
        """
        with locked(self.path):
            if not self._pending.load():
                raise ConfigError(f"{self.path}: nothing waits for signatures")
            current = self._open(*OFFLINE)
            if not current.staged:  # all of it is served: it was cut short when only the note was left to remove
                self._pending.discard()
                return
            if others is not None:
                add_signatures(current, read_change(others), others)
            self._check_files(current)
            self._publish(current, ())

    def discard(self) -> None:
        """Forget the change that waits for signatures. ConfigError when there is none."""
        with locked(self.path):
            if not self._pending.path.exists():
                raise ConfigError(f"{self.path}: nothing waits for signatures")
            self._pending.discard()

    def refresh(self) -> Refreshed:
        """Renew timestamp and snapshot, and whatever else is past half its life and has its key at hand. For a timer.

        What is staged is left alone. Snapshot and timestamp are renewed even when a key of another role gives trouble.
        """
        with locked(self.path):
            current = self._load()
            waiting = outstanding(current, self._pending.load())
            now, ends = self._clock(), current.expires()
            half_gone = [role for role in OFFLINE if ends[role] - now < self._lifetimes.lifetime_s(role) / 2]
            kept = {}
            for role in half_gone:
                if role in waiting or (role is Role.ROOT and waiting):
                    kept[role] = "a change of it waits for signatures"
                elif (why := current.renew(role)) is not None:
                    kept[role] = why
            changed = sorted(current.staged)
            try:
                current.commit(set())
            except ConfigError as error:
                hint = "; a change is on its way, which `publish sign` may end" if waiting else ""
                raise ConfigError(f"{error}{hint}") from error
            ends = current.expires()
        warnings = [
            f"{role} {'expired' if ends[role] <= now else 'expires'} at {messages.utc(ends[role])}; {why}"
            for role, why in sorted(kept.items())
            if ends[role] - now < WARN_BEFORE_S
        ]
        return Refreshed((*changed, Role.SNAPSHOT, Role.TIMESTAMP), ends, tuple(warnings))

    def _deltas(
        self, current: MetadataSet, spec: ReleaseSpec, firmware: FirmwareFile, full: messages.Payload, plan: DeltaPlan
    ) -> Iterator[tuple[messages.Payload, bytes]]:
        """Deltas that were proven and are worth it, with their bytes. ConfigError for a base that cannot be one."""
        published = dict(self._documents.releases(current)) if plan.bases else {}
        for path in plan.bases:
            base = published.get(path)
            if base is None or base.name != spec.name:
                raise ConfigError(f"delta of {spec.path}: its base {path} is no published release of {spec.name}")
            image = next(payload for payload in base.payloads if payload.kind == "full")
            for form in plan.formats:
                delta = make_delta(self.path / image.path, firmware.path, form, spec.container, plan.tag)
                if delta is not None:
                    yield describe_delta(delta, image, base.node_version, full, plan.needs_ram), delta.data

    def _load(self) -> MetadataSet:
        return MetadataSet.load(self._metadata, self._keys, self._lifetimes, self._clock())

    def _base(self) -> MetadataSet:
        """What is served; before the first publication an empty set."""
        if (self._metadata / "timestamp.json").exists() or not self._pending.path.exists():
            return self._load()
        return MetadataSet.empty(self._metadata, self._keys, self._lifetimes, self._clock())

    def _open(self, *roles: Role) -> MetadataSet:
        """The set for a change of these roles: what is served, with what is staged of them (and with them) on top."""
        current, waiting = self._base(), self._pending.load()
        if waiting.keys() & set(roles) or not current.served.version:
            overlay(current, waiting)
        return current

    def _publish(self, current: MetadataSet, changed: Sequence[Role]) -> None:
        """Sign and write the next set; Staged when signatures are lacking."""
        combined = bool(current.staged)
        for role in changed:
            current.advance(role)
        current.follow()
        lacking = current.seal(*OFFLINE)
        if not lacking:
            # A rotation is noted before the first of its files is written: whatever cuts it short, `sign` ends it.
            combined = combined or Role.ROOT in current.staged
            if combined:
                self._pending.save(current)
            lacking = current.seal(Role.SNAPSHOT, Role.TIMESTAMP)
        if lacking:
            # What waits already, of other roles, waits on: the two are one change now.
            waiting = self._pending.load()
            overlay(current, {role: waiting[role] for role in waiting.keys() - current.staged})
            self._pending.save(current)
            raise Staged(
                [short for role in OFFLINE if role in current.staged for short in current.shortfalls(role)] or lacking
            )
        current.write()
        if combined:
            self._pending.discard()

    def _check_files(self, current: MetadataSet) -> None:
        """What a staged change lists is here: it may have been made in another copy of the folder."""
        served = self._base()
        for role in (Role.TARGETS, Role.RELEASES):
            before, after = (one.targets if role is Role.TARGETS else one.releases for one in (served, current))
            for path, target in after.signed.targets.items():
                if before.signed.targets.get(path) == target:
                    continue
                raw = self._documents.read(current, path)
                if role is Role.RELEASES:
                    for payload in messages.parse(messages.Release, raw, path, messages.RELEASE_MAX_BYTES).payloads:
                        check_file(self.path / payload.path, payload.sha256)

    def _change_campaign_keys(self, change: Callable[[messages.CampaignKeys], messages.CampaignKeys]) -> None:
        with locked(self.path):
            current = self._open(Role.TARGETS)
            self._documents.put(current, CAMPAIGN_KEYS, messages.dump(change(self._documents.campaign_keys(current))))
            self._publish(current, (Role.TARGETS,))

    def _change_manufacturers(self, change: Callable[[messages.Manufacturers], messages.Manufacturers]) -> None:
        with locked(self.path):
            current = self._open(Role.TARGETS)
            self._documents.put(current, MANUFACTURERS, messages.dump(change(self._documents.manufacturers(current))))
            self._publish(current, (Role.TARGETS,))

    def _check_new(self, current: MetadataSet, document: messages.Release, spec: ReleaseSpec) -> None:
        if spec.path in current.releases.signed.targets:
            how = "staged already; see `publish pending`" if Role.RELEASES in current.staged else "published already"
            raise ConfigError(f"{spec.path} is {how}; a published version never changes")
        before = images_before(self._metadata, self._targets, spec.path)
        if before - {document.payloads[0].sha256}:
            raise ConfigError(
                f"{spec.path} was published and withdrawn: nodes may run it, other bytes need a new version"
            )
        for path, other in self._documents.releases(current):
            if other.name == document.name and other.sequence == document.sequence:
                raise ConfigError(f"sequence {document.sequence} of {document.name} is taken by {path}")
            shared = sorted(set(other.hardware) & set(document.hardware))
            same_version = other.node_version == document.node_version
            if shared and same_version and other.payloads[0].sha256 != document.payloads[0].sha256:
                raise ConfigError(
                    f"node version {document.node_version:#x} of {shared[0]} is taken by {path}: nodes that report it could run"
                    " either, and would be called updated without a transfer"
                )
