"""A dongle on TCP: serves one host at a time with ASH and EZSP, as a serial server before a real NCP does.

Hosts may come and go, or die; the NCP and its network live on. bellows opens it as `socket://host:port`.
"""

import asyncio
from collections.abc import Callable

from radios.simulated.zigbee.ash import RESET_POWER_ON, RESET_SOFTWARE, RESET_WATCHDOG, AshNcp, Reset
from radios.simulated.zigbee.mesh import Mesh
from radios.simulated.zigbee.ncp import Faults, Ncp
from radios.simulated.zigbee.network_state import COORDINATOR_EUI64, NetworkState

# A reset that arrives before bellows waits for one counts as a crash of the NCP, hence the moment's rest.
BOOT_S = 0.2
BACKLOG_FRAMES = 256


class EzspDongle:
    """Start with `start()`, stop with `close()`. `now` is the clock of the mesh; the serial line lives in real time."""

    def __init__(
        self,
        mesh: Mesh,
        now: Callable[[], float],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        network: NetworkState | None = None,
        eui64: int = COORDINATOR_EUI64,
    ) -> None:
        self.ncp = Ncp(mesh, now, network, eui64)
        self.connections = 0
        self.overflowed = 0
        mesh.coordinator = self.ncp
        self._host = host
        self._port = port
        self._server: asyncio.Server | None = None
        self._line: _SerialLine | None = None

    @property
    def port(self) -> int:
        return self._port

    @property
    def url(self) -> str:
        """What bellows takes as the path of its device."""
        return f"socket://{self._host}:{self._port}"

    @property
    def connected(self) -> bool:
        return self._line is not None

    @property
    def faults(self) -> Faults:
        return self.ncp.faults

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _SerialLine(self), self._host, self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Unplug for good."""
        self.drop_connection()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    def drop_connection(self) -> None:
        """Unplug and plug in again: the host has to connect anew."""
        if self._line is not None:
            self._line.abort()

    def reset_ncp(self) -> None:
        """The NCP crashes and boots by itself."""
        if self._line is not None:
            self._line.restart(RESET_WATCHDOG)

    def opened(self, line: "_SerialLine") -> None:
        """A host has connected; a former one is cut off."""
        if self._line is not None:
            self._line.abort()
        self.connections += 1
        self._line = line
        self.ncp.reset()
        self.ncp.send = line.send

    def closed(self, line: "_SerialLine") -> None:
        """A host is gone."""
        if self._line is line:
            self._line = None
            self.ncp.send = None


class _SerialLine(asyncio.Protocol):
    """One host's connection."""

    def __init__(self, dongle: EzspDongle) -> None:
        self._dongle = dongle
        self._ash = AshNcp()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._flush_soon: asyncio.Handle | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._booted = False

    # ---- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  a TCP server makes no other
        self._transport = transport
        self._dongle.opened(self)
        self._loop.call_later(BOOT_S, self._boot)

    def data_received(self, data: bytes) -> None:
        for frame in self._ash.receive(data, self._loop.time()):
            if frame is Reset.REQUESTED:
                self.restart(RESET_SOFTWARE)
            elif self._booted:
                self._dongle.ncp.receive(frame)
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._transport = None
        for handle in (self._flush_soon, self._retry):
            if handle is not None:
                handle.cancel()
        self._dongle.closed(self)

    # ---- the dongle's side

    def send(self, frame: bytes) -> None:
        """Queue one EZSP frame; those of one turn of the loop leave in one write."""
        if self._ash.backlog >= BACKLOG_FRAMES:
            self._dongle.overflowed += 1
            return
        self._ash.send(frame, self._loop.time())
        if self._flush_soon is None:
            self._flush_soon = self._loop.call_soon(self._flush)

    def restart(self, code: int) -> None:
        """The NCP has reset: tell the host."""
        self._booted = True
        self._dongle.ncp.reset()
        self._ash.restart(code)
        self._flush()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        self._dongle.closed(self)

    def _boot(self) -> None:
        if not self._booted:
            self.restart(RESET_POWER_ON)

    def _flush(self) -> None:
        if self._flush_soon is not None:
            self._flush_soon.cancel()
            self._flush_soon = None
        data = self._ash.to_send()
        if data and self._transport is not None:
            self._transport.write(data)
        deadline = self._ash.next_deadline()
        if deadline is not None and self._retry is None and self._transport is not None:
            self._retry = self._loop.call_at(deadline, self._check_retry)

    def _check_retry(self) -> None:
        self._retry = None
        self._ash.handle_timeout(self._loop.time())
        self._flush()
