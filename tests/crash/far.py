"""The gateway's end of the pipe to the world: what the daemon's radio stands on, and an agenda for its loop."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import fields
from multiprocessing.connection import Connection
from typing import Any

from radios.errors import RadioError
from radios.lorawan.chirpstack_events import parse_uplink
from radios.lorawan.gateway_bus import GatewayAck, GatewayDownlink
from radios.lorawan.keys import Key
from radios.lorawan.network_server import MulticastGroup, Uplink
from radios.simulated.zigbee.frames import ApsFrame
from radios.simulated.zigbee.node import VirtualNode


class FarWorld:
    """Every call is answered by the world before it returns."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._deadline: float | None = None
        self.ask("listen", False)  # when something is due

    def ask(self, name: str, *arguments: object) -> Any:
        """One request to the world; what it has to tell is told before the answer is returned."""
        self._connection.send((name, arguments))
        result, news, self._deadline = self._connection.recv()
        for what, key, more in news:
            self.told(what, key, more)
        if isinstance(result, RadioError):
            raise result
        return result

    def told(self, what: str, key: Any, more: Any) -> None:
        raise NotImplementedError

    # -- agenda

    def next_deadline(self) -> float | None:
        return self._deadline

    def handle_timeout(self, now: float) -> None:
        self.ask("pass_time", now)


class FarMesh(FarWorld):
    """As `Mesh` for the radio library. `nodes` are copies: who they are, not what they hold."""

    def __init__(self, connection: Connection, nodes: dict[str, VirtualNode]) -> None:
        self.nodes = nodes
        self.route_recorded: object = None
        self._coordinator: Any = None
        self._done: dict[int, Callable[[bool], None]] = {}
        self._calls = 0
        super().__init__(connection)

    def told(self, what: str, key: Any, more: Any) -> None:
        if what == "done":
            self._done.pop(key)(more)
        elif self._coordinator is not None and what == "frame":
            self._coordinator.frame_received(self.nodes[key], more)
        elif self._coordinator is not None:
            self._coordinator.node_changed(self.nodes[key], more)

    @property
    def coordinator(self) -> Any:
        return self._coordinator

    @coordinator.setter
    def coordinator(self, coordinator: Any) -> None:
        self._coordinator = coordinator
        self.ask("listen", coordinator is not None)

    def unicast(
        self, destination: int, frame: ApsFrame, now: float, *, acknowledged: bool, done: Callable[[bool], None]
    ) -> None:
        self._calls += 1
        self._done[self._calls] = done
        self.ask("unicast", self._calls, destination, frame, now, acknowledged)

    def broadcast(self, frame: ApsFrame, now: float, *, to_sleepy: bool = False) -> None:
        self.ask("broadcast", frame, now, to_sleepy)

    def permit_joining(self, seconds: float, now: float) -> None:
        self.ask("permit_joining", seconds, now)


class FarNetwork(FarWorld):
    """As `radios.lorawan.network_server.NetworkServer` for the driver."""

    def __init__(self, connection: Connection, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._uplinks: asyncio.Queue[bytes] = asyncio.Queue()
        super().__init__(connection)

    def told(self, what: str, key: Any, more: Any) -> None:
        assert what == "up", what
        self._uplinks.put_nowait(more)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """A method of the contract that is a request and an answer."""

        async def call(*arguments: object) -> Any:
            return self.ask("call", self._loop.time(), name, arguments)

        return call

    async def create_group(self, group: MulticastGroup) -> str:
        """Keys are not pickled: their bytes go with the rest."""
        keys = group.mc_net_s_key.reveal(), group.mc_app_s_key.reveal()
        bare = {f.name: getattr(group, f.name) for f in fields(group) if not isinstance(getattr(group, f.name), Key)}
        return str(self.ask("make_group", self._loop.time(), bare, *keys))

    async def uplinks(self) -> AsyncIterator[Uplink]:
        while True:
            uplink = parse_uplink(await self._uplinks.get())
            assert isinstance(uplink, Uplink), uplink
            yield uplink

    async def gateway_events(self) -> AsyncIterator[GatewayDownlink | GatewayAck]:
        await asyncio.Event().wait()
        yield  # type: ignore[misc]  # never

    def link_up(self) -> dict[str, bool]:
        """The gateway bus is not heard: what is overheard there is booked as progress, whenever a turn of the loop has room."""
        return {"events": True, "gateway_bus": False}

    async def close(self) -> None:
        pass
