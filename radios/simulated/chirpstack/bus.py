"""The gateway bus between the simulated ChirpStack and its gateways: what is said there, and how it looks on MQTT."""

from dataclasses import dataclass
from typing import Any

from chirpstack_api import gw
from google.protobuf import json_format

from radios.simulated.lorawan.phy import Downlink
from radios.simulated.lorawan.region import bandwidth_hz, spreading_factor


@dataclass(frozen=True, slots=True)
class BusMessage:
    """A downlink for a gateway, or (with `statuses`) the gateway's answer to it: of each frame, gw.TxAckStatus by name."""

    gateway_id: str
    downlink_id: int
    frames: tuple[Downlink, ...]
    statuses: tuple[str, ...] | None = None


def encoded(message: BusMessage, prefix: str, *, as_json: bool) -> tuple[str, bytes]:
    """Topic and payload."""
    made: Any
    if message.statuses is None:
        kind = "command/down"
        made = gw.DownlinkFrame(
            downlink_id=message.downlink_id,
            gateway_id=message.gateway_id,
            items=[gw.DownlinkFrameItem(phy_payload=frame.phy, tx_info=_tx_info(frame)) for frame in message.frames],
        )
    else:
        kind = "event/ack"
        made = gw.DownlinkTxAck(
            downlink_id=message.downlink_id,
            gateway_id=message.gateway_id,
            items=[gw.DownlinkTxAckItem(status=status) for status in message.statuses],
        )
    topic = f"{prefix}/gateway/{message.gateway_id}/{kind}" if prefix else f"gateway/{message.gateway_id}/{kind}"
    return topic, json_format.MessageToJson(made).encode() if as_json else made.SerializeToString()


def _tx_info(frame: Downlink) -> Any:
    lora = gw.LoraModulationInfo(
        bandwidth=bandwidth_hz(frame.data_rate), spreading_factor=spreading_factor(frame.data_rate), code_rate=gw.CR_4_5
    )
    return gw.DownlinkTxInfo(frequency=frame.frequency_hz, power=16, modulation=gw.Modulation(lora=lora))
