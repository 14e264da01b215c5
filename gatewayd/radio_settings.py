"""From the operator's configuration to the settings of the radios; secrets are read here, at the last moment."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, tzinfo
from pathlib import Path

from gatewayd.config_radios import GatewayBus, Lorawan, Model, Zigbee
from gatewayd.config_values import SecretFile
from gatewayd.errors import ConfigError
from radios.lorawan.air import AirLimits
from radios.lorawan.chirpstack import ChirpStackSettings, GatewayBusSettings
from radios.lorawan.chirpstack_mqtt import Broker
from radios.lorawan.cohort import SessionSettings
from radios.lorawan.keys import Key
from radios.lorawan.session_node import Ports
from radios.lorawan.settings import LorawanSettings
from radios.quiet_hours import QuietHours
from radios.zigbee.air import ShareLimits
from radios.zigbee.pacing import PacingLimits
from radios.zigbee.reset_cause import ResetCauseAttribute
from radios.zigbee.settings import ZigbeeSettings

NETWORK_KEY_BYTES = 16
EUI_BYTES = 8


def zigbee_settings(
    config: Zigbee, state: Path, timezone: tzinfo = UTC, models: Sequence[Model] = ()
) -> ZigbeeSettings:
    """zigpy keeps its own table of devices beside our store. `timezone` is that of the quiet hours."""
    quiet = config.quiet_hours
    shares = ShareLimits(
        config.air_share,
        config.foreground_share,
        None if quiet is None else QuietHours(quiet.start, quiet.end, quiet.air_share),
    )
    pacing = PacingLimits(shares=shares)
    if config.concurrency is not None:
        pacing = replace(pacing, max_active_nodes=config.concurrency)
    return ZigbeeSettings(
        device=config.device,
        radio_library=config.library,
        baudrate=config.baudrate,
        flow_control=None if config.flow_control == "none" else config.flow_control,
        database=state / "zigbee.db",
        channel=config.channel,
        pan_id=None if config.pan_id is None else int(config.pan_id, 16),
        extended_pan_id=config.extended_pan_id,
        network_key=None if config.network_key_file is None else _network_key(config.network_key_file),
        pacing=pacing,
        page_requests=config.page_requests,
        broadcast_notify=config.broadcast_notify,
        timezone=timezone,
        reset_causes={
            model.hardware: ResetCauseAttribute(told.cluster, told.attribute, told.manufacturer, told.values)
            for model in models
            if (told := model.reset_cause) is not None
        },
        quirks=config.quirks,
    )


def lorawan_settings(config: Lorawan, gateway: str, timezone: tzinfo = UTC) -> LorawanSettings:
    """ValueError for a combination that the region does not know. `timezone` is that of the quiet hours."""
    mqtt, quiet = config.mqtt, config.quiet_hours
    return LorawanSettings(
        chirpstack=ChirpStackSettings(
            grpc_target=config.grpc,
            api_token=config.api_token_file.read(),
            application_id=config.application_id,
            tenant_id=config.tenant_id,
            mqtt_host=mqtt.host,
            mqtt_port=mqtt.port,
            mqtt_username=mqtt.username,
            mqtt_password=mqtt.password_file.read() if mqtt.password_file else None,
            mqtt_topic_prefix=mqtt.topic_prefix,
            tls_ca_path=_path(config.grpc_tls.ca) if config.grpc_tls else None,
            mqtt_tls_ca_path=_path(mqtt.tls.ca) if mqtt.tls else None,
            gateway_ids=config.gateway_ids,
            reset_cause_field=config.reset_cause_field,
            gateway_bus=None if config.gateway_bus is None else _gateway_bus(config.gateway_bus),
        ),
        region=config.region,
        multicast_frequency_hz=config.frequency_hz,
        multicast_data_rate=config.data_rate,
        root_keys={} if config.root_keys_file is None else _root_keys(config.root_keys_file),
        ports=Ports(**config.ports.model_dump()),
        repeater_compatible=config.repeater_compatible,
        dwell_time=config.downlink_dwell_time,
        class_c_margin_s=config.class_c_margin_s,
        owner=gateway,
        owner_required=config.owner_required,
        air=AirLimits(
            air_share=config.air_share,
            reserve=config.air_reserve,
            burst=config.pacing == "burst",
            quiet_hours=None if quiet is None else QuietHours(quiet.start, quiet.end, quiet.air_share),
        ),
        timezone=timezone,
        session=SessionSettings(gather_s=config.gather_s),
    )


def _gateway_bus(config: GatewayBus) -> GatewayBusSettings:
    mqtt = config.mqtt
    broker = None
    if mqtt is not None:
        broker = Broker(
            mqtt.host,
            mqtt.port,
            mqtt.username,
            mqtt.password_file.read() if mqtt.password_file else None,
            _path(mqtt.tls.ca) if mqtt.tls else None,
        )
    return GatewayBusSettings(config.topic_prefixes, broker)


def _root_keys(file: SecretFile) -> dict[str, Key]:
    """A line for each node: DevEUI and key in hex. ConfigError with the line's number, without its text."""
    keys: dict[str, Key] = {}
    for number, line in enumerate(file.read().splitlines(), 1):
        words = line.partition("#")[0].lower().split()
        if not words:
            continue
        found = _root_key(words)
        if found is None or found[0] in keys:
            raise ConfigError(
                f"[lorawan] root_keys_file: {file.path} line {number} must hold a DevEUI of 16 hex digits that is on no line"
                " before, and a key of 32"
            )
        keys.update((found,))
    return keys


def _root_key(words: list[str]) -> tuple[str, Key] | None:
    if len(words) != 2 or len(words[0]) != 2 * EUI_BYTES or not set(words[0]) <= set("0123456789abcdef"):
        return None
    try:
        return words[0], Key.from_hex(words[1])
    except ValueError:
        return None


def _network_key(file: SecretFile) -> bytes:
    """ConfigError without the file's text."""
    try:
        key = bytes.fromhex(file.read())
    except ValueError:
        key = b""
    if len(key) != NETWORK_KEY_BYTES or len(set(key)) == 1:
        raise ConfigError(f"[zigbee] network_key_file: {file.path} must hold a key of 32 hex digits")
    return key


def _path(path: Path | None) -> str | None:
    return None if path is None else str(path)
