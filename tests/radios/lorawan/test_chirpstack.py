"""The ChirpStack shell against the simulated one over real gRPC and MQTT, and its event parser against anything."""

import asyncio
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radios.clock import ScaledClock
from radios.errors import LinkError, Unsupported
from radios.lorawan.chirpstack import ChirpStack, ChirpStackSettings
from radios.lorawan.chirpstack_events import parse_uplink
from radios.lorawan.keys import Key
from radios.lorawan.network_server import DeviceClass, MulticastGroup, NotThere, Uplink
from radios.simulated.chirpstack.mqtt import MqttSettings
from radios.simulated.chirpstack.network import NetworkSettings
from radios.simulated.chirpstack.site import LorawanSite
from radios.wall_time import WallTime
from tests.radios.lorawan.world import GATEWAY, spec, verify
from tests.support.mosquitto import Mosquitto, free_port

TOKEN = "a-token"
TENANT, APPLICATION = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
NOWHERE = "99999999-9999-4999-8999-999999999999"

EVENT = {
    "time": "2026-11-22T10:00:00.5Z",
    "deviceInfo": {"devEui": "70B3D54990000001", "tags": {}},
    "dr": 5,
    "fCnt": 7,
    "fPort": 201,
    "data": "AQI=",
    "rxInfo": [{"gatewayId": GATEWAY, "rssi": -80, "snr": 8.5, "timeSinceGpsEpoch": "1447840818.250s"}],
}


def settings(target, mqtt_port=1, token=TOKEN, **changes):
    return ChirpStackSettings(
        grpc_target=target,
        api_token=token,
        application_id=APPLICATION,
        tenant_id=TENANT,
        mqtt_host="127.0.0.1",
        mqtt_port=mqtt_port,
        call_timeout_s=5.0,
        **changes,
    )


@pytest.fixture
async def site():
    specs = [spec(1), spec(2, device_class="A", mac_1_1=True, app_key=bytes([9] * 16), mains=False, tags={"a": "b"})]
    network = NetworkSettings(TENANT, APPLICATION, [GATEWAY])
    clock = ScaledClock(100.0, time.time())
    async with LorawanSite(specs, clock, verify=verify, settings=network, api_token=TOKEN) as running:
        yield running


@pytest.fixture
async def chirpstack(site):
    client = ChirpStack(settings(site.grpc_target))
    yield client
    await client.close()


def group(**changes):
    values = {
        "name": "a group",
        "region": "EU868",
        "mc_addr": "01020304",
        "mc_net_s_key": Key(bytes(16)),
        "mc_app_s_key": Key(bytes([1] * 16)),
        "data_rate": 5,
        "frequency_hz": 869_525_000,
    }
    return MulticastGroup(**(values | changes))


def test_an_up_event_is_read():
    uplink = parse_uplink(json.dumps(EVENT).encode())
    assert isinstance(uplink, Uplink)
    assert (uplink.dev_eui, uplink.port, uplink.data, uplink.data_rate) == ("70b3d54990000001", 201, b"\x01\x02", 5)
    assert uplink.received_at == pytest.approx(1795341600.5)
    assert uplink.receptions[0].gps_time_s == 1447840818.25
    assert uplink.receptions[0].gateway_id == GATEWAY


@pytest.mark.parametrize(
    ("decoded", "word"),
    [
        ({"cause": "Watchdog"}, "watchdog"),
        ({"cause": 7}, "7"),
        ({"cause": True}, None),
        ({"cause": ["watchdog"]}, None),
        ({"cause": "x" * 33}, None),
        ({"cause": "a<b"}, None),
        ({"other": "watchdog"}, None),
        (None, None),
        ("watchdog", None),
        ([1], None),
    ],
)
def test_the_cause_of_a_reset_in_a_decoded_payload(decoded: object, word: str | None) -> None:
    event = json.dumps({**EVENT, "object": decoded}).encode()
    uplink = parse_uplink(event, "cause")
    assert isinstance(uplink, Uplink)
    assert (uplink.reset_cause, uplink.data) == (word, b"\x01\x02")
    unasked = parse_uplink(event)
    assert isinstance(unasked, Uplink)
    assert unasked.reset_cause is None


@given(
    st.binary()
    | st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)).map(
        lambda v: json.dumps(v).encode()
    )
)
def test_any_event_gives_an_uplink_or_a_reason(payload):
    assert isinstance(parse_uplink(payload), Uplink | str)


@pytest.mark.parametrize("field", ["deviceInfo", "dr", "fCnt", "fPort", "data", "rxInfo", "time"])
@pytest.mark.parametrize("value", ["x", -1, [1], {"a": 1}, [[]], 1e400, "9" * 5000])
def test_a_twisted_field_never_raises(field, value):
    assert isinstance(parse_uplink(json.dumps({**EVENT, field: value}).encode()), Uplink | str)


def test_a_token_never_travels_in_the_clear():
    with pytest.raises(ValueError, match="tls_ca"):
        settings("chirpstack.example:8080")
    assert TOKEN not in repr(settings("127.0.0.1:8080"))


@pytest.mark.parametrize(
    "target", ["127.example.org:8080", "localhost.example.org:8080", "::1.example.org:8080", "10.0.0.1:1"]
)
def test_a_name_that_begins_like_loopback_is_not_loopback(target):
    with pytest.raises(ValueError, match="tls_ca"):
        settings(target)


@pytest.mark.parametrize(
    "target", ["127.0.0.1:8080", "127.9.9.9:1", "localhost:8080", "[::1]:8080", "::1", "unix:/run/x"]
)
def test_loopback_needs_no_tls(target):
    assert settings(target).grpc_target == target


