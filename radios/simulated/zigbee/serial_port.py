"""A pseudo-terminal that stands for a dongle's serial port, and the pace of a serial line.

Responsible for bytes only. As on a real port nobody tells the dongle whether a host has it open.
"""

import asyncio
import contextlib
import os
import termios
import tty
from collections.abc import Callable
from pathlib import Path

_READ_BYTES = 4096
_BITS_PER_BYTE = 10  # start bit, eight, stop bit


class LinePace:
    """One direction of a line of `baud` bits a second; None: no time passes. `scale`: how much faster time runs."""

    def __init__(self, baud: int | None, scale: float = 1.0) -> None:
        self._per_byte_s = 0.0 if baud is None else _BITS_PER_BYTE / baud / scale
        self._free_at = 0.0

    def through_at(self, now: float, size: int) -> float:
        """When the last of `size` bytes that are ready now is at the other end; `now` on a line without pace."""
        if not self._per_byte_s:
            return now
        self._free_at = max(now, self._free_at) + size * self._per_byte_s
        return self._free_at


class PtyPort:
    """`link` becomes a symbolic link to the port, as udev's `/dev/serial/by-id/...`; an existing link is replaced."""

    def __init__(self, link: Path, received: Callable[[bytes], None]) -> None:
        self.dropped_bytes = 0
        self._link = link
        self._received = received
        self._loop = asyncio.get_running_loop()
        # The dongle keeps the host's side open too: a host that closes it must not end the port.
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self._open = True
        fresh = link.with_name(f"{link.name}.new")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(os.ttyname(self._slave))
        fresh.replace(link)
        self._loop.add_reader(self._master, self._readable)

    def write(self, data: bytes) -> None:
        """What a host does not read in time is lost, as on a line without flow control."""
        if not self._open:
            return
        written = 0
        with contextlib.suppress(BlockingIOError):
            written = os.write(self._master, data)
        self.dropped_bytes += len(data) - written

    def forget_unread(self) -> None:
        """What the last host did not read is not for the next one."""
        if self._open:
            termios.tcflush(self._slave, termios.TCIFLUSH)

    def abort(self) -> None:
        """Pull it out: the link is gone and whoever has the port open gets an error."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._master)
            self._link.unlink(missing_ok=True)
            os.close(self._slave)
            os.close(self._master)

    def _readable(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._received(os.read(self._master, _READ_BYTES))
