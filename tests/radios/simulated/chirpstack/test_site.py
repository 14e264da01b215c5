"""The site on sockets: real gRPC, real mosquitto."""

import asyncio
import base64
import json
import time

import aiomqtt
import grpc
import pytest
from chirpstack_api.api import (
    application_pb2,
    application_pb2_grpc,
    device_pb2,
    device_pb2_grpc,
    device_profile_pb2,
    device_profile_pb2_grpc,
    gateway_pb2,
    gateway_pb2_grpc,
    multicast_group_pb2,
    multicast_group_pb2_grpc,
)
from google.protobuf.timestamp_pb2 import Timestamp

from radios.clock import ScaledClock
from radios.errors import FrameError
from radios.simulated.chirpstack.mqtt import MqttSettings
from radios.simulated.chirpstack.site import LorawanSite
from radios.simulated.lorawan import firmware

TOKEN = "a-token"
AUTH = (("authorization", f"Bearer {TOKEN}"),)
GATEWAY = "00800000a0000001"


def _verify(image):
    try:
        return firmware.parse(image).version
    except FrameError:
        return None


def _site(settings, specs, **changes):
    clock = ScaledClock(200.0, time.time())
    return LorawanSite(specs, clock, verify=_verify, settings=settings, api_token=TOKEN, **changes)


@pytest.mark.services
async def test_devices_profiles_gateways_and_keys(settings, spec):
    specs = [spec(1, tags={"owner": "gw"}), spec(2, device_class="C"), spec(3, mac_1_1=True, app_key=bytes([9] * 16))]
    async with _site(settings, specs) as site, grpc.aio.insecure_channel(site.grpc_target) as channel:
        devices = device_pb2_grpc.DeviceServiceStub(channel)
        request = device_pb2.ListDevicesRequest(limit=2, application_id=settings.application_id)
        listed = await devices.List(request, metadata=AUTH)
        assert listed.total_count == 3
        assert [item.name for item in listed.result] == ["node 1", "node 2"]
        assert dict(listed.result[0].tags) == {"owner": "gw"}
        got = await devices.Get(device_pb2.GetDeviceRequest(dev_eui=specs[1].dev_eui), metadata=AUTH)
        profiles = device_profile_pb2_grpc.DeviceProfileServiceStub(channel)
        profile = await profiles.Get(
            device_profile_pb2.GetDeviceProfileRequest(id=got.device.device_profile_id), metadata=AUTH
        )
        assert profile.device_profile.supports_class_c
        assert profile.device_profile.uplink_interval == 60
        keys = [
            (await devices.GetKeys(device_pb2.GetDeviceKeysRequest(dev_eui=s.dev_eui), metadata=AUTH)).device_keys
            for s in specs
        ]
        assert keys[0].gen_app_key == "01" * 16
        assert keys[2].app_key == "09" * 16
        gateways = gateway_pb2_grpc.GatewayServiceStub(channel)
        found = await gateways.List(
            gateway_pb2.ListGatewaysRequest(limit=10, tenant_id=settings.tenant_id), metadata=AUTH
        )
        assert [item.gateway_id for item in found.result] == [GATEWAY]
        applications = application_pb2_grpc.ApplicationServiceStub(channel)
        got_application = await applications.Get(
            application_pb2.GetApplicationRequest(id=settings.application_id), metadata=AUTH
        )
        assert got_application.application.tenant_id == settings.tenant_id


