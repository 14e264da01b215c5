"""The NCP's side of ASH, Silicon Labs' serial framing (UG101): sans-I/O, byte streams in, EZSP frames out.

Responsible for framing, checksums, order and repetition, and nothing of what the frames say. Cheap on purpose: a
download through the dongle moves some six frames per block.
"""

import binascii
import re
from collections import deque
from enum import Enum

FLAG, ESCAPE, XON, XOFF, SUBSTITUTE, CANCEL = 0x7E, 0x7D, 0x11, 0x13, 0x18, 0x1A
RESET_POWER_ON, RESET_WATCHDOG, RESET_SOFTWARE = 0x02, 0x03, 0x0B

# bellows throws away what exceeds 1024 bytes in its buffer, so few frames may be on their way at once.
WINDOW = 4
RETRY_S = 1.6
MAX_STREAM_BYTES = 4096

_DATA_MASK, _CONTROL_MASK = 0x80, 0xE0
_ACK, _NAK, _RST, _RSTACK = 0x80, 0xA0, 0xC0, 0xC1
_ASH_VERSION = 0x02
_TO_ESCAPE = re.compile(rb"[\x7e\x7d\x11\x13\x18\x1a]")
_ESCAPED = re.compile(rb"\x7d(.)", re.DOTALL)
_FLOW_CONTROL = bytes((XON, XOFF))


class Reset(Enum):
    """In place of a frame: the host asked for a reset."""

    REQUESTED = "requested"


def _noise(length: int) -> bytes:
    """The pseudo-random sequence that DATA fields are mixed with."""
    out = bytearray()
    register = 0x42
    for _ in range(length):
        out.append(register)
        register = register >> 1 ^ (0xB8 if register & 1 else 0)
    return bytes(out)


_NOISE_BYTES = 256
_NOISE = int.from_bytes(_noise(_NOISE_BYTES), "big")


def _mix(data: bytes) -> bytes:
    size = len(data)
    return (int.from_bytes(data, "big") ^ _NOISE >> 8 * (_NOISE_BYTES - size)).to_bytes(size, "big")


def _framed(content: bytes) -> bytes:
    whole = content + binascii.crc_hqx(content, 0xFFFF).to_bytes(2, "big")
    return _TO_ESCAPE.sub(lambda found: bytes((ESCAPE, found[0][0] ^ 0x20)), whole) + b"\x7e"


class AshNcp:
    """One connection. `receive` and `send` queue bytes that `to_send` gives out."""

    def __init__(self) -> None:
        self._buffer = b""
        self._out: list[bytes] = []
        self._queue: deque[bytes] = deque()
        self._unacknowledged: deque[tuple[int, bytes]] = deque()
        self._next_tx = 0
        self._next_rx = 0
        self._must_acknowledge = False
        self._rejecting = False
        self._retry_at: float | None = None

    @property
    def backlog(self) -> int:
        """Frames that wait for a place in the window."""
        return len(self._queue)

    def restart(self, code: int) -> None:
        """Forget everything and say so: the NCP has reset."""
        self.__init__()  # type: ignore[misc]  # the state after a reset is the state at the start
        self._out.append(_framed(bytes((_RSTACK, _ASH_VERSION, code))))

    def receive(self, data: bytes, now: float) -> list[bytes | Reset]:
        """Take bytes of the stream; whole EZSP frames and resets, in order. Damaged frames are rejected or dropped."""
        parts = (self._buffer + data).split(b"\x7e")
        self._buffer = parts.pop()[-MAX_STREAM_BYTES:]
        frames: list[bytes | Reset] = []
        for part in parts:
            frame = self._frame(part, now)
            if frame is not None:
                frames.append(frame)
        return frames

    def send(self, frame: bytes, now: float) -> None:
        """Queue one EZSP frame of up to 200 bytes."""
        self._queue.append(frame)
        self._fill_window(now)

    def to_send(self) -> bytes:
        """Bytes for the stream; drained."""
        if self._must_acknowledge:
            self._must_acknowledge = False
            self._out.append(_framed(bytes((_ACK | self._next_rx,))))
        out = b"".join(self._out)
        self._out.clear()
        return out

    def next_deadline(self) -> float | None:
        return self._retry_at

    def handle_timeout(self, now: float) -> None:
        """Repeat what the host did not acknowledge. TCP loses nothing, a host that hangs does."""
        if self._retry_at is not None and now >= self._retry_at:
            self._repeat(now)

    # ---- within

    def _frame(self, part: bytes, now: float) -> bytes | Reset | None:
        if CANCEL in part:
            part = part[part.rindex(CANCEL) + 1 :]
        if not part or SUBSTITUTE in part:
            return None
        if XON in part or XOFF in part:
            part = part.translate(None, _FLOW_CONTROL)
        if ESCAPE in part:
            part = _ESCAPED.sub(lambda found: bytes((found[1][0] ^ 0x20,)), part)
        if len(part) < 3 or binascii.crc_hqx(part[:-2], 0xFFFF) != int.from_bytes(part[-2:], "big"):
            self._reject()
            return None
        control = part[0]
        if control & _DATA_MASK == 0:
            return self._data(control, part[1:-2], now)
        kind = control & _CONTROL_MASK
        if kind in (_ACK, _NAK):
            self._acknowledged(control & 0x07, now)
            if kind == _NAK:
                self._repeat(now)
            return None
        return Reset.REQUESTED if control == _RST else None

    def _data(self, control: int, body: bytes, now: float) -> bytes | None:
        self._acknowledged(control & 0x07, now)
        if control >> 4 != self._next_rx:
            if control & 0x08:
                self._must_acknowledge = True
            else:
                self._reject()
            return None
        self._next_rx = (self._next_rx + 1) % 8
        self._must_acknowledge = True
        self._rejecting = False
        return _mix(body) if len(body) <= _NOISE_BYTES else None

    def _reject(self) -> None:
        if not self._rejecting:
            self._rejecting = True
            self._out.append(_framed(bytes((_NAK | self._next_rx,))))

    def _acknowledged(self, number: int, now: float) -> None:
        """`number` is the next frame that the host expects."""
        waiting = self._unacknowledged
        if (number - (waiting[0][0] if waiting else self._next_tx)) % 8 > len(waiting):
            return
        while waiting and waiting[0][0] != number:
            waiting.popleft()
        self._retry_at = now + RETRY_S if waiting else None
        self._fill_window(now)

    def _fill_window(self, now: float) -> None:
        while self._queue and len(self._unacknowledged) < WINDOW:
            frame = _mix(self._queue.popleft())
            self._unacknowledged.append((self._next_tx, frame))
            self._write(self._next_tx, frame, again=False)
            self._next_tx = (self._next_tx + 1) % 8
            if self._retry_at is None:
                self._retry_at = now + RETRY_S

    def _repeat(self, now: float) -> None:
        for number, frame in self._unacknowledged:
            self._write(number, frame, again=True)
        self._retry_at = now + RETRY_S if self._unacknowledged else None

    def _write(self, number: int, mixed: bytes, *, again: bool) -> None:
        self._must_acknowledge = False  # it says so itself
        self._out.append(_framed(bytes((number << 4 | (0x08 if again else 0) | self._next_rx,)) + mixed))
