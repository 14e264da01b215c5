"""May this node be touched now? PURE.

Asked before a node starts, while it downloads, and again before it installs. A battery that is low, unknown or not heard
of for long defers the node; mains passes. Nothing here is final: what is deferred is asked again.
"""

from dataclasses import dataclass
from datetime import datetime, tzinfo

from gatewayd.campaign.node_update import State
from gatewayd.campaign.schedule import opens_within, spoken, within
from gatewayd.cloud.messages import Policy
from gatewayd.nodes.node import Node
from radios.radio import Power

LQI_MARGIN = (
    10  # a link that was too weak has to be better by so much, or a node at the limit would be told of every minute
)
LEVEL_MARGIN_DB = 3.0
INSTALL_LEAD_S = 600.0  # so long before its window an installation may be ordered, see README.md, "Hours"


@dataclass(frozen=True, slots=True)
class Deferral:
    """Why not now: `code` is stable (battery_low, battery_unknown, battery_stale, not_joined, busy, quiet_hours, ...)."""

    code: str
    detail: str


def may_touch(node: Node, policy: Policy, radio_now: float) -> Deferral | None:
    """None when the node may be touched. `radio_now`: Unix seconds on the clock of the node's radio."""
    if node.joined is False:
        return Deferral("not_joined", "the node has left the network")
    return _battery(node, policy, radio_now)


def right_hour(policy: Policy, state: State, local: datetime | None) -> Deferral | None:
    """None when the hour is right for what comes next after `state`. `local` is None when the clock cannot be believed."""
    if not policy.quiet_hours and not (policy.install_windows and state is State.READY):
        return None
    if local is None:
        return Deferral("clock_untrusted", "the hour is not known: the clock cannot be believed")
    if within(policy.quiet_hours, local):
        return Deferral("quiet_hours", f"quiet hours: {spoken(policy.quiet_hours)}")
    if state is State.READY and policy.install_windows and not within(policy.install_windows, local):
        return Deferral("outside_window", f"installed only within {spoken(policy.install_windows)}")
    return None


def opening(policy: Policy, now: float, zone: tzinfo) -> float:
    """When the next install window opens, if that is near enough for radios to be told; 0: not. Unix seconds."""
    if not policy.install_windows:
        return 0.0
    return opens_within(policy.install_windows, policy.quiet_hours, now, zone, INSTALL_LEAD_S)


def good_link(node: Node, policy: Policy, deferred_for: str = "") -> Deferral | None:
    """None when the link is good enough to start with the node; later its radio copes with what the link is.

    `deferred_for`: the code the node is deferred with now. A link that was too weak has to be better by a margin.
    """
    weak = deferred_for == "link_weak"
    asked = [(policy.minimum_rssi_dbm, node.rssi_dbm, "RSSI", "dBm", LEVEL_MARGIN_DB)]
    if node.radio == "zigbee":
        asked.append((policy.minimum_lqi, node.lqi, "LQI", "", LQI_MARGIN))
    else:
        asked.append((policy.minimum_snr_db, node.snr_db, "SNR", "dB", LEVEL_MARGIN_DB))
    for least, known, what, unit, margin in asked:
        if least is None:
            continue
        if known is None:
            return Deferral("link_unknown", f"the node's {what} is not known")
        if known < least + (margin if weak else 0):
            # No measured value in the text: it changes with every frame.
            return Deferral("link_weak", f"{what} below {least:g} {unit}".rstrip())
    return None


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
