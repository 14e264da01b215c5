"""The radios' tables of the configuration file: `[zigbee]`, `[lorawan]` and `[[models]]`. SHELL.

What the settings mean to a radio is said in `radio_settings.py`; what they mean to an operator, in config/gatewayd.toml.
"""

from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from gatewayd.cloud.messages import DeltaFormat, Hardware
from gatewayd.config_tables import (
    Eui,
    Euis,
    FPort,
    Host,
    HostPort,
    MinuteOfDay,
    PanId,
    Port,
    Seconds,
    Secret,
    Section,
    ServerTls,
    Share,
    Text,
    TlsTable,
    TopicPrefix,
    TopicPrefixes,
    Uuid,
    plain_on_loopback,
)
from gatewayd.config_values import (
    check_serial_or_socket,
    delta_formats,
    host_of,
    is_loopback,
    not_reserved,
    not_the_start,
    quirk_tables,
    reset_cause_values,
)
from radios.errors import Unsupported
from radios.lorawan.air import RESERVE
from radios.lorawan.regions import region
from radios.zigbee.air import ShareLimits
from radios.zigbee.quirks import Quirk


class QuietHoursTable(Section):
    """Hours of the site's day in which updates take less of the air."""

    start: MinuteOfDay
    end: MinuteOfDay
    air_share: Share

    _differs = field_validator("end")(not_the_start)


class Zigbee(Section):
    library: Literal["bellows", "znp", "deconz", "xbee", "zboss"] = "bellows"
    device: Annotated[str, AfterValidator(check_serial_or_socket)]
    baudrate: Annotated[int, Field(ge=1200, le=4_000_000)] = 115200
    flow_control: Literal["none", "software", "hardware"] = "none"
    # Of a network that is formed anew, only.
    channel: Annotated[int, Field(ge=11, le=26)] | None = None  # None: a quiet one
    pan_id: PanId | None = None  # None: drawn
    extended_pan_id: Annotated[Eui, AfterValidator(not_reserved)] | None = None  # None: drawn
    network_key_file: Secret | None = None  # 32 hex digits; None: drawn
    backup_every_h: Annotated[float, Field(ge=1, le=24 * 30)] = 24.0
    backup_keep_days: Annotated[int, Field(ge=1, le=365)] = 14
    concurrency: Annotated[int, Field(ge=1, le=1000)] | None = None  # nodes that download at once; None: adaptive
    air_share: Share = 1.0  # of the channel, that updates take at most
    foreground_share: Share = (
        ShareLimits().foreground_share
    )  # the same beside much traffic of the site; beside less, more
    quiet_hours: QuietHoursTable | None = None
    page_requests: bool = True  # False: refused, nodes ask block by block
    broadcast_notify: Annotated[int, Field(ge=0, le=10_000)] = 8  # silent nodes that make a broadcast; 0: never
    quirks: Annotated[tuple[Quirk, ...], BeforeValidator(quirk_tables)] = ()  # after those of the radio's own table

    @property
    def on_loopback(self) -> bool:
        return self.device.startswith("socket://") and is_loopback(host_of(self.device))


class LorawanBroker(Section):
    """A broker that ChirpStack speaks to."""

    host: Host
    port: Port = 1883
    tls: Annotated[ServerTls | None, TlsTable]
    username: Text | None = None
    password_file: Secret | None = None

    @field_validator("tls")
    @classmethod
    def _tls(cls, tls: ServerTls | None, info: ValidationInfo) -> ServerTls | None:
        return plain_on_loopback(tls, info.data.get("host"))


class LorawanMqtt(LorawanBroker):
    """The broker of ChirpStack's integration."""

    topic_prefix: TopicPrefix = ""


class GatewayBus(Section):
    """Where ChirpStack and its gateways speak with each other: what was truly transmitted."""

    topic_prefixes: TopicPrefixes
    mqtt: LorawanBroker | None = None  # None: the integration's broker


