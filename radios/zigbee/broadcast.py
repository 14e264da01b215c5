"""When nodes are told of an image by one broadcast instead of by name, and what is sent. Pure.

Nodes that wait for a place are not: a broadcast wakes all of them, and those without a place would only ask in vain. It is
for nodes that no notification of their own has woken; its jitter lets about as many answer as there are places. Nodes in
mid-download ignore it.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Final

from radios.zigbee.ota_commands import FileId, ImageNotify

_LOOK_EVERY_S: Final = 10.0
_AGAIN_AFTER_S: Final = 1800.0  # for the same image
_APART_S: Final = 60.0  # between any two: each is repeated by every router


class Broadcasts:
    """`at_least` so many silent nodes of one image make a broadcast worth its air; 0: never."""

    def __init__(self, at_least: int) -> None:
        self._at_least = at_least
        self._look_at = float("-inf")
        self._sent: dict[FileId, float] = {}

    def is_due_to_look(self, now: float) -> bool:
        return self._at_least > 0 and now >= self._look_at

    def due(self, silent: Iterable[FileId], places: int, now: float) -> ImageNotify | None:
        """The notification to broadcast now. `silent`: the image of each node that does not answer its own ones."""
        self._look_at = now + _LOOK_EVERY_S
        self._sent = {file: at for file, at in self._sent.items() if now - at < _AGAIN_AFTER_S}
        if any(now - at < _APART_S for at in self._sent.values()):
            return None
        for file, count in Counter(silent).most_common():
            if count < self._at_least:
                return None
            if file not in self._sent:
                self._sent[file] = now
                jitter = max(1, min(100, 100 * places // count))
                return ImageNotify(jitter, file.manufacturer, file.image_type, file.version)
        return None
