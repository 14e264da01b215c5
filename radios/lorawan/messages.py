"""What a FUOTA session wants done. The shell performs the actions of one batch in order; the `Commit` is always first.

A commit that fails ends the batch and the session object: the shell makes a new one from the journal, as after a crash.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from radios.lorawan.keys import Key
from radios.lorawan.network_server import Queued
from radios.radio import Record, TransferEvent


@dataclass(frozen=True, slots=True)
class Commit:
    """Make durable before anything after it is done."""

    records: tuple[Record, ...]
    events: tuple[TransferEvent, ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """May be lost by a crash."""

    records: tuple[Record, ...]
    events: tuple[TransferEvent, ...]


@dataclass(frozen=True, slots=True)
class Unicast:
    """A downlink to one node; not sent after `expires`, because it is asked again then."""

    dev_eui: str
    port: int
    data: bytes
    expires: float
    name: str  # of the command, for people


_CARRY = frozenset({"McGroupSetupReq", "FragSessionSetupReq", "install", "cancel", "DevDeleteImageReq", "AppTimeAns"})
"""Names of requests that are others where they carry something else: another group, session, moment, version or token."""


def waits(request: Unicast, queued: Iterable[Queued], now: float) -> bool:
    """Whether this request is queued and will go. Of one that a node of another cohort or order may have been asked too,
    every byte counts, else its port and its command."""
    length = None if request.name in _CARRY else 1
    return any(
        (item.port, item.data[:length]) == (request.port, request.data[:length])
        and (item.expires is None or item.expires > now)
        for item in queued
    )


@dataclass(frozen=True, slots=True)
class CreateGroup:
    """Make the server's multicast group with all gateways. Answered by `group_created`."""

    name: str
    region: str
    mc_addr: int
    mc_key: Key
    data_rate: int
    frequency_hz: int
    gateways: tuple[str, ...]
    dev_euis: tuple[str, ...]
    ping_periodicity: int | None = None  # class B: a ping slot every 2^n s; None: class C


@dataclass(frozen=True, slots=True)
class DeleteGroup:
    group_id: str


@dataclass(frozen=True, slots=True)
class Multicast:
    """A frame to the group, when nothing else of it is queued. Answered by `multicast_done` or `multicast_refused`."""

    group_id: str
    port: int
    data: bytes
    name: str
    n: int | None = None  # fragment counter


@dataclass(frozen=True, slots=True)
class FeedFrame:
    """One downlink of a `Feed`; `n`: fragment counter, None for a request."""

    port: int
    data: bytes
    n: int | None


@dataclass(frozen=True, slots=True)
class Feed:
    """Frames for one node's queue, if it is empty, in this order. Answered by `fed` or `feed_busy`."""

    dev_eui: str
    frames: tuple[FeedFrame, ...]
    expires: float


@dataclass(frozen=True, slots=True)
class Release:
    """The node is no longer in this session. It may take part in another one when `again`, with a new SessionCnt."""

    dev_eui: str
    again: bool
    reason: str = ""
    detail: str = ""
    limit: int | None = None  # observed: the node cannot make up more lost fragments than that


@dataclass(frozen=True, slots=True)
class Observed:
    """Something about a node that stays, and that outlives its session."""

    dev_eui: str
    limit: int  # the node cannot make up more lost fragments than that


Action = Commit | Progress | Unicast | CreateGroup | DeleteGroup | Multicast | Feed | Release | Observed
