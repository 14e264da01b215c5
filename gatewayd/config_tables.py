"""What tables of the configuration file have in common: their base, kinds of value, TLS, and MQTT brokers. SHELL.

Not responsible for checking a single value (`config_values.py`), nor for what the file holds (`config.py`).
"""

from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
)

from gatewayd.config_values import (
    SecretFile,
    both_or_none,
    check_url,
    host_port,
    is_loopback,
    minute_of_day,
    not_reserved,
    private_file,
    public_file,
    resolved_path,
    secret_file,
    tuple_of_list,
)

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


TlsTable = BeforeValidator(_tls_table)  # None: no TLS (`tls = false`), which is accepted on loopback only


def plain_on_loopback(tls: T, host: str | None) -> T:
    if tls is None and host is not None and not is_loopback(host):
        raise ValueError(f"false is accepted on loopback only, not for {host}")
    return tls


class Broker(Section):
    """An MQTT broker and how to log in."""

    host: Host
    port: Port = 8883
    protocol: Literal["5", "3.1.1"] = "5"
    tls: Annotated[CloudTls | None, TlsTable]
    username: Text | None = None
    password_file: Secret | None = None
    keepalive_s: Annotated[int, Field(ge=5, le=3600)] = 60

    @field_validator("tls")
    @classmethod
    def _tls(cls, tls: CloudTls | None, info: ValidationInfo) -> CloudTls | None:
        return plain_on_loopback(tls, info.data.get("host"))
