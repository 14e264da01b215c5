"""Settings of the LoRaWAN radio; the daemon reads files and secrets, and builds them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from functools import cache

from radios.lorawan.air import AirLimits
from radios.lorawan.chirpstack import ChirpStackSettings
from radios.lorawan.cohort import SessionSettings
from radios.lorawan.fragment_size import largest
from radios.lorawan.inventory import InventorySettings
from radios.lorawan.keys import Key
from radios.lorawan.network_server import Device
from radios.lorawan.regions import Region, region
from radios.lorawan.session_node import Ports


@dataclass(frozen=True, slots=True)
class LorawanSettings:
    """One ChirpStack application. Times in seconds of the radio's clock."""

    chirpstack: ChirpStackSettings
    root_keys: Mapping[str, Key] = field(
        default_factory=dict, repr=False
    )  # by DevEUI; the network server is asked for others
    ports: Ports = field(default_factory=Ports)  # of the packages, on nodes that do not tell them
    region: str = "EU868"
    multicast_frequency_hz: int | None = None  # None: the region's RX2
    multicast_data_rate: int | None = None  # None: the region's RX2
    repeater_compatible: bool = True  # smaller frames, that a repeater can carry too
    dwell_time: bool = False  # downlinks of at most 400 ms, as nodes and network server must agree (AS923)
    scheduler_s: float = 1.0  # ChirpStack's scheduler looks into the queue of a group so often
    class_c_margin_s: float = 5.0  # ChirpStack's multicast_class_c_margin: between two gateways of one group
    owner_tag: str = "gatewayd"  # device tag that names the gateway whose daemon may update it
    owner: str = ""  # this gateway's id; empty: tags are not looked at
    owner_required: bool = False  # True: a device without the tag is only observed, False: it is claimed
    claim_settle_s: float = 30.0  # more than a call to the network server may take
    air: AirLimits = field(default_factory=AirLimits)
    timezone: tzinfo = UTC  # of the quiet hours in `air`
    device_poll_s: float = 300.0
    steward_s: float = 30.0  # at least so often: who has to be asked, who can join
    session: SessionSettings = field(default_factory=SessionSettings)
    inventory: InventorySettings = field(default_factory=InventorySettings)

    def __post_init__(self) -> None:
        """ValueError or Unsupported for a frequency or data rate that the region has not, or that carries no fragment."""
        largest(self.plan.max_payload(self.data_rate))
        self.plan.sub_band(self.frequency_hz)

    @property
    def plan(self) -> Region:
        """With the sizes that repeaters and dwell time leave."""
        return _plan(self.region, self.repeater_compatible, self.dwell_time)

    @property
    def frequency_hz(self) -> int:
        return self.multicast_frequency_hz or self.plan.rx2_frequency_hz

    @property
    def data_rate(self) -> int:
        return self.plan.rx2_dr if self.multicast_data_rate is None else self.multicast_data_rate

    def minute_of_day(self, now: float) -> int:
        """The site's own minutes since midnight at this moment of the radio's clock."""
        local = datetime.fromtimestamp(self.session.wall.unix(now), self.timezone)
        return local.hour * 60 + local.minute

    def foreign(self, tags: Mapping[str, str]) -> bool:
        """Whether these tags name another gateway."""
        return bool(self.owner) and tags.get(self.owner_tag, self.owner) != self.owner

    def owns(self, tags: Mapping[str, str]) -> bool:
        """Whether these tags say that the device is this daemon's; without an owner's name every device is."""
        return not self.owner or tags.get(self.owner_tag) == self.owner

    def may_set_up(self, tags: Mapping[str, str]) -> bool:
        """Whether a device with these tags belongs to this daemon, or to none."""
        if not self.owner:
            return True
        owner = tags.get(self.owner_tag)
        return owner == self.owner if owner is not None else not self.owner_required

    def obstacle(self, device: Device) -> str:
        """Why a device is none of this daemon's; empty: it is, or may become so."""
        if not self.may_set_up(device.tags):
            return "another gateway owns it" if self.foreign(device.tags) else "no gateway owns it"
        return f"is in {device.region}, not {self.region}" if device.region != self.region else ""


@cache
def _plan(name: str, repeater: bool, dwell_time: bool) -> Region:
    return region(name).held_to(repeater=repeater, dwell_time=dwell_time)
