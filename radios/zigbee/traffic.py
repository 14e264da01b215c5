"""What nodes send of their own accord, as the contract's messages: attribute reports and cluster commands.

Frames are kept as they came, beside zigpy, and decoded when they are fetched: so nothing is lost of a node that is not
interviewed yet or has clusters that zigpy does not know, and a flood costs the downloads nothing. Names are those of
zigpy's definitions. Left out are frames of the OTA cluster, and general commands other than reports: those are answers to
ours, or protocol between node and zigpy. Nothing is de-duplicated (zigpy drops the same bytes within 10 s, the radio's
stack repeated frames): `sequence` tells repetitions apart. Frames of an unknown sender are held until it has a name. Green
Power devices are no nodes, and have messages of their own.
"""

import asyncio
import logging
import struct
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import zigpy.device
import zigpy.profiles.zha
import zigpy.profiles.zll
import zigpy.types
import zigpy.zcl.foundation as zcl
from zigpy.zcl.clusters import CLUSTERS_BY_ID

from radios.radio import GreenPowerMessage, Json, MessageKind, NodeId, NodeMessage, SiteTraffic
from radios.zigbee.green_power import GreenPowerTraffic, Handled
from radios.zigbee.ota_commands import OTA_CLUSTER_ID
from radios.zigbee.unnamed import Unnamed
from radios.zigbee.values import fields_of, plain

MAX_FRAME_BYTES: Final = 1024  # beyond what fragmentation brings from honest nodes

_FRAME_TYPE, _MANUFACTURER_SPECIFIC, _TO_CLIENT = 0x03, 0x04, 0x08
_GLOBAL, _OF_CLUSTER = 0x00, 0x01
_REPORT_ATTRIBUTES = 0x0A
_MANUFACTURERS_OWN_CLUSTERS = 0xFC00
_ZCL_PROFILES = frozenset({zigpy.profiles.zha.PROFILE_ID, zigpy.profiles.zll.PROFILE_ID})

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Frame:
    """What of a packet is needed to speak of it later."""

    node: NodeId
    profile: int
    endpoint: int
    cluster: int
    group: int | None
    payload: bytes
    answers: bool
    at: float
    lqi: int | None
    rssi_dbm: float | None


class Traffic:
    """One writer's queue of at most `most` frames; the oldest goes for a newer one, and is counted."""

    def __init__(self, most: int) -> None:
        self._waiting: deque[_Frame | GreenPowerMessage] = deque()
        self._unnamed = Unnamed()
        self._green_power = GreenPowerTraffic()
        self._most = most
        self._filled = asyncio.Event()
        self.received = 0
        self.unreadable = 0  # frames that zigpy could not read; those of them that are traffic go out all the same
        self.dropped: dict[str, int] = {"overflow": 0, "too_large": 0}

    def put(self, node: NodeId, packet: Any, *, answers: bool, at: float) -> None:
        """A ZCL packet of zigpy's; `answers`: its sequence is that of a request of ours."""
        if not _is_traffic(packet):
            return
        payload = packet.data.serialize()
        self.received += 1
        if len(payload) > MAX_FRAME_BYTES:
            self.dropped["too_large"] += 1
            return
        to_group = packet.dst is not None and packet.dst.addr_mode == zigpy.types.AddrMode.Group
        self._queue(
            _Frame(
                node,
                int(packet.profile_id),
                int(packet.src_ep),
                int(packet.cluster_id),
                int(packet.dst.address) if to_group else None,
                payload,
                answers,
                at,
                None if packet.lqi is None else int(packet.lqi),
                None if packet.rssi is None else float(packet.rssi),
            )
        )

    def hold(self, packet: Any, at: float) -> None:
        """A frame whose sender's EUI64 is not known yet; zigpy asks for it."""
        if not _is_traffic(packet) or len(packet.data.serialize()) > MAX_FRAME_BYTES:
            return
        if packet.src.addr_mode == zigpy.types.AddrMode.NWK:
            self._unnamed.hold(int(packet.src.address), packet, at)
        else:
            self._unnamed.lost += 1

    def named(self, node: NodeId, nwk: int, now: float) -> list[Any]:
        """Whose a short address is: what was held of it goes on, and is given."""
        held = self._unnamed.named(nwk, now)
        for at, packet in held:
            self.put(node, packet, answers=False, at=at)
        return [packet for _, packet in held]

    def green_power(self, packet: Any, handled: Handled | None, at: float) -> None:
        """A frame of a Green Power device, as the tap gives it."""
        message = self._green_power.message(packet, handled, at)
        if message is not None:
            self.received += 1
            self._queue(message)

    async def __aiter__(self) -> AsyncIterator[SiteTraffic]:
        while True:
            await self._filled.wait()
            if not self._waiting:
                self._filled.clear()
                continue
            waiting = self._waiting.popleft()
            yield waiting if isinstance(waiting, GreenPowerMessage) else _message(waiting)

    def status(self, now: float) -> dict[str, Json]:
        self._unnamed.expire(now)
        refused = self._green_power.refused
        dropped: dict[str, Json] = {**self.dropped, "unknown_node": self._unnamed.lost, "green_power_refused": refused}
        return {
            "received": self.received,
            "unreadable": self.unreadable,
            "queued": len(self._waiting),
            "held": len(self._unnamed),
            "green_power_repeated": self._green_power.repeated,
            "dropped": dropped,
        }

    def _queue(self, waiting: _Frame | GreenPowerMessage) -> None:
        if len(self._waiting) >= self._most:
            self._waiting.popleft()
            self.dropped["overflow"] += 1
        self._waiting.append(waiting)
        self._filled.set()


