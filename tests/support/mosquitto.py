"""Debian's mosquitto as the real broker: TLS, client certificates (CN = user name), an ACL per gateway; or plain.

    with Mosquitto(tmp_path / "broker", authority, {"gw-a": ("fleet-1",), "gw-b": ()}) as broker: ...

Gateways have what config/ and gatewayd/cloud/README.md tell an operator to set up: they read their own campaigns, commands,
acks, state and requests to nodes and the campaigns of their fleets, and write their own reports, state, inventory,
summaries, node traffic and responses. The identity
`cloud` may do everything below ota/v1. What is retained survives `kill`.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiomqtt

from gatewayd.demo.authority import Authority

BINARY = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
CLOUD = "cloud"
START_LIMIT_S = 10.0


class Mosquitto:
    """A broker on `host`:`port` of loopback. Without an authority: no TLS, anybody may do anything."""

    host = "localhost"

    def __init__(
        self,
        folder: Path,
        authority: Authority | None = None,
        gateways: Mapping[str, Sequence[str]] | None = None,
        extra: str = "",
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.authority = authority
        self.port = free_port()
        self._gateways = dict(gateways or {})
        self._extra = extra
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def log(self) -> str:
        """Everything that the broker has said so far."""
        return (self.folder / "mosquitto.log").read_text(errors="replace")

    def start(self) -> None:
        """Start, or start again on the same port with what was retained; returns when it accepts connections."""
        first = self._process is None
        for attempt in range(5):
            if first and attempt:
                self.port = free_port()  # somebody was faster with the one we had found
            if self._launch():
                return
            time.sleep(0.2)
        raise RuntimeError(f"mosquitto does not start:\n{self.log}")

    def kill(self) -> None:
        """SIGKILL: connections break at once, nobody gets a DISCONNECT. What was retained is saved before."""
        if self._process is not None and self._process.poll() is None:
            before = self._saved()
            self._process.send_signal(signal.SIGUSR1)  # write the database now
            end = time.monotonic() + 2
            while self._saved() == before and time.monotonic() < end:
                time.sleep(0.01)
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM: an orderly end."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        self.kill()
        self.start()

    def client(self, name: str, **arguments: Any) -> aiomqtt.Client:
        """An MQTT 5 client of this identity, to be entered: `async with broker.client("cloud") as cloud`."""
        context = self.authority.client_context(name) if self.authority else None
        settings: dict[str, Any] = {"identifier": f"test-{name}-{os.urandom(4).hex()}"}
        settings["protocol"] = aiomqtt.ProtocolVersion.V5
        settings.update(arguments)
        return aiomqtt.Client(self.host, self.port, tls_context=context, **settings)

    def _launch(self) -> bool:
        config = self.folder / "mosquitto.conf"
        config.write_text(self._config())
        with (self.folder / "mosquitto.log").open("ab") as log:
            process = subprocess.Popen([BINARY, "-c", str(config), "-v"], stdout=log, stderr=log)
        self._process = process
        end = time.monotonic() + START_LIMIT_S
        while time.monotonic() < end and process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.02)
                continue
            if process.poll() is None:  # it is ours that answers, not another that has the port
                return True
        self.kill()
        return False

    def _end(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(10)

    def _saved(self) -> int | None:
        database = self.folder / "mosquitto.db"
        return database.stat().st_mtime_ns if database.exists() else None

    def _config(self) -> str:
        lines = [
            f"listener {self.port} 127.0.0.1",
            f"persistence_location {self.folder}/",
            "persistence true",
        ]
        if os.geteuid() == 0:
            lines.append("user root")  # it would change to a user that cannot read the test's folder
        if self.authority is None:
            lines.append("allow_anonymous true")
        else:
            server = self.authority.server("broker")
            acl = self.folder / "acl"
            acl.write_text(acl_text(self._gateways))
            acl.chmod(0o600)
            lines += [
                f"cafile {self.authority.ca}",
                f"certfile {server.cert}",
                f"keyfile {server.key}",
                "require_certificate true",
                "use_identity_as_username true",
                "allow_anonymous false",
                f"acl_file {acl}",
            ]
        return "\n".join([*lines, self._extra, ""])


def acl_text(gateways: Mapping[str, Sequence[str]]) -> str:
    """The ACL file for gateways and their fleets."""
    lines = [f"user {CLOUD}", "topic readwrite ota/v1/#"]
    for gateway, fleets in gateways.items():
        lines += ["", f"user {gateway}", *(f"topic read ota/v1/fleets/{fleet}/campaigns/+" for fleet in fleets)]
    read = ("campaigns/+", "commands", "acks", "state", "nodes/requests")
    write = ("reports", "state", "inventory/+", "summary/+", "nodes/+/+", "nodes/responses")
    lines += ["", *(f"pattern read ota/v1/gateways/%u/{leaf}" for leaf in read)]
    lines += [f"pattern write ota/v1/gateways/%u/{leaf}" for leaf in write]
    return "\n".join([*lines, ""])


def free_port() -> int:
    """A TCP port of loopback that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
