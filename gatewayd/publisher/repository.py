"""The TUF repository that gateways trust: a folder that any web server can serve.

`metadata/` (signed), `targets/` (release and trust documents), `payloads/` (firmware by SHA-256). Written by one publisher
at a time; readable at every moment, also after a crash (see metadata.py for the order of writes).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from tuf.api.metadata import TargetFile  # type: ignore[attr-defined] # a public name, but not in its __all__

from gatewayd.cloud import messages
from gatewayd.errors import ConfigError
from gatewayd.publisher.delta import make_delta
from gatewayd.publisher.files import copy_file, write_file
from gatewayd.publisher.firmware import (
    NO_DELTAS,
    DeltaPlan,
    FirmwareFile,
    ReleaseSpec,
    describe,
    describe_delta,
    release_document,
)
from gatewayd.publisher.keys import Keys, Role
from gatewayd.publisher.metadata import (
    DAY_S,
    DEFAULT_LIFETIMES,
    Clock,
    Lifetimes,
    MetadataSet,
    locked,
    system_clock,
    target_file,
)
from gatewayd.trust.image import verify_file
from gatewayd.trust.release import RELEASE_PATH
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
    """A repository on disk. Every change is published when the call returns."""

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

    @classmethod
    def create(
        cls, path: Path, keys: Keys, lifetimes: Lifetimes = DEFAULT_LIFETIMES, clock: Clock = system_clock
    ) -> "Repository":
        """A new repository that trusts no campaign key and no manufacturer yet; needs the keys of all TUF roles.

        `root_path` is then what goes on every gateway. ConfigError when there is one already, or a key is missing.
        """
        repository = cls(path, keys, lifetimes, clock)
        with locked(path):
            if (repository._metadata / "timestamp.json").exists():
                raise ConfigError(f"{path} holds a repository already")
            for folder in (repository._metadata, repository._targets, repository._payloads):
                folder.mkdir(parents=True, exist_ok=True)
            current = MetadataSet.create(repository._metadata, keys, lifetimes, clock())
            repository._put(current, CAMPAIGN_KEYS, messages.dump(messages.CampaignKeys(keys=())))
            repository._put(current, MANUFACTURERS, messages.dump(messages.Manufacturers(keys=())))
            current.commit({Role.ROOT, Role.TARGETS, Role.RELEASES})
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
            current = self._load()
            document = _described(spec, firmware)
            payload = document.payloads[0]
            self._check_new(current, document, spec)
            made = list(self._deltas(current, spec, firmware, payload, deltas))
            document = _with_deltas(spec, document, [entry for entry, _ in made])
            manufacturers = self.manufacturers()
            with firmware.path.open("rb") as file:
                blocks = iter(lambda: file.read(1 << 20), b"")
                verify_file(blocks, payload, document, manufacturers, self._clock())
            for hardware in document.hardware:
                check_rollback(document, hardware, manufacturers, node_floor=0)
            copy_file(firmware.path, self.path / payload.path, payload.sha256)
            for entry, data in made:
                write_file(self.path / entry.path, data)
            self._put_release(current, spec.path, messages.dump(document))
            current.commit({Role.RELEASES})
        return document

    def withdraw_release(self, path: str) -> None:
        """Take a release out of the signed metadata; gateways then refuse it. ConfigError when it is not listed."""
        with locked(self.path):
            current = self._load()
            if current.releases.signed.targets.pop(path, None) is None:
                raise ConfigError(f"{path} is not published")
            current.commit({Role.RELEASES})

    def releases(self) -> list[messages.Release]:
        """Every published release, by name and sequence."""
        found = [document for _, document in self._listed(self._load())]
        return sorted(found, key=lambda document: (document.name, document.sequence))

    def campaign_keys(self) -> messages.CampaignKeys:
        """Who may sign campaigns now."""
        return messages.parse(messages.CampaignKeys, self._read(CAMPAIGN_KEYS), CAMPAIGN_KEYS)

    def manufacturers(self) -> messages.Manufacturers:
        """The manufacturers' keys and the floors now."""
        return messages.parse(messages.Manufacturers, self._read(MANUFACTURERS), MANUFACTURERS)

    def set_campaign_keys(self, keys: Sequence[messages.CampaignKey]) -> None:
        """Replace the list; needs the keys of targets, snapshot and timestamp."""
        self._publish(CAMPAIGN_KEYS, messages.dump(messages.CampaignKeys(keys=tuple(keys))))

    def set_manufacturers(
        self, keys: Sequence[messages.Manufacturer], floors: Sequence[messages.Floor] | None = None
    ) -> None:
        """Replace the list of keys, and the floors unless None; needs the keys of targets, snapshot and timestamp."""
        kept = self.manufacturers().floors if floors is None else tuple(floors)
        self._publish(MANUFACTURERS, messages.dump(messages.Manufacturers(keys=tuple(keys), floors=kept)))

    def set_floor(self, hardware: str, minimum_security_version: int) -> None:
        """Set the fleet's floor for one hardware. ConfigError when it would sink: a floor only rises."""
        held = self.manufacturers()
        before = max((f.minimum_security_version for f in held.floors if f.hardware == hardware), default=0)
        if minimum_security_version < before:
            raise ConfigError(f"the floor of {hardware} is {before}; it only rises")
        others = [floor for floor in held.floors if floor.hardware != hardware]
        raised = messages.Floor(hardware=hardware, minimum_security_version=minimum_security_version)
        self.set_manufacturers(held.keys, [*others, raised])

    def refresh(self) -> Refreshed:
        """Renew timestamp and snapshot, and whatever else is past half its life and has its key at hand. For a timer."""
        with locked(self.path):
            current = self._load()
            now, ends = self._clock(), current.expires()
            half_gone = {
                role
                for role in (Role.ROOT, Role.TARGETS, Role.RELEASES)
                if ends[role] - now < self._lifetimes.lifetime_s(role) / 2
            }
            changed = {role for role in half_gone if self._keys.signers(role)}
            current.commit(changed)
            ends = current.expires()
        warnings = [
            f"{role} {'expired' if ends[role] <= now else 'expires'} at {messages.utc(ends[role])}; its key is not here"
            for role in sorted(half_gone - changed)
            if ends[role] - now < WARN_BEFORE_S
        ]
        renewed = (*sorted(changed), Role.SNAPSHOT, Role.TIMESTAMP)
        return Refreshed(renewed, ends, tuple(warnings))

    def _deltas(
        self, current: MetadataSet, spec: ReleaseSpec, firmware: FirmwareFile, full: messages.Payload, plan: DeltaPlan
    ) -> Iterator[tuple[messages.Payload, bytes]]:
        """Deltas that were proven and are worth it, with their bytes. ConfigError for a base that cannot be one."""
        published = dict(self._listed(current)) if plan.bases else {}
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

    def _check_new(self, current: MetadataSet, document: messages.Release, spec: ReleaseSpec) -> None:
        if spec.path in current.releases.signed.targets:
            raise ConfigError(f"{spec.path} is published already; a published version never changes")
        for path, other in self._listed(current):
            if other.name == document.name and other.sequence == document.sequence:
                raise ConfigError(f"sequence {document.sequence} of {document.name} is taken by {path}")

    def _listed(self, current: MetadataSet) -> Iterator[tuple[str, messages.Release]]:
        for path, target in current.releases.signed.targets.items():
            raw = (self._targets / target.get_prefixed_paths()[0]).read_bytes()
            yield path, messages.parse(messages.Release, raw, path, messages.RELEASE_MAX_BYTES)

    def _read(self, path: str) -> bytes:
        target = self._load().targets.signed.targets[path]
        return (self._targets / target.get_prefixed_paths()[0]).read_bytes()

    def _publish(self, path: str, data: bytes) -> None:
        with locked(self.path):
            current = self._load()
            self._put(current, path, data)
            current.commit({Role.TARGETS})

    def _put(self, current: MetadataSet, path: str, data: bytes) -> None:
        current.targets.signed.targets[path] = target = target_file(path, data)
        self._write_target(target, data)

    def _put_release(self, current: MetadataSet, path: str, data: bytes) -> None:
        current.releases.signed.targets[path] = target = target_file(path, data)
        self._write_target(target, data)

    def _write_target(self, target: TargetFile, data: bytes) -> None:
        for name in target.get_prefixed_paths():
            write_file(self._targets / name, data)


def _with_deltas(spec: ReleaseSpec, document: messages.Release, deltas: Sequence[messages.Payload]) -> messages.Release:
    """The document as a gateway will read it, its size limit included."""
    whole = document.model_copy(update={"payloads": (*document.payloads, *deltas)})
    return messages.parse(messages.Release, messages.dump(whole), spec.path, messages.RELEASE_MAX_BYTES)


def _described(spec: ReleaseSpec, firmware: FirmwareFile) -> messages.Release:
    """The document as a gateway will read it."""
    what = f"release {spec.name} {spec.version}"
    if not RELEASE_PATH.fullmatch(spec.path):
        raise ConfigError(f"{what}: {spec.path!r} is no path of a release (lower case, digits, dots, dashes)")
    try:
        document = release_document(spec, describe(firmware, spec.chunk_bytes))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"{what}: {faults}") from error
    return messages.parse(messages.Release, messages.dump(document), spec.path, messages.RELEASE_MAX_BYTES)
