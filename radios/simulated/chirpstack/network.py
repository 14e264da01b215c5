"""The network server itself, sans-I/O: activations, device queues, downlink scheduling, events. gRPC and MQTT are around it.

`advance(now)` lets everything due happen, each at its own moment; call it before anything else is asked. Events pile up in
`events` for whoever publishes them.
"""

import hashlib
import random
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from radios.simulated.chirpstack.agenda import Agenda
from radios.simulated.chirpstack.air import Air, Gateway, TxStatus
from radios.simulated.chirpstack.bus import BusMessage
from radios.simulated.chirpstack.events import EventMaker
from radios.simulated.chirpstack.model import (
    ApiCode,
    ApiError,
    Device,
    DeviceProfile,
    Event,
    QueueItem,
)
from radios.simulated.chirpstack.multicast import MulticastGroups
from radios.simulated.lorawan.bootloader import Verify
from radios.simulated.lorawan.node import VirtualNode
from radios.simulated.lorawan.phy import Activation, Downlink, JoinRequest, Uplink, build_downlink
from radios.simulated.lorawan.region import (
    RX1_DELAY_S,
    RX2_DATA_RATE,
    RX2_DELAY_S,
    RX2_FREQUENCY_HZ,
    max_frm_payload_bytes,
)
from radios.simulated.lorawan.spec import NodeSpec

_DEDUPLICATION_S = 0.2
_DOWNLINK_DECISION_S = 0.3  # after the uplink: deduplication and the time that an application has to answer
_JOIN_ACCEPT_DELAY_S = 5.0
_CLASS_C_LOCK_S = 2.0
_CLASS_C_RETRY_S = 30.0
_EVENTS_KEPT = 10_000
_PROFILE_NAMESPACE = uuid.UUID("6d0d7d6c-6a53-4e38-8f8b-0a8b8f0c7a11")


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    tenant_id: str
    application_id: str
    gateway_ids: Sequence[str]
    multicast_margin_s: float = 5.0
    status_interval_s: float = 3600.0  # between DevStatusReq
    enforce_duty_cycle: bool = True
    seed: int = 0
    refused_share: float = 0.0  # 0..1, of requests to gateways to send at once
    ack_loss: float = 0.0  # 0..1, of gateways' acknowledgements of multicasts: nobody hears them
    app_layer: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)  # DevEUI -> ts003, ts004, ts005 version