@pytest.mark.services
async def test_devices_and_their_profiles(chirpstack):
    first, second = sorted(await chirpstack.devices(), key=lambda d: d.dev_eui)
    assert (first.device_class, first.mac_version, first.region) == (DeviceClass.C, (1, 0), "EU868")
    assert (second.device_class, second.mac_version, dict(second.tags)) == (DeviceClass.A, (1, 1), {"a": "b"})
    assert await chirpstack.gateways() == [GATEWAY]
    assert await chirpstack.root_key(first.dev_eui, (1, 0)) == Key(bytes([1] * 16))
    assert await chirpstack.root_key(second.dev_eui, (1, 1)) == Key(bytes([9] * 16))
    with pytest.raises(Unsupported):
        await chirpstack.root_key("00" * 8, (1, 0))


@pytest.mark.services
async def test_a_group_is_made_once_and_members_added_twice_are_no_error(chirpstack, site):
    first = await chirpstack.create_group(group(dev_euis=[spec(1).dev_eui]))
    assert await chirpstack.create_group(group(dev_euis=[spec(1).dev_eui])) == first
    for _ in range(2):
        await chirpstack.add_gateway(first, GATEWAY)
    assert site.network.multicast.get(first).gateways == {GATEWAY}
    with pytest.raises(NotThere):
        await chirpstack.add_gateway(first, "00800000a00000ff")
    assert await chirpstack.enqueue_multicast(first, 201, b"\x01") >= 0
    await chirpstack.flush_multicast(first)
    assert await chirpstack.multicast_queue_length(first) == 0
    for _ in range(2):
        await chirpstack.delete_group(first)
    with pytest.raises(NotThere):
        await chirpstack.enqueue_multicast(first, 201, b"\x01")


@pytest.mark.services
async def test_a_class_b_group_is_made_with_its_ping_slots(chirpstack, site):
    made = await chirpstack.create_group(group(name="b", ping_periodicity=2))
    settings_of_b = site.network.multicast.get(made).settings
    assert (settings_of_b.group_type, settings_of_b.class_b_ping_slot_periodicity) == ("CLASS_B", 2)
    other = await chirpstack.create_group(group(name="c"))
    assert site.network.multicast.get(other).settings.group_type == "CLASS_C"


@pytest.mark.services
async def test_the_device_queue(chirpstack):
    dev_eui = spec(2).dev_eui
    assert await chirpstack.enqueue(dev_eui, 203, b"\x01", time.time() + 1e6)
    assert await chirpstack.queue_length(dev_eui) == 1
    await chirpstack.flush(dev_eui)
    assert await chirpstack.queue_length(dev_eui) == 0
    with pytest.raises(NotThere):
        await chirpstack.enqueue("00" * 8, 203, b"\x01")


@pytest.mark.services
async def test_a_wrong_token_and_no_server_are_errors_of_the_link(site):
    for target, token in ((site.grpc_target, "wrong"), (f"127.0.0.1:{free_port()}", TOKEN)):
        client = ChirpStack(settings(target, token=token))
        with pytest.raises(LinkError):
            await client.devices()
        await client.close()


async def test_chirpstack_counts_in_unix_time_and_its_callers_in_their_own(site):
    ahead_s = 10 * 365 * 86400.0
    wall = WallTime(ahead_s)
    client = ChirpStack(settings(site.grpc_target), wall)
    now = wall.at(site.network.devices[spec(1).dev_eui].last_seen_at or time.time())
    await client.enqueue(spec(2).dev_eui, 201, b"1", now + 1e6)
    (waiting,) = await client.queued(spec(2).dev_eui)
    assert waiting.expires == pytest.approx(now + 1e6, abs=0.01)
    (item,) = site.network.devices[spec(2).dev_eui].queue
    assert item.expires_at == pytest.approx(now + 1e6 + ahead_s, abs=0.01)
    for device in await client.devices():
        seen = site.network.devices[device.dev_eui].last_seen_at
        assert (device.last_seen is None) is (seen is None)
        assert seen is None or device.last_seen == pytest.approx(seen - ahead_s, abs=1.0)
    await client.close()


@pytest.mark.services
async def test_uplinks_go_on_after_the_broker_was_away(tmp_path):
    with Mosquitto(tmp_path) as broker:
        network = NetworkSettings(TENANT, APPLICATION, [GATEWAY])
        clock = ScaledClock(100.0, time.time())
        mqtt = MqttSettings("127.0.0.1", broker.port)
        specs = [spec(1, uplink_interval_s=30.0)]
        async with (
            LorawanSite(specs, clock, verify=verify, settings=network, api_token=TOKEN, mqtt=mqtt) as site,
            asyncio.timeout(30),
        ):
            client = ChirpStack(settings(site.grpc_target, broker.port), WallTime(1e6))
            uplinks = client.uplinks()
            uplink = await anext(uplinks)
            assert uplink.dev_eui == spec(1).dev_eui
            assert uplink.received_at == pytest.approx(clock.now() - 1e6, abs=2000.0)
            assert client.link_up()["mqtt"]
            await asyncio.to_thread(broker.restart)
            before = site.network.nodes[spec(1).dev_eui].counters.uplinks
            while (await anext(uplinks)).f_cnt < before:
                pass
            await uplinks.aclose()
            await client.close()


@pytest.mark.services
async def test_calls_go_on_after_the_api_was_away(chirpstack, site):
    assert len(await chirpstack.devices()) == 2
    await site.stop_grpc()
    with pytest.raises(LinkError):
        await chirpstack.devices()
    assert not chirpstack.link_up()["grpc"]
    await site.start_grpc()
    devices = []
    async with asyncio.timeout(30):
        while not devices:
            try:
                devices = await chirpstack.devices()
            except LinkError:
                await asyncio.sleep(0.05)
    assert len(devices) == 2
    assert chirpstack.link_up()["grpc"]
