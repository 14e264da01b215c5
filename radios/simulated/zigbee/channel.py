"""The shared IEEE 802.15.4 channel at 2.4 GHz: what frames cost on it, whose turn it is, and what is lost.

One transmission at a time, for all hops of the mesh. A station's frames go out in order; which of the stations that have
one goes next is drawn, as CSMA/CA does not know who waited longest. The back-off is part of each transmission, so nothing
is faster than `lower_bound_s`. Collisions happen when they are asked for; else, and for channel access failures, `lost` stands.
"""

import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

BYTE_S = 32e-6
PREAMBLE_S = 192e-6
BACKOFF_UNIT_S = 320e-6
BACKOFF_UNITS = 7
SENSING_S = 128e-6
TURNAROUND_S = 192e-6
MAC_ACK_S = 352e-6
MAC_RETRIES = 3
MEAN_BACKOFF_S = BACKOFF_UNITS / 2 * BACKOFF_UNIT_S
DATA_REQUEST_S = 1.6e-3  # mean of a sleeper's poll of its parent, with back-off and acknowledgement

HEADER_BYTES = 11 + 8 + 14 + 4 + 8  # MAC with FCS, NWK, NWK security header and MIC, APS
ZCL_BYTES = 3
APS_ACK_BYTES = HEADER_BYTES
BLOCK_REQUEST_BYTES = HEADER_BYTES + ZCL_BYTES + 14
PAGE_REQUEST_BYTES = HEADER_BYTES + ZCL_BYTES + 18
BLOCK_RESPONSE_FIELDS_BYTES = 14

# The exponent of the back-off for the first attempt and the retries (macMinBE 3 to macMaxBE 5).
_BACKOFF_CHOICES = tuple(2 ** min(3 + attempt, 5) for attempt in range(MAC_RETRIES + 1))
_FIXED_S = SENSING_S + PREAMBLE_S + TURNAROUND_S + MAC_ACK_S


def on_air_s(frame_bytes: int) -> float:
    """Seconds that the frame itself is on the air."""
    return PREAMBLE_S + frame_bytes * BYTE_S


def hop_s(frame_bytes: int) -> float:
    """Mean seconds of the channel that one acknowledged frame takes over one hop."""
    return MEAN_BACKOFF_S + SENSING_S + on_air_s(frame_bytes) + TURNAROUND_S + MAC_ACK_S


def block_s(data_bytes: int = 50) -> float:
    """Mean seconds of the channel, per hop, for one block: request, response, APS acknowledgement."""
    response = HEADER_BYTES + ZCL_BYTES + BLOCK_RESPONSE_FIELDS_BYTES + data_bytes
    return hop_s(BLOCK_REQUEST_BYTES) + hop_s(response) + hop_s(APS_ACK_BYTES)


def page_block_s(data_bytes: int = 50, page_bytes: int = 1400) -> float:
    """As `block_s` in page mode: no request and no APS acknowledgement per block, and its share of the page request."""
    response = HEADER_BYTES + ZCL_BYTES + BLOCK_RESPONSE_FIELDS_BYTES + data_bytes
    return hop_s(response) + hop_s(PAGE_REQUEST_BYTES) * data_bytes / page_bytes


def lower_bound_s(
    nodes: Iterable[tuple[int, int]], page_mode: bool = False, *, data_bytes: int = 50, page_bytes: int = 1400
) -> float:
    """Least seconds in which an idle channel without loss carries (blocks, hops) for each node."""
    per_block = page_block_s(data_bytes, page_bytes) if page_mode else block_s(data_bytes)
    return per_block * sum(blocks * hops for blocks, hops in nodes)


class Link(Protocol):
    """What decides whether a MAC attempt is heard."""

    def lost(self, now: float) -> bool: ...


@dataclass(frozen=True, slots=True)
class Collisions:
    """Two stations that send at once: both frames are lost, and repeated as after any other loss.

    Stations that hear each other collide when they draw the same back-off. `hidden` is the share of pairs of stations that
    do not hear each other: such a station, if it has a frame, starts while the other one sends.
    """

    hidden: float = 0.0


Finish = Callable[[float, bool], None]
CallAt = Callable[[float, Callable[[float], None]], None]


class _Transmission:
    """One frame over one hop, until it is acknowledged or given up."""

    __slots__ = ("air_s", "attempt", "collided", "finish", "link", "repeats", "station")

    def __init__(self, station: int, air_s: float, link: Link | None, finish: Finish, *, repeats: bool = True) -> None:
        self.station = station
        self.air_s = air_s
        self.link = link
        self.finish = finish
        self.attempt = 0
        self.collided = False
        self.repeats = repeats  # a broadcast waits for no acknowledgement, and learns of nothing


