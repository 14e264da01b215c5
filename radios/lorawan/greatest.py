"""The greatest of values that come, change and go by name, without looking at all of them. PURE."""

from heapq import heapify, heappop, heappush

_SPARE = 64  # outdated entries that are worth no cleaning up


class Greatest:
    def __init__(self) -> None:
        self._values: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []  # negated; an entry that is not the value any more is outdated

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def names(self) -> list[str]:
        return list(self._values)

    def get(self, name: str, default: float) -> float:
        return self._values.get(name, default)

    def put(self, name: str, value: float) -> None:
        if self._values.get(name) == value:
            return
        self._values[name] = value
        heappush(self._heap, (-value, name))
        if len(self._heap) > 2 * len(self._values) + _SPARE:
            self._heap = [(-value, name) for name, value in self._values.items()]
            heapify(self._heap)

    def drop(self, name: str) -> None:
        self._values.pop(name, None)

    def clear(self) -> None:
        self._values.clear()
        self._heap.clear()

    def most(self, default: float) -> float:
        """The greatest value; `default` when there is none."""
        while self._heap and self._values.get(self._heap[0][1]) != -self._heap[0][0]:
            heappop(self._heap)
        return -self._heap[0][0] if self._heap else default