def cluster_name(cluster: int) -> str:
    """zigpy's name, by which a cluster is an attribute of its endpoint; else the number."""
    known = CLUSTERS_BY_ID.get(cluster)
    return known.ep_attribute if known is not None and known.ep_attribute else f"0x{cluster:04x}"


def answers_request(device: Any, packet: Any) -> bool:
    """Whether zigpy waits for a frame with this sequence; to be asked before zigpy sees it."""
    frame = packet.data.serialize()
    if len(frame) < 2 or not device._requests:  # zigpy tells nobody else
        return False
    sequence = frame[3] if frame[0] & _MANUFACTURER_SPECIFIC and len(frame) > 3 else frame[1]
    direction = zcl.Direction.Server_to_Client if frame[0] & _TO_CLIENT else zcl.Direction.Client_to_Server
    key = zigpy.device.ResponseKey(packet.src_ep, packet.cluster_id, direction, sequence)
    return key in device._requests


def _is_traffic(packet: Any) -> bool:
    """Whether a ZCL packet is handed on at all."""
    payload = packet.data.serialize()
    if packet.cluster_id == OTA_CLUSTER_ID or not payload:
        return False
    return payload[0] & _FRAME_TYPE != _GLOBAL or _is_report(payload)


def _is_report(payload: bytes) -> bool:
    at = 4 if payload[0] & _MANUFACTURER_SPECIFIC else 2
    return payload[at : at + 1] == bytes((_REPORT_ATTRIBUTES,))


def _message(frame: _Frame) -> NodeMessage:
    try:
        kind, data = _decoded(frame)
    except Exception as error:  # noqa: BLE001  # zigpy's types raise what they like on what nodes send
        _LOG.debug("%s: frame %s not understood: %r", frame.node, frame.payload.hex(), error)
        kind, data = MessageKind.RAW, {"frame": frame.payload.hex(), "profile": frame.profile}
    if frame.group is not None:
        data["group"] = frame.group
    return NodeMessage(
        frame.node,
        frame.endpoint,
        frame.cluster,
        cluster_name(frame.cluster),
        kind,
        data,
        frame.at,
        frame.lqi,
        frame.rssi_dbm,
    )


def _decoded(frame: _Frame) -> tuple[MessageKind, dict[str, Json]]:
    """ValueError, or whatever zigpy raises, when it is no ZCL frame that can be read."""
    if frame.profile not in _ZCL_PROFILES:
        raise ValueError("no profile of the ZCL")
    control, at, manufacturer = frame.payload[0], 1, None
    if control & _MANUFACTURER_SPECIFIC:
        (manufacturer,) = struct.unpack_from("<H", frame.payload, 1)
        at = 3
    sequence, command = frame.payload[at], frame.payload[at + 1]
    body = frame.payload[at + 2 :]
    side = "server" if control & _TO_CLIENT else "client"  # of the cluster on the node that speaks
    data: dict[str, Json] = {"side": side, "sequence": sequence}
    if manufacturer is not None:
        data["manufacturer"] = manufacturer
    definitions = CLUSTERS_BY_ID.get(frame.cluster)
    if control & _FRAME_TYPE == _GLOBAL:
        return MessageKind.ATTRIBUTE_REPORT, data | _report(definitions, manufacturer, body)
    if control & _FRAME_TYPE != _OF_CLUSTER:
        raise ValueError("reserved frame type")
    commands = _commands(definitions, side)
    known = commands.get(command)
    if manufacturer is not None and known is not None and not _manufacturers_own(known, frame.cluster):
        known = None  # the same number means something else
    kind = MessageKind.RESPONSE if frame.answers else MessageKind.COMMAND
    return kind, data | _command(known, command, body)


def _commands(definitions: Any, side: str) -> Any:
    if definitions is None:
        return {}
    return definitions.client_commands if side == "server" else definitions.server_commands


def _report(definitions: Any, manufacturer: int | None, body: bytes) -> dict[str, Json]:
    attributes: dict[str, Json] = {}
    while body:
        (number,) = struct.unpack_from("<H", body)
        try:
            reported, left = zcl.TypeValue.deserialize(body[2:])
        except Exception as error:  # noqa: BLE001  # as above; what came before it is good
            _LOG.debug("report not understood from %s on: %r", body.hex(), error)
            return {"attributes": attributes, "rest": body.hex()}
        definition = _attribute(definitions, number, manufacturer)
        name = f"0x{number:04x}" if definition is None else definition.name
        attributes[name] = plain(_converted(definition, reported.value))
        body = left
    return {"attributes": attributes}


def _attribute(definitions: Any, number: int, manufacturer: int | None) -> Any:
    if definitions is None:
        return None
    try:
        found = definitions.find_attributes(number, manufacturer_code=manufacturer)
    except KeyError:
        return None
    return found[0] if found else None


def _converted(definition: Any, value: Any) -> Any:
    """The value in the type that zigpy's definition gives it, where that can be."""
    if definition is None or value is None:
        return value
    try:
        return definition.type(value)
    except Exception:  # noqa: BLE001  # as above; the type that the node named is as good
        return value


def _command(definition: Any, number: int, body: bytes) -> dict[str, Json]:
    found: dict[str, Json] = {"command": f"0x{number:02x}", "command_id": number}
    if definition is not None:
        found["command"] = definition.name
        try:
            arguments, left = definition.schema.deserialize(body)
        except Exception as error:  # noqa: BLE001  # as above
            _LOG.debug("arguments %s of %s not understood: %r", body.hex(), definition.name, error)
        else:
            found["arguments"] = fields_of(arguments)
            return found | ({"rest": left.hex()} if left else {})
    return found | {"payload": body.hex()}


def _manufacturers_own(definition: Any, cluster: int) -> bool:
    return cluster >= _MANUFACTURERS_OWN_CLUSTERS or definition.is_manufacturer_specific is True
