"""Takes the OTA client's frames out of zigpy's way as bytes, for any zigpy radio library.

zigpy drops repeated bytes within 10 s, builds structures, and answers ABORT to downloads that it did not start. So the
frames of cluster 0x0019 that go from client to server are taken before all of that, from the first one that the radio
hands over. Last seen, LQI and RSSI are recorded as zigpy does. Everything else passes through untouched. What zigpy raises
on a frame (a header that is cut, arguments that it did not expect) ends here: a radio library that it reached would stop
polling its dongle for a while (deconz), or log a traceback for each such frame (bellows).
"""

import importlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import zigpy.application
import zigpy.device
import zigpy.profiles.zgp
import zigpy.types
from zigpy.device import GreenPowerCommandReceived

from radios.errors import Unsupported
from radios.zigbee.green_power import Handled, device_of
from radios.zigbee.missing_nodes import ask_address
from radios.zigbee.nodes import eui64, node_id
from radios.zigbee.ota_commands import DEFAULT_RESPONSE_ID, OTA_CLUSTER_ID
from radios.zigbee.poll_control import POLL_CONTROL_CLUSTER_ID
from radios.zigbee.settings import RADIO_LIBRARY_MODULES

_LOG = logging.getLogger(__name__)

# Of the first byte of a ZCL frame: frame type, manufacturer-specific, direction.
_KIND_MASK = 0x01 | 0x02 | 0x04 | 0x08
_CLUSTER_COMMAND_TO_SERVER = 0x01
_GLOBAL_COMMAND = 0x00
_DIRECTION = 0x08
_FRAME_TYPE_MASK = 0x03
_MANUFACTURER_SPECIFIC = 0x04
_WRITES_AND_REPORTS = frozenset((0x02, 0x03, 0x05, 0x0A))  # global commands


@dataclass(frozen=True, slots=True)
class Peer:
    """Where an OTA client was heard: what an answer is addressed to."""

    profile: int
    endpoint: int  # of the node
    local_endpoint: int


class PacketSink(Protocol):
    """Who is told of what the radio received. `device` is zigpy's object."""

    def ota_frame(self, device: Any, peer: Peer, frame: bytes) -> None: ...

    def ota_default_response(self, device: Any, command: int, status: int) -> None: ...

    def heard(self, device: Any) -> None:
        """After zigpy handled a frame of the device's."""
        ...

    def announced(self, ieee: Any) -> None:
        """Device announce, join or rejoin."""
        ...

    def node_frame(self, device: Any, packet: Any) -> None:
        """A ZCL frame of a node's own, before zigpy handles it. `device` is None for a sender that is not known yet."""
        ...

    def named(self, ieee: Any, nwk: int) -> None:
        """Whose a short address is."""
        ...

    def green_power(self, packet: Any, handled: Handled | None) -> None:
        """A Green Power frame, after zigpy handled it; `handled` is None for a device that was not commissioned here."""
        ...

    def check_in_answer(self, device: Any, frame: bytes) -> bytes:
        """A frame of the Poll Control cluster on its way to a node: what to send in its place, or itself."""
        ...

    def may_ask_address(self, nwk: int) -> bool:
        """Whether a sender of unknown EUI64 is to be asked for it now."""
        ...

    def foreground(self) -> None:
        """The site's own traffic came or went."""
        ...

    def unreadable(self) -> None:
        """zigpy raised on a frame, and so made nothing of it."""
        ...


def load_application(library: str) -> type:
    """The ControllerApplication of a zigpy radio library. Unsupported when it is not installed."""
    module = RADIO_LIBRARY_MODULES.get(library)
    if module is None:
        raise Unsupported(f"radio library {library!r} is unknown; one of {', '.join(RADIO_LIBRARY_MODULES)}")
    try:
        application: type = importlib.import_module(module).ControllerApplication
    except ImportError as error:
        raise Unsupported(f"radio library {library!r} is not installed: install gatewayd[{library}]") from error
    return application


def tapped(application: type, sink: PacketSink) -> type:
    """A subclass of a library's ControllerApplication that gives OTA frames to `sink`, from construction on."""
    between = (_CheckedTwice,) if application.__module__.startswith("zigpy_zboss.") else ()
    return type(f"Tapped{application.__name__}", (_Tap, application, *between), {"_tap_sink": sink})


def is_foreground(frame: bytes) -> bool:
    """Whether a ZCL frame is the site's own traffic: commands, reports, writes. Reads and answers are mostly our own."""
    if len(frame) < 3:
        return False
    if frame[0] & _FRAME_TYPE_MASK:
        return True
    at = 4 if frame[0] & _MANUFACTURER_SPECIFIC else 2
    return len(frame) > at and frame[at] in _WRITES_AND_REPORTS


def _record_link(device: Any, packet: Any) -> None:
    """What zigpy records of a frame of a device's, whatever is in it."""
    device.last_seen = packet.timestamp
    if packet.lqi is not None:
        device.lqi = packet.lqi
    if packet.rssi is not None:
        device.rssi = packet.rssi


class _CheckedTwice(zigpy.application.ControllerApplication):  # type: ignore[misc]  # zigpy has no types for us
    """Between zigpy-zboss 1.2 and zigpy: both check the configuration, and zigpy does not know again what the first check
    made of the priorities' names."""

    def __init__(self, config: dict[str, Any]) -> None:
        concurrency = config["experimental"]["concurrency"]
        by_name = {getattr(priority, "name", priority).lower(): share for priority, share in concurrency.items()}
        super().__init__({**config, "experimental": {"concurrency": by_name}})


