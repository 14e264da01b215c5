import asyncio
import contextlib
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatewayd.service.sd_notify import Notifier


@contextlib.contextmanager
def manager(address: str) -> Iterator[socket.socket]:
    """The service manager's end of the socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(address)
        server.settimeout(10)
        yield server


def test_ready_stopping_and_status_arrive(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with manager(path) as server:
        notifier = Notifier.from_environ({"NOTIFY_SOCKET": path})
        notifier.ready("2 radios")
        notifier.status("one\nREADY=0")
        notifier.stopping()
        notifier.alive()
        received = [server.recv(1000).decode() for _ in range(4)]
    assert received == ["READY=1\nSTATUS=2 radios", "STATUS=one READY=0", "STOPPING=1", "WATCHDOG=1"]


def test_an_abstract_socket() -> None:
    name = f"gatewayd-test-{uuid.uuid4()}"
    with manager(f"\0{name}") as server:
        Notifier.from_environ({"NOTIFY_SOCKET": f"@{name}"}).ready()
        assert server.recv(1000) == b"READY=1"


async def test_the_watchdog_is_fed_while_healthy(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    answers = iter([True, False, True])
    asked = asyncio.Event()

    def healthy() -> bool:
        try:
            return next(answers)
        except StopIteration:
            asked.set()
            return False

    with manager(path) as server:
        notifier = Notifier.from_environ({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "2000"})
        task = asyncio.create_task(notifier.run_watchdog(healthy))
        await asyncio.wait_for(asked.wait(), 10)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert [server.recv(1000), server.recv(1000)] == [b"WATCHDOG=1", b"WATCHDOG=1"]
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.recv(1000)


@pytest.mark.parametrize(
    ("environ", "interval_s"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_interval(environ: dict[str, str], interval_s: float | None) -> None:
    assert Notifier.from_environ(environ).watchdog_interval_s == interval_s


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}])
async def test_without_a_manager_nothing_happens(environ: dict[str, str]) -> None:
    notifier = Notifier.from_environ({**environ, "WATCHDOG_USEC": "1000"})
    notifier.ready()
    await asyncio.wait_for(notifier.run_watchdog(), 10)


def test_a_manager_that_is_gone_is_no_error(tmp_path: Path) -> None:
    Notifier.from_environ({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).ready()
