"""Routes through routers that are nodes themselves, where a mesh is asked for them: who relays for whom, and what then breaks.

A route is kept until it fails: a frame that meets a router that does not listen is lost, and only then the node looks for
another way: a router at once (route discovery), an end device when it has missed its parent for a while. On a channel that takes
its air: a route request that every router repeats, and the reply hop by hop; an end device's beacon request, its beacons and the
rejoin. Without another way it cannot be reached until its router is back. The coordinator, which keeps no routes of its own (a low-RAM concentrator), gets
a route record before every frame.
"""

from collections.abc import Callable, Mapping, Sequence

from radios.simulated.zigbee.channel import Channel
from radios.simulated.zigbee.node import VirtualNode

COORDINATOR = 0
ROUTE_DISCOVERY_S = 1.0
SECURED_NWK_BYTES = 11 + 8 + 14 + 4  # MAC with FCS, NWK, its security header and MIC
ROUTE_REQUEST_BYTES = SECURED_NWK_BYTES + 6
ROUTE_REPLY_BYTES = SECURED_NWK_BYTES + 8
BEACON_REQUEST_BYTES, BEACON_BYTES = 10, 28
REJOIN_BYTES = SECURED_NWK_BYTES + 4
ORPHANED_S = 5.0  # an end device looks for another parent after so long without its own

CallAt = Callable[[float, Callable[[float], None]], None]


class Routing:
    """`neighbours`: for each node's EUI64 the routers in its reach, or COORDINATOR, the best first. A node that is not named
    is next to the coordinator."""

    def __init__(
        self, neighbours: Mapping[int, Sequence[int]], call_at: CallAt, channel: Channel | None = None
    ) -> None:
        self.discoveries = 0
        self._channel = channel
        self.nodes: dict[int, VirtualNode] = {}
        self._neighbours = neighbours
        self._call_at = call_at
        self._via = {eui64: near[0] for eui64, near in neighbours.items()}
        self._looking: set[int] = set()

    def relays(self, node: VirtualNode) -> tuple[VirtualNode, ...]:
        """The routers between the coordinator and the node, the coordinator's neighbour first."""
        return self._relays(node.spec.eui64)

    def broken(self, node: VirtualNode, now: float) -> bool:
        """Whether the way is cut; if so, another one is looked for."""
        if all(relay.listens for relay in self.relays(node)):
            return False
        self._look(node, now)
        return True

    def record(self, node: VirtualNode) -> tuple[int, ...]:
        """Short addresses of the relays, the node's neighbour first."""
        return tuple(relay.nwk for relay in reversed(self.relays(node)))

    def _relays(self, eui64: int) -> tuple[VirtualNode, ...]:
        found: list[VirtualNode] = []
        at = self._via.get(eui64, COORDINATOR)
        while at != COORDINATOR and len(found) <= len(self.nodes):
            found.append(self.nodes[at])
            at = self._via.get(at, COORDINATOR)
        return tuple(reversed(found))

    def _look(self, node: VirtualNode, now: float) -> None:
        # It is the nearest node behind the dead router that has to find another way.
        route = (*self.relays(node), node)
        dead = next(at for at, relay in enumerate(route) if not relay.listens)
        orphan = route[dead + 1]
        if orphan.spec.eui64 in self._looking:
            return
        self._looking.add(orphan.spec.eui64)
        if orphan.spec.sleepy:
            self._call_at(now + ORPHANED_S, lambda when: self._found(orphan, when))
            return
        self._request_route(orphan, now)
        self._call_at(now + ROUTE_DISCOVERY_S, lambda when: self._found(orphan, when))

    def _request_route(self, node: VirtualNode, now: float) -> None:
        """A broadcast that the coordinator and every router repeat once."""
        channel = self._channel
        if channel is None:
            return
        routers = [other for other in self.nodes.values() if other is not node and not other.spec.sleepy]

        def repeat(when: float, _ok: bool) -> None:
            for station in (COORDINATOR, *(_station(router) for router in routers if router.listens)):
                channel.broadcast(when, station, ROUTE_REQUEST_BYTES, _nothing)

        channel.broadcast(now, _station(node), ROUTE_REQUEST_BYTES, repeat)

    def _answer(self, node: VirtualNode, now: float) -> None:
        """What the new way costs: the reply of the coordinator over its hops, or the search for a parent and the rejoin."""
        channel = self._channel
        if channel is None:
            return
        way = (COORDINATOR, *(_station(relay) for relay in self.relays(node)))
        if not node.spec.sleepy:
            for station in way:
                channel.send(now, station, ROUTE_REPLY_BYTES, None, _nothing)
            return
        channel.broadcast(now, _station(node), BEACON_REQUEST_BYTES, _nothing)
        for near in self._neighbours.get(node.spec.eui64, ()):
            if near == COORDINATOR or self.nodes[near].listens:
                station = COORDINATOR if near == COORDINATOR else _station(self.nodes[near])
                channel.broadcast(now, station, BEACON_BYTES, _nothing)
        for station in (_station(node), way[-1]):
            channel.send(now, station, REJOIN_BYTES, None, _nothing)

    def _found(self, node: VirtualNode, now: float) -> None:
        eui64 = node.spec.eui64
        self._looking.discard(eui64)
        self.discoveries += 1
        for near in self._neighbours.get(eui64, ()):
            if near == COORDINATOR or self._leads_on(near, eui64):
                self._via[eui64] = near
                self._answer(node, now)
                return

    def _leads_on(self, router: int, eui64: int) -> bool:
        way = (*self._relays(router), self.nodes[router])
        return all(relay.listens and relay.spec.eui64 != eui64 for relay in way)


def _station(node: VirtualNode) -> int:
    """As in `delivery`."""
    return node.spec.eui64 * 16


def _nothing(_when: float, _ok: bool) -> None:
    pass
