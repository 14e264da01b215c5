"""A whole simulated Zigbee site for one event loop: nodes, mesh and dongle, driven by a clock.

The only module here that knows asyncio beside the dongle's serial line.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Self

from radios.clock import Clock
from radios.simulated.zigbee.channel import Channel
from radios.simulated.zigbee.ezsp_dongle import EzspDongle
from radios.simulated.zigbee.mesh import HOP_DELAY_S, Mesh
from radios.simulated.zigbee.network_state import ready_made
from radios.simulated.zigbee.node import VirtualNode, describe_state
from radios.simulated.zigbee.node_spec import NodeSpec

# Real seconds. What is due within one tick happens together: a loop that wakes for every frame costs more than the frames.
TICK_S = 0.004

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


class MeshDriver:
    """Runs a sans-I/O mesh on an event loop with one timer. The clock may be scaled; `scale` is read from it if it has one."""

    def __init__(self, mesh: Mesh, clock: Clock) -> None:
        self._mesh = mesh
        self._clock = clock
        self._scale = float(getattr(clock, "scale", 1.0))
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for = 0.0
        self._running = False
        mesh.wake = self._arm

    def close(self) -> None:
        self._running = True  # nothing is armed any more
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        deadline = self._mesh.next_deadline()
        if self._running or deadline is None or (self._timer is not None and self._armed_for <= deadline):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._armed_for = deadline
        wait_s = (deadline - self._clock.now()) / self._scale
        now = self._loop.time()
        self._timer = self._loop.call_at(math.ceil((now + wait_s) / TICK_S) * TICK_S, self._run)

    def _run(self) -> None:
        self._timer = None
        self._running = True
        try:
            self._mesh.handle_timeout(self._clock.now())
        finally:
            self._running = False
            self._arm()


class ZigbeeSite:
    """`async with ZigbeeSite(specs, clock) as site:` then give `site.url` to bellows.

    `formed`: the network exists already, as the joined nodes do; otherwise the host has to form one. `pty`, `baud`: as in
    `EzspDongle`.
    """

    def __init__(
        self,
        nodes: Sequence[NodeSpec],
        clock: Clock,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        channel: Channel | None = None,
        hop_delay_s: float = HOP_DELAY_S,
        formed: bool = True,
        seed: int = 0,
        pty: Path | None = None,
        baud: int | None = None,
        neighbours: Mapping[int, Sequence[int]] | None = None,
    ) -> None:
        self.clock = clock
        self.mesh = Mesh(nodes, channel=channel, hop_delay_s=hop_delay_s, seed=seed, neighbours=neighbours)
        self.dongle = EzspDongle(
            self.mesh,
            clock.now,
            host=host,
            port=port,
            network=ready_made(str(seed)) if formed else None,
            pty=pty,
            baud=baud,
            time_scale=float(getattr(clock, "scale", 1.0)),
        )
        self._driver: MeshDriver | None = None

    @property
    def url(self) -> str:
        return self.dongle.url

    @property
    def nodes(self) -> Mapping[str, VirtualNode]:
        """By id: "zigbee:" and 16 hex digits."""
        return self.mesh.nodes

    async def __aenter__(self) -> Self:
        self._driver = MeshDriver(self.mesh, self.clock)
        await self.dongle.start()
        self.mesh.power_on(self.clock.now())
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.dongle.close()
        if self._driver is not None:
            self._driver.close()

    async def replace_dongle(self, eui64: int) -> None:
        """Another dongle in the same place, fresh from the factory: it holds no network."""
        old = self.dongle
        old.unplug()
        self.dongle = EzspDongle(
            self.mesh,
            self.clock.now,
            host=old.host,
            port=old.port,
            eui64=eui64,
            pty=old.pty,
            baud=old.baud,
            time_scale=old.time_scale,
        )
        await self.dongle.start()

    def reboot(self, node: str) -> None:
        """A node loses power for a moment. KeyError when there is no such node."""
        self.mesh.reboot(self.nodes[node], self.clock.now())

    def report(self, node: str, cluster: int, attribute: int) -> None:
        """A node reports an attribute, as foreground traffic. KeyError when it has none such."""
        self.nodes[node].report(cluster, attribute)
        self.mesh.settle(self.nodes[node], self.clock.now())

    def snapshot(self) -> dict[str, Json]:
        """What every node holds and does, for displays: JSON-able."""
        return {name: describe(node) for name, node in self.nodes.items()}


def describe(node: VirtualNode) -> Json:
    """One node for displays; offset and size are 0 while nothing is downloaded."""
    target = node.ota.target
    counters: dict[str, Json] = dict(asdict(node.counters))
    return {
        "id": node.id,
        "model": node.spec.model,
        "version": node.running_version,
        "state": describe_state(node),
        "offset": len(node.ota.staged),
        "size": 0 if target is None else target.size,
        "target_version": None if target is None else target.version,
        "battery": None if node.battery_percent is None else round(node.battery_percent, 1),
        "sleepy": node.spec.sleepy,
        "joined": node.joined,
        "check_ins": node.polls.check_ins,
        "fast_polls": sum(starts for starts, _ in node.polls.answers),
        "reset_cause": node.bootloader.reset_cause.value,
        "resets": node.resets,
        "version_history": [
            {"at": change.at, "version": change.version, "cause": change.cause.value} for change in node.version_history
        ],
        **counters,
    }
