"""A whole simulated LoRaWAN site: virtual nodes, gateways and a ChirpStack, on a clock that may be scaled."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Self

from radios.clock import Clock
from radios.radio import Json, NodeId, parse_node_id
from radios.simulated.chirpstack.mqtt import MqttIntegration, MqttSettings
from radios.simulated.chirpstack.network import NetworkServer, NetworkSettings
from radios.simulated.chirpstack.server import ChirpStackServer
from radios.simulated.lorawan.bootloader import Verify
from radios.simulated.lorawan.node import VirtualNode
from radios.simulated.lorawan.spec import NodeSpec

_IDLE_STEP_S = 60.0


class LorawanSite:
    """Async context manager. Without `mqtt` no events are published (they stay in `network.events`)."""

    def __init__(
        self,
        nodes: Sequence[NodeSpec],
        clock: Clock,
        *,
        verify: Verify,
        settings: NetworkSettings,
        api_token: str,
        mqtt: MqttSettings | None = None,
        grpc_host: str = "127.0.0.1",
        grpc_port: int = 0,
    ) -> None:
        self._clock = clock
        self.network = NetworkServer(settings, nodes, verify, clock.now())
        self.nodes: Mapping[NodeId, VirtualNode] = {
            parse_node_id(f"lorawan:{dev_eui}"): node for dev_eui, node in self.network.nodes.items()
        }
        self._changed = asyncio.Event()
        self._server = ChirpStackServer(self.network, clock, api_token, self._changed.set, grpc_host, grpc_port)
        self.mqtt = MqttIntegration(mqtt, self.network, self._asked) if mqtt is not None else None
        self._tasks: asyncio.TaskGroup | None = None
        self._running: list[asyncio.Task[None]] = []

    @property
    def grpc_target(self) -> str:
        """host:port for a client; the real port once entered."""
        return self._server.target

    async def __aenter__(self) -> Self:
        await self._server.start()
        self._tasks = asyncio.TaskGroup()
        await self._tasks.__aenter__()
        self._running.append(self._tasks.create_task(self._run(), name="lorawan-site"))
        if self.mqtt is not None:
            self._running.append(self._tasks.create_task(self.mqtt.run(), name="chirpstack-mqtt"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._server.stop()
        for task in self._running:
            task.cancel()
        if self._tasks is not None:
            await self._tasks.__aexit__(kind, error, trace)

    async def stop_grpc(self) -> None:
        """As if ChirpStack's API went away: gateways, queues and nodes go on."""
        await self._server.stop()

    async def start_grpc(self) -> None:
        """Back on the same port."""
        await self._server.start()

    def snapshot(self) -> dict[str, Json]:
        """Per node id, JSON-able, for people watching."""
        now = self._clock.now()
        return {str(node_id): self._node_snapshot(node, now) for node_id, node in self.nodes.items()}

    def _node_snapshot(self, node: VirtualNode, now: float) -> dict[str, Json]:
        session = node.fragmentation.session
        fragments = node.fragment_counters
        counters: dict[str, Json] = {
            **asdict(node.counters),
            **asdict(fragments),
            **asdict(self.network.air.counters[node.spec.dev_eui]),
            "class_c_sessions": node.multicast.sessions_opened,
            "swaps": node.bootloader.swaps,
            "rollbacks": node.bootloader.rollbacks,
        }
        return {
            "name": node.spec.name,
            "version": node.version,
            "hardware": node.spec.hardware,
            "state": node.state(now),
            "received": session.decoder.confirmed_fragments if session else 0,
            "total": session.decoder.nb_frag if session else 0,
            "lost": session.decoder.lost if session else 0,
            "battery_percent": node.battery_percent,
            "mains": node.spec.mains,
            "groups": len(node.multicast.groups),
            "tags": dict(self.network.devices[node.spec.dev_eui].spec.tags),
            "counters": counters,
            "downlinks": dict(node.downlinks),
        }

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            self._catch_up()
            await self._wait(self.network.next_deadline())

    async def _wait(self, deadline: float | None) -> None:
        """Until the next thing is due, or something was asked of the server."""
        when = self._clock.now() + _IDLE_STEP_S if deadline is None else deadline
        sleep = asyncio.ensure_future(self._clock.sleep_until(when))
        changed = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait((sleep, changed), return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleep.cancel()
            changed.cancel()

    def _asked(self) -> None:
        """Before a command is carried out: the past is settled, and the runner looks again after it."""
        self._catch_up()
        self._changed.set()

    def _catch_up(self) -> None:
        self.network.advance(self._clock.now())
        if self.mqtt is not None:
            while self.network.events:
                self.mqtt.publish(self.network.events.popleft())
            while self.network.bus:
                self.mqtt.publish_bus(self.network.bus.popleft())
