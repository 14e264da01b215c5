"""What a frame costs on a shared IEEE 802.15.4 channel at 2.4 GHz: one token that everybody waits for.

Per hop: mean back-off of CSMA/CA drawn 0 to 7 units, carrier sensing, the frame, turnaround and MAC acknowledgement.
"""

import random

BYTE_S = 32e-6
PREAMBLE_S = 192e-6
BACKOFF_UNIT_S = 320e-6
BACKOFF_UNITS = 7
SENSING_S = 128e-6
TURNAROUND_S = 192e-6
MAC_ACK_S = 352e-6
APS_ACK_BYTES = 45
MEAN_BACKOFF_S = BACKOFF_UNITS / 2 * BACKOFF_UNIT_S


def on_air_s(frame_bytes: int) -> float:
    """Seconds that the frame itself is on the air."""
    return PREAMBLE_S + frame_bytes * BYTE_S


def hop_s(frame_bytes: int) -> float:
    """Mean seconds of the channel that one acknowledged frame takes over one hop."""
    return MEAN_BACKOFF_S + SENSING_S + on_air_s(frame_bytes) + TURNAROUND_S + MAC_ACK_S


class Channel:
    """The token. Times are the site's clock; the channel is busy until `free_at`."""

    def __init__(self, seed: int = 0) -> None:
        self.free_at = 0.0
        self.busy_s = 0.0
        self._rng = random.Random(seed)

    def occupy(self, now: float, frame_bytes: int, hops: int, attempts: int) -> float:
        """Take the channel for `attempts` tries over each of `hops` hops; returns when the frame is through."""
        cost = 0.0
        for _ in range(hops * attempts):
            cost += hop_s(frame_bytes) - MEAN_BACKOFF_S + self._rng.randint(0, BACKOFF_UNITS) * BACKOFF_UNIT_S
        self.busy_s += cost
        self.free_at = max(now, self.free_at) + cost
        return self.free_at
