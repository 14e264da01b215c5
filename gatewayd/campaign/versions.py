"""Which of two versions is the newer, and how versions are shown. PURE.

The order is the release's integer `sequence`. Nodes report a number of their own (OTA file version, TS006 FWversion): where
this gateway knows the release behind it, the sequence decides; where it does not, the numbers do, unless the known releases of
the hardware show that its numbers do not rise with the sequence: then nobody knows. People see semantic versions, which are
compared component by component: 1.10.0 is newer than 1.9.0.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

_Part = tuple[int, int, str]
SemanticKey = tuple[tuple[_Part, ...], int, tuple[_Part, ...]]


def semantic_key(version: str) -> SemanticKey:
    """Sorts as semantic versions do: numbers as numbers, a pre-release before its release, build metadata not at all."""
    core, _, pre = version.partition("+")[0].partition("-")
    return _parts(core), 0 if pre else 1, _parts(pre)


class Known(Protocol):
    """What there is to know of a release; `messages.Release` is one."""

    @property
    def hardware(self) -> tuple[str, ...]: ...
    @property
    def version(self) -> str: ...
    @property
    def sequence(self) -> int: ...
    @property
    def node_version(self) -> int: ...


@dataclass(frozen=True, slots=True)
class KnownRelease:
    """For readers that have no whole release at hand."""

    hardware: tuple[str, ...]
    version: str
    sequence: int
    node_version: int


class Versions:
    """The versions of the releases that are known here."""

    def __init__(self, releases: Iterable[Known] = ()) -> None:
        known: dict[tuple[str, int], Known] = {}
        newest: dict[str, int] = {}
        self._unruly: set[str] = set()  # hardware whose numbers went down once
        for release in sorted(releases, key=_order):
            for hardware in release.hardware:
                known[hardware, release.node_version] = release  # of several with one number, the newest
                if release.node_version < newest.get(hardware, 0):
                    self._unruly.add(hardware)
                newest[hardware] = release.node_version
        self._known = known

    def ordered(self, hardware: str | None, version: int, than: int) -> bool:
        """Whether it is known which of the two is the newer; `newer` answers by the numbers where it is not."""
        if version == than or hardware not in self._unruly:
            return True
        return (hardware, version) in self._known and (hardware, than) in self._known

    def newer(self, hardware: str | None, version: int, than: int) -> bool:
        """Whether a node of that hardware that reports `version` runs something newer than one that reports `than`."""
        if version == than:
            return False
        one, other = (self._known.get((hardware or "", v)) for v in (version, than))
        return version > than if one is None or other is None else _order(one) > _order(other)

    def name(self, hardware: str | None, version: int) -> str | None:
        """`1.10.0` of a known release; None of one that is not."""
        release = self._known.get((hardware or "", version))
        return None if release is None else release.version

    def shown(self, hardware: str | None, version: int) -> str:
        """As `name`, else the number in hexadecimal digits."""
        return self.name(hardware, version) or f"{version:#010x}"


def _order(release: Known) -> tuple[int, SemanticKey]:
    return release.sequence, semantic_key(release.version)


def _parts(text: str) -> tuple[_Part, ...]:
    # A text is after every number, as in the precedence of pre-releases.
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in text.split(".") if part)
