"""What each configured radio makes of its journal after a restore: the radios' own rules, given the operator's settings."""

from gatewayd.backup.restore import AfterRestore
from gatewayd.config import Config
from gatewayd.config_radios import Lorawan
from radios.lorawan import restored as lorawan_restored
from radios.lorawan.regions import region
from radios.lorawan.session_factory import new_group
from radios.radio import Json, Record
from radios.zigbee import restored as zigbee_restored
from radios.zigbee.network import read_backup
from radios.zigbee.restored import Replacement


def after_restore(config: Config, *, burn_address: bool = False, keep_address: bool = False) -> dict[str, AfterRestore]:
    """By kind. `burn_address`, `keep_address`: of the Zigbee coordinator, as in `gatewayd zigbee restore`."""
    found: dict[str, AfterRestore] = {}
    if config.zigbee is not None:

        def zigbee(records: list[Record], made_at: float, now: float, network: Json) -> list[Record]:
            del made_at, now  # the network's frame counters go by the age of its own backup
            if network is None:
                return zigbee_restored.after_restore(records, None)
            read_backup(network)  # FrameError now rather than when the dongle is there
            return zigbee_restored.after_restore(records, Replacement(network, burn_address, keep_address))

        found["zigbee"] = zigbee
    if config.lorawan is not None:
        settings, scale = config.lorawan, config.lab.time_scale.lorawan if config.lab else 1.0
        origin = config.lab.time_origin if config.lab else 0.0

        def lorawan(records: list[Record], made_at: float, now: float, network: Json) -> list[Record]:
            del network
            made, at = (origin + (when - origin) * scale for when in (made_at, now))
            return _lorawan(settings, records, made, at)

        found["lorawan"] = lorawan
    return found


def _lorawan(settings: Lorawan, records: list[Record], made_at: float, now: float) -> list[Record]:
    """Times are the radio's."""
    plan = region(settings.region)
    frequency_hz = settings.frequency_hz or plan.rx2_frequency_hz
    return lorawan_restored.after_restore(records, made_at, now, plan, frequency_hz, settings.gateway_ids, new_group)
