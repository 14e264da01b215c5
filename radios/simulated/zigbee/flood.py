"""How a broadcast spreads: every router repeats it once, nobody acknowledges."""

from collections.abc import Callable, Sequence

from radios.simulated.zigbee.delivery import COORDINATOR_STATION, Delivery
from radios.simulated.zigbee.node import VirtualNode

_UNSEEN_ROUTER = 1  # the station of a ring in which there is none of our nodes

Deliver = Callable[[VirtualNode, float], None]


def flood(delivery: Delivery, listeners: Sequence[VirtualNode], frame_bytes: int, now: float, deliver: Deliver) -> None:
    """From the coordinator to all listeners. On a channel ring after ring, and a node misses it when it loses two copies."""
    channel = delivery.channel
    if channel is None:
        for node in listeners:
            delivery.cross(node, frame_bytes, now, _delivering(deliver, node), up=False)
        return

    def reach(hops: int, when: float) -> None:
        ring = [n for n in listeners if n.spec.hops == hops]
        farther = [n for n in listeners if n.spec.hops > hops]
        passed_on = False

        def repeated(at: float, _ok: bool) -> None:
            nonlocal passed_on
            if farther and not passed_on:
                passed_on = True
                reach(hops + 1, at)

        routers = [delivery.route(n).up[0] for n in ring if not n.spec.sleepy]
        if not routers and farther:
            routers = [_UNSEEN_ROUTER]
        for station in routers:
            channel.broadcast(when, station, frame_bytes, repeated)
        for node in ring:
            link = delivery.route(node).link
            if link is None or not (link.lost(when) and link.lost(when)):
                deliver(node, when)

    channel.broadcast(now, COORDINATOR_STATION, frame_bytes, lambda at, _: reach(1, at))


def _delivering(deliver: Deliver, node: VirtualNode) -> Callable[[float, bool], None]:
    def finish(when: float, ok: bool) -> None:
        if ok:
            deliver(node, when)

    return finish
