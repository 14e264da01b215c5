"""The operator's configuration file: its shape, its ranges, and what it must not hold. SHELL.

TOML, strict types, no unknown keys, every fault at once with the key's name and line. Secrets are never values here: a
key that ends in `_file` names a file that only its owner may read, and the secret is read when it is used. Paths are
relative to the folder of the configuration file. What the settings mean is documented in config/gatewayd.toml. The radios' tables are in `config_radios.py`.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from gatewayd.config_faults import fault, line_of
from gatewayd.config_radios import Lorawan, Model, Zigbee
from gatewayd.config_tables import (
    Broker,
    Folder,
    MinuteOfDay,
    Name,
    Names,
    PrivateFile,
    PublicFile,
    Seconds,
    Secret,
    Section,
    Text,
    Url,
    Urls,
)
from gatewayd.config_values import (
    Listen,
    both_or_none,
    check_proxy,
    check_timezone,
    not_the_start,
    parse_listen,
    tuf_root,
    tuple_of_list,
)
from gatewayd.errors import ConfigError

CONFIG_MAX_BYTES = 1024 * 1024


class Gateway(Section):
    id: Name  # equals the MQTT client id and the certificate's CN
    fleets: Names = ()
    state_dir: Folder = Path("/var/lib/gatewayd")
    timezone: Annotated[str, AfterValidator(check_timezone)] = "UTC"
    region: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{0,64}$")] = ""  # for the tiers of campaigns
    tags: dict[Text, Text] = Field(default_factory=dict)  # of all nodes, for the tiers of campaigns
    assume_synchronised: bool = False  # containers and labs: believe the wall clock without asking the kernel


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


class Bridge(Section):
    """The nodes' own traffic over MQTT."""

    enabled: bool = True
    requests: Literal["none", "read", "all"] = "read"
    mqtt: Broker | None = None  # None: the cloud's broker


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
