"""The demo's processes: broker, simulated site, daemon. Each is started, watched, and always ended."""

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from gatewayd.demo.authority import Authority
from gatewayd.demo.site import SiteSettings
from gatewayd.errors import Unavailable

STOP_LIMIT_S = 10.0
START_LIMIT_S = 30.0


class Process:
    """A child whose output goes to a file in the demo's folder."""

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self.log = log
        self.stopped = False  # by us
        self.process: asyncio.subprocess.Process | None = None

    async def spawn(self, arguments: Sequence[str], pipes: bool = False) -> None:
        pipe = asyncio.subprocess.PIPE if pipes else None
        self.stopped = False
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *arguments,
                stdin=pipe or asyncio.subprocess.DEVNULL,
                stdout=pipe or log,
                stderr=log,
                limit=2**22,
                # Ctrl-C in the terminal reaches the demo alone, which then ends its children in order.
                start_new_session=True,
            )

    @property
    def ended(self) -> bool:
        return self.process is None or self.process.returncode is not None

    async def kill(self) -> None:
        """SIGKILL, and wait for it."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL when it does not end."""
        await self._end(signal.SIGTERM)

    def tail(self, lines: int = 15) -> str:
        """The end of its log, for error messages."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    async def _end(self, number: signal.Signals) -> None:
        self.stopped = True
        if self.process is None or self.process.returncode is not None:
            return
        self.process.send_signal(number)
        try:
            await asyncio.wait_for(self.process.wait(), STOP_LIMIT_S)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


class Broker(Process):
    """mosquitto where it is installed, else amqtt: MQTT 3.1.1 only, no ACL by certificate, nothing retained on disk.

    Two listeners on loopback: TLS for the cloud's side of the daemon, plain for ChirpStack's integration.
    """

    def __init__(self, folder: Path, authority: Authority, binary: str | None = None) -> None:
        """`binary`: of mosquitto; None looks for it, "" is amqtt."""
        super().__init__("broker", folder / "broker.log")
        self._folder = folder
        self._authority = authority
        found = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin")
        self.binary = found if binary is None else binary
        self.tls_port, self.plain_port = free_port(), free_port()

    @property
    def kind(self) -> str:
        return "mosquitto" if self.binary else "amqtt"

    @property
    def protocol(self) -> str:
        return "5" if self.binary else "3.1.1"

    async def start(self) -> None:
        server = self._authority.server("broker")
        if self.binary:
            config = self._folder / "mosquitto.conf"
            config.write_text(self._mosquitto(server.cert, server.key))
            await self.spawn([self.binary, "-c", str(config)])
        else:
            config = self._folder / "amqtt.json"
            config.write_text(json.dumps(self._amqtt(server.cert, server.key)))
            await self.spawn([sys.executable, "-m", "gatewayd.demo.amqtt_broker", str(config)])
        await self._listening()

    async def _listening(self) -> None:
        for _ in range(int(START_LIMIT_S / 0.1)):
            if self.ended:
                break
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.plain_port)
            except OSError:
                await asyncio.sleep(0.1)
                continue
            writer.close()
            return
        raise Unavailable(f"the broker ({self.kind}) does not start:\n{self.tail()}")

    def _mosquitto(self, cert: Path, key: Path) -> str:
        lines = [
            "per_listener_settings true",
            f"listener {self.tls_port} 127.0.0.1",
            f"cafile {self._authority.ca}",
            f"certfile {cert}",
            f"keyfile {key}",
            "require_certificate true",
            "use_identity_as_username true",
            "allow_anonymous false",
            f"listener {self.plain_port} 127.0.0.1",
            "allow_anonymous true",
        ]
        return "\n".join([*(["user root"] if os.geteuid() == 0 else []), *lines, ""])

    def _amqtt(self, cert: Path, key: Path) -> Mapping[str, object]:
        return {
            "listeners": {
                "default": {"type": "tcp", "bind": f"127.0.0.1:{self.plain_port}"},
                "tls": {
                    "type": "tcp",
                    "bind": f"127.0.0.1:{self.tls_port}",
                    "ssl": True,
                    "cafile": str(self._authority.ca),
                    "certfile": str(cert),
                    "keyfile": str(key),
                },
            },
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }


class Site(Process):
    """The simulated nodes; `nodes` is the newest snapshot by node id."""

    def __init__(self, folder: Path) -> None:
        super().__init__("site", folder / "site.log")
        self.nodes: dict[str, dict[str, object]] = {}
        self.flash: dict[str, str] = {}
        self.reports: dict[str, list[int]] = {}  # sequences of reports that have reached the dongle, by node
        self.dongle: dict[str, object] = {}
        self.network: dict[str, float] = {}  # what LoRaWAN's server and gateway have done
        self.air: dict[str, object] = {}
        self.cut_frames = 0  # that have reached the dongle
        self.headless_frames = 0  # those of them that end within the ZCL header
        # Nodes whose code the dongle was given; it forgets when its host starts it.
        self.install_codes: set[str] = set()
        self.zigbee_url = ""
        self.lorawan_target = ""
        self._reading: asyncio.Task[None] | None = None
        self._came = asyncio.Condition()
        self._told = self._obeyed = 0  # commands

    async def start(self, settings: SiteSettings) -> None:
        await self.spawn([sys.executable, "-m", "gatewayd.demo.site"], pipes=True)
        process = self.process
        if process is None or process.stdin is None or process.stdout is None:
            raise Unavailable("the simulated site does not start")
        process.stdin.write(json.dumps(asdict(settings)).encode() + b"\n")
        try:
            line = await asyncio.wait_for(process.stdout.readline(), START_LIMIT_S)
        except TimeoutError:
            line = b""
        if not line:
            await self.kill()
            raise Unavailable(f"the simulated site does not start:\n{self.tail()}")
        ready = json.loads(line)
        self.zigbee_url, self.lorawan_target = ready["zigbee"], ready["lorawan"]
        self._reading = asyncio.create_task(self._read(process.stdout), name="demo-site")

    async def do(self, what: str) -> None:
        """To the dongle: unplug, plug, reset, replace (`site.Controls`); done when a snapshot has come that knows of it."""
        if self.process is None or self.process.stdin is None:
            raise Unavailable("the simulated site does not run")
        self._told += 1
        told = self._told
        self.process.stdin.write(json.dumps({"do": what}).encode() + b"\n")
        async with self._came, asyncio.timeout(START_LIMIT_S):
            await self._came.wait_for(lambda: self._obeyed >= told)

    async def snapshot(self) -> None:
        """Wait for one that is begun after this call: the next may be on its way already."""
        await self.do("look")

    async def finish(self) -> None:
        """Let it end by itself; `nodes` and `flash` are then the last word."""
        if self.process is None or self.process.stdin is None or self._reading is None:
            return
        self.stopped = True
        self.process.stdin.close()
        await self._reading
        await self.process.wait()

    async def _read(self, stdout: asyncio.StreamReader) -> None:
        while line := await stdout.readline():
            said = json.loads(line)
            self._obeyed = said.get("obeyed", self._obeyed)
            self.nodes = said.get("nodes", self.nodes)
            self.flash = said.get("flash", self.flash)
            self.reports = said.get("reports", self.reports)
            self.dongle = said.get("dongle", self.dongle)
            self.network = said.get("network", self.network)
            self.air = said.get("air", self.air)
            self.cut_frames = said.get("cut_frames", self.cut_frames)
            self.headless_frames = said.get("headless_frames", self.headless_frames)
            self.install_codes.update(said.get("dongle", {}).get("install_codes", ()))
            async with self._came:
                self._came.notify_all()


class Daemon(Process):
    """`gatewayd run`, as an operator would start it."""

    def __init__(self, folder: Path, config: Path) -> None:
        super().__init__("daemon", folder / "gatewayd.log")
        self._config = config
        self.starts = 0
        self.started_at = 0.0  # monotonic

    async def start(self) -> None:
        self.starts += 1
        self.started_at = time.monotonic()
        await self.spawn([sys.executable, "-m", "gatewayd", "run", "--config", str(self._config)])


def free_port() -> int:
    """A TCP port of loopback that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
