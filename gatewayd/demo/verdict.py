"""What became of the demo's nodes, and whether that is what should have. PURE."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from gatewayd.demo import scenario
from gatewayd.demo.progress import Snapshot, begun

Node = scenario.ZigbeeNode | scenario.LorawanNode
Reports = Mapping[str, Sequence[int]]  # ZCL sequences of reports, by node
CONFIGURED = scenario.ZIGBEE_NODES[0]
"""The node that a program binds and asks to report: its new firmware forgets both."""
BATTERY_SPENT = 10.0  # percent, at most, of a simulated battery by an update

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
            found.append(f"{who(node)}: the cloud was told {said or 'nothing'}, expected {expected}")
            continue
        digests = images[node.id.partition(":")[0]]
        wanted = digests["new"] if node.expected == "updated" else digests.get(f"old:{node.name}", digests["old"])
        if flash.get(node.id) != wanted:
            found.append(f"{who(node)}: {node.expected}, but its flash holds something else")
    return found


def continuity_faults(nodes: Mapping[str, Snapshot], begun_again: Collection[str]) -> list[str]:
    """Every node that lost what it held: seen to begin again, or a Zigbee node that began more than one download.

    A LoRaWAN node may be set up twice before any data, when its answer was lost on the air.
    """
    again = {node.id for node in scenario.ZIGBEE_NODES if begun(nodes.get(node.id)) > 1} | set(begun_again)
    return [f"{who(node)}: held a part of the image and began at 0 again" for node in ALL_NODES if node.id in again]


def site_faults(
    lost: Mapping[str, int], invented: Mapping[str, int], *, reported: bool, forgotten: str, unread: str
) -> list[str]:
    """What a program that uses the nodes beside their updates finds wrong. `lost`, `invented`: reports by node.
    `forgotten`: what is wrong with the binding and the reporting that the program has configured, `unread`: with what it read."""
    found = []
    if not reported:
        found.append("no node reported anything during the update")
    if lost:
        found.append(f"reports that the dongle took did not come over MQTT: {dict(lost)}")
    if invented:
        found.append(f"reports came over MQTT that no node has sent: {dict(invented)}")
    if forgotten:
        found.append(f"{who(CONFIGURED)} lost its configuration with the update and was not told again: {forgotten}")
    if unread:
        found.append(f"{who(CONFIGURED)} was not read over MQTT: {unread}")
    return found


@dataclass(frozen=True, slots=True)
class Findings:
    """What else can be told of the Zigbee side when all is over."""

    steps: Sequence[tuple[str, str]]  # node and state of every report to the cloud, in order
    let_in: Collection[str]  # nodes that the operator's command let in
    install_codes: Collection[str]  # nodes whose code the dongle was given
    shares: Collection[tuple[float, str]]  # of the air, as the status said, and what set them
    network: str  # of the dongle, as a digest
    backed_up: str  # the same of the newest backup; empty without one
    backup_due: bool  # the daemon ran for long enough to make one by itself
    air_busy_s: float
    air_least_s: float  # that the bytes which the nodes got cannot have been carried in less
    held: Mapping[str, Snapshot]  # the nodes' own last snapshots, by id
    described: Mapping[str, Mapping[str, object]]  # nodes as the gateway's status names them, by id
    asked_backup: str  # the network in the backup of the gateway that the operator asked for; empty without one
    told_to_leave: Collection[str]
    cut_frames: int  # of OTA clients, that have reached the dongle
    headless_frames: int  # those of them that zigpy cannot read
    unreadable: int  # frames that zigpy could not read, as the status said
    dropped: Mapping[str, int]  # frames and messages of nodes, by reason
    exceptions: int  # in the daemon's log
    restarted: bool  # the daemon: what its status counted before is gone


def equipment_faults(found: Findings) -> list[str]:
    """What the site's network, its air and its operator say against it."""
    faults = []
    for node in scenario.ZIGBEE_NODES:
        if node.joins and (node.id not in found.let_in or node.id not in found.install_codes):
            faults.append(f"{who(node)}: was not let in with its install code")
        faults += [f"{who(node)}: {what}" for what in _node_faults(node, found)]
    if found.backed_up != found.network and (found.backed_up or found.backup_due):
        faults.append("the newest backup holds another network than the dongle" if found.backed_up else "no backup")
    if found.asked_backup != found.network:
        faults.append("the backup that the operator asked for does not hold the dongle's network")
    if not found.cut_frames or (not found.restarted and not 0 < found.unreadable <= found.headless_frames):
        what = f"{found.cut_frames} cut frames, {found.headless_frames} without a header, {found.unreadable} counted"
        faults.append(f"frames that nobody can read are not counted: {what}")
    if any(found.dropped.values()):
        faults.append(f"something of the nodes' own was dropped: {dict(found.dropped)}")
    if found.exceptions:
        faults.append(f"{found.exceptions} exceptions in the daemon's log")
    if not found.shares:
        faults.append("the status said nothing of the air")
    above = sorted(share for share, _ in found.shares if share > scenario.ZIGBEE_AIR_SHARE)
    if above:
        faults.append(f"quiet hours allow {scenario.ZIGBEE_AIR_SHARE:g} of the air, and {above[-1]:g} was in force")
    if not 0 < found.air_least_s <= found.air_busy_s:
        faults.append(f"the air was used for {found.air_busy_s:g} s, blocks alone take {found.air_least_s:g} s")
    return faults + _held_until_the_canary_runs(found.steps)


