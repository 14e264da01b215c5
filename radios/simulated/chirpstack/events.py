"""Integration events in ChirpStack's JSON: camelCase, bytes in base64, EUIs in lower-case hex, defaults present."""

import base64
import random
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

from radios.simulated.chirpstack.model import Device, Event, QueueItem
from radios.simulated.lorawan.node import RESET_CAUSES, SENSOR_PORT
from radios.simulated.lorawan.node_clock import gps_of_unix
from radios.simulated.lorawan.phy import Uplink
from radios.simulated.lorawan.region import bandwidth_hz, spreading_factor

_REGION_CONFIG = "eu868"


def _decoded(device: Device, uplink: Uplink) -> dict[str, object]:
    """What the codec of the device's profile makes of a reading; devices without one have no object."""
    if not device.spec.tells_reset_cause or uplink.f_port != SENSOR_PORT or len(uplink.payload) != 5:
        return {}
    reading = {"count": int.from_bytes(uplink.payload[:4], "big"), "reset_cause": RESET_CAUSES[uplink.payload[4]]}
    return {"object": reading}


class EventMaker:
    """Fills in what all events share. Its own random numbers: ids of events do not disturb the air."""

    def __init__(self, tenant_id: str, application_id: str, seed: int) -> None:
        self._tenant_id = tenant_id
        self._application_id = application_id
        self._random = random.Random(f"{seed}/events")

    def new_id(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def up(self, device: Device, uplink: Uplink, gateways: Sequence[str], at: float) -> Event:
        body = {
            "deduplicationId": self.new_id(),
            **self._common(device, at),
            "devAddr": f"{device.activation.dev_addr:08x}",
            "adr": False,
            "dr": uplink.data_rate,
            "fCnt": uplink.f_cnt,
            "fPort": uplink.f_port,
            "confirmed": False,
            "data": base64.b64encode(uplink.payload).decode(),
            **_decoded(device, uplink),
            "rxInfo": [self._rx_info(device, gateway, at) for gateway in gateways],
            "txInfo": _tx_info(uplink.frequency_hz, uplink.data_rate),
            "regionConfigId": _REGION_CONFIG,
        }
        return Event(device.dev_eui, "up", body)

    def join(self, device: Device, at: float) -> Event:
        body = {
            "deduplicationId": self.new_id(),
            **self._common(device, at),
            "devAddr": f"{device.activation.dev_addr:08x}",
            "regionConfigId": _REGION_CONFIG,
        }
        return Event(device.dev_eui, "join", body)

    def ack(self, device: Device, item: QueueItem, at: float, *, acknowledged: bool) -> Event:
        body = {
            "deduplicationId": self.new_id(),
            **self._common(device, at),
            "queueItemId": item.id,
            "acknowledged": acknowledged,
            "fCntDown": item.f_cnt_down,
        }
        return Event(device.dev_eui, "ack", body)

    def txack(
        self, device: Device, item: QueueItem, gateway_id: str, frequency_hz: int, data_rate: int, at: float
    ) -> Event:
        body = {
            "downlinkId": self._random.getrandbits(32),
            **self._common(device, at),
            "queueItemId": item.id,
            "fCntDown": item.f_cnt_down,
            "gatewayId": gateway_id,
            "txInfo": {**_tx_info(frequency_hz, data_rate), "power": 16},
        }
        return Event(device.dev_eui, "txack", body)

    def log(self, device: Device, level: str, code: str, description: str, context: dict[str, str], at: float) -> Event:
        body = {
            **self._common(device, at),
            "level": level,
            "code": code,
            "description": description,
            "context": context,
        }
        return Event(device.dev_eui, "log", body)

    def status(self, device: Device, battery_percent: float | None, at: float) -> Event:
        mains = device.spec.mains
        body = {
            "deduplicationId": self.new_id(),
            **self._common(device, at),
            "margin": device.spec.margin_db,
            "externalPowerSource": mains,
            "batteryLevelUnavailable": not mains and battery_percent is None,
            "batteryLevel": 0.0 if mains or battery_percent is None else battery_percent,
        }
        return Event(device.dev_eui, "status", body)

    def _common(self, device: Device, at: float) -> dict[str, object]:
        return {
            "time": rfc3339(at),
            "deviceInfo": {
                "tenantId": self._tenant_id,
                "tenantName": "simulated",
                "applicationId": self._application_id,
                "applicationName": "simulated",
                "deviceProfileId": device.profile.id,
                "deviceProfileName": device.profile.name,
                "deviceName": device.spec.name,
                "devEui": device.dev_eui,
                "deviceClassEnabled": device.class_enabled,
                "tags": dict(device.spec.tags),
            },
        }

    def _rx_info(self, device: Device, gateway_id: str, at: float) -> dict[str, object]:
        return {
            "gatewayId": gateway_id,
            "uplinkId": self._random.getrandbits(32),
            "gwTime": rfc3339(at),
            "timeSinceGpsEpoch": f"{gps_of_unix(at):.3f}s",
            "rssi": device.spec.rssi_dbm,
            "snr": device.spec.snr_db,
            "channel": 0,
            "context": "AAAAAA==",
            "crcStatus": "CRC_OK",
        }


def rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds")


def _tx_info(frequency_hz: int, data_rate: int) -> dict[str, object]:
    lora = {
        "bandwidth": bandwidth_hz(data_rate),
        "spreadingFactor": spreading_factor(data_rate),
        "codeRate": "CR_4_5",
    }
    return {"frequency": frequency_hz, "modulation": {"lora": lora}}
