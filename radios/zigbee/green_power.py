"""What Green Power devices send, as the contract's messages.

They are no Zigbee nodes: no EUI64 of most, no interview, no answer. zigpy decides what a device that was commissioned here has
really sent (key, counter, repetitions through several proxies). Of one that was not, as in a network that moved in, the
frame is handed on with what is proven of it; repetitions are left out here.
"""

from dataclasses import dataclass
from typing import Any, Final

import zigpy.device
import zigpy.zgp.types as zgp
import zigpy.zgp.util
from zigpy.zgp.commands import GPD_COMMAND_SCHEMAS

from radios.radio import GreenPowerMessage, GreenPowerSecurity, Json, MessageKind
from radios.zigbee.values import fields_of

MAX_PAYLOAD_BYTES: Final = 128
REPEATED_WITHIN_S: Final = 2.0  # through several proxies
_SOURCES_REMEMBERED: Final = 64
_COMMISSIONING: Final = range(0xE0, 0xE8)  # between device and sink

_REFUSED: Final = (zgp.SecurityStatus.AuthFailure, zgp.SecurityStatus.CounterFailure)
_SECURITY: Final = {
    None: GreenPowerSecurity.NONE,
    zgp.SecurityStatus.NoSecurity: GreenPowerSecurity.NONE,
    zgp.SecurityStatus.SecuritySuccess: GreenPowerSecurity.PROVEN,
}


@dataclass(frozen=True, slots=True)
class Handled:
    """What zigpy made of a frame of a device that was commissioned here: its event, or None when it did not take it."""

    event: Any


def device_of(app: Any, packet: Any) -> Any:
    """zigpy's object of a device that was commissioned here, or is being; else None."""
    ieee = _ieee(packet)
    device = app.green_power.get_pending_device(ieee) or app.devices.get(ieee)
    return device if isinstance(device, zigpy.device.GreenPowerDevice) else None


class GreenPowerTraffic:
    """`refused` counts frames that failed their check, `repeated` those that came again, or were not for us."""

    def __init__(self) -> None:
        self.refused = 0
        self.repeated = 0
        self._last: dict[str, tuple[float, int | None, int]] = {}

    def message(self, packet: Any, handled: Handled | None, now: float) -> GreenPowerMessage | None:
        """`packet`: zigpy's; `handled` None: its device was not commissioned here. None: nothing to be handed on."""
        if packet.command_id is None or packet.security_status in _REFUSED:
            self.refused += 1
            return None
        payload = packet.payload.serialize()[:MAX_PAYLOAD_BYTES]
        number = int(packet.command_id)
        if handled is not None:
            if handled.event is None:
                self.repeated += 1
                return None
            kind, data = MessageKind.COMMAND, _command(int(handled.event.command_id), handled.event.command)
            opaque = (
                packet.security_status is zgp.SecurityStatus.Unprocessed
            )  # zigpy has decrypted what it told of alone
            if "arguments" not in data and not opaque:
                data["payload"] = payload.hex()
            security = GreenPowerSecurity.PROVEN if opaque else _SECURITY[packet.security_status]
        elif packet.security_status in _SECURITY:
            if number in _COMMISSIONING or self._is_repeated(packet, now):
                self.repeated += number not in _COMMISSIONING
                return None
            kind, data = MessageKind.COMMAND, _command(number, _parsed(packet.command_id, payload))
            if "arguments" not in data:
                data["payload"] = payload.hex()
            security = _SECURITY[packet.security_status]
        else:
            if self._is_repeated(packet, now):
                self.repeated += 1
                return None
            kind, data = MessageKind.RAW, {"payload": bytes((number, *payload)).hex()}
            security = GreenPowerSecurity.UNCHECKED
        return GreenPowerMessage(
            source_of(packet),
            None if packet.endpoint is None else int(packet.endpoint),
            kind,
            data,
            security,
            handled is not None,
            None if packet.frame_counter is None else int(packet.frame_counter),
            now,
            None if packet.lqi is None else int(packet.lqi),
            None if packet.rssi is None else float(packet.rssi),
        )

    def _is_repeated(self, packet: Any, now: float) -> bool:
        """Whether the device's last frame was this one, a moment ago."""
        source = source_of(packet)
        counter = None if packet.frame_counter is None else int(packet.frame_counter)
        before = self._last.pop(source, None)
        this = (now, counter, int(packet.command_id))
        repeated = before is not None and before[1:] == this[1:] and now - before[0] < REPEATED_WITHIN_S
        self._last[source] = before if repeated and before is not None else this
        if len(self._last) > _SOURCES_REMEMBERED:
            del self._last[next(iter(self._last))]
        return repeated


def source_of(packet: Any) -> str:
    """The device's name: 8 hex digits, or 16."""
    if packet.application_id is zgp.ApplicationID.SrcID:
        return f"{int(packet.src_id):08x}"
    return str(packet.ieee).replace(":", "").lower()


def _ieee(packet: Any) -> Any:
    if packet.application_id is zgp.ApplicationID.SrcID:
        return zigpy.zgp.util.synthetic_ieee(packet.src_id)
    return packet.ieee


def _parsed(command: Any, payload: bytes) -> Any:
    schema = GPD_COMMAND_SCHEMAS.get(command)
    if schema is None:
        return None
    try:
        return schema.deserialize(payload)[0]
    except Exception:  # noqa: BLE001  # zigpy's types raise what they like on what devices send
        return None


def _command(number: int, arguments: Any) -> dict[str, Json]:
    name = zgp.GPDCommandID(number).name
    known = name in zgp.GPDCommandID.__members__
    data: dict[str, Json] = {"command": name if known else f"0x{number:02x}", "command_id": number}
    if arguments is not None:
        data["arguments"] = fields_of(arguments)
    return data
