"""How much OTA traffic the mesh takes now: who may download at the same time, and when the next block may go out.

Three walls: places for nodes (`admission`), a token bucket of air seconds for the whole network at the share that is in
force (`air`), and a spacing per node. Deliveries move them: additive increase, multiplicative decrease. A limited share
delays the answers of the active nodes; it takes places away only when their turns would come too late.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from radios.zigbee.admission import Admission
from radios.zigbee.air import APS_ACK_AIR_S, BLOCK_AIR_S, PAGE_BLOCK_AIR_S, Meter, Path, ShareLimits, Shares, Why

_TYPICAL_HOPS: Final = 1.5
UNLIMITED: Final = 1.5  # air seconds a second that no channel has
_LOOK_EVERY_S: Final = 0.25  # whether the share became limited


@dataclass(frozen=True, slots=True)
class PacingLimits:
    """Knobs of the pacing, in seconds and shares of the channel's air."""

    max_active_nodes: int = 6
    shares: ShareLimits = field(default_factory=ShareLimits)
    burst_s: float = 0.03  # a timer that is late by less costs nothing
    increase_share: float = 0.03  # for every second without trouble
    decrease_factor: float = 0.7
    decrease_at_most_every_s: float = 1.0
    least_share: float = 0.04
    trouble_within_s: float = 5.0  # failures to two nodes within this are the network's, those to one of many its own
    max_spacing_s: float = 1.2  # of one node's blocks
    increase_blocks_per_s: float = 1.0  # of one node, for every delivery in good time
    unspaced_blocks_per_s: float = 30.0  # what no node asks for faster
    acknowledge_every: int = 8  # blocks: the node's next request says as much as an APS acknowledgement, for less air
    max_delay_s: float = 1.5  # an answer later than the client's timeout (2-3 s) only makes it ask again
    idle_after_s: float = 10.0  # a node that asked nothing for so long gives up its place
    invited_for_s: float = 8.0  # a place is kept so long for a node that was notified
    come_back_s: float = 5.0  # wait told to the first of the queue
    max_come_back_s: float = 120.0
    overdue_after_s: float = 2.0  # a queued node that comes back later than this loses its turn to those present
    turn_s: float = 0.6  # so many nodes are active under a limited share as get a block each within this time
    adapt_every_s: float = 3.0  # that number, when they cannot fill the share


@dataclass(frozen=True, slots=True)
class Grant:
    """Either serve the block at `serve_at`, or (None) tell the node to ask again after `come_back_s`."""

    serve_at: float | None
    come_back_s: int = 0
    acknowledged: bool = True  # ask for an APS acknowledgement of the block


def _midnight(_now: float) -> int:
    return 0


