"""What a staged change is, in words: for the person who is about to sign it. PURE apart from reading documents through `read`."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from gatewayd.cloud import messages
from gatewayd.publisher.keys import Role, kind_of
from gatewayd.publisher.metadata import KEYED_ROLES, OFFLINE, MetadataSet
from gatewayd.trust.repository import CAMPAIGN_KEYS, MANUFACTURERS

Read = Callable[[MetadataSet, str], bytes]


@dataclass(frozen=True, slots=True)
class Count:
    """Signatures that a role has and needs, as `by` says (`root 3`); the key ids of both."""

    by: str
    need: int
    signed: tuple[str, ...]
    unsigned: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RoleReview:
    """The next version of a role: what is new in it, one line each, and its signatures."""

    role: Role
    version: int
    expires: float  # Unix seconds
    changes: tuple[str, ...]
    signatures: tuple[Count, ...]


def review(served: MetadataSet, staged: MetadataSet, read: Read) -> list[RoleReview]:
    """Every role of the staged change. `read` gives a listed document; ConfigError when it is not there."""
    found = []
    for role in OFFLINE:
        if role not in staged.staged:
            continue
        changes = [*_key_changes(served, staged, role), *_target_changes(served, staged, role, read)]
        counts = [
            Count(verdict.by, verdict.result.threshold, tuple(verdict.result.signed), tuple(verdict.result.unsigned))
            for verdict in staged.verdicts(role)
            if verdict.needed
        ]
        signed = staged.part(role).signed
        ends = signed.expires.timestamp()
        found.append(RoleReview(role, signed.version, ends, tuple(changes or ["a new date only"]), tuple(counts)))
    return found


def campaign_key_line(key: messages.CampaignKey) -> str:
    """One line for people."""
    return f"campaign key {key.keyid}: {', '.join(key.audiences)}"


def manufacturer_line(key: messages.Manufacturer) -> str:
    """One line for people."""
    line = f"manufacturer {key.name} {key.keyid}: {', '.join(key.hardware)} until {key.valid_until}"
    return f"{line} REVOKED" if key.revoked else line


def floor_line(floor: messages.Floor) -> str:
    """One line for people."""
    return f"floor {floor.hardware}: {floor.minimum_security_version}"


def _key_changes(served: MetadataSet, staged: MetadataSet, role: Role) -> Iterable[str]:
    for named in KEYED_ROLES:
        if role is not (Role.TARGETS if named is Role.RELEASES else Role.ROOT):
            continue
        (before, had), (after, has) = served.keys_of(named), staged.keys_of(named)
        yield from (f"+ {named} key {keyid} ({kind_of(key)})" for keyid, key in after.items() if keyid not in before)
        yield from (f"- {named} key {keyid}" for keyid in before if keyid not in after)
        if had != has or not before:
            yield f"threshold of {named}: {has} of {len(after)} keys"


def _target_changes(served: MetadataSet, staged: MetadataSet, role: Role, read: Read) -> Iterable[str]:
    if role is Role.ROOT:
        return
    before, after = (one.targets if role is Role.TARGETS else one.releases for one in (served, staged))
    for path in sorted({*before.signed.targets, *after.signed.targets}):
        was, now = before.signed.targets.get(path), after.signed.targets.get(path)
        if was == now:
            continue
        if now is not None and path in (CAMPAIGN_KEYS, MANUFACTURERS):
            held = _lines(read(served, path), path) if was is not None else []
            given = _lines(read(staged, path), path)
            yield from (f"- {line}" for line in held if line not in given)
            yield from (f"+ {line}" for line in given if line not in held)
        elif now is not None:
            yield f"+ {path} (SHA-256 {now.hashes.get('sha256')})"
        else:
            yield f"- {path}"


def _lines(raw: bytes, path: str) -> list[str]:
    if path == CAMPAIGN_KEYS:
        return [campaign_key_line(key) for key in messages.parse(messages.CampaignKeys, raw, path).keys]
    held = messages.parse(messages.Manufacturers, raw, path)
    return [*map(manufacturer_line, held.keys), *map(floor_line, held.floors)]