@pytest.mark.services
async def test_status_codes(settings, spec):
    async with _site(settings, [spec(1)]) as site, grpc.aio.insecure_channel(site.grpc_target) as channel:
        devices = device_pb2_grpc.DeviceServiceStub(channel)
        groups = multicast_group_pb2_grpc.MulticastGroupServiceStub(channel)
        known = device_pb2.GetDeviceRequest(dev_eui="0000000000000001")
        bad_group = multicast_group_pb2.MulticastGroup(
            application_id=settings.application_id, mc_addr="01", mc_nwk_s_key="00" * 16, mc_app_s_key="00" * 16
        )
        cases = [
            (devices.Get, known, None, grpc.StatusCode.UNAUTHENTICATED),
            (devices.Get, known, (("authorization", "Bearer other"),), grpc.StatusCode.UNAUTHENTICATED),
            (devices.Get, device_pb2.GetDeviceRequest(dev_eui="ff" * 8), AUTH, grpc.StatusCode.NOT_FOUND),
            (devices.Create, device_pb2.CreateDeviceRequest(), AUTH, grpc.StatusCode.UNIMPLEMENTED),
            (devices.Enqueue, device_pb2.EnqueueDeviceQueueItemRequest(), AUTH, grpc.StatusCode.INVALID_ARGUMENT),
            (
                groups.Create,
                multicast_group_pb2.CreateMulticastGroupRequest(multicast_group=bad_group),
                AUTH,
                grpc.StatusCode.INVALID_ARGUMENT,
            ),
        ]
        for method, request, metadata, status in cases:
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await method(request, metadata=metadata)
            assert error.value.code() is status


@pytest.mark.services
async def test_multicast_groups(settings, spec):
    async with _site(settings, [spec(1)]) as site, grpc.aio.insecure_channel(site.grpc_target) as channel:
        groups = multicast_group_pb2_grpc.MulticastGroupServiceStub(channel)
        group = multicast_group_pb2.MulticastGroup(
            name="cohort",
            application_id=settings.application_id,
            mc_addr="01020304",
            mc_nwk_s_key="01" * 16,
            mc_app_s_key="02" * 16,
            dr=5,
            frequency=869525000,
        )
        created = await groups.Create(
            multicast_group_pb2.CreateMulticastGroupRequest(multicast_group=group), metadata=AUTH
        )
        group.id = created.id
        add_device = multicast_group_pb2.AddDeviceToMulticastGroupRequest(
            multicast_group_id=group.id, dev_eui="0000000000000001"
        )
        await groups.AddDevice(add_device, metadata=AUTH)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await groups.AddDevice(add_device, metadata=AUTH)
        assert error.value.code() is grpc.StatusCode.INTERNAL
        add_gateway = multicast_group_pb2.AddGatewayToMulticastGroupRequest(
            multicast_group_id=group.id, gateway_id=GATEWAY
        )
        await groups.AddGateway(add_gateway, metadata=AUTH)
        item = multicast_group_pb2.MulticastGroupQueueItem(multicast_group_id=group.id, f_port=201, data=b"x", f_cnt=77)
        enqueue = multicast_group_pb2.EnqueueMulticastGroupQueueItemRequest(queue_item=item)
        counters = [(await groups.Enqueue(enqueue, metadata=AUTH)).f_cnt for _ in range(3)]
        assert counters == [1, 2, 3]
        got = await groups.Get(multicast_group_pb2.GetMulticastGroupRequest(id=group.id), metadata=AUTH)
        group.f_cnt = 3
        assert got.multicast_group == group
        await groups.FlushQueue(
            multicast_group_pb2.FlushMulticastGroupQueueRequest(multicast_group_id=group.id), metadata=AUTH
        )
        queue = multicast_group_pb2.ListMulticastGroupQueueRequest(multicast_group_id=group.id)
        assert not (await groups.ListQueue(queue, metadata=AUTH)).items
        group.name = "renamed"
        await groups.Update(multicast_group_pb2.UpdateMulticastGroupRequest(multicast_group=group), metadata=AUTH)
        everything = multicast_group_pb2.ListMulticastGroupsRequest(limit=10, application_id=settings.application_id)
        assert [g.name for g in (await groups.List(everything, metadata=AUTH)).result] == ["renamed"]
        await groups.Delete(multicast_group_pb2.DeleteMulticastGroupRequest(id=group.id), metadata=AUTH)
        with pytest.raises(grpc.aio.AioRpcError) as gone:
            await groups.Enqueue(enqueue, metadata=AUTH)
        assert gone.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.services
