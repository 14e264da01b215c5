"""A log of JSON lines that others write on: what is new in it is read and parsed once."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class LogLines:
    """The lines of a file that may not be there yet; those that are no JSON objects are passed over."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._by_event: dict[object, list[dict[str, Any]]] = defaultdict(list)

    def read(self) -> Sequence[dict[str, Any]]:
        """Lines that have ended since the last call; a line of which a part is written waits for the rest."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        text = text[: text.rfind(b"\n") + 1]
        self._read += len(text)
        lines = [json.loads(line) for line in text.splitlines() if line.startswith(b"{")]
        for line in lines:
            self._by_event[line.get("event")].append(line)
        return lines

    def of(self, event: str) -> Sequence[dict[str, Any]]:
        """All that `read` has found of one event, in order."""
        return self._by_event[event]
