"""What became of the demo's nodes, and whether that is what should have. PURE."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from gatewayd.demo import scenario
from gatewayd.demo.progress import Snapshot, begun

Node = scenario.ZigbeeNode | scenario.LorawanNode
Reports = Mapping[str, Sequence[int]]  # ZCL sequences of reports, by node
CONFIGURED = scenario.ZIGBEE_NODES[0]
"""The node that a program asks to report: its new firmware forgets that."""

ALL_NODES: tuple[Node, ...] = (*scenario.ZIGBEE_NODES, *scenario.LORAWAN_NODES)


@dataclass(frozen=True, slots=True)
class Told:
    """The newest report about a node, as the cloud has it."""

    state: str
    code: str = ""
    version: int | None = None

    def __str__(self) -> str:
        return f"{self.state} ({self.code})" if self.code else self.state


def settled(told: Mapping[str, Told]) -> bool:
    """Whether the cloud was told of every node what this scenario ends in."""
    return all(_as_expected(node, told.get(node.id)) for node in ALL_NODES)


def faults(told: Mapping[str, Told], flash: Mapping[str, str], images: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Every node that is not as it should be. `images`: for "zigbee" and "lorawan", digests of "old" and "new"."""
    found = []
    for node in ALL_NODES:
        said = told.get(node.id)
        if not _as_expected(node, said):
            expected = Told(node.expected, node.code)
            found.append(f"{_who(node)}: the cloud was told {said or 'nothing'}, expected {expected}")
            continue
        digests = images[node.id.partition(":")[0]]
        wanted = digests["new"] if node.expected == "updated" else digests.get(f"old:{node.name}", digests["old"])
        if flash.get(node.id) != wanted:
            found.append(f"{_who(node)}: {node.expected}, but its flash holds something else")
    return found


def continuity_faults(nodes: Mapping[str, Snapshot], begun_again: Collection[str]) -> list[str]:
    """Every node that lost what it held: seen to begin again, or a Zigbee node that began more than one download.

    A LoRaWAN node may be set up twice before any data, when its answer was lost on the air.
    """
    again = {node.id for node in scenario.ZIGBEE_NODES if begun(nodes.get(node.id)) > 1} | set(begun_again)
    return [f"{_who(node)}: held a part of the image and began at 0 again" for node in ALL_NODES if node.id in again]


def site_faults(lost: Mapping[str, int], invented: Mapping[str, int], *, reported: bool, forgotten: str) -> list[str]:
    """What a program that uses the nodes beside their updates finds wrong. `lost`, `invented`: reports by
    node. `forgotten`: what is wrong with the reporting that the program has configured."""
    found = []
    if not reported:
        found.append("no node reported anything during the update")
    if lost:
        found.append(f"reports that the dongle took did not come over MQTT: {dict(lost)}")
    if invented:
        found.append(f"reports came over MQTT that no node has sent: {dict(invented)}")
    if forgotten:
        found.append(f"{_who(CONFIGURED)} lost its reporting with the update and was not told again: {forgotten}")
    return found


def missing(taken: Reports, published: Reports) -> dict[str, int]:
    """How many reports of which node are in the first and not in the second: each counts as often as it is there."""
    lost = {node: (Counter(taken[node]) - Counter(published.get(node, ()))).total() for node in taken}
    return {node: number for node, number in lost.items() if number}


def counts(told: Mapping[str, Told]) -> dict[str, int]:
    """How many nodes ended how."""
    result: dict[str, int] = {}
    for node in ALL_NODES:
        state = told[node.id].state if node.id in told else "unknown"
        result[state] = result.get(state, 0) + 1
    return result


def _who(node: Node) -> str:
    return f"{node.name} ({node.id})"


def _as_expected(node: Node, told: Told | None) -> bool:
    return told is not None and told.state == node.expected and told.code == (node.code or told.code)
