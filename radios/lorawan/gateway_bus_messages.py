"""Messages of ChirpStack's gateway bus, protobuf or JSON, into `GatewayBus`. SHELL around chirpstack_api.

Hostile bytes give a reason, no exception. Topics and connections are not its business.
"""

from typing import Any

from chirpstack_api import gw
from google.protobuf import json_format
from google.protobuf.message import DecodeError

from radios.lorawan.gateway_bus import GatewayBus, Transmitted

MAX_MESSAGE_BYTES = 64 * 1024


def hear_downlink(bus: GatewayBus, gateway_id: str, payload: bytes, *, as_json: bool = False) -> str:
    """A message of `gateway/<id>/command/down`; what is wrong with it, empty when nothing is."""
    frame = _parsed(gw.DownlinkFrame, payload, as_json)
    if isinstance(frame, str):
        return frame
    bus.downlink(gateway_id, frame.downlink_id, [item.phy_payload for item in frame.items])
    return ""


def hear_ack(bus: GatewayBus, gateway_id: str, payload: bytes, *, as_json: bool = False) -> Transmitted | str | None:
    """A message of `gateway/<id>/event/ack`; None when it is about nothing known, a text when it is no such message."""
    ack = _parsed(gw.DownlinkTxAck, payload, as_json)
    if isinstance(ack, str):
        return ack
    return bus.ack(gateway_id, ack.downlink_id, [_status(item.status) for item in ack.items])


def _status(value: int) -> str:
    """Of a status newer than our API library, its number: never OK."""
    return str(gw.TxAckStatus.Name(value)) if value in gw.TxAckStatus.values() else str(value)


def _parsed(kind: Any, payload: bytes, as_json: bool) -> Any:
    if len(payload) > MAX_MESSAGE_BYTES:
        return f"{len(payload)} bytes, more than {MAX_MESSAGE_BYTES}"
    try:
        if as_json:
            return json_format.Parse(payload, kind(), ignore_unknown_fields=True)
        return kind.FromString(payload)
    except (DecodeError, json_format.ParseError, ValueError, TypeError, AttributeError, RecursionError) as error:
        return f"{type(error).__name__}: {error}"
