"""Routes through routers that are nodes themselves, where a mesh is asked for them: who relays for whom, and what then breaks.

A route is kept until it fails: a frame that meets a router that does not listen is lost, and only then the node looks for
another way: a router at once (route discovery), an end device when it has missed its parent for a while. Without another way
it cannot be reached until its router is back. The coordinator, which keeps no routes of its own (a low-RAM concentrator), gets
a route record before every frame.
"""

from collections.abc import Callable, Mapping, Sequence

from radios.simulated.zigbee.node import VirtualNode

COORDINATOR = 0
ROUTE_DISCOVERY_S = 1.0
ORPHANED_S = 5.0  # an end device looks for another parent after so long without its own

CallAt = Callable[[float, Callable[[float], None]], None]


class Routing:
    """`neighbours`: for each node's EUI64 the routers in its reach, or COORDINATOR, the best first. A node that is not named
    is next to the coordinator."""

    def __init__(self, neighbours: Mapping[int, Sequence[int]], call_at: CallAt) -> None:
        self.discoveries = 0
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
        wait_s = ORPHANED_S if orphan.spec.sleepy else ROUTE_DISCOVERY_S
        self._call_at(now + wait_s, lambda _: self._found(orphan))

    def _found(self, node: VirtualNode) -> None:
        eui64 = node.spec.eui64
        self._looking.discard(eui64)
        self.discoveries += 1
        for near in self._neighbours.get(eui64, ()):
            if near == COORDINATOR or self._leads_on(near, eui64):
                self._via[eui64] = near
                return

    def _leads_on(self, router: int, eui64: int) -> bool:
        way = (*self._relays(router), self.nodes[router])
        return all(relay.listens and relay.spec.eui64 != eui64 for relay in way)
