"""Whether the LoRaWAN side of the demo did what it is there to show: by the nodes' own counts, the simulated network server's, and the
daemon's status. PURE.

A node counts what it was sent and heard: "unicast 201:08", "class C DR3 201:08" (`radios.simulated.lorawan.link_counters`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from gatewayd.demo import scenario
from gatewayd.demo.progress import Snapshot, counter
from gatewayd.demo.verdict import BATTERY_SPENT, count, early_installs, who

SLOW, FAST = 2, 3
"""Data rates of multicast: of the far node's cohort, and of the others'."""
FRAGMENT = "201:08"
LEDGER_TOLERANCE = 0.05  # it errs to the safe side

CANARY = scenario.LORAWAN_NODES[0]
TAKING_PART = tuple(node for node in scenario.LORAWAN_NODES if node.expected in scenario.TAKES_PART)
# Sums over the nodes: a single node may have been away from one.
TOLD = {
    "202:00": "asked for TS003",
    "200:01": "McGroupStatusReq",
    "200:02": "McGroupSetupReq",
    "200:04": "McClassCSessionReq",
    "200:05": "McClassBSessionReq",
    "201:02": "FragSessionSetupReq",
    "203:01": "DevVersionReq",
    "203:03": "DevRebootCountdownReq",
    "203:04": "DevUpgradeImageReq",
    "201:03": "FragSessionDeleteReq",
    "200:03": "McGroupDeleteReq",
    "225:01": "DevPackageReq",
}


@dataclass(frozen=True, slots=True)
class LorawanFindings:
    """What can be told when all is over."""

    steps: Sequence[tuple[str, str]]  # node and state of every report to the cloud, in order
    held: Mapping[str, Snapshot]  # the nodes' own last snapshots, by id
    described: Mapping[str, Mapping[str, object]]  # nodes as the gateway's status names them, by id
    plans: Sequence[Mapping[str, object]]  # of the campaign, as the status shows them, tier by tier
    begun_at: float  # when the canary was first said to hold anything of the image; Unix seconds
    server: Mapping[str, float]  # counts of the network server and the gateway, at the end
    bus: Mapping[str, int]  # what the status says of the gateway bus
    ledger_s: float  # air of an hour, as the status said when it was most
    budget_s: float
    sent_about_then: tuple[Mapping[str, float], Mapping[str, float]]  # `server`, before and after that look
    refusals_noticed: int  # fragments that no gateway sent, as the daemon's log says
    gateway: str  # the daemon's id
    restarted: bool


def lorawan_faults(found: LorawanFindings) -> list[str]:
    faults = [f"{who(node)}: {what}" for node in scenario.LORAWAN_NODES for what in _node_faults(node, found)]
    for command, name in TOLD.items():
        if not any(_heard(found.held.get(node.id, {}), f"unicast {command}") for node in TAKING_PART):
            faults.append(f"no LoRaWAN node was told or asked: {name}")
    return [*faults, *_plan_faults(found), *_server_faults(found), *early_installs(found.steps, CANARY, TAKING_PART)]


def _node_faults(node: scenario.LorawanNode, found: LorawanFindings) -> list[str]:
    own, said = found.held.get(node.id, {}), found.described.get(node.id, {})
    faults = [f"the status is wrong or silent about its {name}" for name in _misdescribed(node, said, found.gateway)]
    if node not in TAKING_PART:
        return faults + _left_alone(node, own, said)
    faults += _way_faults(node, own)
    if node.package_version == 1 and not counter(own, "statuses_told"):
        faults.append(f"told no status, in the style of {node.status_style}")
    if node.package_version == 2 and not counter(own, "blocks_told"):
        faults.append("speaks version 2, and sent no FragDataBlockReceivedReq")
    if node.multi_package and not _heard(own, "unicast 225:01"):
        faults.append("has TS007 and was not asked for all its packages at once")
    if counter(own, "malformed"):
        faults.append("was sent what its version of TS004 cannot read")
    if counter(own, "reboots") != 1:
        faults.append(f"was told to reboot {counter(own, 'reboots')} times")
    if counter(own, "bytes_received_twice") and not found.restarted:
        faults.append("was sent a fragment twice")
    if count(own, "groups") or count(own, "total"):
        faults.append("still holds a group or a session")
    return faults


def _way_faults(node: scenario.LorawanNode, own: Snapshot) -> list[str]:
    """The way by which its fragments came."""
    alone = _heard(own, f"unicast {FRAGMENT}")
    if not node.multicast:
        by_group = _by_group(own)
        return [] if alone and not by_group else [f"got {alone} fragments by unicast and {by_group} by multicast"]
    window = "class B" if node.device_class == "B" else "class C"
    way = f"{window} DR{SLOW if node.snr_db < 0 else FAST} {FRAGMENT}"
    faults = []
    if not _heard(own, way) or _heard(own, way) != _by_group(own):
        faults.append(f"got {_heard(own, way)} of {_by_group(own)} fragments by multicast in {way.rpartition(' ')[0]}")
    if node.group_frames_most is not None and not counter(own, "coded_by_unicast"):
        faults.append("hears no more of its group and was not repaired by coded unicast fragments")
    return faults


def _left_alone(node: scenario.LorawanNode, own: Snapshot, said: Mapping[str, object]) -> list[str]:
    faults = []
    if counter(own, "sessions_set_up") or counter(own, "reboots"):
        faults.append("is none to be updated, and was set up or told to reboot")
    details = said.get("details")
    reason = str(details.get("refused") or "") if isinstance(details, Mapping) else ""
    if dict(node.tags).get(scenario.OWNER_TAG):
        if _downlinks(own):
            faults.append("belongs to another gateway and was asked something")
        if "another gateway" not in reason:
            faults.append(f"belongs to another gateway, and the status says {reason or 'nothing'}")
    if any(node.app_layer) and (_downlinks(own) or "TS004" not in reason):
        faults.append(f"has TS004 set in its profile, and the status says {reason or 'nothing'}")
    return faults


def _misdescribed(node: scenario.LorawanNode, said: Mapping[str, object], gateway: str) -> list[str]:
    details, tags, level = said.get("details"), said.get("tags"), said.get("battery_percent")
    details, tags = (value if isinstance(value, Mapping) else {} for value in (details, tags))
    wanted = {"name": node.name, "power": "mains" if node.battery_percent is None else "battery"}
    wrong = [name for name, value in wanted.items() if said.get(name) != value]
    wrong += [name for name in ("snr_db", "rssi_dbm", "last_seen") if said.get(name) is None]
    wrong += [] if details.get("class") == node.device_class else ["class"]
    # One that ChirpStack serves itself is claimed by nobody.
    owner = dict(node.tags).get(scenario.OWNER_TAG, gateway)
    wrong += [] if any(node.app_layer) or tags.get(scenario.OWNER_TAG) == owner else ["owner"]
    if node.battery_percent is not None and not (
        isinstance(level, int | float) and node.battery_percent - BATTERY_SPENT <= level <= node.battery_percent
    ):
        wrong.append("battery_percent")
    return wrong


def _plan_faults(found: LorawanFindings) -> list[str]:
    """Of each tier, before its first byte; and the far node slows nobody."""
    faults = []
    if len(found.plans) < 2 or not all(_number(plan, "airtime_s") and _number(plan, "eta_s") for plan in found.plans):
        faults.append(f"{len(found.plans)} plans with air and time for two tiers of LoRaWAN nodes")
    # Of the canary's tier alone: another's is made anew for a node that comes late.
    if any(_unix(plan.get("made_at")) > found.begun_at for plan in found.plans[:1]):
        faults.append("the plan of the LoRaWAN canary was made when its transfer had begun")
    parts = [part for plan in found.plans for part in _parts(plan)]
    slow = [part for part in parts if str(part.get("name")).startswith(f"DR{SLOW} multicast")]
    if [part.get("nodes") for part in slow] != [1]:
        faults.append("no cohort of its own was planned for the far LoRaWAN node")
    return faults


def _server_faults(found: LorawanFindings) -> list[str]:
    """What the network server and its gateway say."""
    server, (before, after), faults = found.server, found.sent_about_then, []
    # A killed daemon has lost what it had booked in its last seconds, which here are half an hour.
    if server.get("groups"):
        faults.append(f"{server['groups']} multicast groups are left on the network server")
    if server.get("f_cnts_reused"):
        faults.append("a multicast frame counter was used twice")
    if server.get("over_duty_cycle") and not found.restarted:
        faults.append(f"the gateway was given {server['over_duty_cycle']} frames beyond its duty cycle")
    # The status is asked between the two: what was sent meanwhile, or fell out of the hour, may count or not.
    sent = after.get("air_s", 0.0) - before.get("air_s", 0.0)
    low, high = after.get("air_of_hour_s", 0.0) - sent, before.get("air_of_hour_s", 0.0) + sent
    ledger, most, least = found.ledger_s, found.budget_s, 0.0 if found.restarted else low * (1 - LEDGER_TOLERANCE)
    if not 0 < ledger <= most or not least <= ledger <= high * (1 + LEDGER_TOLERANCE):
        faults.append(f"the duty-cycle ledger says {ledger:g} s of {most:g} s, the gateway sent {low:g} to {high:g} s")
    if not found.bus.get("downlinks") or not found.bus.get("acks"):
        faults.append(f"the gateway bus was not heard: {dict(found.bus)}")
    refused = server.get("multicasts_refused", 0)
    if not refused or found.refusals_noticed > refused or not (found.refusals_noticed or found.restarted):
        faults.append(f"the gateway refused {refused} multicasts, and {found.refusals_noticed} were noticed")
    return faults


def _downlinks(own: Snapshot) -> Mapping[str, int]:
    said = own.get("downlinks")
    return said if isinstance(said, Mapping) else {}


def _heard(own: Snapshot, what: str) -> int:
    return _downlinks(own).get(what, 0)


def _by_group(own: Snapshot) -> int:
    return sum(n for what, n in _downlinks(own).items() if what.endswith(FRAGMENT) and not what.startswith("unicast "))


def _parts(plan: Mapping[str, object]) -> list[Mapping[str, object]]:
    parts = plan.get("parts")
    return [part for part in parts if isinstance(part, Mapping)] if isinstance(parts, list) else []


def _unix(told: object) -> float:
    return datetime.fromisoformat(told).timestamp() if isinstance(told, str) else math.inf


def _number(plan: Mapping[str, object], name: str) -> float:
    value = plan.get(name)
    return float(value) if isinstance(value, int | float) else 0.0
