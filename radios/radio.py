"""The contract between the daemon and a radio.

The daemon says what it wants of every node (orders and directives); the radio says what is known to have happened
(events) and keeps what it needs to go on after a crash as opaque records in the daemon's journal. A radio knows no cloud,
no campaign and no database; the daemon knows no frames. Times are seconds of the radio's own clock, which no step of the
wall clock moves (`clock.py`), unless they are `datetime`, which is what the wall clock will show.
"""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal, NewType, Protocol

NodeId = NewType("NodeId", str)
"""`zigbee:<eui64>` or `lorawan:<deveui>`: 16 lower-case hex digits, most significant first, as printed on the node."""

_NODE_ID = re.compile(r"(zigbee|lorawan):[0-9a-f]{16}")

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


def parse_node_id(text: str) -> NodeId:
    """The text as a node id; ValueError when it is none."""
    if not _NODE_ID.fullmatch(text):
        raise ValueError(f"not a node id: {text!r} (zigbee:<16 hex digits> or lorawan:<16 hex digits>, lower case)")
    return NodeId(text)


def radio_of(node: str) -> str:
    """The kind of radio that a node speaks: the part of its id before the colon."""
    return node.partition(":")[0]


class Want(StrEnum):
    """What the daemon wants of one node in one transfer."""

    DELIVER = "deliver"  # bring the image to the node, do not start it
    HOLD = "hold"  # keep what the node has, send nothing more (Zigbee: WAIT_FOR_DATA; LoRaWAN: out of the demand)
    INSTALL = "install"  # deliver if need be, then start the image at install_at, or at once
    DROP = "drop"  # end it on both sides and forget it


@dataclass(frozen=True, slots=True)
class ImageRef:
    """One payload file that the daemon has verified and holds in its cache."""

    digest: str  # SHA-256 of the file, 64 lower-case hex digits; the ImageStore's key
    size: int  # bytes
    version: int  # u32 that a node running this image reports (OTA file version, TS006 FWversion)


@dataclass(frozen=True, slots=True)
class TransferOrder:
    """One payload to be delivered over this radio to every node that is directed to it."""

    transfer: str
    image: ImageRef
    priority: int  # higher goes first
    air_share: float  # 0 < share <= 1: of what the network can take
    expires: datetime  # no node starts after this; a node part-way may finish


@dataclass(frozen=True, slots=True)
class NodeDirective:
    """What is wanted of one node. A higher generation replaces a lower one; the same one again changes nothing."""

    transfer: str
    node: NodeId
    generation: int
    want: Want
    install_at: datetime | None = None  # with INSTALL: not before this; None: at once


class Fact(StrEnum):
    """What a radio can know about a node in a transfer. Stable strings: they are stored."""

    PREPARING = "preparing"  # the node is being set up (versions, group, session, offer)
    PROGRESS = "progress"  # `confirmed` bytes are known to be on the node
    COMPLETE = "complete"  # the node holds every byte and checks them
    READY = "ready"  # the node says that the image is good, and waits to be told to start it
    INSTALLING = "installing"  # committed before the node is told to start the image
    RUNNING = "running"  # the node itself reports that it runs `version`
    FAILED = "failed"  # `code` says why; the radio has stopped trying, the node keeps its old image
    STALLED = "stalled"  # `code` says why nothing moves; the radio goes on trying
    DROPPED = "dropped"  # a DROP is done on both sides


@dataclass(frozen=True, slots=True)
class TransferEvent:
    """One fact about one node in one transfer, proven by the node or by what was done to it; never an estimate."""

    transfer: str
    node: NodeId
    generation: int  # of the directive that was in force
    fact: Fact
    at: float  # seconds of the radio's clock
    confirmed: int | None = None  # bytes known to be on the node
    version: int | None = None  # with RUNNING
    code: str = ""  # stable reason with FAILED and STALLED: invalid_image, no_space, refused, lost, ...
    detail: str = ""  # for people


class Power(StrEnum):
    MAINS = "mains"
    BATTERY = "battery"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class NodeObservation:
    """Something learned about a node. None means "not said now", never "gone"."""

    node: NodeId
    at: float  # seconds of the radio's clock
    name: str | None = None
    manufacturer: str | None = None
    model: str | None = None
    hardware: str | None = (
        None  # what releases are matched by: "zigbee:<mfr 4 hex>-<type 4 hex>", "lorawan:<HWversion 8 hex>"
    )
    hardware_version: int | None = None
    version: int | None = None  # u32 that the node says it runs
    power: Power | None = None
    battery_percent: float | None = None
    sleepy: bool | None = None  # Zigbee: not receiver-on-when-idle; LoRaWAN: class A
    rssi_dbm: float | None = None
    lqi: int | None = None
    snr_db: float | None = None
    reset_cause: str | None = None  # power_on, watchdog, soft, ... where the node tells
    joined: bool | None = None
    tags: Mapping[str, str] | None = None
    details: Mapping[str, Json] | None = (
        None  # what only this kind of radio knows, for people: nothing is decided by it
    )
    alive: bool = True  # False: others said it, and the node itself gave no sign of life


@dataclass(frozen=True, slots=True)
class PlanPart:
    """Nodes that are served together: by one multicast group, or alone."""

    name: str  # for people
    nodes: int
    frames: int
    airtime_s: float
    eta_s: float  # from the start to the last of them holding the image
    node_energy_j: float | None = None  # that it costs one of them; None: not known
    members: tuple[NodeId, ...] = ()
    multicast: bool = False  # True: the airtime is the same however many of them there are


