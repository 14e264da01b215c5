"""How to reach one application of one ChirpStack."""

import ipaddress
from dataclasses import dataclass

from radios.lorawan.chirpstack_mqtt import Broker


@dataclass(frozen=True, slots=True)
class GatewayBusSettings:
    """Where ChirpStack speaks with its gateways: a prefix of topics for each region. `broker` None: the integration's."""

    topic_prefixes: tuple[str, ...] = ("",)
    broker: Broker | None = None


@dataclass(frozen=True, slots=True)
class ChirpStackSettings:
    """How to reach one application of one ChirpStack. Secrets are values here: who reads them from files is the daemon."""

    grpc_target: str  # host:port
    api_token: str
    application_id: str
    tenant_id: str
    mqtt_host: str
    mqtt_port: int = 1883
    mqtt_username: str | None = None
    mqtt_password: str | None = None
    mqtt_topic_prefix: str = ""  # of ChirpStack's integration, empty by default
    tls_ca_path: str | None = None  # gRPC; None: no TLS, on loopback only
    mqtt_tls_ca_path: str | None = None
    gateway_ids: tuple[str, ...] = ()  # empty: every gateway of the tenant
    gateway_bus: GatewayBusSettings | None = None  # None: not listened to
    reset_cause_field: str = ""  # of decoded payloads: why a device was last reset; empty: none tells
    call_timeout_s: float = 10.0  # real seconds

    def __post_init__(self) -> None:
        if self.tls_ca_path is None and not _on_loopback(self.grpc_target):
            raise ValueError(f"gRPC to {self.grpc_target} needs tls_ca: an API token never travels in the clear")

    @property
    def broker(self) -> Broker:
        """Of the integration."""
        return Broker(
            self.mqtt_host,
            self.mqtt_port,
            self.mqtt_username,
            self.mqtt_password,
            self.mqtt_tls_ca_path,
            self.call_timeout_s,
        )

    def __repr__(self) -> str:
        return f"ChirpStackSettings({self.grpc_target}, application {self.application_id})"


def _on_loopback(target: str) -> bool:
    """Whether a gRPC target stays on this machine. By address, not by prefix: 127.example.org is somewhere else."""
    if target.startswith("unix:"):
        return True
    host = target.rpartition(":")[0] if target.count(":") == 1 or "]:" in target else target
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return host == "localhost"
