"""Foreground traffic of a site: random unicasts between nodes and coordinator, and how long each took.

Latency is from handing a message to the sender's stack until its first copy arrives; a message that never arrives took
for ever. Sleepy nodes take no part.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from radios.simulated.zigbee.frames import CLUSTER_BASIC, CLUSTER_POWER, PROFILE_HOME_AUTOMATION, ApsFrame
from radios.simulated.zigbee.mesh import Mesh
from radios.simulated.zigbee.node import VirtualNode

COMMAND_BYTES = 5  # as On/Off with its ZCL header; a default response, which no node answers
_DOWN_SHARE = 0.5
_REPORTED_ATTRIBUTE = 0x0007  # PowerSource: every node has it


class Direction(StrEnum):
    DOWN = "down"
    UP = "up"


@dataclass(slots=True)
class Message:
    """One unicast. `latency_s` None: still on its way."""

    at: float
    node: str
    hops: int
    direction: Direction
    latency_s: float | None = None
    sequence: int | None = None  # of a report's ZCL frame


SendDown = Callable[[VirtualNode, Message], None]


class Foreground:
    """`rate_per_s` unicasts a second (exponential gaps) to and from random listening nodes, with APS acknowledgement.

    Reports of nodes reach the coordinator's host as attribute reports. Commands start at the coordinator's stack, unless
    `send_down` gives them to the host: it then has to call `arrived` or `failed`.
    """

    def __init__(
        self,
        mesh: Mesh,
        rate_per_s: float = 2.0,
        *,
        seed: int = 0,
        down_share: float = _DOWN_SHARE,
        send_down: SendDown | None = None,
    ) -> None:
        self.messages: list[Message] = []
        self._mesh = mesh
        self._rate = rate_per_s
        self._rng = random.Random(f"{seed}/foreground")
        self._down_share = down_share
        self._send_down = send_down
        self._running = False
        self._counter = 0

    def start(self, now: float) -> None:
        if not self._running:
            self._running = True
            self._mesh.call_at(now + self._rng.expovariate(self._rate), self._next)

    def stop(self) -> None:
        """No new messages; those on their way go on."""
        self._running = False

    @property
    def pending(self) -> int:
        return sum(message.latency_s is None for message in self.messages)

    def latencies(self, since: float = -math.inf, until: float = math.inf) -> list[float]:
        """Seconds, of messages begun in [since, until); failed ones and those still on their way are infinite."""
        return [math.inf if m.latency_s is None else m.latency_s for m in self.messages if since <= m.at < until]

    def percentile(self, percent: float = 95.0, since: float = -math.inf, until: float = math.inf) -> float:
        """Nearest-rank percentile of `latencies`. ValueError when there is none."""
        values = sorted(self.latencies(since, until))
        if not values:
            raise ValueError("no message was sent in that time")
        return values[max(0, math.ceil(len(values) * percent / 100) - 1)]

    def arrived(self, message: Message, now: float) -> None:
        """The first copy counts."""
        if message.latency_s is None:
            message.latency_s = now - message.at

    def failed(self, message: Message) -> None:
        if message.latency_s is None:
            message.latency_s = math.inf

    # ---- within

    def _next(self, now: float) -> None:
        if not self._running:
            return
        self._mesh.call_at(now + self._rng.expovariate(self._rate), self._next)
        nodes = [n for n in self._mesh.nodes.values() if n.listens and not n.spec.sleepy]
        if nodes:
            node = self._rng.choice(nodes)
            down = self._rng.random() < self._down_share
            self._send(node, Direction.DOWN if down else Direction.UP, now)

    def _send(self, node: VirtualNode, direction: Direction, now: float) -> None:
        message = Message(now, node.id, node.spec.hops, direction)
        self.messages.append(message)
        if direction is Direction.DOWN and self._send_down is not None:
            self._send_down(node, message)
            return

        def done(arrived: bool) -> None:
            if not arrived:
                self.failed(message)

        def reached(when: float) -> None:
            self.arrived(message, when)

        if direction is Direction.DOWN:
            self._counter = (self._counter + 1) % 256
            payload = bytes((0x18, self._counter, 0x0B)) + bytes(COMMAND_BYTES - 3)
            frame = ApsFrame(PROFILE_HOME_AUTOMATION, CLUSTER_POWER, 1, 1, payload, self._counter)
            self._mesh.unicast(node.nwk, frame, now, acknowledged=True, done=done, arrived=reached)
        else:
            frame = node.report_frame(CLUSTER_BASIC, _REPORTED_ATTRIBUTE)
            message.sequence = frame.payload[1]
            self._mesh.uplink(node, frame, now, acknowledged=True, done=done, arrived=reached)
