"""A change that waits for signatures: kept beside the repository, in `pending/`, until every role has enough of them.

One file, replaced whole, so that it can be carried to where a key is and back. Nothing in it is believed: signatures count
when they verify, and whoever signs is shown what the change is (review.py).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (  # type: ignore[attr-defined] # public names, but not in its __all__
    Metadata,
    Root,
    Targets,
)

from gatewayd.errors import ConfigError, GatewaydError
from gatewayd.publisher.files import remove_file, write_file
from gatewayd.publisher.keys import Role
from gatewayd.publisher.metadata import OFFLINE, MetadataSet, Part, Shortfall

FORMAT = 1
PENDING = "pending"


class Staged(GatewaydError):
    """The change is kept and not published: signatures are lacking. `publish sign` adds them."""

    code = "staged"

    def __init__(self, lacking: Sequence[Shortfall]) -> None:
        super().__init__(
            f"staged, not published: {'; '.join(str(one) for one in lacking)}. Go on with `publish sign`, see `publish pending`"
        )
        self.lacking = tuple(lacking)


class Pending:
    """The staged change of a repository."""

    def __init__(self, repository: Path) -> None:
        self.path = repository / PENDING / "change.json"

    def load(self) -> dict[Role, Part]:
        """The next versions of the roles that change, with their signatures so far; empty when nothing is staged."""
        return read_change(self.path) if self.path.exists() else {}

    def save(self, current: MetadataSet) -> None:
        """Keep what is staged of root, targets and releases; durable on return."""
        roles = {role.value: current.part(role).to_dict() for role in OFFLINE if role in current.staged}
        write_file(self.path, json.dumps({"format": FORMAT, "roles": roles}, indent=1).encode())

    def discard(self) -> None:
        """Forget it, for good: also after a power cut."""
        remove_file(self.path)


def read_change(path: Path) -> dict[Role, Part]:
    """A staged change from a file. ConfigError when it is none."""
    try:
        stored = json.loads(path.read_bytes())
        if stored["format"] != FORMAT:
            raise ConfigError(f"{path}: format {stored['format']} is not {FORMAT}")
        roles = {role: stored["roles"][role.value] for role in OFFLINE if role.value in stored["roles"]}
        return {role: _part(role, found) for role, found in roles.items()}
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RepositoryError) as error:
        raise ConfigError(f"{path} holds no staged change: {error!r}") from error


def outstanding(current: MetadataSet, staged: Mapping[Role, Part]) -> dict[Role, Part]:
    """What of a staged change is not served yet: a publication that was cut short has written some or all of it."""
    return {role: part for role, part in staged.items() if part.signed_bytes != current.part(role).signed_bytes}


def overlay(current: MetadataSet, staged: Mapping[Role, Part]) -> None:
    """Lay a staged change over the set that is served. ConfigError when that has moved on meanwhile."""
    for role, part in outstanding(current, staged).items():
        served = current.part(role)
        if part.signed.version != served.signed.version + 1:
            raise ConfigError(
                f"the staged change of {role} was made from version {part.signed.version - 1}, {served.signed.version} is "
                "served now: `publish discard` it and make it again"
            )
        current.put(role, part)


def add_signatures(current: MetadataSet, other: Mapping[Role, Part], where: Path) -> None:
    """Take the signatures of another copy of the staged change. ConfigError when it is not the same change."""
    for role in sorted(current.staged):
        part = current.part(role)
        found = other.get(role)
        if found is None or found.signed_bytes != part.signed_bytes:
            raise ConfigError(f"{where}: its {role} is not the one that is staged here")
        current.prune(role)
        for keyid, signature in found.signatures.items():
            part.signatures.setdefault(keyid, signature)


def _part(role: Role, found: object) -> Part:
    if not isinstance(found, dict):
        raise TypeError(f"{role} is no object")
    part: Part = Metadata[Root].from_dict(found) if role is Role.ROOT else Metadata[Targets].from_dict(found)
    kind = Root if role is Role.ROOT else Targets
    if not isinstance(part.signed, kind):
        raise TypeError(f"{role} is {part.signed.type}")
    return part
