"""The retained documents that we have to say: the latest per topic, and which of them the broker does not have yet.

Bounded in memory. Not responsible for publishing them (link.py).
"""

import structlog

log = structlog.get_logger()

RETAINED_MAX_TOPICS = 1024
RETAINED_MAX_BYTES = 8 * 2**20


class Retained:
    """Leaves of our topics with their latest payloads; an empty payload clears the topic."""

    def __init__(self, max_topics: int = RETAINED_MAX_TOPICS, max_bytes: int = RETAINED_MAX_BYTES) -> None:
        self._max_topics = max_topics
        self._max_bytes = max_bytes
        self._latest: dict[str, bytes] = {}  # the last changed last
        self._waiting: dict[str, None] = {}  # in the order of publishing

    def put(self, leaf: str, payload: bytes) -> bool:
        """Keep it for publishing; False when it is what was said last."""
        if self._latest.get(leaf) == payload:
            return False
        self._latest.pop(leaf, None)
        self._latest[leaf] = payload
        self._waiting[leaf] = None
        self._bound()
        return True

    def all_again(self) -> None:
        """Everything is to be published: the broker may have lost it."""
        self._waiting = dict.fromkeys(self._latest)

    def take(self) -> tuple[str, bytes] | None:
        """The next leaf to publish with its payload; it no longer waits, unless `give_back` says so."""
        if not self._waiting:
            return None
        leaf = next(iter(self._waiting))
        del self._waiting[leaf]
        return leaf, self._latest[leaf]

    def give_back(self, leaf: str) -> None:
        """It was not published after all."""
        if leaf in self._latest:
            self._waiting[leaf] = None

    def published(self, leaf: str, payload: bytes) -> None:
        """The broker has it. A cleared topic leaves nothing to keep."""
        if not payload and self._latest.get(leaf) == b"":
            del self._latest[leaf]
            self._waiting.pop(leaf, None)

    def _bound(self) -> None:
        total = sum(map(len, self._latest.values()))
        while len(self._latest) > self._max_topics or total > self._max_bytes:
            # What is already with the broker goes first: it is kept only for a broker that forgets.
            leaf = next((leaf for leaf in self._latest if leaf not in self._waiting), next(iter(self._latest)))
            total -= len(self._latest.pop(leaf))
            if leaf in self._waiting:
                del self._waiting[leaf]
                log.warning("document dropped, too many wait for a connection", code="too_large", topic=leaf)
