"""How a frame crosses the mesh: hop by hop over the channel, with the APS acknowledgements and retries of its sender.

Without a channel a frame takes a fixed delay per hop and nobody waits for anybody. Responsible for when a frame is
through and whether; what becomes of it there is the caller's `arrive`.
"""

import random
from collections.abc import Callable
from functools import partial

from radios.simulated.zigbee.channel import APS_ACK_BYTES, MAC_RETRIES, CallAt, Channel, Finish
from radios.simulated.zigbee.loss import LossyLink
from radios.simulated.zigbee.node import VirtualNode
from radios.simulated.zigbee.routing import ROUTE_DISCOVERY_S, Routing

APS_RETRIES = 3
APS_ACK_TIMEOUT_S = 0.7  # four attempts fit in the 3 s that bellows waits for messageSentHandler
COORDINATOR_STATION = 0

Done = Callable[[bool], None]
Arrive = Callable[[float], bool]  # whether somebody was there to take it
Cross = Callable[[float, Finish, Finish], None]  # now, first hop, finish


class _LastHop:
    """The way into a node: a node that does not listen acknowledges nothing."""

    __slots__ = ("_link", "_node")

    def __init__(self, node: VirtualNode, link: LossyLink | None) -> None:
        self._node = node
        self._link = link

    def lost(self, now: float) -> bool:
        return not self._node.listens or (self._link is not None and self._link.lost(now))


class Route:
    """The way between the coordinator and one node, through `relays`, or `spec.hops - 1` relays of its own."""

    __slots__ = ("down", "last_hop", "link", "node", "through", "up")

    def __init__(self, node: VirtualNode, through: tuple[VirtualNode, ...] | None = None) -> None:
        spec = node.spec
        self.node = node
        rng = random.Random(f"{spec.seed}/{spec.eui64:016x}/link")
        self.link = LossyLink(spec.mac_loss, spec.bursts, rng) if spec.mac_loss or spec.bursts else None
        self.last_hop = _LastHop(node, self.link)
        relays = [spec.eui64 * 16 + hop for hop in range(1, spec.hops)]
        self.through = through
        if through is not None:
            relays = [relay.spec.eui64 * 16 for relay in through]
        self.down = (COORDINATOR_STATION, *relays)
        self.up = (spec.eui64 * 16, *reversed(relays))


class _Journey:
    """One frame on its way over all its hops."""

    __slots__ = ("_at", "_bytes", "_channel", "_finish", "_first_hop", "_into_node", "_route", "_stations")

    def __init__(
        self,
        channel: Channel,
        route: Route,
        stations: tuple[int, ...],
        frame_bytes: int,
        first_hop: Finish,
        finish: Finish,
        *,
        into_node: bool,
    ) -> None:
        self._channel = channel
        self._route = route
        self._stations = stations
        self._bytes = frame_bytes
        self._first_hop = first_hop
        self._finish = finish
        self._into_node = into_node
        self._at = 0

    def go(self, now: float) -> None:
        last = self._into_node and self._at == len(self._stations) - 1
        link = self._route.last_hop if last else self._route.link
        self._channel.send(now, self._stations[self._at], self._bytes, link, self._crossed)

    def _crossed(self, now: float, ok: bool) -> None:
        self._at += 1
        if self._at == 1:
            self._first_hop(now, ok)
        if not ok:
            self._finish(now, False)
        elif self._at < len(self._stations):
            self.go(now)
        else:
            loss = self._route.node.spec.loss
            self._finish(now, not loss or self._route.node.rng.random() >= loss)


