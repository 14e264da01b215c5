"""The operator's configuration file: its shape, its ranges, and what it must not hold.

TOML, strict types, no unknown keys, every fault at once with the key's name and line. Secrets are never values here: a
key that ends in `_file` names a file that only its owner may read, and the secret is read when it is used. Paths are
relative to the folder of the configuration file. What the settings mean is documented in config/gatewayd.toml.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from gatewayd.cloud.messages import DeltaFormat, Hardware
from gatewayd.config_faults import fault, line_of
from gatewayd.config_values import (
    Listen,
    SecretFile,
    both_or_none,
    check_proxy,
    check_serial_or_socket,
    check_timezone,
    check_url,
    delta_formats,
    host_of,
    host_port,
    is_loopback,
    minute_of_day,
    not_reserved,
    not_the_start,
    parse_listen,
    private_file,
    public_file,
    quirk_tables,
    reset_cause_values,
    resolved_path,
    secret_file,
    tuf_root,
    tuple_of_list,
)
from gatewayd.errors import ConfigError
from radios.errors import Unsupported
from radios.lorawan.air import RESERVE
from radios.lorawan.regions import region
from radios.zigbee.air import ShareLimits
from radios.zigbee.quirks import Quirk

__all__ = ["CloudTls", "Config", "Listen", "SecretFile", "load"]

CONFIG_MAX_BYTES = 1024 * 1024

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,64}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=256)]
T = TypeVar("T", bound="ServerTls | None")
Port = Annotated[int, Field(ge=1, le=65535)]
FPort = Annotated[int, Field(ge=1, le=223)]
Seconds = Annotated[float, Field(gt=0, le=30 * 86400)]
Eui = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
PanId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{4}$"), AfterValidator(not_reserved)]
Uuid = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
Host = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:-]{1,253}$")]
Url = Annotated[str, AfterValidator(check_url)]
HostPort = Annotated[str, AfterValidator(host_port)]
Folder = Annotated[Path, BeforeValidator(resolved_path)]
PublicFile = Annotated[Path, BeforeValidator(public_file)]
PrivateFile = Annotated[Path, BeforeValidator(private_file)]
Secret = Annotated[SecretFile, BeforeValidator(secret_file)]
Share = Annotated[float, Field(ge=0.02, le=1)]
MinuteOfDay = Annotated[int, BeforeValidator(minute_of_day)]
TopicPrefix = Annotated[str, StringConstraints(pattern=r"^[^+#]{0,128}$")]
TopicPrefixes = Annotated[tuple[TopicPrefix, ...], BeforeValidator(tuple_of_list), Field(min_length=1)]
Names = Annotated[tuple[Name, ...], BeforeValidator(tuple_of_list)]
Urls = Annotated[tuple[Url, ...], BeforeValidator(tuple_of_list), Field(min_length=1)]
Euis = Annotated[tuple[Eui, ...], BeforeValidator(tuple_of_list)]


class Section(BaseModel):
    """Base of every table of the file."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, arbitrary_types_allowed=True)


class ServerTls(Section):
    """TLS towards a server: whose certificates are trusted."""

    ca: PublicFile


class CloudTls(ServerTls):
    """The same, and who we are."""

    cert: PublicFile | None = None
    key: Annotated[PrivateFile | None, Field(validate_default=True)] = None

    _both = field_validator("key")(both_or_none)


def _tls_table(value: object) -> object:
    if value is False:
        return None
    if isinstance(value, dict | ServerTls):
        return value
    raise ValueError("must be a table with `ca`, or false (loopback only)")


_TlsTable = BeforeValidator(_tls_table)  # None: no TLS (`tls = false`), which is accepted on loopback only


def _plain_on_loopback(tls: T, host: str | None) -> T:
    if tls is None and host is not None and not is_loopback(host):
        raise ValueError(f"false is accepted on loopback only, not for {host}")
    return tls


class Gateway(Section):
    id: Name  # equals the MQTT client id and the certificate's CN
    fleets: Names = ()
    state_dir: Folder = Path("/var/lib/gatewayd")
    timezone: Annotated[str, AfterValidator(check_timezone)] = "UTC"
    region: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{0,64}$")] = ""  # for the tiers of campaigns
    tags: dict[Text, Text] = Field(default_factory=dict)  # of all nodes, for the tiers of campaigns
    assume_synchronised: bool = False  # containers and labs: believe the wall clock without asking the kernel


class Broker(Section):
    """An MQTT broker and how to log in."""

    host: Host
    port: Port = 8883
    protocol: Literal["5", "3.1.1"] = "5"
    tls: Annotated[CloudTls | None, _TlsTable]
    username: Text | None = None
    password_file: Secret | None = None
    keepalive_s: Annotated[int, Field(ge=5, le=3600)] = 60

    @field_validator("tls")
    @classmethod
    def _tls(cls, tls: CloudTls | None, info: ValidationInfo) -> CloudTls | None:
        return _plain_on_loopback(tls, info.data.get("host"))


class Cloud(Broker):
    """The cloud's, and how fast it is told what has piled up."""

    drain_kb_s: Annotated[int, Field(ge=1)] = 32


class Trust(Section):
    """The TUF repository."""

    root: Annotated[Path, BeforeValidator(tuf_root)]
    metadata_url: Url
    targets_url: Url | None = None
    refresh_s: Annotated[int, Field(ge=1, le=86400)] = 3600
    ca: PublicFile | None = None
    cert: PublicFile | None = None
    key: Annotated[PrivateFile | None, Field(validate_default=True)] = None

    _both = field_validator("key")(both_or_none)

    @property
    def targets(self) -> str:
        """`targets_url`, or the folder `targets` beside the metadata's folder."""
        return self.targets_url or self.metadata_url.rstrip("/").rpartition("/")[0] + "/targets"


