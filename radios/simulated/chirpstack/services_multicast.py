"""MulticastGroupService over the simulated network."""

from collections.abc import Callable
from typing import Any

from chirpstack_api.api import multicast_group_pb2 as pb
from google.protobuf.empty_pb2 import Empty

from radios.simulated.chirpstack.model import ApiCode, ApiError, Group, GroupSettings, GroupType, Scheduling
from radios.simulated.chirpstack.network import NetworkServer
from radios.simulated.chirpstack.services import page, seconds_or_none, timestamp


def multicast_methods(network: NetworkServer) -> dict[str, Callable[[Any], Any]]:
    groups = network.multicast

    def create(request: Any) -> Any:
        settings = _settings(network, request.multicast_group)
        group_id = network.new_id()
        groups.create(group_id, settings)
        return pb.CreateMulticastGroupResponse(id=group_id)

    def get(request: Any) -> Any:
        group = groups.get(request.id)
        return pb.GetMulticastGroupResponse(
            multicast_group=_message(group),
            created_at=timestamp(group.created_at),
            updated_at=timestamp(group.updated_at),
        )

    def update(request: Any) -> Any:
        message = request.multicast_group
        application_id = groups.get(message.id).settings.application_id
        settings = _settings(network, message, application_id=application_id)
        groups.update(message.id, settings)
        return Empty()

    def delete(request: Any) -> Any:
        groups.delete(request.id)
        return Empty()

    def list_(request: Any) -> Any:
        found = [
            group
            for group in sorted(groups.groups.values(), key=lambda g: g.settings.name)
            if request.application_id in ("", group.settings.application_id)
            and request.search in group.settings.name
            and (not request.dev_eui or request.dev_eui in group.devices)
        ]
        items = [
            pb.MulticastGroupListItem(
                id=group.id,
                created_at=timestamp(group.created_at),
                updated_at=timestamp(group.updated_at),
                name=group.settings.name,
                region=group.settings.region,
                group_type=pb.MulticastGroupType.Value(group.settings.group_type),
                application_id=group.settings.application_id,
            )
            for group in page(found, request)
        ]
        return pb.ListMulticastGroupsResponse(total_count=len(found), result=items)

    def add_device(request: Any) -> Any:
        groups.add_device(request.multicast_group_id, request.dev_eui.lower())
        return Empty()

    def remove_device(request: Any) -> Any:
        groups.remove_device(request.multicast_group_id, request.dev_eui.lower())
        return Empty()

    def add_gateway(request: Any) -> Any:
        groups.add_gateway(request.multicast_group_id, request.gateway_id.lower())
        return Empty()

    def remove_gateway(request: Any) -> Any:
        groups.remove_gateway(request.multicast_group_id, request.gateway_id.lower())
        return Empty()

    def enqueue(request: Any) -> Any:
        if not request.HasField("queue_item"):
            raise ApiError(ApiCode.INVALID_ARGUMENT, "queue_item is missing")
        item = request.queue_item  # its f_cnt is ignored: the server counts
        expires_at = seconds_or_none(item, "expires_at")
        f_cnt = groups.enqueue(item.multicast_group_id, item.f_port, item.data, expires_at)
        return pb.EnqueueMulticastGroupQueueItemResponse(f_cnt=f_cnt)

    def flush(request: Any) -> Any:
        groups.flush_queue(request.multicast_group_id)
        return Empty()

    def list_queue(request: Any) -> Any:
        group_id = request.multicast_group_id
        items = [
            pb.MulticastGroupQueueItem(
                multicast_group_id=group_id,
                f_cnt=item.f_cnt,
                f_port=item.f_port,
                data=item.data,
                expires_at=None if item.expires_at is None else timestamp(item.expires_at),
            )
            for item in groups.list_queue(group_id)
        ]
        return pb.ListMulticastGroupQueueResponse(items=items)

    return {
        "Create": create,
        "Get": get,
        "Update": update,
        "Delete": delete,
        "List": list_,
        "AddDevice": add_device,
        "RemoveDevice": remove_device,
        "AddGateway": add_gateway,
        "RemoveGateway": remove_gateway,
        "Enqueue": enqueue,
        "FlushQueue": flush,
        "ListQueue": list_queue,
    }


def _settings(network: NetworkServer, message: Any, *, application_id: str = "") -> GroupSettings:
    application_id = application_id or message.application_id
    if application_id != network.settings.application_id:
        raise ApiError(ApiCode.NOT_FOUND, f"Object does not exist (id: {application_id})")
    if message.dr not in range(6):
        raise ApiError(ApiCode.INVALID_ARGUMENT, f"dr {message.dr} is no data rate of EU868")
    return GroupSettings(
        name=message.name,
        application_id=application_id,
        region=message.region,
        mc_addr=int.from_bytes(_hex("mc_addr", message.mc_addr, 4), "big"),
        mc_nwk_s_key=_hex("mc_nwk_s_key", message.mc_nwk_s_key, 16),
        mc_app_s_key=_hex("mc_app_s_key", message.mc_app_s_key, 16),
        f_cnt=message.f_cnt,
        group_type=GroupType(pb.MulticastGroupType.Name(message.group_type)),
        data_rate=message.dr,
        frequency_hz=message.frequency,
        scheduling=Scheduling(pb.MulticastGroupSchedulingType.Name(message.class_c_scheduling_type)),
        class_b_ping_slot_periodicity=message.class_b_ping_slot_periodicity,
    )


def _message(group: Group) -> Any:
    settings = group.settings
    return pb.MulticastGroup(
        id=group.id,
        name=settings.name,
        application_id=settings.application_id,
        region=settings.region,
        mc_addr=f"{settings.mc_addr:08x}",
        mc_nwk_s_key=settings.mc_nwk_s_key.hex(),
        mc_app_s_key=settings.mc_app_s_key.hex(),
        f_cnt=settings.f_cnt,
        group_type=pb.MulticastGroupType.Value(settings.group_type),
        dr=settings.data_rate,
        frequency=settings.frequency_hz,
        class_b_ping_slot_periodicity=settings.class_b_ping_slot_periodicity,
        class_c_scheduling_type=pb.MulticastGroupSchedulingType.Value(settings.scheduling),
    )


def _hex(name: str, text: str, size: int) -> bytes:
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != size:
        raise ApiError(ApiCode.INVALID_ARGUMENT, f"{name} must be {2 * size} hex digits")
    return value