class Delivery:
    """`frames_lost` counts frames that did not get through, however often they were sent."""

    def __init__(self, call_at: CallAt, channel: Channel | None, hop_delay_s: float) -> None:
        self.frames_lost = 0
        self.aps_retries = 0
        self.channel = channel
        self._call_at = call_at
        self._hop_delay_s = hop_delay_s
        self._routes: dict[int, Route] = {}
        self.routing: Routing | None = None
        if channel is not None:
            channel.attach(call_at)

    def route(self, node: VirtualNode) -> Route:
        found = self._routes.get(node.spec.eui64)
        through = None if self.routing is None else self.routing.relays(node)
        if found is None or found.through != through:
            found = self._routes[node.spec.eui64] = Route(node, through)
        return found

    def cross(
        self,
        node: VirtualNode,
        frame_bytes: int,
        now: float,
        finish: Finish,
        *,
        up: bool,
        first_hop: Finish | None = None,
        to_parent: bool = False,
    ) -> None:
        """Send once; `finish(when, through)` at the end, `first_hop(when, acknowledged)` when the sender knows what it can.

        `to_parent`: down to a sleeper's parent only.
        """

        def ended(when: float, ok: bool) -> None:
            if not ok:
                self.frames_lost += 1
            finish(when, ok)

        if self.routing is not None and self.routing.broken(node, now):

            def nowhere(when: float) -> None:
                if first_hop is not None:
                    first_hop(when, False)
                ended(when, False)

            self._call_at(now + ROUTE_DISCOVERY_S, nowhere)
            return
        route = self.route(node)
        if self.channel is None:
            attempts, ok = (1, True) if to_parent else self.attempts(node, now)
            hops = len(route.down) - (1 if to_parent else 0)

            def through(when: float) -> None:
                if first_hop is not None:
                    first_hop(when, ok)
                ended(when, ok)

            self._call_at(now + self._hop_delay_s * hops * attempts, through)
            return
        stations = route.up if up else route.down
        if to_parent:
            stations = stations[:-1]
        if not stations:
            finish(now, True)  # the coordinator is the parent
            return
        into_node = not up and not to_parent
        _Journey(self.channel, route, stations, frame_bytes, first_hop or _ignore, ended, into_node=into_node).go(now)

    def last_hop(self, node: VirtualNode, frame_bytes: int, now: float, finish: Finish) -> None:
        """From a parent to its sleeper, who has just asked for it."""

        def ended(when: float, ok: bool) -> None:
            ok = ok and not (node.spec.loss and node.rng.random() < node.spec.loss)
            if not ok:
                self.frames_lost += 1
            finish(when, ok)

        route = self.route(node)
        if self.channel is None:
            _, ok = self.attempts(node, now)
            if not ok:
                self.frames_lost += 1
            finish(now, ok)
        else:
            self.channel.send(now, route.down[-1], frame_bytes, route.last_hop, ended)

    def poll(self, node: VirtualNode, now: float, finish: Finish) -> None:
        """A sleeper's data request to its parent."""
        if self.channel is None:
            finish(now, True)
        else:
            route = self.route(node)
            self.channel.poll(now, route.up[0], route.link, finish)

    def acknowledged(
        self, node: VirtualNode, cross: Cross, now: float, arrive: Arrive, done: Done, *, up: bool, attempts: int
    ) -> None:
        """Send until the APS acknowledgement is back; `arrive` may be called more than once, `done` is called once."""
        _Acknowledged(self, node, cross, arrive, done, up=up, attempts=attempts).attempt(now)

    def attempts(self, node: VirtualNode, now: float) -> tuple[int, bool]:
        """Without a channel: attempts of the MAC, and whether one of them was heard and the frame not lost otherwise."""
        link, loss = self.route(node).link, node.spec.loss
        tries = 1
        if link is not None:
            while link.lost(now):
                if tries > MAC_RETRIES:
                    return tries, False
                tries += 1
        return tries, not (loss and node.rng.random() < loss)

    def call_at(self, when: float, action: Callable[[float], None]) -> None:
        self._call_at(when, action)


class _Acknowledged:
    """One frame whose sender wants an APS acknowledgement."""

    __slots__ = ("_arrive", "_attempt", "_cross", "_delivery", "_done", "_left", "_node", "_settled", "_up")

    def __init__(
        self,
        delivery: Delivery,
        node: VirtualNode,
        cross: Cross,
        arrive: Arrive,
        done: Done,
        *,
        up: bool,
        attempts: int,
    ) -> None:
        self._delivery = delivery
        self._node = node
        self._cross = cross
        self._arrive = arrive
        self._done = done
        self._up = up
        self._left = attempts
        self._attempt = 0
        self._settled = False

    def attempt(self, now: float) -> None:
        self._left -= 1
        self._attempt += 1
        self._cross(now, self._sent, self._crossed)

    def _sent(self, now: float, _ok: bool) -> None:
        """The sender's MAC has done what it can: from now on it waits for the acknowledgement."""
        self._delivery.call_at(now + APS_ACK_TIMEOUT_S, partial(self._timeout, self._attempt))

    def _crossed(self, now: float, ok: bool) -> None:
        if not ok:
            return
        # The stack acknowledges before the application sees the frame, so the acknowledgement goes first.
        if self._node.listens or self._up:
            self._delivery.cross(self._node, APS_ACK_BYTES, now, self._acknowledged, up=not self._up)
        self._arrive(now)

    def _acknowledged(self, _now: float, ok: bool) -> None:
        if ok and not self._settled:
            self._settled = True
            self._done(True)

    def _timeout(self, attempt: int, now: float) -> None:
        if self._settled or attempt != self._attempt:
            return
        if self._left > 0:
            self._delivery.aps_retries += 1
            self.attempt(now)
        else:
            self._settled = True
            self._done(False)


def _ignore(_when: float, _ok: bool) -> None:
    pass