class _Tap:
    """Mixin before a ControllerApplication. `Any` is zigpy's: the library carries no types for us to check."""

    _tap_sink: PacketSink
    devices: Any
    get_device_with_address: Callable[[Any], Any]

    def packet_received(self, packet: Any) -> None:
        is_zcl = packet.profile_id != 0 and packet.src_ep != 0 and packet.dst_ep != 0
        if is_zcl and packet.cluster_id == OTA_CLUSTER_ID:
            frame = packet.data.serialize()
            if len(frame) >= 3:
                kind = frame[0] & _KIND_MASK
                if kind == _CLUSTER_COMMAND_TO_SERVER:
                    device = self._tap_device(packet.src)
                    if device is not None:
                        self._tap_take(device, packet, frame)
                        return
                elif kind & ~_DIRECTION == _GLOBAL_COMMAND and frame[2] == DEFAULT_RESPONSE_ID and len(frame) >= 5:
                    device = self._tap_device(packet.src)
                    if device is not None:
                        self._tap_sink.ota_default_response(device, frame[3], frame[4])
        if is_zcl and packet.profile_id != zigpy.profiles.zgp.PROFILE_ID:
            self._tap_sink.node_frame(self._tap_device(packet.src), packet)
        readable = True
        try:
            super().packet_received(packet)  # type: ignore[misc]  # the library's class follows in the MRO
        except Exception as error:  # noqa: BLE001  # zigpy raises what it likes on what nodes send
            readable = False
            self._tap_unreadable(packet, error)
        device = self._tap_device(packet.src)
        if device is not None:
            if not readable:
                _record_link(device, packet)
            self._tap_sink.heard(device)
            if is_zcl and is_foreground(packet.data.serialize()):
                self._tap_sink.foreground()

    def gp_packet_received(self, packet: Any) -> None:
        """From the radio itself, or unpacked by zigpy from what a proxy forwards."""
        told: list[Any] = []
        device = device_of(self, packet)
        stop = None if device is None else device.on_event(GreenPowerCommandReceived.event_type, told.append)
        try:
            super().gp_packet_received(packet)  # type: ignore[misc]  # as above
        except Exception as error:  # noqa: BLE001  # as above
            self._tap_unreadable(packet, error)
            return
        finally:
            if stop is not None:
                stop()
        self._tap_sink.green_power(packet, None if device is None else Handled(told[0] if told else None))

    async def send_packet(self, packet: Any) -> None:
        if packet.cluster_id != OTA_CLUSTER_ID and packet.profile_id and is_foreground(packet.data.serialize()):
            self._tap_sink.foreground()
        if packet.cluster_id == POLL_CONTROL_CLUSTER_ID and (device := self._tap_device(packet.dst)) is not None:
            frame = self._tap_sink.check_in_answer(device, packet.data.serialize())
            packet = packet.replace(data=zigpy.types.SerializableBytes(frame))
        await super().send_packet(packet)  # type: ignore[misc]  # as above

    def handle_join(self, nwk: Any, ieee: Any, parent_nwk: Any, **options: Any) -> None:
        super().handle_join(nwk, ieee, parent_nwk, **options)  # type: ignore[misc]  # as above
        self._tap_sink.named(zigpy.types.EUI64(ieee), int(nwk))
        if options.get("handle_rejoin", True):
            self._tap_sink.announced(zigpy.types.EUI64(ieee))

    async def _discover_unknown_device(self, nwk: Any) -> None:
        """zigpy calls it for every frame of an unknown sender, and would broadcast each time."""
        if not self._tap_sink.may_ask_address(int(nwk)):
            return
        try:
            await ask_address(self, int(nwk))
        except Exception as error:  # noqa: BLE001  # libraries raise what they like for a frame that did not arrive
            _LOG.debug("0x%04x: not asked for its EUI64, so all are: %r", nwk, error)
            await super()._discover_unknown_device(nwk)  # type: ignore[misc]  # the library's class follows in the MRO

    def _tap_take(self, device: Any, packet: Any, frame: bytes) -> None:
        _record_link(device, packet)
        if not device.is_initialized and not device.initializing:
            device.schedule_initialize()
        self._tap_sink.ota_frame(device, Peer(packet.profile_id, packet.src_ep, packet.dst_ep), frame)

    def _tap_unreadable(self, packet: Any, error: Exception) -> None:
        _LOG.debug("zigpy made nothing of %r: %r", packet, error)
        self._tap_sink.unreadable()

    def _tap_device(self, source: Any) -> Any:
        """The Zigbee device behind an address; None when it is unknown, which zigpy then looks into."""
        try:
            if source.addr_mode == zigpy.types.AddrMode.NWK:
                return self._tap_by_nwk(source.address)
            device = self.get_device_with_address(source)
        except (KeyError, ValueError):
            return None
        return device if isinstance(device, zigpy.device.ZigbeeDevice) else None

    def _tap_by_nwk(self, nwk: int) -> Any:
        """zigpy searches all devices for a short address; remembered here, checked at every use."""
        cache: dict[int, Any] = self.__dict__.setdefault("_tap_addresses", {})
        device = self.devices.get(cache.get(nwk))
        if device is None or device.nwk != nwk:
            device = next(
                (d for d in self.devices.values() if isinstance(d, zigpy.device.ZigbeeDevice) and d.nwk == nwk), None
            )
            if device is None:
                return None
            cache[nwk] = eui64(node_id(device.ieee))
        return device
