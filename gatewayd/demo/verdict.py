"""What became of the demo's nodes, and whether that is what should have. PURE."""

from collections.abc import Mapping
from dataclasses import dataclass

from gatewayd.demo import scenario

Node = scenario.ZigbeeNode | scenario.LorawanNode
ALL_NODES: tuple[Node, ...] = (*scenario.ZIGBEE_NODES, *scenario.LORAWAN_NODES)


@dataclass(frozen=True, slots=True)
class Told:
    """The newest report about a node, as the cloud has it."""

    state: str
    code: str = ""
    version: int | None = None


def settled(told: Mapping[str, Told]) -> bool:
    """Whether the cloud was told of every node what this scenario ends in."""
    return all(_as_expected(node, told.get(node.id)) for node in ALL_NODES)


def faults(told: Mapping[str, Told], flash: Mapping[str, str], images: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Every node that is not as it should be. `images`: for "zigbee" and "lorawan", digests of "old" and "new"."""
    found = []
    for node in ALL_NODES:
        what = told.get(node.id)
        if not _as_expected(node, what):
            found.append(f"{node.name} ({node.id}): {what}, expected {node.expected} {node.code}".rstrip())
            continue
        digests = images[node.id.partition(":")[0]]
        wanted = digests["new"] if node.expected == "updated" else digests.get(f"old:{node.name}", digests["old"])
        if flash.get(node.id) != wanted:
            found.append(f"{node.name} ({node.id}): {node.expected}, but its flash holds something else")
        if node.expected in ("deferred", "skipped") and what is not None and what.code != node.code:
            found.append(f"{node.name} ({node.id}): says {what.code!r}, not {node.code!r}")
    return found


def counts(told: Mapping[str, Told]) -> dict[str, int]:
    """How many nodes ended how."""
    result: dict[str, int] = {}
    for node in ALL_NODES:
        state = told[node.id].state if node.id in told else "unknown"
        result[state] = result.get(state, 0) + 1
    return result


def _as_expected(node: Node, told: Told | None) -> bool:
    return told is not None and told.state == node.expected and told.code == (node.code or told.code)
