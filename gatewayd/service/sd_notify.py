"""Tells systemd how the daemon is: the protocol of sd_notify(3) on $NOTIFY_SOCKET, without a library.

Outside systemd everything here does nothing. What "ready" and "alive" mean is decided by the caller.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Mapping

import structlog

log = structlog.get_logger()


class Notifier:
    """Messages to the service manager, in order; a lost one is logged and never an error."""

    def __init__(self, address: str | None, watchdog_interval_s: float | None) -> None:
        self.address = address
        self.watchdog_interval_s = watchdog_interval_s  # WatchdogSec=; None: no watchdog

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> "Notifier":
        """From NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID; a value that makes no sense counts as absent."""
        address = environ.get("NOTIFY_SOCKET") or None
        if address is not None and address[0] not in "/@":
            log.warning("notify_socket_unknown", address=address)
            address = None
        return cls(address, _watchdog_interval_s(environ))

    def ready(self, status: str = "") -> None:
        self._send("READY=1", status)

    def stopping(self, status: str = "") -> None:
        self._send("STOPPING=1", status)

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send("", text)

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    async def run_watchdog(self, healthy: Callable[[], bool] = lambda: True) -> None:
        """Report life at half the watchdog's interval while `healthy`, until cancelled; returns without a watchdog."""
        if self.address is None or self.watchdog_interval_s is None:
            return
        while True:
            if healthy():
                self.alive()
            await asyncio.sleep(self.watchdog_interval_s / 2)

    def _send(self, state: str, status: str = "") -> None:
        if self.address is None:
            return
        lines = [line for line in (state, f"STATUS={' '.join(status.split())}" if status else "") if line]
        # A leading @ stands for the NUL of the abstract namespace (unix(7)).
        target = "\0" + self.address[1:] if self.address[0] == "@" else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as link:
                link.sendto("\n".join(lines).encode(), target)
        except OSError as error:
            log.warning("notify_failed", state=state, error=str(error))


def _watchdog_interval_s(environ: Mapping[str, str]) -> float | None:
    pid = environ.get("WATCHDOG_PID", "")
    if pid and pid != str(os.getpid()):
        return None  # meant for another process of the service
    usec = environ.get("WATCHDOG_USEC", "")
    return int(usec) / 1e6 if usec.isascii() and usec.isdigit() and int(usec) > 0 else None
