"""What the nodes' own snapshots say of their downloads: shares, totals, and whether one lost what it held. PURE.

Zigbee nodes count bytes and blocks, LoRaWAN nodes fragments; a snapshot has the one or the other.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Snapshot = Mapping[str, object]


def share(node: Snapshot | None) -> float | None:
    """How much of the image a node holds, 0..1; None when it is not downloading."""
    whole = _number(node, "size") or _number(node, "total")
    return min(1.0, held(node) / whole) if whole else None


def held(node: Snapshot | None) -> int:
    """Bytes (Zigbee) or fragments (LoRaWAN) that the node holds of an image it does not run yet."""
    return _number(node, "offset") or _number(node, "received")


def begun(node: Snapshot | None) -> int:
    """How often a node has begun a download at 0: a Zigbee block at offset 0, a LoRaWAN FragSessionSetup."""
    return _number(node, "downloads_started_at_zero") + counter(node, "sessions_set_up")


@dataclass(slots=True)
class Continuity:
    """Watches snapshots for nodes that held a part of an image and then began at 0 again."""

    begun_again: set[str] = field(default_factory=set)
    _before: dict[str, Snapshot] = field(default_factory=dict)

    def see(self, nodes: Mapping[str, Snapshot]) -> None:
        """The next snapshot of every node, by node id."""
        for node, now in nodes.items():
            before = self._before.get(node)
            if held(before) and begun(now) > begun(before):
                self.begun_again.add(node)
            self._before[node] = now


def zigbee_totals(nodes: Iterable[Snapshot]) -> dict[str, int]:
    """`bytes_sent_twice`: below what the node had held before, summed over the nodes."""
    every = tuple(nodes)
    return {
        "bytes_received": sum(_number(node, "bytes_received") for node in every),
        "bytes_sent_twice": sum(_number(node, "bytes_received_twice") for node in every),
        "downloads_begun_at_zero": sum(begun(node) for node in every),
        "downloads_resumed": sum(_number(node, "downloads_resumed") for node in every),
    }


def lorawan_totals(nodes: Iterable[Snapshot]) -> dict[str, int]:
    """`bytes_sent_twice`: fragments heard again, summed over the nodes: a multicast one counts once for every node."""
    every = tuple(nodes)
    return {
        "fragments_received": sum(counter(node, "fragments_received") for node in every),
        "bytes_sent_twice": sum(counter(node, "bytes_received_twice") for node in every),
        "sessions_set_up": sum(begun(node) for node in every),
    }


def _number(node: Snapshot | None, name: str) -> int:
    value = node.get(name) if node else None
    return value if isinstance(value, int) else 0


def counter(node: Snapshot | None, name: str) -> int:
    """Of those of a LoRaWAN node."""
    counters = node.get("counters") if node else None
    return _number(counters, name) if isinstance(counters, Mapping) else 0