class Channel:
    """`call_at` comes from the mesh that uses the channel. Counters tell what the channel carried."""

    def __init__(self, seed: int = 0, collisions: Collisions | None = None) -> None:
        self.busy_s = 0.0
        self.collided = 0  # transmissions, both of each collision
        self.transmissions = 0
        self.retries = 0
        self.given_up = 0
        self.longest_queue = 0
        self._random = random.Random(seed).random
        self._collisions = collisions
        self._call_at: CallAt = _unattached
        self._queues: dict[int, deque[_Transmission]] = {}
        self._contenders: list[int] = []
        self._current: _Transmission | None = None

    @property
    def waiting(self) -> int:
        """Frames that wait for the channel."""
        return sum(map(len, self._queues.values()))

    def attach(self, call_at: CallAt) -> None:
        """Use this agenda from now on."""
        self._call_at = call_at

    def send(self, now: float, station: int, frame_bytes: int, link: Link | None, finish: Finish) -> None:
        """One frame over one hop; `finish(when, acknowledged)` is called once."""
        self._enqueue(now, _Transmission(station, _FIXED_S + frame_bytes * BYTE_S, link, finish))

    def poll(self, now: float, station: int, link: Link | None, finish: Finish) -> None:
        """A sleeper's data request, as `send`."""
        self._enqueue(now, _Transmission(station, DATA_REQUEST_S - MEAN_BACKOFF_S, link, finish))

    def broadcast(self, now: float, station: int, frame_bytes: int, finish: Finish) -> None:
        """One frame to all neighbours, without acknowledgement: `finish` is always told True."""
        air_s = SENSING_S + PREAMBLE_S + frame_bytes * BYTE_S
        self._enqueue(now, _Transmission(station, air_s, None, finish, repeats=False))

    # ---- within

    def _enqueue(self, now: float, transmission: _Transmission) -> None:
        if self._current is None:
            self._start(now, transmission)
            return
        queue = self._queues.get(transmission.station)
        if queue is None:
            queue = self._queues[transmission.station] = deque()
        if not queue:
            self._contenders.append(transmission.station)
        queue.append(transmission)
        if len(queue) > self.longest_queue:
            self.longest_queue = len(queue)

    def _start(self, now: float, transmission: _Transmission) -> None:
        self._current = transmission
        backoff = int(self._random() * _BACKOFF_CHOICES[transmission.attempt])
        cost = transmission.air_s + backoff * BACKOFF_UNIT_S
        self.busy_s += cost
        self.transmissions += 1
        if self._collisions is not None and transmission.repeats:
            self._collide(now, transmission, self._collisions)
        self._call_at(now + cost, self._ended)

    def _collide(self, now: float, transmission: _Transmission, collisions: Collisions) -> None:
        """Whether one of the stations that wait starts at the same moment, or without hearing this one."""
        others = [at for at, station in enumerate(self._contenders) if station != transmission.station]
        slots = _BACKOFF_CHOICES[transmission.attempt]
        alone = ((1.0 - 1.0 / slots) * (1.0 - collisions.hidden)) ** len(others)
        if self._random() < alone:
            return
        transmission.collided = True
        self.collided += 2
        at = others[int(self._random() * len(others))]
        station = self._contenders[at]
        other = self._queues[station][0]
        self.transmissions += 1  # at the same time: the channel is not busy for longer
        if not other.repeats:
            return
        other.attempt += 1
        if other.attempt <= MAC_RETRIES:
            self.retries += 1
            return
        self._queues[station].popleft()
        if not self._queues[station]:
            self._contenders[at] = self._contenders[-1]
            self._contenders.pop()
        self.given_up += 1
        self._call_at(now, lambda when: other.finish(when, False))

    def _ended(self, now: float) -> None:
        transmission = self._current
        assert transmission is not None  # noqa: S101  only `_start` arms this
        collided, transmission.collided = transmission.collided, False
        if collided or (transmission.link is not None and transmission.link.lost(now)):
            transmission.attempt += 1
            if transmission.attempt <= MAC_RETRIES:
                self.retries += 1
                queue = self._queues.setdefault(transmission.station, deque())
                if not queue:
                    self._contenders.append(transmission.station)
                queue.appendleft(transmission)
            else:
                self.given_up += 1
                transmission.finish(now, False)
        else:
            transmission.finish(now, True)
        # What `finish` queued contends with the others: `_current` was kept so that it could not jump the queue.
        contenders = self._contenders
        if not contenders:
            self._current = None
            return
        at = int(self._random() * len(contenders))
        queue = self._queues[contenders[at]]
        chosen = queue.popleft()
        if not queue:
            contenders[at] = contenders[-1]
            contenders.pop()
        self._start(now, chosen)


def _unattached(when: float, action: Callable[[float], None]) -> None:
    raise RuntimeError("the channel belongs to no mesh yet")
