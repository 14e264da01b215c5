"""What waits for the broker: bounded in number and bytes; the oldest goes for what is newer, and is counted. PURE."""

from collections import deque
from collections.abc import Iterable

Item = tuple[str, bytes]  # topic, payload


class BoundedQueue:
    """First in, first out."""

    def __init__(self, max_items: int, max_bytes: int) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._items: deque[Item] = deque()
        self.bytes = 0
        self.overflowed = 0

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: Item) -> None:
        self._items.append(item)
        self.bytes += len(item[1])
        self._bound()

    def take(self, most: int) -> list[Item]:
        """The oldest ones; they no longer count, unless `give_back` says so."""
        taken = [self._items.popleft() for _ in range(min(most, len(self._items)))]
        self.bytes -= sum(len(payload) for _, payload in taken)
        return taken

    def give_back(self, items: Iterable[Item]) -> None:
        """They were not published after all: first again, and the first to go."""
        items = list(items)
        self._items.extendleft(reversed(items))
        self.bytes += sum(len(payload) for _, payload in items)
        self._bound()

    def _bound(self) -> None:
        while len(self._items) > self._max_items or self.bytes > self._max_bytes:
            self.bytes -= len(self._items.popleft()[1])
            self.overflowed += 1
