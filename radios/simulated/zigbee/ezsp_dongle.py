"""A dongle on TCP or a pseudo-terminal: serves one host at a time with ASH and EZSP, as a serial port before a real NCP does.

Hosts may come and go, or die; the NCP and its network live on. bellows opens it as `socket://host:port`, or the path.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from radios.simulated.zigbee.ash import RESET_POWER_ON, RESET_SOFTWARE, RESET_WATCHDOG, AshNcp, Reset
from radios.simulated.zigbee.faults import Faults
from radios.simulated.zigbee.mesh import Mesh
from radios.simulated.zigbee.ncp import Ncp
from radios.simulated.zigbee.network_state import COORDINATOR_EUI64, NetworkState
from radios.simulated.zigbee.serial_port import LinePace, PtyPort

# A reset that arrives before bellows waits for one counts as a crash of the NCP, hence the moment's rest.
BOOT_S = 0.2
BACKLOG_FRAMES = 256
BAUD = 115_200


class EzspDongle:
    """Start with `start()`, stop with `close()`. `now` is the clock of the mesh; the serial line lives in real time.

    `pty`: serve a pseudo-terminal, linked there, instead of TCP. `baud`: the line takes its time for every byte, both
    ways, `time_scale` times faster than in reality.
    """

    def __init__(
        self,
        mesh: Mesh,
        now: Callable[[], float],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        network: NetworkState | None = None,
        eui64: int = COORDINATOR_EUI64,
        pty: Path | None = None,
        baud: int | None = None,
        time_scale: float = 1.0,
    ) -> None:
        self.ncp = Ncp(mesh, now, network, eui64)
        self.connections = 0
        self.overflowed = 0
        self.baud = baud
        self.time_scale = time_scale
        mesh.coordinator = self.ncp
        mesh.route_recorded = self.ncp.route_recorded
        self.host = host
        self._port = port
        self.pty = pty
        self._server: asyncio.Server | None = None
        self._line: _SerialLine | None = None

    @property
    def port(self) -> int:
        return self._port

    @property
    def url(self) -> str:
        """What bellows takes as the path of its device."""
        return str(self.pty) if self.pty is not None else f"socket://{self.host}:{self._port}"

    @property
    def connected(self) -> bool:
        """Whether a host is there; a pseudo-terminal knows only of hosts that have reset the NCP since it was plugged in."""
        return self._line is not None and (self.pty is None or self._line.booted)

    @property
    def faults(self) -> Faults:
        return self.ncp.faults

    async def start(self) -> None:
        """Plug in, for the first time or again after `unplug`."""
        if self.pty is not None:
            self._open_pty(self.pty)
            return
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _SerialLine(self), self.host, self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Unplug for good."""
        server = self._server
        self.unplug()
        if server is not None:
            await server.wait_closed()

    def unplug(self) -> None:
        """Pull the dongle out: it loses power, and cannot be opened until `start`."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._line is not None:
            self._line.abort()

    def drop_connection(self) -> None:
        """Unplug and plug in again: the host has to connect anew."""
        if self._line is not None:
            self._line.abort()
            if self.pty is not None:
                self._open_pty(self.pty)

    def reset_ncp(self, code: int = RESET_WATCHDOG) -> None:
        """The NCP crashes and boots by itself."""
        if self._line is not None:
            self._line.restart(code)

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

    def _open_pty(self, link: Path) -> None:
        line = _SerialLine(self)
        line.plug_in(PtyPort(link, line.data_received))


class _Transport(Protocol):
    def write(self, data: bytes, /) -> None: ...

    def abort(self) -> None: ...


class _SerialLine(asyncio.Protocol):
    """One host's connection, or a pseudo-terminal for as long as it is plugged in."""

    def __init__(self, dongle: EzspDongle) -> None:
        self.booted = False
        self._dongle = dongle
        self._ash = AshNcp()
        self._loop = asyncio.get_running_loop()
        self._transport: _Transport | None = None
        self._flush_soon: asyncio.Handle | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._to_ncp = LinePace(dongle.baud, dongle.time_scale)
        self._to_host = LinePace(dongle.baud, dongle.time_scale)

    # ---- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  a TCP server makes no other
        self._transport = transport
        self._dongle.opened(self)
        self._loop.call_later(BOOT_S, self._boot)

    def data_received(self, data: bytes) -> None:
        now = self._loop.time()
        at = self._to_ncp.through_at(now, len(data))
        if at > now:
            self._loop.call_at(at, self._take, data)
        else:
            self._take(data)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._transport = None
        for handle in (self._flush_soon, self._retry):
            if handle is not None:
                handle.cancel()
        self._dongle.closed(self)

    # ---- the dongle's side

    def plug_in(self, port: PtyPort) -> None:
        """Nobody hears the NCP boot: the port was not there to be opened."""
        self._transport = port
        self._dongle.opened(self)

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
        self.booted = True
        self._dongle.ncp.reset()
        self._ash.restart(code)
        self._flush()

    def abort(self) -> None:
        if self._transport is not None:
            transport = self._transport
            transport.abort()
            if isinstance(transport, PtyPort):
                self.connection_lost(None)
        self._dongle.closed(self)

    def _take(self, data: bytes) -> None:
        if self._transport is None or self._dongle.faults.hung:
            return
        for frame in self._ash.receive(data, self._loop.time()):
            if frame is Reset.REQUESTED:
                if isinstance(self._transport, PtyPort):
                    self._transport.forget_unread()
                self.restart(RESET_SOFTWARE)
            elif self.booted:
                self._dongle.ncp.receive(frame)
        self._flush()

    def _boot(self) -> None:
        if not self.booted:
            self.restart(RESET_POWER_ON)

    def _flush(self) -> None:
        if self._flush_soon is not None:
            self._flush_soon.cancel()
            self._flush_soon = None
        data = self._ash.to_send()
        if data and self._transport is not None:
            now = self._loop.time()
            at = self._to_host.through_at(now, len(data))
            if at > now:
                self._loop.call_at(at, self._write, data)
            else:
                self._write(data)
        deadline = self._ash.next_deadline()
        if deadline is not None and self._retry is None and self._transport is not None:
            self._retry = self._loop.call_at(deadline, self._check_retry)

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._dongle.faults.hung:
            self._transport.write(data)

    def _check_retry(self) -> None:
        self._retry = None
        self._ash.handle_timeout(self._loop.time())
        self._flush()
