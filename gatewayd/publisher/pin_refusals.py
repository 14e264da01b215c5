"""PINs that a token has refused, so that none is tried twice: a token locks itself after a few wrong ones. SHELL.

Noted beside the PIN file, for the next run too (a timer's): per token, by the file's time and size as they were. Nothing in
the note is made from the PIN. A file that has changed since is tried again.
"""

import json
from datetime import UTC, datetime
from pathlib import Path

from gatewayd.publisher.files import write_file

_unwritten: dict[Path, dict[str, list[int]]] = {}  # of this process, where the note could not be written


class PinRefusals:
    """What is known of one PIN file."""

    def __init__(self, pin_file: Path) -> None:
        self._pin_file = pin_file
        self.path = pin_file.with_name(f".{pin_file.name}.refused")

    def known(self, token: str) -> str | None:
        """When this token refused what the file holds now, for people; None when it did not."""
        noted = self._read().get(token)
        if noted is None or noted[:2] != self._state():
            return None
        return datetime.fromtimestamp(noted[2], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def add(self, token: str, now: float) -> None:
        """The token has refused it. StoreError when that cannot be written down: then only this process knows."""
        noted = {**self._read(), token: [*self._state(), int(now)]}
        _unwritten[self.path] = noted
        write_file(self.path, json.dumps(noted, sort_keys=True).encode())
        del _unwritten[self.path]

    def forget(self, token: str) -> None:
        """The token has taken it."""
        noted = self._read()
        if noted.pop(token, None) is None:
            return
        _unwritten.pop(self.path, None)
        if noted:
            write_file(self.path, json.dumps(noted, sort_keys=True).encode())
        else:
            self.path.unlink(missing_ok=True)

    def _state(self) -> list[int]:
        found = self._pin_file.stat()
        return [found.st_mtime_ns, found.st_size]

    def _read(self) -> dict[str, list[int]]:
        if (held := _unwritten.get(self.path)) is not None:
            return dict(held)
        try:
            noted = json.loads(self.path.read_bytes())
            return {str(token): [int(number) for number in found] for token, found in noted.items() if len(found) == 3}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}  # none, or not ours: the next refusal makes it anew
