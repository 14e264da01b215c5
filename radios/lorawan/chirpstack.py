"""ChirpStack v4 as a `NetworkServer`: gRPC for what is done, MQTT for what is heard.

Responsible for authentication, and for turning ChirpStack's answers into this project's dataclasses and
errors. Not responsible for pacing, retries of a call, or the meaning of a frame.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import grpc
from chirpstack_api import api, common

from radios.errors import LinkError, Unsupported
from radios.lorawan.chirpstack_events import parse_uplink
from radios.lorawan.chirpstack_mqtt import Subscription
from radios.lorawan.chirpstack_settings import ChirpStackSettings, GatewayBusSettings
from radios.lorawan.gateway_bus import GatewayAck, GatewayDownlink
from radios.lorawan.gateway_bus_messages import ack_of, downlink_of
from radios.lorawan.keys import Key
from radios.lorawan.network_server import Device, DeviceClass, MulticastGroup, NotThere, Queued, Uplink
from radios.wall_time import WallTime

__all__ = ["ChirpStack", "ChirpStackSettings", "GatewayBusSettings"]

_log = logging.getLogger(__name__)

_PAGE = 100
_DOWN, _ACK = "command/down", "event/ack"


class ChirpStack:
    """A `NetworkServer`. Made without I/O; opens its gRPC channel at the first call."""

    def __init__(self, settings: ChirpStackSettings, wall: WallTime | None = None) -> None:
        self._wall = wall or WallTime()  # ChirpStack counts in Unix time, its callers in their own
        self._settings = settings
        self._opened: Any = None
        self._grpc_up = False
        prefix = f"{settings.mqtt_topic_prefix}/" if settings.mqtt_topic_prefix else ""
        topic = f"{prefix}application/{settings.application_id}/device/+/event/up"
        self._uplinks = Subscription(settings.broker, [topic])
        self._bus = None if settings.gateway_bus is None else _bus_subscription(settings, settings.gateway_bus)
        self._profiles: dict[str, Any] = {}

    async def devices(self) -> Sequence[Device]:
        self._profiles.clear()  # an operator may have changed them
        service = api.DeviceServiceStub(self._channel())
        application = self._settings.application_id
        items = await self._all(
            service.List, lambda offset: api.ListDevicesRequest(limit=_PAGE, offset=offset, application_id=application)
        )
        return [await self._device(item) for item in items]

    async def tags(self, dev_eui: str) -> Mapping[str, str]:
        service = api.DeviceServiceStub(self._channel())
        return dict((await self._call(service.Get, api.GetDeviceRequest(dev_eui=dev_eui))).device.tags)

    async def set_tag(self, dev_eui: str, name: str, value: str) -> None:
        service = api.DeviceServiceStub(self._channel())
        device = (await self._call(service.Get, api.GetDeviceRequest(dev_eui=dev_eui))).device
        device.tags[name] = value
        await self._call(service.Update, api.UpdateDeviceRequest(device=device))

    async def root_key(self, dev_eui: str, mac_version: tuple[int, int]) -> Key:
        service = api.DeviceServiceStub(self._channel())
        try:
            answer = await self._call(service.GetKeys, api.GetDeviceKeysRequest(dev_eui=dev_eui))
        except NotThere:
            raise Unsupported(f"{dev_eui}: ChirpStack has no root keys of this device") from None
        keys = answer.device_keys
        text = keys.gen_app_key if mac_version < (1, 1) else keys.app_key
        try:
            return Key.from_hex(text)
        except ValueError:
            name = "GenAppKey" if mac_version < (1, 1) else "AppKey"
            raise Unsupported(f"{dev_eui}: ChirpStack has no {name} of this device") from None

    async def gateways(self) -> Sequence[str]:
        if self._settings.gateway_ids:
            return self._settings.gateway_ids
        service = api.GatewayServiceStub(self._channel())
        tenant = self._settings.tenant_id
        items = await self._all(
            service.List, lambda offset: api.ListGatewaysRequest(limit=_PAGE, offset=offset, tenant_id=tenant)
        )
        return [item.gateway_id for item in items]

    async def enqueue(self, dev_eui: str, port: int, data: bytes, expires: float | None = None) -> str:
        item = api.DeviceQueueItem(dev_eui=dev_eui, f_port=port, data=data, confirmed=False)
        if expires is not None:
            item.expires_at.FromNanoseconds(int(self._wall.unix(expires) * 1e9))
        service = api.DeviceServiceStub(self._channel())
        answer = await self._call(service.Enqueue, api.EnqueueDeviceQueueItemRequest(queue_item=item))
        return str(answer.id)

    async def queue_length(self, dev_eui: str) -> int:
        service = api.DeviceServiceStub(self._channel())
        request = api.GetDeviceQueueItemsRequest(dev_eui=dev_eui, count_only=True)
        return int((await self._call(service.GetQueue, request)).total_count)

    async def queued(self, dev_eui: str) -> Sequence[Queued]:
        service = api.DeviceServiceStub(self._channel())
        answer = await self._call(service.GetQueue, api.GetDeviceQueueItemsRequest(dev_eui=dev_eui))
        return [
            Queued(
                item.f_port,
                item.data,
                self._at(item.expires_at) if item.HasField("expires_at") else None,
            )
            for item in answer.result
        ]

    async def flush(self, dev_eui: str) -> None:
        service = api.DeviceServiceStub(self._channel())
        await self._call(service.FlushQueue, api.FlushDeviceQueueRequest(dev_eui=dev_eui))

    async def create_group(self, group: MulticastGroup) -> str:
        service = api.MulticastGroupServiceStub(self._channel())
        group_id = await self._group_named(group)
        if group_id is None:
            class_b = group.ping_periodicity is not None
            made = api.MulticastGroup(
                name=group.name,
                application_id=self._settings.application_id,
                region=common.Region.Value(group.region),
                mc_addr=group.mc_addr,
                mc_nwk_s_key=group.mc_net_s_key.reveal().hex(),
                mc_app_s_key=group.mc_app_s_key.reveal().hex(),
                group_type=api.MulticastGroupType.CLASS_B if class_b else api.MulticastGroupType.CLASS_C,
                class_b_ping_slot_periodicity=group.ping_periodicity or 0,
                dr=group.data_rate,
                frequency=group.frequency_hz,
                class_c_scheduling_type=api.MulticastGroupSchedulingType.DELAY,
            )
            request = api.CreateMulticastGroupRequest(multicast_group=made)
            group_id = str((await self._call(service.Create, request)).id)
        for dev_eui in group.dev_euis:
            await self.add_device(group_id, dev_eui)
        return group_id

    async def add_device(self, group_id: str, dev_eui: str) -> None:
        service = api.MulticastGroupServiceStub(self._channel())
        request = api.AddDeviceToMulticastGroupRequest(multicast_group_id=group_id, dev_eui=dev_eui)
        await self._add(service.AddDevice, request, lambda: self._has_device(group_id, dev_eui))

    async def add_gateway(self, group_id: str, gateway_id: str) -> None:
        service = api.MulticastGroupServiceStub(self._channel())
        request = api.AddGatewayToMulticastGroupRequest(multicast_group_id=group_id, gateway_id=gateway_id)
        await self._add(service.AddGateway, request, lambda: self._has_gateway(group_id, gateway_id))

    async def enqueue_multicast(self, group_id: str, port: int, data: bytes) -> int:
        service = api.MulticastGroupServiceStub(self._channel())
        item = api.MulticastGroupQueueItem(multicast_group_id=group_id, f_port=port, data=data)
        answer = await self._call(service.Enqueue, api.EnqueueMulticastGroupQueueItemRequest(queue_item=item))
        return int(answer.f_cnt)

    async def multicast_queue_length(self, group_id: str) -> int:
        service = api.MulticastGroupServiceStub(self._channel())
        request = api.ListMulticastGroupQueueRequest(multicast_group_id=group_id)
        return len((await self._call(service.ListQueue, request)).items)

    async def flush_multicast(self, group_id: str) -> None:
        service = api.MulticastGroupServiceStub(self._channel())
        await self._call(service.FlushQueue, api.FlushMulticastGroupQueueRequest(multicast_group_id=group_id))

    async def delete_group(self, group_id: str) -> None:
        service = api.MulticastGroupServiceStub(self._channel())
        try:
            await self._call(service.Delete, api.DeleteMulticastGroupRequest(id=group_id))
        except NotThere:
            return

    async def uplinks(self) -> AsyncIterator[Uplink]:
        async for topic, payload in self._uplinks.messages():
            uplink = parse_uplink(payload, self._settings.reset_cause_field)
            if isinstance(uplink, Uplink):
                at = uplink.received_at
                yield uplink if at is None else replace(uplink, received_at=self._wall.at(at))
            else:
                _log.warning("chirpstack mqtt: dropped an event on %s: %s", topic, uplink)

    async def gateway_events(self) -> AsyncIterator[GatewayDownlink | GatewayAck]:
        if self._bus is None:
            return
        async for topic, payload in self._bus.messages():
            gateway_id, _, kind = topic.rpartition("gateway/")[2].partition("/")
            event = ack_of(gateway_id, payload) if kind == _ACK else downlink_of(gateway_id, payload)
            if isinstance(event, str):
                _log.warning("chirpstack gateway bus: dropped a message on %s: %s", topic, event)
            else:
                yield event

    def link_up(self) -> Mapping[str, bool]:
        bus = {} if self._bus is None else {"gateway_bus": self._bus.up}
        return {"grpc": self._grpc_up, "mqtt": self._uplinks.up, **bus}

    async def close(self) -> None:
        if self._opened is not None:
            channel, self._opened = self._opened, None
            await channel.close()

    # gRPC

    def _channel(self) -> Any:
        if self._opened is None:
            target, ca = self._settings.grpc_target, self._settings.tls_ca_path
            # gRPC reconnects by itself; without this bound its back-off grows to two minutes.
            options = [("grpc.max_reconnect_backoff_ms", 10_000), ("grpc.initial_reconnect_backoff_ms", 500)]
            if ca is None:
                self._opened = grpc.aio.insecure_channel(target, options=options)
            else:
                try:
                    with open(ca, "rb") as file:
                        credentials = grpc.ssl_channel_credentials(root_certificates=file.read())
                except OSError as error:
                    raise LinkError(f"chirpstack tls_ca: {error}") from None
                self._opened = grpc.aio.secure_channel(target, credentials, options=options)
        return self._opened

    async def _call(self, method: Any, request: Any) -> Any:
        """The answer; NotThere, _Internal, LinkError or Unsupported, with ChirpStack's own words."""
        metadata = (("authorization", f"Bearer {self._settings.api_token}"),)
        try:
            answer = await method(request, metadata=metadata, timeout=self._settings.call_timeout_s)
        except grpc.aio.AioRpcError as error:
            self._grpc_up = error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
            raise _mapped(type(request).__name__, error) from None
        self._grpc_up = True
        return answer

    async def _add(self, method: Any, request: Any, there: Callable[[], Awaitable[bool]]) -> None:
        """Add a member. ChirpStack answers INTERNAL to a duplicate and to a failed database alike: look instead."""
        try:
            await self._call(method, request)
        except (_Internal, _AlreadyExists):
            if not await there():
                raise

    async def _has_device(self, group_id: str, dev_eui: str) -> bool:
        service = api.DeviceServiceStub(self._channel())
        return dev_eui in [
            item.dev_eui
            for item in await self._all(
                service.List,
                lambda offset: api.ListDevicesRequest(
                    limit=_PAGE,
                    offset=offset,
                    application_id=self._settings.application_id,
                    multicast_group_id=group_id,
                ),
            )
        ]

    async def _has_gateway(self, group_id: str, gateway_id: str) -> bool:
        service = api.GatewayServiceStub(self._channel())
        return gateway_id in [
            item.gateway_id
            for item in await self._all(
                service.List,
                lambda offset: api.ListGatewaysRequest(
                    limit=_PAGE, offset=offset, tenant_id=self._settings.tenant_id, multicast_group_id=group_id
                ),
            )
        ]

    async def _group_named(self, group: MulticastGroup) -> str | None:
        service = api.MulticastGroupServiceStub(self._channel())
        for item in await self._all(
            service.List,
            lambda offset: api.ListMulticastGroupsRequest(
                limit=_PAGE, offset=offset, search=group.name, application_id=self._settings.application_id
            ),
        ):
            if item.name == group.name:
                return str(item.id)
        return None

    async def _all(self, method: Any, request: Callable[[int], Any]) -> list[Any]:
        """Every item of a paged list."""
        found: list[Any] = []
        while True:
            answer = await self._call(method, request(len(found)))
            found.extend(answer.result)
            if not answer.result or len(found) >= answer.total_count:
                return found

    async def _device(self, item: Any) -> Device:
        profile = await self._profile(item.device_profile_id)
        battery, external, margin = _status(item)
        device_class = DeviceClass.A
        if profile.supports_class_c:
            device_class = DeviceClass.C
        elif profile.supports_class_b:
            device_class = DeviceClass.B
        params = profile.app_layer_params
        refused = ""
        if params.ts004_version or params.ts005_version:
            refused = f"device profile {profile.name!r} has TS004 or TS005 set: ChirpStack would answer for this daemon"
        return Device(
            dev_eui=item.dev_eui,
            name=item.name,
            device_class=device_class,
            region=_region(profile.region),
            mac_version=(1, 1) if profile.mac_version >= common.MacVersion.LORAWAN_1_1_0 else (1, 0),
            uplink_interval_s=float(profile.uplink_interval or 3600),
            battery_percent=battery,
            external_power=external,
            margin_db=margin,
            last_seen=self._at(item.last_seen_at) if item.HasField("last_seen_at") else None,
            tags=dict(item.tags),
            profile=profile.name,
            answers_time=bool(params.ts003_version),
            refused=refused,
        )

    def _at(self, timestamp: Any) -> float:
        return self._wall.at(float(timestamp.ToNanoseconds() / 1e9))

    async def _profile(self, profile_id: str) -> Any:
        if profile_id not in self._profiles:
            service = api.DeviceProfileServiceStub(self._channel())
            answer = await self._call(service.Get, api.GetDeviceProfileRequest(id=profile_id))
            self._profiles[profile_id] = answer.device_profile
        return self._profiles[profile_id]


