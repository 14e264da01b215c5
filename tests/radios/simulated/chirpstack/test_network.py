"""The simulated ChirpStack's habits (protocol file, 3.2 and 3.3), in virtual time."""

import base64
from datetime import datetime

import pytest

from radios.simulated.chirpstack.model import ApiCode, ApiError, Scheduling

NODE = "0000000000000001"
GATEWAY = "00800000a0000001"


def test_uplinks_and_status_are_published(make_network, spec):
    network = make_network(spec(1, mains=False, battery_percent=20.0, tags={"owner": "x"}), spec(2))
    network.run(200)
    up = network.of("up", NODE)[0].body
    assert up["deviceInfo"]["devEui"] == NODE
    assert up["deviceInfo"]["tags"] == {"owner": "x"}
    assert up["fPort"] == 2
    assert base64.b64decode(up["data"]) == bytes(4)
    assert up["rxInfo"][0]["gatewayId"] == GATEWAY
    at = datetime.fromisoformat(up["time"]).timestamp()
    assert float(up["rxInfo"][0]["timeSinceGpsEpoch"].rstrip("s")) == pytest.approx(at - 315964800 + 18, abs=0.01)
    (battery,) = network.of("status", NODE)
    assert battery.body["batteryLevel"] == 20.0
    assert battery.body["externalPowerSource"] is False
    assert network.of("status", "0000000000000002")[0].body["externalPowerSource"] is True


def test_class_a_gets_one_item_per_uplink_and_asks_for_more(make_network, spec):
    network = make_network(spec(1))
    network.run(70)
    items = [network.server.enqueue(NODE, 203, b"\x01", confirmed=False, expires_at=None) for _ in range(3)]
    network.run(100)
    acks = network.of("txack", NODE)
    assert [event.body["queueItemId"] for event in acks] == items
    assert [event.body["fCntDown"] for event in acks] == [0, 1, 2]
    assert len([e for e in network.of("up") if e.body["fPort"] == 203]) == 3


def test_class_c_gets_its_items_at_once(make_network, spec):
    network = make_network(spec(1, device_class="C", uplink_interval_s=1000.0))
    network.run(1100)
    network.ask(NODE, 203, b"\x01")
    events = network.run(8)
    assert [event.kind for event in events] == ["txack", "up"]
    assert events[0].body["txInfo"]["frequency"] == 869525000


def test_expired_and_oversize_items_become_log_events(make_network, spec):
    network = make_network(spec(1))
    network.run(70)
    expired = network.server.enqueue(NODE, 201, b"x", confirmed=False, expires_at=network.server.agenda.now + 1)
    network.run(2)
    large = network.server.enqueue(NODE, 201, bytes(243), confirmed=False, expires_at=None)
    good = network.server.enqueue(NODE, 203, b"\x01", confirmed=False, expires_at=None)
    network.run(100)
    logs = {event.body["code"]: event.body["context"] for event in network.of("log")}
    assert logs["EXPIRED"]["queue_item_id"] == expired
    assert logs["DOWNLINK_PAYLOAD_SIZE"] == {"queue_item_id": large, "max_payload_size": "242", "item_size": "243"}
    assert [event.body["queueItemId"] for event in network.of("txack")] == [good]


def test_confirmed_items_are_acknowledged_by_the_next_uplink(make_network, spec):
    network = make_network(spec(1))
    item = network.server.enqueue(NODE, 203, b"\x01", confirmed=True, expires_at=None)
    network.run(100)
    (ack,) = network.of("ack")
    assert (ack.body["queueItemId"], ack.body["acknowledged"]) == (item, True)
    assert not network.server.device(NODE).queue


def test_a_lost_downlink_is_gone_without_a_word(make_network, spec):
    network = make_network(spec(1, downlink_loss=1.0))
    network.ask(NODE, 203, b"\x01")
    network.run(100)
    assert len(network.of("txack")) == 1
    assert not [e for e in network.of("up") if e.body["fPort"] == 203]
    assert network.server.air.counters[NODE].downlinks_lost == 1


def test_unicast_errors(make_network, spec):
    network = make_network(spec(1))
    with pytest.raises(ApiError) as unknown:
        network.ask("00000000000000ff", 203, b"\x01")
    assert unknown.value.code is ApiCode.NOT_FOUND
    with pytest.raises(ApiError) as bad_port:
        network.ask(NODE, 0, b"\x01")
    assert bad_port.value.code is ApiCode.INVALID_ARGUMENT


def test_multicast_reaches_only_open_windows(make_network, spec):
    network = make_network(spec(1), spec(2))
    network.set_up_group(NODE)
    group = network.group()
    network.server.multicast.add_gateway(group, GATEWAY)
    network.run(380)
    network.server.multicast.enqueue(group, 201, b"\x01\x01", None)
    network.run(10)
    nodes = network.server.nodes
    assert nodes[NODE].counters.multicast_received == 0
    network.run(40)
    assert network.server.multicast.enqueue(group, 201, b"\x01\x01", None) == 2
    network.run(10)
    assert nodes[NODE].counters.multicast_received == 1
    assert nodes["0000000000000002"].counters.multicast_received == 0


