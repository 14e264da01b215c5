"""DeviceService, DeviceProfileService, GatewayService and ApplicationService over the simulated network."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from chirpstack_api.api import application_pb2, device_pb2, device_profile_pb2, gateway_pb2
from chirpstack_api.common import common_pb2
from google.protobuf.empty_pb2 import Empty
from google.protobuf.timestamp_pb2 import Timestamp

from radios.simulated.chirpstack.model import ApiCode, ApiError, Device, DeviceProfile, QueueItem
from radios.simulated.chirpstack.network import NetworkServer

_ONLINE = gateway_pb2.GatewayState.ONLINE


def timestamp(at: float) -> Any:
    stamp = Timestamp()
    stamp.FromNanoseconds(int(at * 1000) * 1_000_000)
    return stamp


def seconds_or_none(request: Any, name: str) -> float | None:
    """A Timestamp field as Unix seconds, None when it is not set."""
    if not request.HasField(name):
        return None
    stamp = getattr(request, name)
    return float(stamp.seconds + stamp.nanos / 1e9)


def page(items: list[Any], request: Any) -> list[Any]:
    """A limit of 0 lists nothing, as in ChirpStack: only the count is told."""
    return items[request.offset : request.offset + request.limit]


def device_methods(network: NetworkServer) -> dict[str, Callable[[Any], Any]]:
    def get(request: Any) -> Any:
        device = network.device(request.dev_eui)
        return device_pb2.GetDeviceResponse(
            device=device_pb2.Device(
                dev_eui=device.dev_eui,
                name=device.spec.name,
                application_id=network.settings.application_id,
                device_profile_id=device.profile.id,
                tags=dict(device.spec.tags),
                join_eui="0" * 16,
            ),
            class_enabled=common_pb2.DeviceClass.Value(device.class_enabled),
            **_seen(network, device),
        )

    def update(request: Any) -> Any:
        """Name and profile stay as they are here: tags are all that a client of the simulation changes."""
        device = network.device(request.device.dev_eui)
        device.spec = replace(device.spec, tags=dict(request.device.tags))
        return Empty()

    def list_(request: Any) -> Any:
        if request.application_id not in ("", network.settings.application_id):
            return device_pb2.ListDevicesResponse()
        members = network.multicast.get(request.multicast_group_id).devices if request.multicast_group_id else None
        found = [
            device
            for device in sorted(network.devices.values(), key=lambda d: d.spec.name)
            if (members is None or device.dev_eui in members)
            and (not request.search or request.search in device.spec.name or request.search in device.dev_eui)
            and (not request.device_profile_id or request.device_profile_id == device.profile.id)
            and all(device.spec.tags.get(key) == value for key, value in request.tags.items())
        ]
        items = [
            device_pb2.DeviceListItem(
                dev_eui=device.dev_eui,
                name=device.spec.name,
                device_profile_id=device.profile.id,
                device_profile_name=device.profile.name,
                tags=dict(device.spec.tags),
                **_seen(network, device),
            )
            for device in page(found, request)
        ]
        return device_pb2.ListDevicesResponse(total_count=len(found), result=items)

    def get_keys(request: Any) -> Any:
        spec = network.device(request.dev_eui).spec
        # On 1.0.x ChirpStack holds the AppKey in nwk_key.
        keys = device_pb2.DeviceKeys(
            dev_eui=spec.dev_eui, nwk_key=spec.app_key.hex(), gen_app_key=spec.gen_app_key.hex()
        )
        if spec.mac_1_1:
            keys = device_pb2.DeviceKeys(dev_eui=spec.dev_eui, nwk_key="00" * 16, app_key=spec.app_key.hex())
        return device_pb2.GetDeviceKeysResponse(device_keys=keys)

    def get_activation(request: Any) -> Any:
        device = network.device(request.dev_eui)
        session = device.activation
        return device_pb2.GetDeviceActivationResponse(
            device_activation=device_pb2.DeviceActivation(
                dev_eui=device.dev_eui,
                dev_addr=f"{session.dev_addr:08x}",
                app_s_key=session.app_s_key.hex(),
                nwk_s_enc_key=session.nwk_s_key.hex(),
                s_nwk_s_int_key=session.nwk_s_key.hex(),
                f_nwk_s_int_key=session.nwk_s_key.hex(),
                f_cnt_up=device.f_cnt_up,
                n_f_cnt_down=device.f_cnt_down,
            )
        )

    def enqueue(request: Any) -> Any:
        if not request.HasField("queue_item"):
            raise ApiError(ApiCode.INVALID_ARGUMENT, "queue_item is missing")
        item = request.queue_item
        network.device(item.dev_eui)
        if request.flush_queue:
            network.flush_queue(item.dev_eui)
        item_id = network.enqueue(
            item.dev_eui,
            item.f_port,
            item.data,
            confirmed=item.confirmed,
            expires_at=seconds_or_none(item, "expires_at"),
        )
        return device_pb2.EnqueueDeviceQueueItemResponse(id=item_id)

    def flush(request: Any) -> Any:
        network.flush_queue(request.dev_eui)
        return Empty()

    def get_queue(request: Any) -> Any:
        device = network.device(request.dev_eui)
        items = [] if request.count_only else [_queue_item(device, item) for item in device.queue]
        return device_pb2.GetDeviceQueueItemsResponse(total_count=len(device.queue), result=items)

    def next_f_cnt_down(request: Any) -> Any:
        return device_pb2.GetDeviceNextFCntDownResponse(f_cnt_down=network.device(request.dev_eui).f_cnt_down)

    return {
        "Get": get,
        "Update": update,
        "List": list_,
        "GetKeys": get_keys,
        "GetActivation": get_activation,
        "Enqueue": enqueue,
        "FlushQueue": flush,
        "GetQueue": get_queue,
        "GetNextFCntDown": next_f_cnt_down,
    }


def device_profile_methods(network: NetworkServer) -> dict[str, Callable[[Any], Any]]:
    def get(request: Any) -> Any:
        profile = network.profiles.get(request.id)
        if profile is None:
            raise ApiError(ApiCode.NOT_FOUND, f"Object does not exist (id: {request.id})")
        return device_profile_pb2.GetDeviceProfileResponse(
            device_profile=device_profile_pb2.DeviceProfile(
                id=profile.id,
                tenant_id=network.settings.tenant_id,
                name=profile.name,
                region=common_pb2.EU868,
                region_config_id="eu868",
                mac_version=_mac_version(profile),
                reg_params_revision=common_pb2.RP002_1_0_3,
                uplink_interval=profile.uplink_interval_s,
                device_status_req_interval=1,
                supports_otaa=True,
                supports_class_b=profile.supports_class_b,
                supports_class_c=profile.supports_class_c,
                app_layer_params=device_profile_pb2.AppLayerParams(
                    ts003_version=profile.ts003_version,
                    ts003_f_port=202,
                    ts004_version=profile.ts004_version,
                    ts004_f_port=201,
                    ts005_version=profile.ts005_version,
                    ts005_f_port=200,
                ),
            )
        )

    def list_(request: Any) -> Any:
        found = list(network.profiles.values()) if request.tenant_id in ("", network.settings.tenant_id) else []
        items = [
            device_profile_pb2.DeviceProfileListItem(
                id=profile.id,
                name=profile.name,
                region=common_pb2.EU868,
                mac_version=_mac_version(profile),
                supports_otaa=True,
                supports_class_c=profile.supports_class_c,
            )
            for profile in page(found, request)
        ]
        return device_profile_pb2.ListDeviceProfilesResponse(total_count=len(found), result=items)

    return {"Get": get, "List": list_}


def gateway_methods(network: NetworkServer) -> dict[str, Callable[[Any], Any]]:
    tenant_id = network.settings.tenant_id

    def get(request: Any) -> Any:
        gateway_id = request.gateway_id.lower()
        if gateway_id not in network.air.gateways:
            raise ApiError(ApiCode.NOT_FOUND, f"Object does not exist (id: {request.gateway_id})")
        return gateway_pb2.GetGatewayResponse(
            gateway=gateway_pb2.Gateway(gateway_id=gateway_id, name=gateway_id, tenant_id=tenant_id, stats_interval=30),
            last_seen_at=timestamp(network.agenda.now),
        )

    def list_(request: Any) -> Any:
        members = network.multicast.get(request.multicast_group_id).gateways if request.multicast_group_id else None
        found = [
            gateway_pb2.GatewayListItem(
                tenant_id=tenant_id,
                gateway_id=gateway_id,
                name=gateway_id,
                last_seen_at=timestamp(network.agenda.now),
                state=_ONLINE,
            )
            for gateway_id in sorted(network.air.gateways)
            if (members is None or gateway_id in members) and request.tenant_id in ("", tenant_id)
        ]
        return gateway_pb2.ListGatewaysResponse(total_count=len(found), result=page(found, request))

    return {"Get": get, "List": list_}


def application_methods(network: NetworkServer) -> dict[str, Callable[[Any], Any]]:
    settings = network.settings

    def get(request: Any) -> Any:
        if request.id != settings.application_id:
            raise ApiError(ApiCode.NOT_FOUND, f"Object does not exist (id: {request.id})")
        return application_pb2.GetApplicationResponse(
            application=application_pb2.Application(
                id=settings.application_id, name="simulated", tenant_id=settings.tenant_id
            )
        )

    def list_(request: Any) -> Any:
        mine = request.tenant_id in ("", settings.tenant_id)
        found = [application_pb2.ApplicationListItem(id=settings.application_id, name="simulated")] if mine else []
        return application_pb2.ListApplicationsResponse(total_count=len(found), result=page(found, request))

    return {"Get": get, "List": list_}


def _seen(network: NetworkServer, device: Device) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if device.last_seen_at is not None:
        fields["last_seen_at"] = timestamp(device.last_seen_at)
    if device.status_at is not None:
        battery = network.nodes[device.dev_eui].battery_percent
        fields["device_status"] = device_pb2.DeviceStatus(
            margin=device.spec.margin_db,
            external_power_source=device.spec.mains,
            battery_level=-1.0 if device.spec.mains or battery is None else battery,
        )
    return fields


def _queue_item(device: Device, item: QueueItem) -> Any:
    return device_pb2.DeviceQueueItem(
        id=item.id,
        dev_eui=device.dev_eui,
        confirmed=item.confirmed,
        f_port=item.f_port,
        data=item.data,
        is_pending=item.is_pending,
        f_cnt_down=item.f_cnt_down,
        expires_at=None if item.expires_at is None else timestamp(item.expires_at),
    )


def _mac_version(profile: DeviceProfile) -> Any:
    return common_pb2.LORAWAN_1_1_0 if profile.mac_1_1 else common_pb2.LORAWAN_1_0_4
