"""The mesh between the coordinator and the nodes: one agenda, joins and leaves, frames from hand to hand.

Sans-I/O: everything happens at times that the caller gives; `wake` tells the shell that the next deadline moved closer.
Without `neighbours` nothing is routed: each node is so many hops away, by relays of its own, and has its own loss.
"""

import heapq
import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from functools import partial
from typing import Protocol

from radios.simulated.zigbee.channel import Channel, Finish
from radios.simulated.zigbee.delivery import APS_RETRIES, Arrive, Delivery, Done
from radios.simulated.zigbee.flood import flood
from radios.simulated.zigbee.frames import CLUSTER_BASIC, PROFILE_ZDO, ApsFrame
from radios.simulated.zigbee.node import VirtualNode
from radios.simulated.zigbee.node_spec import Life, NodeEvent, NodeSpec
from radios.simulated.zigbee.parents import Parents
from radios.simulated.zigbee.routing import ROUTE_REQUEST_BYTES, Routing

HOP_DELAY_S = 0.004
CATCH_UP_S = 0.1
ROUTE_DISCOVERY_S = 1.0
ANNOUNCE_SPREAD_S = (0.2, 1.5)
JOIN_DELAY_S = (0.5, 2.0)
_LEAVE_NOTICE_S = 0.1


class JoinStatus(IntEnum):
    """EmberDeviceUpdate, which is what a trust center learns."""

    SECURED_REJOIN = 0
    UNSECURED_JOIN = 1
    LEFT = 2


class Coordinator(Protocol):
    """Who receives what comes out of the mesh. Calls come from within the mesh's own calls."""

    @property
    def listening(self) -> bool:
        """Whether a host hears what is received."""
        ...

    def frame_received(self, node: VirtualNode, frame: ApsFrame) -> None: ...

    def node_changed(self, node: VirtualNode, status: JoinStatus) -> None: ...