def test_without_gateways_a_multicast_succeeds_and_sends_nothing(make_network, spec):
    network = make_network(spec(1))
    group = network.group()
    assert network.server.multicast.enqueue(group, 201, b"x", None) == 1
    assert network.server.multicast.enqueue(group, 201, b"x", None) == 2
    assert network.server.multicast.list_queue(group) == []
    network.run(100)
    assert network.server.air.gateways[GATEWAY].airtime_s == 0


def test_without_a_list_the_gateways_that_heard_the_members_send(make_network, spec):
    network = make_network(spec(1))
    network.run(100)
    group = network.group()
    network.server.multicast.add_device(group, NODE)
    network.server.multicast.enqueue(group, 201, b"x", None)
    network.run(5)
    assert network.server.air.gateways[GATEWAY].airtime_s > 0


def test_the_margin_applies_only_behind_another_item(make_network, spec):
    network = make_network(spec(1, uplink_interval_s=5000.0))
    group = network.group()
    network.server.multicast.add_gateway(group, GATEWAY)
    start = network.server.agenda.now
    for _ in range(3):
        network.server.multicast.enqueue(group, 201, b"x", None)
    network.run(30)
    starts = [t.start - start for t in network.server.air.gateways[GATEWAY].transmissions]
    assert starts == pytest.approx([0, 5, 10], abs=1.01)
    start = network.server.agenda.now
    network.server.multicast.enqueue(group, 201, b"x", None)
    network.run(2)
    assert network.server.air.gateways[GATEWAY].transmissions[-1].start - start <= 1


@pytest.mark.parametrize(("scheduling", "second"), [(Scheduling.DELAY, 5.0), (Scheduling.GPS_TIME, 5.0)])
def test_more_gateways_in_turn_or_together(make_network, spec, scheduling, second):
    other = "00800000a0000002"
    network = make_network(spec(1, uplink_interval_s=5000.0), gateway_ids=(GATEWAY, other))
    group = network.group(scheduling=scheduling)
    for gateway in (GATEWAY, other):
        network.server.multicast.add_gateway(group, gateway)
    start = network.server.agenda.now
    network.server.multicast.enqueue(group, 201, b"x", None)
    assert len(network.server.multicast.list_queue(group)) == 1
    network.run(30)
    first = network.server.air.gateways[GATEWAY].transmissions[0].start - start
    assert network.server.air.gateways[other].transmissions[0].start - start == pytest.approx(second)
    assert first == pytest.approx(0.0 if scheduling is Scheduling.DELAY else 5.0)


def test_oversize_and_refused_multicasts_vanish_silently(make_network, spec):
    network = make_network(spec(1, uplink_interval_s=50_000.0))
    group = network.group(data_rate=3)
    network.server.multicast.add_gateway(group, GATEWAY)
    network.server.multicast.enqueue(group, 201, bytes(116), None)
    network.run(10)
    network.server.air.gateways[GATEWAY].request(359.9, 869_525_000, network.server.agenda.now, None)
    network.server.multicast.enqueue(group, 201, bytes(115), None)
    network.run(500)
    assert network.server.multicast.list_queue(group) == []
    assert network.server.multicast.dropped_oversize == 1
    assert network.server.multicast.dropped_refused == 1
    assert len(network.server.air.gateways[GATEWAY].transmissions) == 1
    assert not network.events


def test_deleting_or_flushing_drops_the_queue(make_network, spec):
    network = make_network(spec(1, uplink_interval_s=5000.0))
    multicast = network.server.multicast
    for name in ("flushed", "deleted"):
        network.group(name)
        multicast.add_gateway(name, GATEWAY)
        for _ in range(4):
            multicast.enqueue(name, 201, b"x", None)
    network.run(2)
    multicast.flush_queue("flushed")
    multicast.delete("deleted")
    network.run(100)
    assert len(network.server.air.gateways[GATEWAY].transmissions) == 2
    with pytest.raises(ApiError):
        multicast.list_queue("deleted")


def test_duplicates_in_a_group_are_internal_errors(make_network, spec):
    network = make_network(spec(1))
    group, multicast = network.group(), network.server.multicast
    multicast.add_device(group, NODE)
    multicast.add_gateway(group, GATEWAY)
    for again in (lambda: multicast.add_device(group, NODE), lambda: multicast.add_gateway(group, GATEWAY)):
        with pytest.raises(ApiError) as error:
            again()
        assert error.value.code is ApiCode.INTERNAL
    for unknown in (lambda: multicast.add_device(group, "ff" * 8), lambda: multicast.add_gateway(group, "ff" * 8)):
        with pytest.raises(ApiError) as error:
            unknown()
        assert error.value.code is ApiCode.NOT_FOUND


def test_a_reboot_joins_again_with_new_counters(make_network, spec):
    network = make_network(spec(1, downlink_loss=0.3, uplink_loss=0.3))
    network.run(100)
    before = network.server.device(NODE).activation
    for _ in range(6):
        network.ask(NODE, 203, b"\x03\x00\x00\x00")
    network.run(1500)
    assert network.of("join", NODE)
    assert network.server.device(NODE).activation != before
    assert network.server.nodes[NODE].joined
    network.events.clear()
    network.run(600)
    assert network.of("up", NODE)
