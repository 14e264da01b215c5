"""Poll Control (ZCL8 3.16): who of the sleepy nodes is asked to poll fast, for how long, and told to stop.

Responsible for the words and for remembering who was asked. zigpy answers every check-in itself; so that a node gets one
answer only, that answer is changed on its way out (`tap`), and nothing is sent beside it. Times are quarter seconds on the
wire, seconds here.
"""

import struct
from typing import Final

from radios.radio import NodeId

POLL_CONTROL_CLUSTER_ID: Final = 0x0020
LONGEST_S: Final = 1800.0  # a node that hears nothing more goes back to sleep by itself

_CHECK_IN_RESPONSE: Final = 0x00
_FAST_POLL_STOP: Final = 0x01
_TO_SERVER = 0x01  # of the first byte: cluster specific, client to server, no manufacturer
_KIND_MASK = 0x0F
_NO_DEFAULT_RESPONSE = 0x10
_RESPONSE = struct.Struct("<BH")
_HEADER_BYTES = 3


class FastPolls:
    """Which nodes poll fast at our word."""

    def __init__(self) -> None:
        self._until: dict[NodeId, float] = {}
        self._most: dict[NodeId, float] = {}

    def __len__(self) -> int:
        return len(self._until)

    def limit(self, node: NodeId, quarter_seconds: int) -> None:
        """The node's FastPollTimeoutMax: it refuses more."""
        self._most[node] = quarter_seconds / 4

    def answer(self, node: NodeId, frame: bytes, wanted_s: float | None, now: float) -> bytes:
        """The frame to send in place of `frame`, which is zigpy's own; `wanted_s` None: we want nothing of the node."""
        asked = decode_check_in_response(frame)
        if asked is None:
            return frame
        starts, timeout_s = asked
        if wanted_s is None:
            self._until.pop(node, None)
            return frame
        timeout_s = max(wanted_s, timeout_s if starts else 0.0)
        timeout_s = min(timeout_s, LONGEST_S, self._most.get(node) or LONGEST_S)
        self._until[node] = now + timeout_s
        return frame[:_HEADER_BYTES] + _RESPONSE.pack(True, max(1, int(4 * timeout_s)))

    def is_over(self, node: NodeId, now: float) -> bool:
        """Nothing is wanted of the node any more: whether it has to be told to stop."""
        until = self._until.pop(node, None)
        return until is not None and now < until


def decode_check_in_response(frame: bytes) -> tuple[bool, float] | None:
    """Whether it starts fast polling, and its timeout in seconds; None for another frame of the cluster."""
    if len(frame) < _HEADER_BYTES + _RESPONSE.size or frame[0] & _KIND_MASK != _TO_SERVER:
        return None
    if frame[2] != _CHECK_IN_RESPONSE:
        return None
    starts, quarter_seconds = _RESPONSE.unpack_from(frame, _HEADER_BYTES)
    return bool(starts), quarter_seconds / 4


def fast_poll_stop(tsn: int) -> bytes:
    """A whole frame. It has no answer of its own, and none is wanted."""
    return bytes((_TO_SERVER | _NO_DEFAULT_RESPONSE, tsn & 0xFF, _FAST_POLL_STOP))