async def test_the_api_comes_back_on_its_port_with_everything_it_knew(settings, spec):
    async with _site(settings, [spec(1)]) as site, grpc.aio.insecure_channel(site.grpc_target) as channel:
        devices = device_pb2_grpc.DeviceServiceStub(channel)
        item = device_pb2.DeviceQueueItem(dev_eui="0000000000000001", f_port=203, data=b"\x01")
        await devices.Enqueue(device_pb2.EnqueueDeviceQueueItemRequest(queue_item=item), metadata=AUTH)
        target = site.grpc_target
        await site.stop_grpc()
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await devices.Get(device_pb2.GetDeviceRequest(dev_eui="0000000000000001"), metadata=AUTH)
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE
        await site.start_grpc()
        assert site.grpc_target == target
        await devices.Get(
            device_pb2.GetDeviceRequest(dev_eui="0000000000000001"), metadata=AUTH, wait_for_ready=True, timeout=20
        )


async def _next_event(client, kind, f_port=None):
    async with asyncio.timeout(20):
        async for message in client.messages:
            body = json.loads(message.payload)
            if str(message.topic).endswith(f"/event/{kind}") and f_port in (None, body.get("fPort")):
                return str(message.topic), body
    raise AssertionError("the broker closed")


@pytest.mark.services
async def test_commands_and_events_travel_over_the_broker(settings, spec, broker):
    mqtt = MqttSettings("127.0.0.1", broker.port)
    async with (
        _site(settings, [spec(1)], mqtt=mqtt) as site,
        grpc.aio.insecure_channel(site.grpc_target) as channel,
        aiomqtt.Client("127.0.0.1", broker.port) as client,
    ):
        await client.subscribe(f"application/{settings.application_id}/device/+/event/+")
        devices = device_pb2_grpc.DeviceServiceStub(channel)
        item = device_pb2.DeviceQueueItem(dev_eui="0000000000000001", f_port=203, data=b"\x01")
        queued = await devices.Enqueue(device_pb2.EnqueueDeviceQueueItemRequest(queue_item=item), metadata=AUTH)
        _, sent = await _next_event(client, "txack")
        assert sent["queueItemId"] == queued.id
        topic, answer = await _next_event(client, "up", 203)
        assert topic == f"application/{settings.application_id}/device/0000000000000001/event/up"
        assert base64.b64decode(answer["data"]).hex() == "01" + "01000000" + "20000000"

        command = {"devEui": "0000000000000001", "fPort": 200, "data": base64.b64encode(b"\x00").decode(), "id": "mine"}
        down = f"application/{settings.application_id}/device/0000000000000001/command/down"
        await client.publish(down, b"no json")
        await client.publish(down, json.dumps({**command, "devEui": "0" * 16}))
        await client.publish(down, json.dumps(command))
        _, sent = await _next_event(client, "txack")
        assert sent["queueItemId"] == "mine"
        _, answer = await _next_event(client, "up", 200)
        assert base64.b64decode(answer["data"]).hex() == "000201"

        soon = Timestamp()
        soon.FromSeconds(1)
        item.expires_at.CopyFrom(soon)
        await devices.Enqueue(device_pb2.EnqueueDeviceQueueItemRequest(queue_item=item), metadata=AUTH)
        _, log = await _next_event(client, "log")
        assert log["code"] == "EXPIRED"
        assert site.snapshot()["lorawan:0000000000000001"]["version"] == 1
        json.dumps(site.snapshot())


@pytest.mark.services
async def test_it_comes_back_when_the_broker_does(settings, spec, broker):
    async with _site(settings, [spec(1)], mqtt=MqttSettings("127.0.0.1", broker.port)) as site:
        async with asyncio.timeout(20):
            await site.mqtt.connected.wait()
        await broker.stop()
        async with asyncio.timeout(20):
            while site.mqtt.connected.is_set():
                await asyncio.sleep(0.02)
        await broker.start()
        async with aiomqtt.Client("127.0.0.1", broker.port) as client:
            await client.subscribe(f"application/{settings.application_id}/device/+/event/up")
            _, body = await _next_event(client, "up")
        assert body["deviceInfo"]["devEui"] == "0000000000000001"
        assert site.mqtt.connections == 2
