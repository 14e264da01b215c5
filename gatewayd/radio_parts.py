"""The configured radios, built and not yet running: each with its clock and journal, and what stands on a radio alone. SHELL.

Which radio has a bridge or backups of its network is known here. Not responsible for running any of it (`app.py`), nor for
what an operator's settings mean to a radio (`radio_settings.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

import structlog

from gatewayd.campaign.journal import RadioJournal
from gatewayd.campaign.radio_time import RadioTime
from gatewayd.cloud_settings import broker_settings
from gatewayd.config import Config
from gatewayd.errors import ConfigError
from gatewayd.nodes.bridge import BridgeSettings, NodeBridge
from gatewayd.nodes.network_backup import NetworkBackups
from gatewayd.radio_settings import lorawan_settings, zigbee_settings
from gatewayd.service.serial_names import better_name
from gatewayd.service.wall_clock import WallClock
from gatewayd.store.database import Database
from radios.clock import Clock, ScaledClock, SystemClock
from radios.errors import RadioError
from radios.lorawan.driver import LorawanRadio
from radios.radio import Radio
from radios.zigbee.driver import ZigbeeRadio

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RadioParts:
    """One configured radio and what belongs to it."""

    radio: Radio
    clock: Clock
    journal: RadioJournal


def built(
    config: Config,
    database: Database,
    wall: WallClock,
    times: RadioTime,
    changed: Callable[[], None],
    reported: Callable[[], None],
    state: Path,
) -> dict[str, RadioParts]:
    radios: dict[str, RadioParts] = {}
    scale = config.lab.time_scale if config.lab else None
    if config.zigbee is not None:
        clock = _clock(config, scale.zigbee if scale else 1.0)
        zone = ZoneInfo(config.gateway.timezone)
        if (better := better_name(config.zigbee.device)) is not None:
            log.warning("device_name_unstable", device=config.zigbee.device, better=better)
        zigbee = ZigbeeRadio(zigbee_settings(config.zigbee, state, zone, config.models), clock)
        radios["zigbee"] = RadioParts(zigbee, clock, RadioJournal("zigbee", database, wall, changed, reported, times))
    if config.lorawan is not None:
        clock = _clock(config, scale.lorawan if scale else 1.0)
        try:
            zone = ZoneInfo(config.gateway.timezone)
            lorawan = LorawanRadio(lorawan_settings(config.lorawan, config.gateway.id, zone), clock)
        except (ValueError, RadioError) as error:
            raise ConfigError(f"[lorawan]: {error}") from error
        journal = RadioJournal("lorawan", database, wall, changed, reported, times)
        radios["lorawan"] = RadioParts(lorawan, clock, journal)
    for kind, parts in radios.items():
        times.take(kind, parts.clock)
    if not radios:
        log.warning("no_radio_configured")
    return radios


def _clock(config: Config, scale: float) -> Clock:
    return SystemClock() if config.lab is None else ScaledClock(scale, config.lab.time_origin)


def network_backups(
    config: Config, radios: dict[str, RadioParts], wall: WallClock, state: Path
) -> dict[str, NetworkBackups]:
    """A LoRaWAN network is its network server's to back up."""
    if config.zigbee is None:
        return {}
    every_s, keep = config.zigbee.backup_every_h * 3600.0, config.zigbee.backup_keep_days
    return {"zigbee": NetworkBackups(radios["zigbee"].radio, state / "backups", every_s, keep, wall.now)}


def bridge(config: Config, radios: dict[str, RadioParts], times: RadioTime) -> NodeBridge | None:
    """LoRaWAN nodes' data are handed on by ChirpStack's own integrations."""
    if "zigbee" not in radios or not config.bridge.enabled:
        return None
    settings = BridgeSettings(broker_settings(config.bridge.mqtt or config.cloud), config.bridge.requests)
    return NodeBridge(settings, config.gateway.id, {"zigbee": radios["zigbee"].radio}, moved=times.moved)


def radios_of(parts: dict[str, RadioParts]) -> dict[str, Radio]:
    return {kind: p.radio for kind, p in parts.items()}


def journals_of(parts: dict[str, RadioParts]) -> dict[str, RadioJournal]:
    return {kind: p.journal for kind, p in parts.items()}
