"""What the simulated gateways say on their bus, and the habits around it (protocol file, 3.2)."""

import pytest
from chirpstack_api import gw
from google.protobuf import json_format

from radios.simulated.chirpstack.air import TxStatus
from radios.simulated.chirpstack.bus import encoded

NODE = "0000000000000001"
GATEWAY = "00800000a0000001"
T0 = 1_800_000_000.0


def group_of(network):
    group = network.group()
    network.server.multicast.add_gateway(group, GATEWAY)
    return group


def test_a_multicast_is_seen_on_the_bus_and_nowhere_else(make_network, spec):
    network = make_network(spec(1, uplink_interval_s=5000.0))
    network.server.multicast.enqueue(group_of(network), 201, b"x", None)
    network.run(5)
    down, ack = network.server.bus
    assert (down.gateway_id, down.statuses, ack.statuses) == (GATEWAY, None, ("OK",))
    assert down.downlink_id == ack.downlink_id
    assert down.frames[0].phy[1:5] == bytes.fromhex("04030201")
    assert not network.events


@pytest.mark.parametrize("as_json", [False, True])
def test_messages_are_those_of_chirpstack(make_network, spec, as_json):
    network = make_network(spec(1, uplink_interval_s=5000.0))
    network.server.multicast.enqueue(group_of(network), 201, b"x", None)
    network.run(5)
    down, ack = network.server.bus

    def read(kind, payload):
        return json_format.Parse(payload, kind()) if as_json else kind.FromString(payload)

    topic, payload = encoded(down, "eu868", as_json=as_json)
    frame = read(gw.DownlinkFrame, payload)
    assert topic == f"eu868/gateway/{GATEWAY}/command/down"
    assert frame.items[0].tx_info.frequency == 869_525_000
    assert frame.items[0].tx_info.modulation.lora.spreading_factor == 7
    topic, payload = encoded(ack, "", as_json=as_json)
    assert topic == f"gateway/{GATEWAY}/event/ack"
    assert [item.status for item in read(gw.DownlinkTxAck, payload).items] == [gw.OK]


@pytest.mark.parametrize("status", [TxStatus.TOO_LATE, TxStatus.DUTY_CYCLE_OVERFLOW, TxStatus.TX_FREQ])
def test_a_refused_multicast_is_gone_and_only_the_bus_says_so(make_network, spec, status):
    network = make_network(spec(1, uplink_interval_s=5000.0))
    group = group_of(network)
    network.server.air.gateways[GATEWAY].refuse_next.append(status)
    network.server.multicast.enqueue(group, 201, b"x", None)
    network.run(5)
    assert network.server.bus[-1].statuses == (status,)
    assert network.server.multicast.list_queue(group) == []
    assert network.server.air.gateways[GATEWAY].airtime_s == 0
    assert not network.events


def test_without_an_acknowledgement_it_is_sent_again_after_the_lock(make_network, spec):
    network = make_network(spec(1, uplink_interval_s=5000.0), ack_loss=1.0)
    group = group_of(network)
    network.server.multicast.enqueue(group, 201, b"x", None)
    network.run(7)
    starts = [t.start for t in network.server.air.gateways[GATEWAY].transmissions]
    assert len(starts) >= 3
    assert starts[1] - starts[0] == pytest.approx(2.0, abs=0.01)
    assert len(network.server.multicast.list_queue(group)) == 1
    phys = {message.frames[0].phy for message in network.server.bus}
    assert len(phys) == 1  # the same counter


def test_class_a_downlinks_name_both_windows(make_network, spec):
    network = make_network(spec(1))
    network.run(70)
    network.server.bus.clear()
    network.ask(NODE, 203, b"\x01")
    network.run(100)
    down, ack = list(network.server.bus)[:2]
    assert [frame.frequency_hz for frame in down.frames][1] == 869_525_000
    assert ack.statuses == ("OK", "IGNORED")


def test_after_a_stall_overdue_items_may_go_out_in_another_order(make_network, spec):
    network = make_network(spec(1, uplink_interval_s=5000.0), multicast_margin_s=1.0)
    group = group_of(network)
    network.server.multicast.stall(60)
    for _ in range(6):
        network.server.multicast.enqueue(group, 201, b"x", None)
    network.run(120)
    sent = [m.frames[0].phy[6] for m in network.server.bus if m.statuses is None]
    assert sorted(sent) == list(range(1, 7))
    assert sent != sorted(sent)