class Proxy(Section):
    """An HTTP proxy for the repository and the payloads."""

    url: Annotated[str, AfterValidator(check_proxy)]
    username: Text | None = None
    password_file: Secret | None = None


class DownloadQuietHours(Section):
    """Hours of the site's day in which payloads come slower, or not at all."""

    start: MinuteOfDay
    end: MinuteOfDay
    rate_kb_s: Annotated[int, Field(ge=0)] = 0

    _differs = field_validator("end")(not_the_start)


class Payload(Section):
    """Firmware files: where they come from, and how much room they may take."""

    urls: Urls
    ca: PublicFile | None = None
    cert: PublicFile | None = None
    key: Annotated[PrivateFile | None, Field(validate_default=True)] = None
    rate_kb_s: Annotated[int, Field(ge=1)] | None = None  # of all downloads together; None: as fast as they come
    quiet_hours: DownloadQuietHours | None = None

    _both = field_validator("key")(both_or_none)

    quota_mb: Annotated[int, Field(ge=1)] = 512
    reserve_mb: Annotated[int, Field(ge=0)] = 64  # of the file system, never used
    low_speed_bytes_s: Annotated[int, Field(ge=0)] = 256  # slower than this over low_speed_s: try again
    low_speed_s: Seconds = 30.0
    connect_timeout_s: Seconds = 10.0


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


class Bridge(Section):
    """The nodes' own traffic over MQTT."""

    enabled: bool = True
    requests: Literal["none", "read", "all"] = "read"
    mqtt: Broker | None = None  # None: the cloud's broker


class LorawanBroker(Section):
    """A broker that ChirpStack speaks to."""

    host: Host
    port: Port = 1883
    tls: Annotated[ServerTls | None, _TlsTable]
    username: Text | None = None
    password_file: Secret | None = None

    @field_validator("tls")
    @classmethod
    def _tls(cls, tls: ServerTls | None, info: ValidationInfo) -> ServerTls | None:
        return _plain_on_loopback(tls, info.data.get("host"))


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
    grpc_tls: Annotated[ServerTls | None, _TlsTable]
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
        return _plain_on_loopback(tls, None if grpc is None else host_of(grpc))

    @property
    def on_loopback(self) -> bool:
        bus = None if self.gateway_bus is None else self.gateway_bus.mqtt
        brokers = [self.mqtt.host] if bus is None else [self.mqtt.host, bus.host]
        return is_loopback(host_of(self.grpc)) and all(map(is_loopback, brokers))


class Backup(Section):
    """Backups of the whole gateway at intervals."""

    folder: Folder
    every_h: Annotated[float, Field(ge=1, le=24 * 30)] = 24.0
    keep: Annotated[int, Field(ge=1, le=1000)] = 7
    passphrase_file: Secret | None = None  # None: not sealed
    payloads: bool = False


class Status(Section):
    listen: Annotated[Listen, BeforeValidator(parse_listen)] = Listen(host="127.0.0.1", port=8470)


class Log(Section):
    format: Literal["console", "json"] = "console"
    level: Literal["debug", "info", "warning", "error"] = "info"


class TimeScale(Section):
    lorawan: Annotated[float, Field(ge=1, le=100_000)] = 1.0
    zigbee: Annotated[float, Field(ge=1, le=100_000)] = 1.0


class Lab(Section):
    """Simulated radios: their time runs `time_scale` times faster than real time since `time_origin`."""

    time_scale: TimeScale = TimeScale()
    time_origin: Annotated[float, Field(ge=0, lt=2**33)]  # Unix seconds, where both times agree


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


class Config(Section):
    """The whole file. A table that is absent and has no default is a radio that this gateway does not have."""

    gateway: Gateway
    cloud: Cloud
    trust: Trust
    payload: Payload
    proxy: Proxy | None = None
    zigbee: Zigbee | None = None
    bridge: Bridge = Bridge()
    lorawan: Lorawan | None = None
    models: Annotated[tuple[Model, ...], BeforeValidator(tuple_of_list)] = ()
    backup: Backup | None = None
    status: Status = Status()
    log: Log = Log()
    lab: Lab | None = None

    @field_validator("lab")
    @classmethod
    def _lab_is_no_site(cls, lab: Lab | None, info: ValidationInfo) -> Lab | None:
        radios = (info.data.get("zigbee"), info.data.get("lorawan"))
        real = [type(radio).__name__.lower() for radio in radios if radio is not None and not radio.on_loopback]
        if lab is not None and real:
            raise ValueError(f"is refused beside a real radio: [{'], ['.join(real)}] is not on loopback")
        return lab


def load(path: Path) -> Config:
    """The configuration in `path`. ConfigError with every fault, each with its key and line; reads no secret."""
    try:
        raw = path.read_bytes()
        if len(raw) > CONFIG_MAX_BYTES:
            raise ConfigError(f"{path}: larger than {CONFIG_MAX_BYTES} bytes")
        text = raw.decode()
        table = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is no UTF-8 text: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is no TOML: {error}") from None
    try:
        return Config.model_validate(table, context={"folder": path.absolute().parent})
    except ValidationError as error:
        faults = sorted((line_of(text, e["loc"]), fault(e, Config)) for e in error.errors(include_url=False))
        lines = [f"{path}:{line}: {fault}" if line else f"{path}: {fault}" for line, fault in faults]
        raise ConfigError("\n".join(lines)) from None
