"""Messages of ChirpStack's gateway bus, protobuf or JSON, into this project's dataclasses. SHELL around chirpstack_api.

Hostile bytes give a reason, no exception. Topics and connections are not its business.
"""

from typing import Any

from chirpstack_api import gw
from google.protobuf import json_format
from google.protobuf.message import DecodeError

from radios.lorawan.gateway_bus import GatewayAck, GatewayDownlink, GatewayFrame

MAX_MESSAGE_BYTES = 64 * 1024


def downlink_of(gateway_id: str, payload: bytes) -> GatewayDownlink | str:
    """A message of `gateway/<id>/command/down`; what is wrong with it, when it is none."""
    frame = _parsed(gw.DownlinkFrame, payload)
    if isinstance(frame, str):
        return frame
    return GatewayDownlink(gateway_id, frame.downlink_id, tuple(_frame(item) for item in frame.items))


def ack_of(gateway_id: str, payload: bytes) -> GatewayAck | str:
    """A message of `gateway/<id>/event/ack`; what is wrong with it, when it is none."""
    ack = _parsed(gw.DownlinkTxAck, payload)
    if isinstance(ack, str):
        return ack
    return GatewayAck(gateway_id, ack.downlink_id, tuple(_status(item.status) for item in ack.items))


def _frame(item: Any) -> GatewayFrame:
    info = item.tx_info
    lora = info.modulation.lora
    return GatewayFrame(item.phy_payload, info.frequency, lora.spreading_factor, lora.bandwidth)


def _status(value: int) -> str:
    """Of a status newer than our API library, its number: never OK."""
    return str(gw.TxAckStatus.Name(value)) if value in gw.TxAckStatus.values() else str(value)


def _parsed(kind: Any, payload: bytes) -> Any:
    """JSON begins with a brace, which begins no message of these in protobuf: a field 15 that they have not."""
    if len(payload) > MAX_MESSAGE_BYTES:
        return f"{len(payload)} bytes, more than {MAX_MESSAGE_BYTES}"
    try:
        if payload.startswith(b"{"):
            return json_format.Parse(payload, kind(), ignore_unknown_fields=True)
        return kind.FromString(payload)
    except (DecodeError, json_format.ParseError, ValueError, TypeError, AttributeError, RecursionError) as error:
        return f"{type(error).__name__}: {error}"
