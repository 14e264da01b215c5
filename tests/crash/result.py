"""What became of one campaign, as it is handed on."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Result:
    """`at`, `how`: where the first life of the gateway ended; 0: nothing happened to it."""

    at: int
    how: str
    error: str = ""
    final: dict[str, Any] = field(default_factory=dict)
    early: list[str] = field(default_factory=list)  # nodes told to install before that was stored
    told: list[list[Any]] = field(
        default_factory=list
    )  # to the cloud, where nothing happened: campaign, node, state, code
    asked: list[list[list[Any]]] = field(default_factory=list)  # of the mirror, by life: [digest, start, stop]
    calls: list[list[str]] = field(default_factory=list)  # of the first life: kind, path
    found: dict[str, int] = field(default_factory=dict)  # files and their sizes, when the second life began


def sizes(state: Path) -> dict[str, int]:
    """Of all files below."""
    return {str(path.relative_to(state)): path.stat().st_size for path in state.rglob("*") if path.is_file()}
