"""Parents that hold frames for sleepy nodes until they poll, at most 7.68 s (indirect transmission)."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from radios.simulated.zigbee.channel import Finish
from radios.simulated.zigbee.delivery import Delivery
from radios.simulated.zigbee.node import VirtualNode

INDIRECT_EXPIRY_S = 7.68
_BETWEEN_POLLED_FRAMES_S = 0.01


@dataclass(slots=True, eq=False)
class _Held:
    frame_bytes: int
    expires: float
    finish: Finish


class Parents:
    """One queue per sleeper, whoever its parent is."""

    def __init__(self, delivery: Delivery, call_at: Callable[[float, Callable[[float], None]], None]) -> None:
        self._delivery = delivery
        self._call_at = call_at
        self._held: dict[int, deque[_Held]] = {}
        self._armed: dict[int, float] = {}

    def hold(self, node: VirtualNode, frame_bytes: int, now: float, finish: Finish) -> None:
        """`finish(when, taken)` once: the node has taken the frame, or it expired, or it was lost on the last hop."""
        held = _Held(frame_bytes, now + INDIRECT_EXPIRY_S, finish)
        self._held.setdefault(node.spec.eui64, deque()).append(held)
        self._call_at(held.expires, partial(self._expire, node))
        self.arm_poll(node, now)

    def holds_for(self, node: VirtualNode) -> bool:
        return bool(self._held.get(node.spec.eui64))

    def drop(self, node: VirtualNode, now: float) -> None:
        """The node has another parent now: what the old one holds is never asked for."""
        for held in self._held.pop(node.spec.eui64, ()):
            self._call_at(max(now, held.expires), partial(self._lost, held))

    def arm_poll(self, node: VirtualNode, now: float) -> None:
        """The node's habits may have changed: it polls at its next moment."""
        self._arm(node, node.next_poll(now))

    # ---- within

    def _arm(self, node: VirtualNode, when: float) -> None:
        armed = self._armed.get(node.spec.eui64)
        if armed is None or when < armed:
            self._armed[node.spec.eui64] = when
            self._call_at(when, partial(self._poll_due, node, when))

    def _poll_due(self, node: VirtualNode, armed: float, now: float) -> None:
        if self._armed.get(node.spec.eui64) != armed:
            return  # an earlier poll took its place
        del self._armed[node.spec.eui64]
        if self.holds_for(node) and node.listens:
            self._delivery.poll(node, now, partial(self._polled, node))

    def _polled(self, node: VirtualNode, now: float, ok: bool) -> None:
        """The parent gives out the frame that waited longest."""
        self._expire(node, now)
        queue = self._held.get(node.spec.eui64)
        if not queue:
            return
        if not ok:
            self.arm_poll(node, now)
            return
        held = queue.popleft()
        self._delivery.last_hop(node, held.frame_bytes, now, held.finish)
        if queue:
            self._arm(node, now + _BETWEEN_POLLED_FRAMES_S)

    def _expire(self, node: VirtualNode, now: float) -> None:
        """What waited too long at the parent is gone."""
        queue = self._held.get(node.spec.eui64)
        while queue and queue[0].expires <= now:
            self._lost(queue.popleft(), now)

    def _lost(self, held: _Held, now: float) -> None:
        self._delivery.frames_lost += 1
        held.finish(now, False)