class NetworkServer:
    def __init__(self, settings: NetworkSettings, specs: Sequence[NodeSpec], verify: Verify, now: float) -> None:
        self.settings = settings
        self.agenda = Agenda(now)
        gateways = [
            Gateway(
                gateway_id,
                settings.enforce_duty_cycle,
                refused_share=settings.refused_share,
                dice=random.Random(f"{settings.seed}/{gateway_id}"),
            )
            for gateway_id in settings.gateway_ids
        ]
        self.air = Air(self.agenda, gateways, settings.seed)
        self.profiles: dict[str, DeviceProfile] = {}
        self.devices: dict[str, Device] = {}
        self.nodes: dict[str, VirtualNode] = {}
        self.events: deque[Event] = deque(maxlen=_EVENTS_KEPT)
        self._make = EventMaker(settings.tenant_id, settings.application_id, settings.seed)
        for spec in specs:
            activation = _activation(spec, 0)
            self.devices[spec.dev_eui] = Device(spec, self._profile_of(spec), activation)
            self.nodes[spec.dev_eui] = VirtualNode(spec, verify, now, activation)
        self.bus: deque[BusMessage] = deque(maxlen=_EVENTS_KEPT)
        self._downlinks = 0
        self._lossy = random.Random(f"{settings.seed}/bus")
        self.multicast = MulticastGroups(
            self.agenda, self.air, self.devices, settings.multicast_margin_s, self._say_on_bus
        )
        self._joins: dict[str, int] = {}
        self.air.start(self.nodes, self._received)

    def advance(self, now: float) -> None:
        self.agenda.run_until(now)

    def next_deadline(self) -> float | None:
        return self.agenda.next_deadline()

    def new_id(self) -> str:
        return self._make.new_id()

    def device(self, dev_eui: str) -> Device:
        try:
            return self.devices[dev_eui.lower()]
        except KeyError:
            raise ApiError(ApiCode.NOT_FOUND, f"Object does not exist (id: {dev_eui})") from None

    def enqueue(
        self, dev_eui: str, f_port: int, data: bytes, *, confirmed: bool, expires_at: float | None, item_id: str = ""
    ) -> str:
        """Put a downlink at the end of a device's queue; returns its id."""
        device = self.device(dev_eui)
        if not 1 <= f_port <= 255:
            raise ApiError(ApiCode.INVALID_ARGUMENT, "FPort must be between 1 - 255")
        item = QueueItem(item_id or self.new_id(), f_port, data, confirmed, expires_at)
        device.queue.append(item)
        self._class_c_later(device, self.agenda.now)
        return item.id

    def flush_queue(self, dev_eui: str) -> None:
        self.device(dev_eui).queue.clear()

    def _say_on_bus(
        self, gateway_id: str, frames: tuple[Downlink, ...], statuses: tuple[str, ...], *, heard: bool = False
    ) -> bool:
        """A downlink and the gateway's word about it, which may be lost unless `heard`; whether it was not."""
        self._downlinks += 1
        self.bus.append(BusMessage(gateway_id, self._downlinks, frames))
        if not heard and self._lossy.random() < self.settings.ack_loss:
            return False
        self.bus.append(BusMessage(gateway_id, self._downlinks, frames, tuple(str(status) for status in statuses)))
        return True

    def _profile_of(self, spec: NodeSpec) -> DeviceProfile:
        class_c, interval = spec.device_class == "C", int(spec.uplink_interval_s)
        name = f"class {spec.device_class}, LoRaWAN {'1.1' if spec.mac_1_1 else '1.0.4'}, uplink every {interval} s"
        versions = self.settings.app_layer.get(spec.dev_eui, (0, 0, 0))
        if any(versions):
            name += f", TS003 {versions[0]}, TS004 {versions[1]}, TS005 {versions[2]}"
        profile_id = str(uuid.uuid5(_PROFILE_NAMESPACE, f"{self.settings.tenant_id}/{name}"))
        class_b = spec.device_class == "B"
        profile = DeviceProfile(profile_id, name, class_c, spec.mac_1_1, interval, class_b, *versions)
        return self.profiles.setdefault(profile_id, profile)

    def _received(self, uplink: Uplink | JoinRequest, gateways: Sequence[str], ended: float) -> None:
        device = self.devices[uplink.dev_eui]
        device.last_seen_at = ended
        device.last_gateways = tuple(gateways)
        if isinstance(uplink, JoinRequest):
            self._join(device, uplink, gateways[0], ended)
            return
        device.f_cnt_up = uplink.f_cnt + 1
        self._settle_confirmed(device, uplink, ended)
        self.agenda.at(
            ended + _DEDUPLICATION_S,
            lambda _: self.events.append(self._make.up(device, uplink, gateways, ended)),
        )
        if device.status_at is None or ended - device.status_at >= self.settings.status_interval_s:
            device.status_at = ended
            battery = self.nodes[device.dev_eui].battery_percent
            self.events.append(self._make.status(device, battery, ended))
        self.agenda.at(ended + _DOWNLINK_DECISION_S, lambda now: self._answer(device, uplink, gateways[0], ended, now))

    def _join(self, device: Device, request: JoinRequest, gateway_id: str, ended: float) -> None:
        self._joins[device.dev_eui] = joins = self._joins.get(device.dev_eui, 0) + 1
        device.activation = _activation(device.spec, joins)
        device.f_cnt_up = device.f_cnt_down = 0
        self.events.append(self._make.join(device, ended))
        at = ended + _JOIN_ACCEPT_DELAY_S
        self.air.transmit_join_accept(gateway_id, device.dev_eui, device.activation, request, ended, at)

    def _settle_confirmed(self, device: Device, uplink: Uplink, now: float) -> None:
        if device.queue and device.queue[0].is_pending:
            item = device.queue.popleft()
            self.events.append(self._make.ack(device, item, now, acknowledged=uplink.ack))

    def _answer(self, device: Device, uplink: Uplink, gateway_id: str, ended: float, now: float) -> None:
        """One item in RX1, else in RX2."""
        item = self._next_item(device, uplink.data_rate, now)
        if item is None:
            return
        device.class_c_busy_until = ended + RX2_DELAY_S + _CLASS_C_LOCK_S
        phy = self._phy(device, item)
        rx1 = Downlink(phy, uplink.frequency_hz, uplink.data_rate)
        status = self.air.transmit(gateway_id, rx1, now, ended + RX1_DELAY_S)
        sent = rx1
        given, statuses = [rx1], [str(status)]
        if len(item.data) <= max_frm_payload_bytes(RX2_DATA_RATE):
            rx2 = Downlink(phy, RX2_FREQUENCY_HZ, RX2_DATA_RATE)
            given.append(rx2)
            if status is not TxStatus.OK:
                sent = rx2
                status = self.air.transmit(gateway_id, sent, now, ended + RX2_DELAY_S)
                statuses.append(str(status))
            else:
                statuses.append(str(TxStatus.IGNORED))
        self._say_on_bus(gateway_id, tuple(given), tuple(statuses), heard=True)
        self._transmitted(device, item, gateway_id, sent, status, now)
        self._class_c_later(device, now)

    def _class_c_later(self, device: Device, now: float) -> None:
        if device.class_c and device.queue:
            self.agenda.at(max(now, device.class_c_busy_until), lambda when: self._class_c(device, when))

    def _class_c(self, device: Device, now: float) -> None:
        """Class C: at once, in RX2, one at a time."""
        if now < device.class_c_busy_until or not device.last_gateways:
            return  # taken by another call, or no gateway known before the first uplink
        item = self._next_item(device, RX2_DATA_RATE, now)
        if item is None:
            return
        frame = Downlink(self._phy(device, item), RX2_FREQUENCY_HZ, RX2_DATA_RATE)
        gateway_id = device.last_gateways[0]
        status = self.air.transmit(gateway_id, frame, now)
        self._say_on_bus(gateway_id, (frame,), (status,), heard=True)
        device.class_c_busy_until = now + (_CLASS_C_LOCK_S if status is TxStatus.OK else _CLASS_C_RETRY_S)
        self._transmitted(device, item, gateway_id, frame, status, now)
        self._class_c_later(device, now)

    def _next_item(self, device: Device, data_rate: int, now: float) -> QueueItem | None:
        """The first item that may go; what is expired or too large is dropped with a log event."""
        limit = max_frm_payload_bytes(data_rate)
        while device.queue:
            item = device.queue[0]
            if item.is_pending:
                return None
            if item.expires_at is not None and item.expires_at <= now:
                device.queue.popleft()
                context = {"queue_item_id": item.id}
                self.events.append(
                    self._make.log(
                        device, "ERROR", "EXPIRED", "Device queue-item discarded because it has expired", context, now
                    )
                )
                continue
            if len(item.data) > limit:
                device.queue.popleft()
                context = {
                    "queue_item_id": item.id,
                    "max_payload_size": str(limit),
                    "item_size": str(len(item.data)),
                }
                text = "Device queue-item discarded because it exceeds the max. payload size"
                self.events.append(self._make.log(device, "ERROR", "DOWNLINK_PAYLOAD_SIZE", text, context, now))
                continue
            return item
        return None

    def _phy(self, device: Device, item: QueueItem) -> bytes:
        item.f_cnt_down = device.f_cnt_down
        device.f_cnt_down += 1
        return build_downlink(
            device.activation,
            item.f_cnt_down,
            item.f_port,
            item.data,
            confirmed=item.confirmed,
            f_pending=len(device.queue) > 1,
        )

    def _transmitted(
        self, device: Device, item: QueueItem, gateway_id: str, frame: Downlink, status: TxStatus, now: float
    ) -> None:
        if status is not TxStatus.OK:  # the item stays for the next chance
            context = {"queue_item_id": item.id, "gateway_id": gateway_id}
            self.events.append(self._make.log(device, "ERROR", "DOWNLINK_GATEWAY", str(status), context, now))
            return
        if item.confirmed:
            item.is_pending = True
        else:
            device.queue.remove(item)
        self.events.append(self._make.txack(device, item, gateway_id, frame.frequency_hz, frame.data_rate, now))


def _activation(spec: NodeSpec, joins: int) -> Activation:
    """Session keys as a join would make them: different each time, the same in every run."""
    secret = hashlib.sha256(f"{spec.seed}/{spec.dev_eui}/{joins}".encode() + spec.gen_app_key).digest()
    dev_addr = 0x01000000 | (int.from_bytes(hashlib.sha256(secret).digest()[:3], "big"))
    return Activation(dev_addr, secret[:16], secret[16:])
