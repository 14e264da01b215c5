"""The mesh between the coordinator and the nodes: joins, delay, loss, airtime, parents that hold frames for sleepers.

Sans-I/O: everything happens at times that the caller gives; `wake` tells the shell that the next deadline moved closer.
Nothing is routed: each node is so many hops away and has its own loss.
"""

import heapq
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from typing import Protocol

from radios.simulated.zigbee.channel import APS_ACK_BYTES, Channel
from radios.simulated.zigbee.frames import CLUSTER_BASIC, PROFILE_ZDO, ApsFrame
from radios.simulated.zigbee.node import VirtualNode
from radios.simulated.zigbee.node_spec import Life, NodeEvent, NodeSpec

INDIRECT_EXPIRY_S = 7.68
HOP_DELAY_S = 0.004
MAC_RETRIES = 3
APS_ATTEMPTS = 3
APS_ACK_TIMEOUT_S = 0.8  # three attempts fit in the 3 s that bellows waits for messageSentHandler
ROUTE_DISCOVERY_S = 1.0
ANNOUNCE_SPREAD_S = (0.2, 1.5)
JOIN_DELAY_S = (0.5, 2.0)
_BETWEEN_POLLED_FRAMES_S = 0.01
_LEAVE_NOTICE_S = 0.1

Done = Callable[[bool], None]


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


@dataclass(slots=True)
class _Waiting:
    """A frame that a parent holds for a sleepy node."""

    expires: float
    frame: ApsFrame
    done: Done