def _node_faults(node: scenario.ZigbeeNode, found: Findings) -> list[str]:
    """What one node counts and says of itself against what the scenario makes it do."""
    own, said = found.held.get(node.id, {}), found.described.get(node.id, {})
    faults = []
    if node.offers_block_period and not count(own, "block_periods_taken"):
        faults.append("offers a block period and was told none")
    if node.pages and not 0 < 2 * count(own, "requests_sent") < count(own, "blocks_received"):
        faults.append("asks for pages and was sent its blocks one by one")
    if node.check_in_s is not None and not count(own, "fast_polls"):
        faults.append("checks in and was not told to poll fast")
    if node.leaves and (node.id not in found.told_to_leave or own.get("joined") is not False):
        faults.append("was told to leave and is still there")
    wanted = {
        "model": node.name,
        "power": "mains" if node.battery_percent is None else "battery",
        "sleepy": node.sleepy,
    }
    wrong = [name for name, value in wanted.items() if said.get(name) != value]
    wrong += [name for name in ("lqi", "rssi_dbm", "last_seen") if said.get(name) is None]
    battery = said.get("battery_percent")
    if node.battery_percent is not None and not (
        isinstance(battery, int | float) and node.battery_percent - BATTERY_SPENT <= battery <= node.battery_percent
    ):
        wrong.append("battery_percent")
    return faults + [f"the status is wrong or silent about its {name}: {said.get(name)}" for name in wrong]


def count(node: Snapshot, name: str) -> int:
    value = node.get(name)
    return value if isinstance(value, int) else 0


def early_installs(steps: Sequence[tuple[str, str]], canary: Node, nodes: Sequence[Node]) -> list[str]:
    """The image may be on every node, but none starts it before the canary runs it."""
    before = steps[: steps.index((canary.id, "updated"))] if (canary.id, "updated") in steps else steps
    others = {node.id: node for node in nodes if node is not canary}
    early = [others[node] for node, state in before if node in others and state == "installing"]
    return [f"{who(node)}: was told to install before the canary had shown that it runs" for node in early]


def _held_until_the_canary_runs(steps: Sequence[tuple[str, str]]) -> list[str]:
    canary, *others = scenario.ZIGBEE_NODES
    faults = early_installs(steps, canary, others)
    held = {node for node, state in steps if state == "ready"} & {node.id for node in others}
    return faults if held else [*faults, "no node was ready, so none was held"]


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


def who(node: Node) -> str:
    return f"{node.name} ({node.id})"


def _as_expected(node: Node, told: Told | None) -> bool:
    return told is not None and told.state == node.expected and told.code == (node.code or told.code)