def _bus_subscription(settings: ChirpStackSettings, bus: GatewayBusSettings) -> Subscription:
    prefixes = [f"{prefix}/" if prefix else "" for prefix in bus.topic_prefixes]
    topics = [f"{prefix}gateway/+/{kind}" for prefix in prefixes for kind in (_DOWN, _ACK)]
    return Subscription(bus.broker or settings.broker, topics)


def _region(value: int) -> str:
    """ChirpStack's name; of a region newer than our API library, its number, which fits no setting."""
    return str(common.Region.Name(value)) if value in common.Region.values() else str(value)


def _status(item: Any) -> tuple[float | None, bool | None, int | None]:
    """Battery percent, external power, margin. ChirpStack leaves the status out until the device told it once."""
    if not item.HasField("device_status"):
        return None, None, None
    status = item.device_status
    if status.external_power_source:
        return None, True, int(status.margin)
    # -1: the device could not measure its battery.
    return (float(status.battery_level) if status.battery_level >= 0 else None), False, int(status.margin)


class _Internal(LinkError):
    pass


class _AlreadyExists(LinkError):
    pass


def _mapped(request: str, error: Any) -> LinkError | Unsupported:
    """The error of a call: what may pass is LinkError, what cannot is Unsupported."""
    code = error.code()
    text = f"chirpstack {request}: {code.name} {error.details()}"
    match code:
        case grpc.StatusCode.NOT_FOUND:
            return NotThere(text)
        case grpc.StatusCode.ALREADY_EXISTS:
            return _AlreadyExists(text)
        case grpc.StatusCode.INTERNAL:
            return _Internal(text)
        case grpc.StatusCode.INVALID_ARGUMENT | grpc.StatusCode.UNIMPLEMENTED | grpc.StatusCode.OUT_OF_RANGE:
            return Unsupported(text)
    # UNAUTHENTICATED and PERMISSION_DENIED too: an operator may renew the token without a restart of anything.
    return LinkError(text)
