"""What is known of one node. PURE."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace

from radios.radio import Json, NodeObservation, Power


@dataclass(frozen=True, slots=True)
class Node:
    """The newest of everything that was observed. `*_at` are Unix seconds, moved when the wall clock is stepped."""

    id: str
    radio: str
    name: str | None = None
    manufacturer: str | None = None
    model: str | None = None
    hardware: str | None = None
    hardware_version: int | None = None
    version: int | None = None
    version_at: float | None = None
    power: Power | None = None
    battery_percent: float | None = None
    battery_at: float | None = None
    sleepy: bool | None = None
    lqi: int | None = None
    rssi_dbm: float | None = None
    snr_db: float | None = None
    reset_cause: str | None = None
    reset_cause_at: float | None = None
    joined: bool | None = None
    tags: dict[str, str] = field(default_factory=dict)
    details: dict[str, Json] = field(default_factory=dict)
    first_seen: float = 0.0
    last_seen: float = 0.0  # 0: never
    security_version: int = 0

    def moved(self, move: Callable[[float], float]) -> "Node":
        """The node with all its times put through `move`: the clock of its radio was stepped."""

        def moved(at: float | None) -> float | None:
            return None if at is None else move(at)

        return replace(
            self,
            version_at=moved(self.version_at),
            battery_at=moved(self.battery_at),
            reset_cause_at=moved(self.reset_cause_at),
            first_seen=move(self.first_seen),
            last_seen=move(self.last_seen),
        )


# A change of one of these is written at once, everything else with the next batch.
_TELLING = ("hardware", "hardware_version", "version", "power", "battery_percent", "joined", "reset_cause", "model")
_COPIED = tuple(
    f.name
    for f in fields(NodeObservation)
    if f.name not in {"node", "at", "tags", "details", "power"} and f.name in Node.__slots__
)


def merge(node: Node, seen: NodeObservation) -> tuple[Node, bool]:
    """The node with what was seen, and whether that is worth writing at once."""
    changes = {name: value for name in _COPIED if (value := getattr(seen, name)) is not None}
    if not seen.alive and node.joined is False:
        changes.pop("joined", None)  # one that left and is only remembered has not come back
    if seen.power is not None and seen.power is not Power.UNKNOWN:
        changes["power"] = seen.power
    if seen.tags is not None:
        changes["tags"] = dict(seen.tags)
    if seen.details is not None:
        changes["details"] = dict(seen.details)
    if seen.version is not None:
        changes["version_at"] = seen.at
    if seen.reset_cause is not None:
        changes["reset_cause_at"] = seen.at
    if seen.battery_percent is not None:
        changes["battery_at"] = seen.at
    after = replace(node, **changes, last_seen=max(node.last_seen, seen.at) if seen.alive else node.last_seen)
    return after, any(getattr(after, name) != getattr(node, name) for name in _TELLING)