class Mesh:
    """`channel` None: frames take a fixed delay per hop and do not wait for each other. `neighbours`: routers that are nodes."""

    def __init__(
        self,
        specs: Sequence[NodeSpec],
        *,
        channel: Channel | None = None,
        hop_delay_s: float = HOP_DELAY_S,
        seed: int = 0,
        neighbours: Mapping[int, Sequence[int]] | None = None,
    ) -> None:
        self.channel = channel
        self.coordinator: Coordinator | None = None
        self.wake: Callable[[], None] = _nothing
        self.route_recorded: Callable[[VirtualNode, tuple[int, ...]], None] = _nobody_told
        self.frames_down = 0
        self.frames_up = 0
        self._rng = random.Random(seed)
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = itertools.count()
        self._armed: dict[int, float] = {}
        self._delivery = Delivery(self.call_at, channel, hop_delay_s)
        self._parents = Parents(self._delivery, self.call_at)
        self._permit_until = 0.0
        self._introduced: set[str] = set()
        self.nodes: dict[str, VirtualNode] = {}
        self.by_nwk: dict[int, VirtualNode] = {}
        for spec in specs:
            node = VirtualNode(spec, self._free_nwk(spec))
            if node.id in self.nodes:
                raise ValueError(f"two nodes are called {node.id}")
            self.nodes[node.id] = node
            self.by_nwk[node.nwk] = node
        self.routing = None if neighbours is None else Routing(neighbours, self.call_at, channel)
        if self.routing is not None:
            self.routing.nodes = {node.spec.eui64: node for node in self.nodes.values()}
            self._delivery.routing = self.routing

    @property
    def frames_lost(self) -> int:
        """Frames that did not get through one way, retries counted each."""
        return self._delivery.frames_lost

    @property
    def aps_retries(self) -> int:
        """Frames sent again because no APS acknowledgement came."""
        return self._delivery.aps_retries

    # ---- time

    def next_deadline(self) -> float | None:
        return self._events[0][0] if self._events else None

    def handle_timeout(self, now: float) -> None:
        """Do all that is due at `now`, each at its own time, with what follows from it: so who calls every few milliseconds
        shifts nothing. After a longer pause (the machine's) time goes on from `now`: nobody could answer meanwhile."""
        earliest = now - CATCH_UP_S
        while self._events and self._events[0][0] <= now:
            when, _, action = heapq.heappop(self._events)
            action(max(when, earliest))

    def call_at(self, when: float, action: Callable[[float], None]) -> None:
        """Foreground traffic and faults hook in here: `action` gets the time."""
        first = not self._events or when < self._events[0][0]
        heapq.heappush(self._events, (when, next(self._order), action))
        if first:
            self.wake()

    # ---- the network as the coordinator sees it

    def power_on(self, now: float) -> None:
        """Start every node; those that joined earlier are silent until they have something to say."""
        for node in self.nodes.values():
            node.power_on(now)
            node.to_send()
            node.take_events()
            self.settle(node, now)

    def network_up(self, now: float) -> None:
        """The coordinator serves. Nodes that joined earlier announce themselves, until a host has asked for their model.

        Real ones do not; it lets a host that starts with an empty database find them without an operator. Once
        interviewed they are silent, so a host that comes back gets no help.
        """
        for node in self.nodes.values():
            if node.joined and node.id not in self._introduced:
                self.call_at(now + self._rng.uniform(*ANNOUNCE_SPREAD_S), partial(self._introduce, node))

    def permit_joining(self, seconds: float, now: float) -> None:
        """Nodes that are not joined join while this is open; 0 closes it."""
        self._permit_until = now + seconds
        if seconds > 0:
            for node in self.nodes.values():
                if not node.joined:
                    self.call_at(now + self._rng.uniform(*JOIN_DELAY_S), partial(self._try_join, node))

    def remove(self, eui64: int, now: float) -> bool:
        """Make a node leave at the trust center's word; False when there is none."""
        node = next((n for n in self.nodes.values() if n.spec.eui64 == eui64 and n.joined), None)
        if node is None:
            return False
        node.leave()
        self.settle(node, now)
        return True

    def unicast(
        self,
        destination: int,
        frame: ApsFrame,
        now: float,
        *,
        acknowledged: bool,
        done: Done,
        arrived: Callable[[float], None] | None = None,
    ) -> None:
        """Send towards a node. `done` is called once, with what the sender knows: the APS acknowledgement came or not; without
        one, what the first hop said (all hops when there is no channel). `arrived` gets the time of every copy that arrives.
        """
        node = self.by_nwk.get(destination)
        if node is None or not node.joined:
            if self.channel is not None:  # the coordinator asks for a route; all routers repeat it, nobody answers
                routers = [n for n in self.nodes.values() if n.listens and not n.spec.sleepy]
                flood(self._delivery, routers, ROUTE_REQUEST_BYTES, now, lambda _node, _when: None)
            self.call_at(now + ROUTE_DISCOVERY_S, lambda _: done(False))
            return
        if arrived is None:
            arrive: Arrive = partial(self._deliver, node, frame)
        else:
            told = arrived

            def arrive(when: float) -> bool:
                told(when)
                return self._deliver(node, frame, when)

        if acknowledged:
            self._delivery.acknowledged(
                node,
                partial(self._down, node, frame),
                now,
                arrive,
                done,
                up=False,
                attempts=1 if node.spec.sleepy else 1 + APS_RETRIES,
            )
        else:
            self._unacknowledged(node, frame, now, arrive, done)

    def uplink(
        self,
        node: VirtualNode,
        frame: ApsFrame,
        now: float,
        *,
        acknowledged: bool = False,
        done: Done | None = None,
        arrived: Callable[[float], None] | None = None,
    ) -> None:
        """Send from a node to the coordinator; as `unicast`, but what comes twice is given to the coordinator once."""
        size = frame.air_bytes
        if not acknowledged:
            self._delivery.cross(node, size, now, partial(self._arrived, node, frame), up=True)
            return
        taken: list[float] = []

        def cross(when: float, first_hop: Finish, finish: Finish) -> None:
            self._delivery.cross(node, size, when, finish, up=True, first_hop=first_hop)

        def arrive(when: float) -> bool:
            if not taken:
                taken.append(when)
                if arrived is not None:
                    arrived(when)
                self._arrived(node, frame, when, True)
            return True

        self._delivery.acknowledged(node, cross, now, arrive, done or _nothing_done, up=True, attempts=1 + APS_RETRIES)

    def broadcast(self, frame: ApsFrame, now: float, *, to_sleepy: bool = False) -> None:
        """Send to every node, unacknowledged; sleepers only when asked for."""
        listeners = [n for n in self.nodes.values() if n.joined and (to_sleepy or not n.spec.sleepy)]

        def deliver(node: VirtualNode, when: float) -> None:
            self._deliver(node, frame, when)

        flood(self._delivery, listeners, frame.air_bytes, now, deliver)

    def settle(self, node: VirtualNode, now: float) -> None:
        """After anything was done to a node: send what it has to send, tell what happened to it, arm its timer."""
        for event in node.take_events():
            if event is NodeEvent.LEFT:  # after its answer
                self.call_at(now + _LEAVE_NOTICE_S, lambda _: self._changed(node, JoinStatus.LEFT))
            else:
                self._changed(node, JoinStatus.SECURED_REJOIN)
        out = node.to_send()
        for frame in out:
            self.uplink(node, frame, now)
        if out and self._parents.holds_for(node):
            self._parents.arm_poll(node, now)
        self._arm(node)

    def reboot(self, node: VirtualNode, now: float) -> None:
        """A node loses power for a moment."""
        node.reboot(now)
        self.settle(node, now)

    def readdress(self, node: VirtualNode, nwk: int, now: float) -> None:
        """The node re-joins under another short address."""
        self.by_nwk.pop(node.nwk, None)
        self._parents.drop(node, now)
        node.nwk = nwk
        self.by_nwk[nwk] = node
        self._changed(node, JoinStatus.SECURED_REJOIN)
        node.announce()
        self.settle(node, now)

    # ---- nodes

    def _arm(self, node: VirtualNode) -> None:
        deadline = node.next_deadline()
        if deadline is None:
            return
        key = node.spec.eui64
        armed = self._armed.get(key)
        if armed is None or deadline < armed:
            self._armed[key] = deadline
            self.call_at(deadline, partial(self._node_timer, node, deadline))

    def _node_timer(self, node: VirtualNode, armed: float, now: float) -> None:
        key = node.spec.eui64
        if self._armed.get(key) != armed:
            return  # an earlier timer took its place
        del self._armed[key]
        deadline = node.next_deadline()
        if deadline is not None and deadline <= now:
            node.handle_timeout(now)
            self.settle(node, now)
        else:
            self._arm(node)

    def _introduce(self, node: VirtualNode, now: float) -> None:
        heard = self.coordinator is not None and self.coordinator.listening
        if node.listens and heard and node.id not in self._introduced:
            node.announce()
            self.settle(node, now)

    def _try_join(self, node: VirtualNode, now: float) -> None:
        if node.joined or now > self._permit_until:
            return
        node.joined = True
        if node.life is Life.LEFT:
            node.power_on(now)
            node.to_send()
            node.take_events()
        self._changed(node, JoinStatus.UNSECURED_JOIN)
        node.announce()
        self.settle(node, now)

    def _changed(self, node: VirtualNode, status: JoinStatus) -> None:
        if self.coordinator is not None:
            self.coordinator.node_changed(node, status)

    def _free_nwk(self, spec: NodeSpec) -> int:
        nwk = spec.nwk if spec.nwk is not None else random.Random(spec.eui64).randrange(0x0001, 0xFFF0)
        while nwk in self.by_nwk:
            nwk = nwk % 0xFFEF + 1
        return nwk

    # ---- frames

    def _down(self, node: VirtualNode, frame: ApsFrame, now: float, first_hop: Finish | None, finish: Finish) -> None:
        """One attempt to get a frame to a node, by way of its parent if it sleeps."""
        size = frame.air_bytes
        if not node.spec.sleepy:
            self._delivery.cross(node, size, now, finish, up=False, first_hop=first_hop)
            return

        def at_parent(when: float, ok: bool) -> None:
            if ok:
                self._parents.hold(node, size, when, collected)
            else:
                collected(when, False)

        def collected(when: float, ok: bool) -> None:
            if first_hop is not None:
                first_hop(when, ok)
            finish(when, ok)

        self._delivery.cross(node, size, now, at_parent, up=False, to_parent=True)

    def _unacknowledged(self, node: VirtualNode, frame: ApsFrame, now: float, arrive: Arrive, done: Done) -> None:
        """On a channel the sender learns of the first hop only; without one, of the whole way."""
        if self.channel is not None:

            def finish(when: float, ok: bool) -> None:
                if ok:
                    arrive(when)

            self._down(node, frame, now, lambda _, ok: done(ok), finish)
        else:
            self._down(node, frame, now, None, lambda when, ok: done(ok and arrive(when)))

    def _arrived(self, node: VirtualNode, frame: ApsFrame, now: float, ok: bool) -> None:
        del now
        if ok:
            self.frames_up += 1
            if self.routing is not None:
                self.route_recorded(node, self.routing.record(node))
            if self.coordinator is not None:
                self.coordinator.frame_received(node, frame)

    def _deliver(self, node: VirtualNode, frame: ApsFrame, now: float) -> bool:
        """Whether the node was there to take it."""
        if not node.listens:
            return False
        self.frames_down += 1
        if frame.cluster == CLUSTER_BASIC and frame.profile != PROFILE_ZDO and not frame.broadcast:
            self._introduced.add(node.id)
        node.receive(frame, now)
        self.settle(node, now)
        return True


def _nothing() -> None:
    pass


def _nobody_told(_node: VirtualNode, _relays: tuple[int, ...]) -> None:
    pass


def _nothing_done(_arrived: bool) -> None:
    pass
