"""One cohort: the nodes that get one image by one multicast group, and what all of them share. PURE.

A cohort is one transfer, one set of gateways, one data rate and one version of TS004, because versions 1 and 2 code
differently. Nothing here knows a single node.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import ceil, floor, log2

from radios.lorawan import keys
from radios.lorawan.fragment_size import FRAGMENT_MOST_BYTES
from radios.lorawan.gps_time import GpsTime
from radios.lorawan.keys import Key
from radios.lorawan.packages.multicast import BEACON_PERIOD_S
from radios.wall_time import WallTime

FRAG_INDEX = 0
DESCRIPTOR = bytes(4)

_MIC_CHUNK_BYTES = 4096
_TIME_OUT_MOST = 15  # McClassCSessionReq: 2^15 s
_TIME_OUT_LEAST = 8
_BEACON_TIME_OUT_LEAST = 1  # McClassBSessionReq, of 128 s each
_PERIODICITY_MOST = 3
_WINDOW_AHEAD_MOST_S = 7 * 86400.0  # a class A node is asked for one an uplink interval ahead
_BLOCK_ACK_DELAY_MOST = 7
_ANSWER_SLOT_S = 2.0  # air that an answer needs so that collisions stay rare


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """Times of a session, in seconds of the radio's clock, and its limits."""

    answer_timeout_s: float = 60.0  # of a node that listens all the time
    answer_timeout_most_s: float = 900.0  # back-off stops here
    # For the longest request at the slowest rate (2.1 s) and its answer, which LBM gives 1 to 3 s later. With less, each
    # request was sent over the answer to the one before: of 50 nodes 7 were set up twice.
    unicast_gap_s: float = 5.5
    gather_s: float = 600.0  # the first node that is set up waits so long for the others
    lead_s: float = 200.0  # from asking for a class C session to its start: room for repeated requests
    window_guard_s: float = 5.0  # nothing is sent so near to either end of a window
    clock_tolerance_s: float = 15.0  # between a node's TimeToStart and ours
    poll_fragments: int = 64  # plain fragments between two polls; at most 200, MissingFrag wraps at 256
    poll_margin_s: float = 15.0  # after the last moment at which an answer may start
    poll_repeats: int = 2
    silent_poll_s: float = 60.0  # first wait when nobody answers a poll; doubles up to answer_timeout_most_s
    reserve_fragments: int = 16  # counters made durable at a time
    round_most: int = 200
    stalled_after: int = 4  # unanswered requests
    verify_attempts: int = 5
    verify_every_s: float = 30.0
    reboot_countdown_s: int = 10
    reboot_attempts: int = 5
    refused_s: float = 600.0  # until an installation is begun again whose commit the daemon did not take
    settle_s: float = 45.0  # from the reboot to the first DevVersionReq
    recheck_s: float = 600.0  # DevVersionReq of a running node: a watchdog may have taken it back
    recheck_most_s: float = 86400.0
    attempts_most: int = 3  # deliberate sessions per node and transfer
    drop_attempts: int = 4
    unproven_after_s: float = 86_400.0  # a node without TS006: so long for its new firmware to tell its version
    unicast_batch: int = 8  # frames at a time in a node's queue
    unicast_most_s: float = 86_400.0  # class A: a straggler's repair must not take its uplinks longer
    oversize_wait_s: float = 21_600.0  # for a node's data rate to come back, before a session with smaller fragments
    deaf_fragments: int = 8  # so many without any effect: the node does not hear the group
    retry_s: float = 10.0  # after the network server did not take a call
    wall: WallTime = field(default_factory=WallTime, compare=False)  # by which orders count
    gps: GpsTime = field(default_factory=lambda: GpsTime(WallTime()), compare=False)  # by which nodes count

    def __post_init__(self) -> None:
        if not 1 <= self.poll_fragments <= 200 or not 1 <= self.round_most <= 200:
            raise ValueError("poll_fragments and round_most must be 1..200: MissingFrag wraps at 256")


