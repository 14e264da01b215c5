"""The contract towards a LoRaWAN network server, in this project's own words; no server's API shows through it.

A network server moves frames and knows devices. What the frames mean is the business of the application packages, and
when they are sent that of the FUOTA session. Times are seconds of the radio's clock. Every call raises LinkError when the same call may succeed later and
Unsupported when it never can. Identifiers (DevEUI, gateway id, McAddr) are lower-case hex, most significant byte first.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from radios.errors import Unsupported
from radios.lorawan.gateway_bus import GatewayAck, GatewayDownlink
from radios.lorawan.keys import Key


class NotThere(Unsupported):
    """What the call names does not exist on the network server."""


class DeviceClass(StrEnum):
    A = "A"
    B = "B"
    C = "C"


@dataclass(frozen=True, slots=True)
class Device:
    """A device as the network server knows it. None: the server does not know."""

    dev_eui: str
    name: str
    device_class: DeviceClass
    region: str  # "EU868", as in radios.lorawan.regions
    mac_version: tuple[int, int]  # (1, 0) or (1, 1): decides which root key derives the multicast keys
    uplink_interval_s: float  # what the device profile expects
    battery_percent: float | None = None
    external_power: bool | None = None
    margin_db: int | None = None
    last_seen: float | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    profile: str = ""
    answers_time: bool = False  # the server answers AppTimeReq itself
    refused: str = ""  # why this daemon must not set the device up; empty: it may


@dataclass(frozen=True, slots=True)
class Reception:
    """One gateway's copy of an uplink."""

    gateway_id: str
    rssi_dbm: float | None = None
    snr_db: float | None = None
    gps_time_s: float | None = None  # time since the GPS epoch at the gateway


@dataclass(frozen=True, slots=True)
class Uplink:
    """An application frame from a device. `received_at`: by gateway or server, None when neither said."""

    dev_eui: str
    port: int
    data: bytes
    f_cnt: int
    data_rate: int | None = None
    received_at: float | None = None
    receptions: tuple[Reception, ...] = ()
    reset_cause: str | None = None  # why the device was last reset, where its decoded payload says so


@dataclass(frozen=True, slots=True)
class Queued:
    """A downlink that waits for a device; not sent after `expires`, though it may be listed until then."""

    port: int
    data: bytes
    expires: float | None = None


@dataclass(frozen=True, slots=True)
class MulticastGroup:
    """A multicast group to be made. The server learns the session keys, never McKey."""

    name: str
    region: str
    mc_addr: str
    mc_net_s_key: Key
    mc_app_s_key: Key
    data_rate: int
    frequency_hz: int
    dev_euis: Sequence[str] = ()
    ping_periodicity: int | None = None  # class B: a ping slot every 2^n s; None: class C


class NetworkServer(Protocol):
    """A network server as one application of it looks from here."""

    async def devices(self) -> Sequence[Device]:
        """Every device of the application."""
        ...

    async def tags(self, dev_eui: str) -> Mapping[str, str]:
        """A device's, as they are now."""
        ...

    async def set_tag(self, dev_eui: str, name: str, value: str) -> None:
        """Its other tags stay."""
        ...

    async def root_key(self, dev_eui: str, mac_version: tuple[int, int]) -> Key:
        """GenAppKey (LoRaWAN 1.0.x) or AppKey (1.1). Unsupported when the server has none."""
        ...

    async def gateways(self) -> Sequence[str]:
        """Ids of the gateways that may carry multicast."""
        ...

    async def enqueue(self, dev_eui: str, port: int, data: bytes, expires: float | None = None) -> str:
        """Queue an unconfirmed downlink; its id. Not sent after `expires`."""
        ...

    async def queue_length(self, dev_eui: str) -> int: ...

    async def queued(self, dev_eui: str) -> Sequence[Queued]:
        """The downlinks that wait for the device."""
        ...

    async def flush(self, dev_eui: str) -> None:
        """Forget every downlink queued for the device."""
        ...

    async def create_group(self, group: MulticastGroup) -> str:
        """A group id. A group of this name that a crash left behind is found and returned, not made twice."""
        ...

    async def add_device(self, group_id: str, dev_eui: str) -> None:
        """Idempotent."""
        ...

    async def add_gateway(self, group_id: str, gateway_id: str) -> None:
        """Idempotent."""
        ...

    async def enqueue_multicast(self, group_id: str, port: int, data: bytes) -> int:
        """The frame counter that the server gave it. Says nothing about transmission."""
        ...

    async def multicast_queue_length(self, group_id: str) -> int:
        """Frames that are not yet given to a gateway."""
        ...

    async def flush_multicast(self, group_id: str) -> None: ...

    async def delete_group(self, group_id: str) -> None:
        """Idempotent."""
        ...

    def uplinks(self) -> AsyncIterator[Uplink]:
        """Uplinks until cancelled; a lost connection is made again within. Frames sent meanwhile are lost."""
        ...

    def gateway_events(self) -> AsyncIterator[GatewayDownlink | GatewayAck]:
        """What gateways are given to send, and what they did, until cancelled; ends at once where that cannot be known.

        Events are lost while the connection `gateway_bus` of `link_up` is down.
        """
        ...

    def link_up(self) -> Mapping[str, bool]:
        """Which of the server's connections work now, by name."""
        ...

    async def close(self) -> None: ...
