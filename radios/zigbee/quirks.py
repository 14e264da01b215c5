"""What models of nodes do otherwise than the rest, as a table: which nodes an entry is for, and what it changes.

Responsible for reading entries (of `quirks.toml` or of the operator) and for finding those of a node. Every entry that
fits a node applies, in the table's order, each replacing what it names: so the general stands before the special, and
the operator's entries, which come last, win.
"""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from functools import reduce
from typing import Final

from radios.zigbee.session_state import SessionLimits

_KEYS: Final = ("manufacturer", "model", "image_type")


@dataclass(frozen=True, slots=True)
class Quirk:
    """One entry: the nodes that it is for (None: any), then what it changes (None: nothing). Times in seconds."""

    manufacturer: int | None = None  # manufacturer code of the image
    model: str | None = None  # ModelIdentifier of the Basic cluster; `*` stands for any text
    image_type: int | None = None
    max_block_bytes: int | None = None
    stall_after_s: float | None = None  # without a block request, until the download counts as stalled
    verify_s: float | None = None  # told to start the image, the node may say the old version for so long
    notify_payload: int | None = None  # ImageNotify payload type 0 to 3 that the node answers
    wait_short_form: bool | None = None  # WAIT_FOR_DATA without a block period, always
    page_requests: bool | None = None  # False: refused, the node falls back to block requests
    minimum_block_period: bool | None = None  # False: never set, though the node offers it

    def fits(self, manufacturer: int, image_type: int, model: str | None) -> bool:
        """Whether the entry is for such a node. `model` None: not known, which fits no entry that names one."""
        return (
            self.manufacturer in (None, manufacturer)
            and self.image_type in (None, image_type)
            and (self.model is None or (model is not None and fnmatchcase(model, _as_pattern(self.model))))
        )


class QuirkTable:
    """Entries in order, and their sum for a kind of node, worked out once."""

    def __init__(self, entries: Iterable[Quirk] = ()) -> None:
        self._entries = tuple(entries)
        self._found: dict[tuple[SessionLimits, int, int, str | None], SessionLimits] = {}

    def limits(self, base: SessionLimits, manufacturer: int, image_type: int, model: str | None) -> SessionLimits:
        """`base` with what the entries of such a node change."""
        key = (base, manufacturer, image_type, model)
        found = self._found.get(key)
        if found is None:
            fitting = (entry for entry in self._entries if entry.fits(manufacturer, image_type, model))
            found = self._found[key] = reduce(_with, fitting, base)
        return found


def parse_quirks(text: str) -> tuple[Quirk, ...]:
    """The `[[quirk]]` tables of a TOML text. ValueError names the entry and the key that is wrong."""
    document = tomllib.loads(text)
    entries = document.pop("quirk", [])
    if document or not isinstance(entries, list):
        raise ValueError(f"only [[quirk]] tables are known, not {', '.join(document) or 'quirk as a value'}")
    return quirks_from(entries)


def quirks_from(entries: Sequence[Mapping[str, object]]) -> tuple[Quirk, ...]:
    """Entries as decoded from TOML. ValueError names the entry (from 1) and the key that is wrong."""
    return tuple(_quirk(number, entry) for number, entry in enumerate(entries, 1))


def check_quirk(quirk: Quirk) -> None:
    """ValueError names the first value that is out of its range, or says that the entry names no node or no change."""
    for name, (low, high) in _RANGES.items():
        value = getattr(quirk, name)
        if value is not None and not low <= value <= high:
            raise ValueError(f"{name} must be {low} to {high}, not {value}")
    if quirk.model is not None and not quirk.model:
        raise ValueError("model must not be empty")
    if all(getattr(quirk, name) is None for name in _KEYS):
        raise ValueError(f"needs one of {', '.join(_KEYS)}")
    if not _changes(quirk):
        raise ValueError(f"changes nothing; known: {', '.join(_CHANGES)}")


# A block of more than 255 bytes cannot be asked; a stall below the client's own patience (3 s, ten times) would be none.
_RANGES: Final[Mapping[str, tuple[int, int]]] = {
    "manufacturer": (0, 0xFFFE),
    "image_type": (0, 0xFFFE),
    "max_block_bytes": (1, 255),
    "stall_after_s": (30, 86_400),
    "verify_s": (1, 86_400),
    "notify_payload": (0, 3),
}
_CHANGES: Final = tuple(field.name for field in fields(Quirk) if field.name not in _KEYS)
_TRUTHS: Final = ("wait_short_form", "page_requests", "minimum_block_period")
_SECONDS: Final = ("stall_after_s", "verify_s")


def _changes(quirk: Quirk) -> dict[str, object]:
    return {name: value for name in _CHANGES if (value := getattr(quirk, name)) is not None}


def _with(limits: SessionLimits, quirk: Quirk) -> SessionLimits:
    changed = replace(limits, **_changes(quirk))  # type: ignore[arg-type]  # the fields of both have the same types
    if changed.lost_after_s < 2 * changed.verify_s:
        return replace(changed, lost_after_s=2 * changed.verify_s)  # no node is lost while it may still verify
    return changed


def _quirk(number: int, entry: Mapping[str, object]) -> Quirk:
    unknown = set(entry) - {field.name for field in fields(Quirk)}
    if unknown:
        raise ValueError(f"quirk {number}: {sorted(unknown)[0]} is no known key")
    for name, value in entry.items():
        if not _has_type(name, value):
            raise ValueError(f"quirk {number}: {name} cannot be {value!r}")
    try:
        quirk = Quirk(**entry)  # type: ignore[arg-type]  # names and types were looked at above
        check_quirk(quirk)
    except ValueError as error:
        raise ValueError(f"quirk {number}: {error}") from None
    return quirk


def _has_type(name: str, value: object) -> bool:
    if name in _TRUTHS:
        return isinstance(value, bool)
    if name == "model":
        return isinstance(value, str)
    return isinstance(value, int | float if name in _SECONDS else int) and not isinstance(value, bool)


def _as_pattern(model: str) -> str:
    """Only `*` is special in an entry: model identifiers hold brackets and question marks."""
    return model.replace("[", "[[]").replace("?", "[?]")
