"""What the configuration says of brokers, and of what the cloud is told, as the links understand it."""

from dataclasses import replace

from gatewayd.cloud.connection import CloudSettings, TlsFiles
from gatewayd.cloud.messages import InventorySite
from gatewayd.config import Cloud, Config
from gatewayd.config_tables import Broker, CloudTls


def cloud_settings(cloud: Cloud) -> CloudSettings:
    """Of the cloud's broker."""
    return replace(broker_settings(cloud), drain_bytes_s=cloud.drain_kb_s * 1000.0)


def broker_settings(broker: Broker) -> CloudSettings:
    """Of any broker. ConfigError when the combination cannot be meant, or a password cannot be read."""
    return CloudSettings(
        host=broker.host,
        port=broker.port,
        tls=_tls_files(broker.tls),
        username=broker.username,
        password=broker.password_file.read() if broker.password_file else None,
        protocol=broker.protocol,
        keepalive_s=broker.keepalive_s,
    )


def inventory_site(config: Config) -> InventorySite:
    """What the inventory's pages say of the gateway itself."""
    lorawan = config.lorawan
    return InventorySite(
        region=config.gateway.region,
        timezone=config.gateway.timezone,
        lorawan_region=lorawan.region if lorawan else None,
        lorawan_data_rate=lorawan.data_rate if lorawan else None,
    )


def _tls_files(tls: CloudTls | None) -> TlsFiles | None:
    return None if tls is None else TlsFiles(tls.ca, tls.cert, tls.key)