class Pacer:
    """State of one network's pacing. All times are arguments; `minute_of_day` is for quiet hours."""

    def __init__(self, limits: PacingLimits, minute_of_day: Callable[[float], int] = _midnight) -> None:
        self._limits = limits
        self._shares = Shares(limits.shares, minute_of_day)
        self._meter = Meter()
        self._paths: dict[str, Path] = {}
        self._nearest_s = 0.0  # fastest acknowledgement of all nodes
        self._admission = Admission(
            limits.max_active_nodes,
            idle_after_s=limits.idle_after_s,
            invited_for_s=limits.invited_for_s,
            come_back_s=limits.come_back_s,
            max_come_back_s=limits.max_come_back_s,
            overdue_after_s=limits.overdue_after_s,
        )
        self._ceiling = UNLIMITED
        self._next_token = float("-inf")
        self._decreased_at = self._increased_at = float("-inf")
        self._failed_last: tuple[str, float] = ("", float("-inf"))
        self._limited = False
        self._more_places = 0  # than have their turn in time, because the active nodes are slow
        self._adapt_at = float("-inf")
        self._adapted_at = float("-inf")
        self._delays_s = 0.0  # of granted answers, since _adapted_at
        self.failures = 0

    # -- who ---------------------------------------------------------------------------------------------------------

    def invite(self, node: str, now: float, priority: int) -> bool:
        """Whether a node may be offered its image now: a place is kept for it then. If not, it is in the queue of those to
        be woken by `to_wake`."""
        self._adapt(now)
        return self._admission.invite(node, now, priority)

    @property
    def wishing(self) -> bool:
        """Whether there is anybody whom `to_wake` could give."""
        return self._admission.wishing

    def to_wake(self, now: float) -> list[str]:
        """Nodes that have got a place since they were refused by `invite`: each is offered its image now."""
        self._adapt(now)
        return self._admission.to_wake(now)

    def next_deadline(self) -> float | None:
        """When `to_wake` may give more without anything having happened."""
        if not self._admission.wishing:
            return None
        expiry = self._admission.next_expiry()
        return min(self._adapt_at, expiry) if self._limited else expiry

    def release(self, node: str) -> None:
        """The node downloads no more (done, held, failed, dropped)."""
        self._admission.release(node)

    def forget(self, node: str) -> None:
        """The node is gone: nothing is known of it."""
        self.release(node)
        self._paths.pop(node, None)

    # -- when --------------------------------------------------------------------------------------------------------

    def ask(
        self, node: str, now: float, priority: int, air_share: float, *, again: bool = False, page: bool = False
    ) -> Grant:
        """A node asks for a block: when may the answer go out? `again`: it asked for the same one before; `page`: the block
        goes out by itself, as part of a page."""
        self._adapt(now)
        active = self._admission.ask(node, now, priority)
        if active is None:
            return Grant(None, self._admission.queue(node, now, priority))
        path = self._paths.get(node)
        if path is None:
            path = self._paths[node] = Path()
        limits = self._limits
        share = min(self._shares.in_force(now) * air_share, self._ceiling)
        serve_at = max(now, active.next_block)
        acknowledged = not page and path.asks_acknowledgement(limits.acknowledge_every, again)
        cost = BLOCK_AIR_S if acknowledged else PAGE_BLOCK_AIR_S if page else BLOCK_AIR_S - APS_ACK_AIR_S
        cost *= path.hops_estimated(self._nearest_s)
        if share < 1.0:
            serve_at = max(serve_at, self._next_token)
        if serve_at - now > limits.max_delay_s:
            return Grant(None, max(1, round(serve_at - now)))
        if share < 1.0:
            self._next_token = max(self._next_token, serve_at - limits.burst_s) + cost / max(share, limits.least_share)
            self._delays_s += serve_at - now
        if path.spacing_s:
            active.next_block = serve_at + path.spacing_s
        self._meter.add(cost, now)
        return Grant(serve_at, 0, acknowledged)

    def block_period_s(self, now: float, air_share: float) -> float:
        """Seconds that should lie between two blocks of each active node; 0 when the air is free. Foreground does not
        count: a node keeps its period long after the foreground has gone."""
        share = min(self._shares.lasting(now) * air_share, self._ceiling)
        if share >= 1.0:
            return 0.0
        return BLOCK_AIR_S * _TYPICAL_HOPS * max(self._admission.active, 1) / max(share, self._limits.least_share)

    def foreground(self, now: float) -> None:
        """Traffic of the site came or went."""
        self._shares.foreground(now)

    def route(self, node: str, hops: int) -> None:
        """How far away the node is, from a route record."""
        path = self._paths.get(node)
        if path is None:
            path = self._paths[node] = Path()
        path.hops = float(hops)

    def delivered(self, node: str, ok: bool, took_s: float, now: float) -> None:
        """A block was acknowledged so long after it was handed over, or it was not."""
        path = self._paths.get(node)
        if path is None:
            path = self._paths[node] = Path()
        limits = self._limits
        if ok:
            slow = path.acknowledged(took_s)
            if not self._nearest_s or path.fastest_s < self._nearest_s:
                self._nearest_s = path.fastest_s
            if slow:
                path.spacing_s = min(max(0.05, 1.5 * path.spacing_s), limits.max_spacing_s)
            elif path.spacing_s:
                rate = 1.0 / path.spacing_s + limits.increase_blocks_per_s
                path.spacing_s = 1.0 / rate if rate < limits.unspaced_blocks_per_s else 0.0
            self._increase(now)
            return
        self.failures += 1
        path.spacing_s = min(max(0.1, 2 * path.spacing_s), limits.max_spacing_s)
        other, at = self._failed_last
        self._failed_last = (node, now)
        if (node != other and now - at <= limits.trouble_within_s) or self._admission.active <= 1:
            self._trouble(now)

    def taken(self, now: float) -> None:
        """The radio got rid of a block of a page, which asks for no acknowledgement: nothing is learned of the way to the
        node, but the air takes it. Else a network of page requests alone would stay as slow as its worst moment."""
        self._increase(now)

    def _increase(self, now: float) -> None:
        if now - max(self._increased_at, self._decreased_at) >= 1.0:
            self._increased_at = now
            self._ceiling = min(UNLIMITED, self._ceiling + self._limits.increase_share)

    def _trouble(self, now: float) -> None:
        """The network has more than it takes: down from what really went out, not from a ceiling far above it."""
        limits = self._limits
        if now - self._decreased_at >= limits.decrease_at_most_every_s:
            self._decreased_at = now
            used = max(self._meter.share(now), 0.1)
            self._ceiling = max(limits.least_share, min(self._ceiling, used) * limits.decrease_factor)

    def _adapt(self, now: float) -> None:
        """Places under a limited share: as many as have their turn in time; one more when those cannot fill it, one of
        those less when the others could."""
        if now < self._adapt_at:
            return
        limits, admission = self._limits, self._admission
        share = min(self._shares.in_force(now), self._ceiling)
        if share >= 1.0:
            self._limited = False
            self._more_places = 0
            admission.places = limits.max_active_nodes
        else:
            in_time = max(1, int(limits.turn_s * share / (BLOCK_AIR_S * _TYPICAL_HOPS)))
            waited = self._delays_s / max(
                now - self._adapted_at, 0.1
            )  # nodes that only wait for their turn, on average
            if waited > 1.1:
                self._more_places = max(0, self._more_places - 1)
            elif self._limited and waited < 0.1 and self._meter.share(now) < 0.75 * share:
                self._more_places = min(max(0, limits.max_active_nodes - in_time), self._more_places + 1)
            self._limited = True
            admission.places = min(limits.max_active_nodes, in_time + self._more_places)
        self._adapt_at = now + (limits.adapt_every_s if self._limited else _LOOK_EVERY_S)
        self._adapted_at = now
        self._delays_s = 0.0

    # -- what is told of it ------------------------------------------------------------------------------------------

    @property
    def active(self) -> int:
        return self._admission.active

    @property
    def queued(self) -> int:
        """Nodes that wait for a place: told to come back, or not offered their image yet."""
        return self._admission.queued

    @property
    def invited(self) -> int:
        return self._admission.invited

    @property
    def places(self) -> int:
        return self._admission.places

    def share(self, now: float) -> tuple[float, Why]:
        """The share of the air in force, and why."""
        share = self._shares.in_force(now)
        if self._ceiling < share:
            return self._ceiling, Why.DELIVERIES
        return share, self._shares.why

    def air_used(self, now: float) -> float:
        """Share of the channel's air that the blocks of the last 10 s took, by estimate."""
        return self._meter.share(now)

    def blocks_per_s(self, now: float) -> float:
        return self._meter.blocks_per_s(now)

    def status(self, now: float) -> dict[str, int | float | str]:
        """What an operator wants to know of it."""
        share, why = self.share(now)
        return {
            "active": self.active,
            "queued": self.queued,
            "invited": self.invited,
            "places": self.places,
            "air_share": round(min(share, 1.0), 3),
            "air_share_because": why.value,
            "air_used": round(self.air_used(now), 3),
            "blocks_per_s": round(self.blocks_per_s(now), 1),
            "rate_limit": round(min(share, self._ceiling) / BLOCK_AIR_S, 1),  # blocks a second at one hop
            "failed_deliveries": self.failures,
        }

    def airtime_s(self, blocks: int) -> float:
        """Air that so many blocks take at one hop."""
        return blocks * BLOCK_AIR_S