@dataclass(slots=True)
class Cohort:
    """What is shared, as journalled. Counters: `mark` and all below it were sent, nothing above `reserved` ever was."""

    cohort: str
    transfer: str
    digest: str
    size: int
    version: int  # of the image, u32
    frag_size: int
    frag_version: int
    region: str
    data_rate: int
    frequency_hz: int
    gateways: tuple[str, ...]
    mc_addr: int
    group_id: str = ""  # the network server's; empty: none yet
    group_serial: int = 0  # counts groups of this cohort: a lost one is replaced under another key
    data_started: bool = False
    closed: bool = False  # no node joins any more
    mark: int = 0
    reserved: int = 0
    window_start: float = 0.0  # of the radio's clock; 0: none was asked for yet
    window_end: float = 0.0
    block_ack_delay: int = 0
    port: int = 201  # FPort of fragments
    unicast: bool = False  # one node, no group: every fragment goes into its queue
    unsent: list[int] = field(default_factory=list)  # counters that no gateway sent: no node can have them
    ping_periodicity: int | None = None  # class B: a ping slot every 2^n s; None: class C windows
    frag_most: int = FRAGMENT_MOST_BYTES  # that its nodes were built for
    old_groups: list[str] = field(default_factory=list)  # the network server's, of a life before: to be deleted

    @property
    def nb_frag(self) -> int:
        return ceil(self.size / self.frag_size)

    @property
    def padding(self) -> int:
        return self.nb_frag * self.frag_size - self.size

    def found_at(self, now: float) -> None:
        """Read again from the journal: a window of another clock's time, which lies too far ahead, was never agreed."""
        if self.window_start > now + _WINDOW_AHEAD_MOST_S:
            self.window_start = self.window_end = 0.0

    @property
    def group_name(self) -> str:
        return f"gatewayd {self.cohort}-{self.group_serial}"

    def next_counter(self) -> int:
        """The counter to go on with after a crash.

        Plain fragments of the uncertain stretch are sent again: a node drops those that it passed, and loses none. Coded
        ones are not: new counters are worth more.
        """
        return self.mark + 1 if self.mark < self.nb_frag else self.reserved + 1


@dataclass(frozen=True, slots=True)
class BlockSource:
    """The image as the session needs it. `read(offset, length)` and `fragment(n)` raise ImageError."""

    read: Callable[[int, int], bytes]
    fragment: Callable[[int], bytes]
    size: int

    def mic(self, root_key: Key, session_cnt: int) -> bytes:
        """Of FragSessionSetupReq version 2, for one node and session."""
        int_key = keys.data_block_int_key(root_key)
        return keys.data_block_mic(int_key, session_cnt, FRAG_INDEX, DESCRIPTOR, self.size, self._chunks())

    def _chunks(self) -> Iterator[bytes]:
        for offset in range(0, self.size, _MIC_CHUNK_BYTES):
            yield self.read(offset, min(_MIC_CHUNK_BYTES, self.size - offset))


def time_out_for(seconds: float) -> int:
    """n of a class C session of 2^n s that is long enough, within what the command can say."""
    return min(_TIME_OUT_MOST, max(_TIME_OUT_LEAST, ceil(log2(max(seconds, 1.0)))))


def window_length_s(cohort: Cohort, seconds: float) -> float:
    """Of the shortest window that is long enough, within what the command can say."""
    if cohort.ping_periodicity is None:
        return float(1 << time_out_for(seconds))
    return float(BEACON_PERIOD_S << beacon_time_out_for(seconds))


def beacon_time_out_for(seconds: float) -> int:
    """n of a class B session of 2^n beacon periods that is long enough."""
    return min(_TIME_OUT_MOST, max(_BEACON_TIME_OUT_LEAST, ceil(log2(max(seconds / BEACON_PERIOD_S, 1.0)))))


def beacon_at(when: float, gps: GpsTime) -> float:
    """The first beacon at or after this moment, both of the radio's clock."""
    return when + (-gps.at(when) % BEACON_PERIOD_S)


def periodicity_for(spacing_s: float) -> int:
    """n such that two ping slots, one every 2^n s, lie between two frames: the less often, the longer a battery lasts."""
    return min(_PERIODICITY_MOST, max(0, floor(log2(max(spacing_s / 2, 1.0)))))


def block_ack_delay_for(nodes: int) -> int:
    """n such that the answers of so many nodes to one poll, spread over 2^(n + 4) s, rarely collide."""
    return min(_BLOCK_ACK_DELAY_MOST, max(0, ceil(log2(max(1.0, nodes * _ANSWER_SLOT_S))) - 4))


def answer_spread_s(block_ack_delay: int) -> float:
    """After a poll, the last moment at which a node starts to answer."""
    return float(1 << (block_ack_delay + 4))
