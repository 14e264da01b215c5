"""ChirpStack's MQTT up event (JSON of its integration messages) -> `Uplink`. PURE. Hostile bytes give a reason, no exception."""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from radios.lorawan.network_server import Reception, Uplink

MAX_EVENT_BYTES = 64 * 1024
_WORD = re.compile(r"[a-z0-9_-]{1,32}", re.ASCII)


def parse_uplink(payload: bytes, reset_cause_field: str = "") -> Uplink | str:
    """ChirpStack's JSON of an up event; what is wrong with it when it is none.

    `reset_cause_field`: of the object that the device's codec makes of its payload; empty: none is looked for.
    """
    if len(payload) > MAX_EVENT_BYTES:
        return f"{len(payload)} bytes, more than {MAX_EVENT_BYTES}"
    try:
        event = json.loads(payload)
        dev_eui = str(event["deviceInfo"]["devEui"]).lower()
        if len(bytes.fromhex(dev_eui)) != 8:
            return f"devEui is not 8 bytes: {dev_eui[:40]!r}"
        receptions = tuple(_reception(item) for item in event.get("rxInfo") or ())
        return Uplink(
            dev_eui=dev_eui,
            port=int(event.get("fPort") or 0),
            data=base64.b64decode(event.get("data") or "", validate=True),
            f_cnt=int(event.get("fCnt") or 0),
            data_rate=int(event["dr"]) if event.get("dr") is not None else None,
            received_at=_received_at(event),
            receptions=receptions,
            reset_cause=_reset_cause(event.get("object"), reset_cause_field),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError, binascii.Error) as error:
        return f"{type(error).__name__}: {error}"


def _reception(item: Mapping[str, Any]) -> Reception:
    since = item.get("timeSinceGpsEpoch")
    return Reception(
        gateway_id=str(item["gatewayId"]),
        rssi_dbm=float(item["rssi"]) if item.get("rssi") is not None else None,
        snr_db=float(item["snr"]) if item.get("snr") is not None else None,
        gps_time_s=float(str(since).removesuffix("s")) if since is not None else None,
    )


def _reset_cause(decoded: object, field: str) -> str | None:
    """A word, or a number as one; what else a codec may say is none."""
    said = decoded.get(field) if field and isinstance(decoded, dict) else None
    if isinstance(said, bool) or not isinstance(said, str | int):
        return None
    text = str(said).lower()
    return text if _WORD.fullmatch(text) else None


def _received_at(event: Mapping[str, Any]) -> float | None:
    """The gateway's time where one said it, else the server's."""
    texts = [item.get("gwTime") for item in event.get("rxInfo") or ()] + [event.get("time")]
    for text in texts:
        if text:
            moment = datetime.fromisoformat(str(text))
            return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
    return None