class Mesh:
    """`channel` None: frames take a fixed delay per hop and do not wait for each other."""

    def __init__(
        self,
        specs: Sequence[NodeSpec],
        *,
        channel: Channel | None = None,
        hop_delay_s: float = HOP_DELAY_S,
        seed: int = 0,
    ) -> None:
        self.channel = channel
        self.coordinator: Coordinator | None = None
        self.wake: Callable[[], None] = _nothing
        self.frames_down = 0
        self.frames_up = 0
        self.frames_lost = 0
        self._hop_delay_s = hop_delay_s
        self._rng = random.Random(seed)
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = itertools.count()
        self._armed: dict[int, float] = {}
        self._indirect: dict[int, list[_Waiting]] = {}
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

    # ---- time

    def next_deadline(self) -> float | None:
        return self._events[0][0] if self._events else None

    def handle_timeout(self, now: float) -> None:
        """Do all that is due at `now`, in order."""
        while self._events and self._events[0][0] <= now:
            action = heapq.heappop(self._events)[2]
            action(now)

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

    def unicast(self, destination: int, frame: ApsFrame, now: float, *, acknowledged: bool, done: Done) -> None:
        """Send towards a node; `done` is called once: arrived (with APS acknowledgement if asked for) or not."""
        node = self.by_nwk.get(destination)
        if node is None or not node.joined:
            self.call_at(now + ROUTE_DISCOVERY_S, lambda _: done(False))
        elif node.spec.sleepy:
            self._indirect.setdefault(destination, []).append(_Waiting(now + INDIRECT_EXPIRY_S, frame, done))
            self.call_at(now + INDIRECT_EXPIRY_S, partial(self._expire, node))
            self._arm_poll(node, now)
        else:
            self._attempt(node, frame, now, APS_ATTEMPTS if acknowledged else 1, done, acknowledged)

    def broadcast(self, frame: ApsFrame, now: float, *, to_sleepy: bool = False) -> None:
        """Send to every node, unacknowledged; sleepers only when asked for."""
        for node in self.nodes.values():
            if node.joined and (to_sleepy or not node.spec.sleepy):
                arrives, ok = self._cross(node, frame, now)
                if ok:
                    self.call_at(arrives, partial(self._deliver, node, frame))

    def settle(self, node: VirtualNode, now: float) -> None:
        """After anything was done to a node: send what it has to send, tell what happened to it, arm its timer."""
        for event in node.take_events():
            if event is NodeEvent.LEFT:  # after its answer
                self.call_at(now + _LEAVE_NOTICE_S, lambda _: self._changed(node, JoinStatus.LEFT))
            else:
                self._changed(node, JoinStatus.SECURED_REJOIN)
        out = node.to_send()
        for frame in out:
            self._uplink(node, frame, now)
        if out and self._indirect.get(node.nwk):
            self._arm_poll(node, now)
        self._arm(node)

    def reboot(self, node: VirtualNode, now: float) -> None:
        """A node loses power for a moment."""
        node.reboot(now)
        self.settle(node, now)

    def readdress(self, node: VirtualNode, nwk: int, now: float) -> None:
        """The node re-joins under another short address."""
        self.by_nwk.pop(node.nwk, None)
        self._indirect.pop(node.nwk, None)
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

    def _uplink(self, node: VirtualNode, frame: ApsFrame, now: float) -> None:
        arrives, ok = self._cross(node, frame, now)
        if ok:
            self.call_at(arrives, partial(self._arrived, node, frame))

    def _arrived(self, node: VirtualNode, frame: ApsFrame, now: float) -> None:
        del now
        self.frames_up += 1
        if self.coordinator is not None:
            self.coordinator.frame_received(node, frame)

    def _attempt(
        self, node: VirtualNode, frame: ApsFrame, now: float, left: int, done: Done, acknowledged: bool
    ) -> None:
        arrives, ok = self._cross(node, frame, now)
        if not ok:
            self._missed(node, frame, arrives, left, done, acknowledged)
            return

        def arrive(when: float) -> None:
            if not node.listens:
                self._missed(node, frame, when, left, done, acknowledged)
                return
            self.frames_down += 1
            if acknowledged and not self._acknowledge(node, when):
                self._missed(node, frame, when, left, done, acknowledged)
            else:
                done(True)
            self._deliver(node, frame, when)

        self.call_at(arrives, arrive)

    def _missed(
        self, node: VirtualNode, frame: ApsFrame, now: float, left: int, done: Done, acknowledged: bool
    ) -> None:
        if left > 1:
            again = now + APS_ACK_TIMEOUT_S
            self.call_at(again, lambda when: self._attempt(node, frame, when, left - 1, done, acknowledged))
        else:
            self.call_at(now + (APS_ACK_TIMEOUT_S if acknowledged else 0.0), lambda _: done(False))

    def _acknowledge(self, node: VirtualNode, now: float) -> bool:
        """Whether the node's APS acknowledgement finds its way back."""
        attempts, ok = self._mac(node)
        if self.channel is not None:
            self.channel.occupy(now, APS_ACK_BYTES, node.spec.hops, attempts)
        return ok

    def _deliver(self, node: VirtualNode, frame: ApsFrame, now: float) -> None:
        if frame.cluster == CLUSTER_BASIC and frame.profile != PROFILE_ZDO and not frame.broadcast:
            self._introduced.add(node.id)
        node.receive(frame, now)
        self.settle(node, now)

    def _cross(self, node: VirtualNode, frame: ApsFrame, now: float) -> tuple[float, bool]:
        """When a frame gets through between node and coordinator, and whether it does."""
        attempts, ok = self._mac(node)
        if not ok:
            self.frames_lost += 1
        if self.channel is None:
            return now + self._hop_delay_s * node.spec.hops * attempts, ok
        return self.channel.occupy(now, frame.air_bytes, node.spec.hops, attempts), ok

    def _mac(self, node: VirtualNode) -> tuple[int, bool]:
        """Attempts of the MAC, and whether one of them was heard and the frame not lost otherwise."""
        spec = node.spec
        attempts = 1
        while spec.mac_loss and attempts <= MAC_RETRIES and node.rng.random() < spec.mac_loss:
            attempts += 1
        heard = attempts <= MAC_RETRIES or not spec.mac_loss or node.rng.random() >= spec.mac_loss
        return attempts, heard and not (spec.loss and node.rng.random() < spec.loss)

    # ---- sleepers

    def _arm_poll(self, node: VirtualNode, now: float) -> None:
        self.call_at(node.next_poll(now), partial(self._poll, node))

    def _expire(self, node: VirtualNode, now: float) -> None:
        """What waited too long at the parent is gone."""
        waiting = self._indirect.get(node.nwk)
        while waiting and waiting[0].expires <= now:
            self.frames_lost += 1
            waiting.pop(0).done(False)

    def _poll(self, node: VirtualNode, now: float) -> None:
        """The node asks its parent, and gets the frame that waited longest."""
        self._expire(node, now)
        waiting = self._indirect.get(node.nwk)
        if not waiting or not node.listens:
            return
        held = waiting.pop(0)
        _, ok = self._mac(node)
        held.done(ok)
        if ok:
            self.frames_down += 1
            self._deliver(node, held.frame, now)
        else:
            self.frames_lost += 1
        if waiting:
            self.call_at(now + _BETWEEN_POLLED_FRAMES_S, partial(self._poll, node))


def _nothing() -> None:
    pass