def known_region(name: str) -> str:
    """ValueError for a region whose air the LoRaWAN radio does not know."""
    try:
        region(name)
    except Unsupported as error:
        raise ValueError(str(error)) from None
    return name


class LorawanPorts(Section):
    """FPorts of the application packages on nodes that do not tell them."""

    clock: FPort = 202
    multicast: FPort = 200
    fragmentation: FPort = 201
    firmware: FPort = 203


class Lorawan(Section):
    """A ChirpStack v4, by gRPC and MQTT."""

    grpc: HostPort
    grpc_tls: Annotated[ServerTls | None, TlsTable]
    api_token_file: Secret
    mqtt: LorawanMqtt
    tenant_id: Uuid
    application_id: Uuid
    gateway_ids: Euis = ()  # none: every gateway of the tenant
    region: Annotated[str, AfterValidator(known_region)] = "EU868"
    data_rate: Annotated[int, Field(ge=0, le=15)] | None = None  # of multicast; None: the region's RX2
    frequency_hz: Annotated[int, Field(ge=100_000_000, le=2_500_000_000)] | None = None  # None: the region's RX2
    repeater_compatible: bool = True
    downlink_dwell_time: bool = False
    root_keys_file: Secret | None = None  # None: all are asked of ChirpStack
    ports: LorawanPorts = LorawanPorts()
    class_c_margin_s: Annotated[float, Field(ge=0, le=3600)] = 5.0
    gather_s: Seconds = 600.0  # how long the first node of a cohort waits for others
    # Of the object that a device's codec in ChirpStack makes of its payload; empty: no device tells.
    reset_cause_field: Annotated[str, StringConstraints(max_length=64)] = ""
    gateway_bus: GatewayBus | None = None  # None: what the gateways did with a fragment is not known
    air_share: Share = 1.0  # of what the duty cycle leaves to fragments, at most
    air_reserve: Annotated[float, Field(ge=0, le=0.9)] = RESERVE  # of the duty cycle, for everything else
    pacing: Literal["smooth", "burst"] = "smooth"
    quiet_hours: QuietHoursTable | None = None
    owner_required: bool = False

    @field_validator("grpc_tls")
    @classmethod
    def _tls(cls, tls: ServerTls | None, info: ValidationInfo) -> ServerTls | None:
        grpc = info.data.get("grpc")
        return plain_on_loopback(tls, None if grpc is None else host_of(grpc))

    @property
    def on_loopback(self) -> bool:
        bus = None if self.gateway_bus is None else self.gateway_bus.mqtt
        brokers = [self.mqtt.host] if bus is None else [self.mqtt.host, bus.host]
        return is_loopback(host_of(self.grpc)) and all(map(is_loopback, brokers))


class ResetCause(Section):
    """Where nodes of one hardware tell why they were reset: an attribute of the manufacturer's, in a server cluster."""

    cluster: Annotated[int, Field(ge=0, le=0xFFFF)]
    attribute: Annotated[int, Field(ge=0, le=0xFFFF)]
    manufacturer: Annotated[int, Field(ge=1, le=0xFFFE)] | None = (
        None  # its code; None: it is read as a standard one is
    )
    values: Annotated[dict[int, str], BeforeValidator(reset_cause_values)]


class Model(Section):
    """What nodes of one hardware can take and tell, where they do not say it themselves."""

    hardware: Hardware
    delta: Annotated[tuple[DeltaFormat, ...], BeforeValidator(delta_formats)] = ()
    ram: Annotated[int, Field(ge=0, lt=2**32)] = 0  # bytes that a patch may take
    reset_cause: ResetCause | None = None

    @model_validator(mode="after")
    def _of_use(self) -> Self:
        if not self.delta and self.reset_cause is None:
            raise ValueError("says nothing of the hardware: delta or reset_cause is needed")
        if self.reset_cause is not None and not self.hardware.startswith("zigbee:"):
            raise ValueError("reset_cause is for Zigbee nodes")
        return self
