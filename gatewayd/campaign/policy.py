"""May this node be touched now? PURE.

Asked before a node starts, while it downloads, and again before it installs. A battery that is low, unknown or not heard
of for long defers the node; mains passes. Nothing here is final: what is deferred is asked again.
"""

from dataclasses import dataclass

from gatewayd.cloud.messages import Policy
from gatewayd.nodes.node import Node
from radios.radio import Power


@dataclass(frozen=True, slots=True)
class Deferral:
    """Why not now: `code` is stable (battery_low, battery_unknown, battery_stale, not_joined, busy, ...)."""

    code: str
    detail: str


def may_touch(node: Node, policy: Policy, radio_now: float) -> Deferral | None:
    """None when the node may be touched. `radio_now`: Unix seconds on the clock of the node's radio."""
    if node.joined is False:
        return Deferral("not_joined", "the node has left the network")
    return _battery(node, policy, radio_now)


def _battery(node: Node, policy: Policy, radio_now: float) -> Deferral | None:
    if node.power is Power.MAINS or policy.battery_percent == 0:
        return None
    if node.battery_percent is None or node.battery_at is None:
        return Deferral("battery_unknown", "the node has not told its battery level, and is not known to be on mains")
    if radio_now - node.battery_at > policy.battery_max_age_s:
        # No age in the text: a text that changes every second would be written every second.
        return Deferral("battery_stale", f"the battery level is older than {policy.battery_max_age_s} s")
    if node.battery_percent < policy.battery_percent:
        return Deferral(
            "battery_low", f"battery {node.battery_percent:g} %, at least {policy.battery_percent:g} % needed"
        )
    return None