@dataclass(frozen=True, slots=True)
class TransferPlan:
    """What a transfer would cost, before it starts."""

    frames: int  # on the air towards the nodes
    airtime_s: float
    eta_s: float  # from the start to the last node holding the image
    skipped: Mapping[NodeId, str] = field(default_factory=dict)  # nodes that cannot take part, with a reason
    parts: tuple[PlanPart, ...] = ()  # empty: the radio serves nodes one by one
    assumptions: str = ""  # behind the numbers, for people


class MessageKind(StrEnum):
    """What a node said of its own accord."""

    ATTRIBUTE_REPORT = "attribute_report"
    COMMAND = "command"  # of a cluster: a button pressed, a zone's status changed
    RESPONSE = "response"  # a cluster command that answers one of ours
    RAW = "raw"  # nothing that could be understood: bytes only


@dataclass(frozen=True, slots=True)
class NodeMessage:
    """A node's own traffic, nothing to do with updates. `data` depends on the kind (the radio's README)."""

    node: NodeId
    endpoint: int
    cluster: int
    cluster_name: str  # the radio library's; the number in hexadecimal digits where it has none
    kind: MessageKind
    data: Mapping[str, Json]
    at: float  # seconds of the radio's clock
    lqi: int | None = None
    rssi_dbm: float | None = None


class GreenPowerSecurity(StrEnum):
    """What is proven of a Green Power frame."""

    NONE = "none"  # anybody in reach may have sent it
    PROVEN = "proven"  # with the device's key
    UNCHECKED = "unchecked"  # nobody here knows the key


@dataclass(frozen=True, slots=True)
class GreenPowerMessage:
    """What a Green Power device sent: a switch or sensor that harvests its energy, joins nothing and cannot be asked.

    `data` by kind: `command`: command, command_id, arguments or payload. `raw`: payload as received.
    """

    source: str  # 8 hex digits of a source id, or the 16 of an EUI64
    endpoint: int | None  # of a device with an EUI64
    kind: MessageKind
    data: Mapping[str, Json]
    security: GreenPowerSecurity
    commissioned: bool  # here
    sequence: int | None  # the device's frame counter, or its sequence number
    at: float  # seconds of the radio's clock
    lqi: int | None = None
    rssi_dbm: float | None = None


SiteTraffic = NodeMessage | GreenPowerMessage

NODE_READS = frozenset({"read", "bindings", "reporting"})
NODE_WRITES = frozenset({"write", "command", "bind", "unbind", "configure_reporting"})
NODE_REQUESTS = NODE_READS | NODE_WRITES  # what anybody with the right to use the nodes may ask: nothing about firmware


@dataclass(frozen=True, slots=True)
class NodeCommand:
    """Management that is no transfer. Arguments are per command, described in the radio's README.

    Of the network: permit_join, remove, list, backup. Of a node's own business: those of `NODE_REQUESTS`; a `command` may be
    for a `group` among the arguments instead of for a node.
    """

    name: str
    node: NodeId | None = None
    arguments: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CommandResult:
    ok: bool
    detail: str = ""
    value: Json = None


@dataclass(frozen=True, slots=True)
class Record:
    """What a radio must find again after a crash, opaque to the daemon. An empty value deletes the record.

    `key` is unique within the radio and scope. `version` is that of the value's encoding. A secret record reaches
    no log, report, API or page.
    """

    scope: Literal["node", "group", "network"]
    key: str
    version: int
    value: bytes
    secret: bool = False


class Journal(Protocol):
    """Given to a radio by the daemon. Records, node updates and reports share one SQLite transaction."""

    async def load(self) -> Sequence[Record]:
        """Every record that was committed and not deleted."""
        ...

    async def commit(self, records: Sequence[Record], events: Sequence[TransferEvent]) -> None:
        """Durable on return. Raises when it could not be made durable: the action it was for must not be taken."""
        ...

    def progress(self, events: Sequence[TransferEvent], records: Sequence[Record] = ()) -> None:
        """Progress that a crash may lose: seen by readers at once, written at most every 10 s, so flash is not worn out.

        A later `commit` writes it along. Only PROGRESS and STALLED events are taken here.
        """
        ...


class ImageStore(Protocol):
    """Any range of a cached file; no whole image in memory."""

    def read(self, digest: str, offset: int, length: int) -> bytes:
        """Bytes [offset, offset + length), shorter only at the end of the file. ImageError when it cannot be read."""
        ...

    def size(self, digest: str) -> int:
        """Size in bytes. ImageError when the file is not in the store."""
        ...


class Radio(Protocol):
    """One radio network. `put` and `direct` may come before `run` has opened the radio; they are kept."""

    kind: str  # "zigbee" or "lorawan"

    async def run(self, journal: Journal, images: ImageStore) -> None:
        """Load the journal, open the radio, serve until cancelled. A lost link is retried within, not raised."""
        ...

    async def plan(self, order: TransferOrder, nodes: Sequence[NodeId]) -> TransferPlan: ...

    async def put(self, order: TransferOrder) -> None:
        """Make the transfer known, or replace its terms (priority, share, expiry); the image never changes."""
        ...

    async def direct(self, directives: Sequence[NodeDirective]) -> None:
        """Idempotent; a node at a time: late joiners, holds, cancels. The daemon repeats them all after a restart."""
        ...

    async def manage(self, command: NodeCommand) -> CommandResult: ...

    def observations(self) -> AsyncIterator[NodeObservation]: ...

    def traffic(self) -> AsyncIterator[SiteTraffic]:
        """What nodes and Green Power devices send of their own accord, for one reader; bounded, the oldest goes first.

        Ends at once where the nodes' data have a way of their own (LoRaWAN: ChirpStack's integrations).
        """
        ...

    def status(self) -> Mapping[str, Json]:
        """What operators see of the radio itself: link up or down, nodes, queue, air used. No secrets."""
        ...
