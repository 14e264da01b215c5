"""A sleepy node's Poll Control server (ZCL 3.16): it checks in, waits for the answer, and polls fast as long as it is told.

Sans-I/O; the caller knows whether anybody is bound to it. Times are quarter seconds on the wire, seconds here.
"""

import struct
from dataclasses import dataclass, field

from radios.simulated.zigbee import zcl_server

CLUSTER_POLL_CONTROL = 0x0020
CHECK_IN, CHECK_IN_RESPONSE, FAST_POLL_STOP = 0x00, 0x00, 0x01

_WAITS_FOR_ANSWER_S = 7.68
_SUCCESS, _TIMEOUT, _INVALID_VALUE, _UNSUP_CLUSTER_COMMAND = 0x00, 0x94, 0x87, 0x81
_FAST_POLL_TIMEOUT_S = 10.0  # when the answer says 0


@dataclass(slots=True)
class PollControl:
    """`check_in_s` None: the node has no such cluster. `answers` keeps what the check-ins were answered with."""

    check_in_s: float | None
    poll_s: float
    fast_poll_s: float
    longest_fast_poll_s: float = 600.0
    fast_until: float = float("-inf")
    awaits_answer_until: float = float("-inf")
    next_check_in: float | None = None
    check_ins: int = 0
    answers: list[tuple[bool, float]] = field(default_factory=list)
    stops: int = 0

    def start(self, now: float) -> None:
        """The application runs."""
        self.fast_until = self.awaits_answer_until = float("-inf")
        self.next_check_in = None if self.check_in_s is None else now + self.check_in_s

    def is_due(self, now: float, *, bound: bool) -> bool:
        """Whether to check in now; the next one is planned with it. Unbound, there is nobody to check in with."""
        if self.check_in_s is None or self.next_check_in is None or now < self.next_check_in:
            return False
        self.next_check_in = now + self.check_in_s
        if not bound:
            return False
        self.awaits_answer_until = now + _WAITS_FOR_ANSWER_S
        self.check_ins += 1
        return True

    def polls_fast(self, now: float) -> bool:
        return now < self.fast_until or now < self.awaits_answer_until

    def receive(self, command: int, payload: bytes, now: float) -> int:
        """Take a command of the client; the status for a default response."""
        if command == CHECK_IN_RESPONSE and len(payload) >= 3:
            starts, quarter_seconds = struct.unpack_from("<BH", payload)
            self.answers.append((bool(starts), quarter_seconds / 4))
            if now >= self.awaits_answer_until:
                return _TIMEOUT
            if quarter_seconds / 4 > self.longest_fast_poll_s:
                return _INVALID_VALUE
            self.awaits_answer_until = float("-inf")
            if starts:
                self.fast_until = now + (quarter_seconds / 4 or _FAST_POLL_TIMEOUT_S)
            return _SUCCESS
        if command == FAST_POLL_STOP:
            self.stops += 1
            self.fast_until = float("-inf")
            return _SUCCESS
        return _UNSUP_CLUSTER_COMMAND

    def attributes(self) -> dict[int, zcl_server.Attribute]:
        attribute, u16, u32 = zcl_server.Attribute, zcl_server.U16, zcl_server.U32
        if self.check_in_s is None:
            return {}
        return {
            0x0000: attribute(u32, lambda: round(4 * (self.check_in_s or 0))),
            0x0001: attribute(u32, lambda: round(4 * self.poll_s)),
            0x0002: attribute(u16, lambda: round(4 * self.fast_poll_s)),
            0x0003: attribute(u16, lambda: round(4 * _FAST_POLL_TIMEOUT_S)),
            0x0006: attribute(u16, lambda: round(4 * self.longest_fast_poll_s)),
        }
