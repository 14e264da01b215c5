"""Parents that hold frames for sleepers, joins and leaves, batteries, and what a shared channel lets through."""

import struct
from typing import Any

import pytest

from radios.simulated.zigbee.channel import Channel, hop_s, on_air_s
from radios.simulated.zigbee.frames import ApsFrame
from radios.simulated.zigbee.mesh import JoinStatus, Mesh
from radios.simulated.zigbee.node_spec import Life, NodeSpec
from radios.simulated.zigbee.ota_terms import OtaTiming

MakeLab = Any

QUIET = OtaTiming(boot_query_delay_s=(1e6, 1e6))


def ping(counter: int = 1) -> ApsFrame:
    """A read of the Basic cluster's model."""
    return ApsFrame(0x0104, 0x0000, 1, 1, bytes((0x00, counter, 0x00, 0x05, 0x00)), counter)


def test_a_frame_for_a_sleeper_waits_until_it_polls(make_lab: MakeLab) -> None:
    lab = make_lab(sleepy=True, poll_s=5.0, timing=QUIET)
    lab.run(3)
    done: list[bool] = []
    asked = lab.now
    lab.mesh.unicast(lab.node.nwk, ping(), lab.now, acknowledged=False, done=done.append)
    lab.run(10, lambda: bool(done))
    assert done == [True]
    assert 1.0 < lab.now - asked <= 5.0


def test_what_waits_too_long_at_the_parent_is_gone(make_lab: MakeLab) -> None:
    lab = make_lab(sleepy=True, poll_s=60.0, timing=QUIET)
    done: list[bool] = []
    asked = lab.now
    lab.mesh.unicast(lab.node.nwk, ping(), lab.now, acknowledged=False, done=done.append)
    lab.run(30, lambda: bool(done))
    assert done == [False]
    assert lab.now - asked == pytest.approx(7.68)


def test_every_frame_gets_exactly_one_outcome(make_lab: MakeLab) -> None:
    lab = make_lab(loss=0.3, mac_loss=0.3)
    outcomes: list[bool] = []
    for counter in range(200):
        lab.mesh.unicast(lab.node.nwk, ping(counter), lab.now, acknowledged=counter % 2 == 0, done=outcomes.append)
        lab.run(0.1)
    lab.run(60)
    assert len(outcomes) == 200
    assert outcomes.count(False) > 0


def test_an_acknowledged_frame_arrives_once_however_often_it_was_sent(make_lab: MakeLab) -> None:
    lab = make_lab(loss=0.2)
    done: list[bool] = []
    for counter in range(50):
        lab.other.clear()
        lab.mesh.unicast(lab.node.nwk, ping(counter), lab.now, acknowledged=True, done=done.append)
        lab.run(5)
        assert len([f for f in lab.other if f.cluster == 0x0000]) <= 1
    assert done.count(True) > 40, "three attempts beat 20 % loss mostly"


def test_a_node_without_power_or_address_is_not_reached(make_lab: MakeLab) -> None:
    lab = make_lab()
    lab.run(0.1)
    lab.node.power_off()
    done: list[bool] = []
    lab.mesh.unicast(lab.node.nwk, ping(), lab.now, acknowledged=True, done=done.append)
    lab.mesh.unicast(0x0BAD, ping(), lab.now, acknowledged=True, done=done.append)
    lab.run(10)
    assert done == [False, False]


def test_nodes_join_only_while_joining_is_permitted(make_lab: MakeLab) -> None:
    lab = make_lab(joined=False)
    lab.run(30)
    assert lab.other == []
    lab.mesh.permit_joining(60, lab.now)
    lab.run(10)
    assert lab.node.joined
    assert lab.changes == [JoinStatus.UNSECURED_JOIN]
    announce = lab.other[0]
    assert (announce.cluster, announce.broadcast) == (0x0013, True)
    assert struct.unpack_from("<HQ", announce.payload, 1) == (lab.node.nwk, lab.node.spec.eui64)


def test_joined_nodes_announce_themselves_until_a_host_spoke_to_them(make_lab: MakeLab) -> None:
    lab = make_lab(timing=QUIET)
    lab.listening = False
    lab.run(5)
    assert lab.other == [], "nobody listens"
    lab.listening = True
    for expected in (1, 2):
        lab.mesh.network_up(lab.now)
        lab.run(5)
        assert [f.cluster for f in lab.other] == [0x0013] * expected, "this host died before it spoke"
    lab.mesh.unicast(lab.node.nwk, ping(), lab.now, acknowledged=False, done=lambda _: None)
    lab.run(1)
    lab.other.clear()
    lab.mesh.network_up(lab.now)
    lab.run(5)
    assert lab.other == []


def test_a_leave_request_is_answered_and_obeyed(make_lab: MakeLab) -> None:
    lab = make_lab()
    lab.run(3)
    lab.other.clear()
    request = ApsFrame(0x0000, 0x0034, 0, 0, struct.pack("<BQB", 7, lab.node.spec.eui64, 0), 9)
    lab.mesh.unicast(lab.node.nwk, request, lab.now, acknowledged=False, done=lambda _: None)
    lab.run(3)
    assert [(f.cluster, f.payload) for f in lab.other] == [(0x8034, b"\x07\x00")]
    assert lab.changes[-1] is JoinStatus.LEFT
    assert lab.node.life is Life.LEFT


def test_traffic_drains_a_battery(make_lab: MakeLab) -> None:
    lab = make_lab(battery_percent=50.0)
    lab.run(60)
    assert lab.node.running_image == lab.file
    assert 49.0 < lab.node.battery_percent < 50.0


def test_frames_take_the_time_of_the_protocol_file() -> None:
    assert on_air_s(62) * 1000 == pytest.approx(2.2, abs=0.05)
    assert hop_s(62) * 1000 == pytest.approx(4.0, abs=0.05)
    assert hop_s(112) * 1000 == pytest.approx(5.6, abs=0.05)
    assert hop_s(45) * 1000 == pytest.approx(3.4, abs=0.05)


def test_a_shared_channel_bounds_what_all_nodes_get_together(make_lab: MakeLab) -> None:
    channel = Channel(seed=1)
    lab = make_lab(mesh={"channel": channel}, hops=2)
    lab.run(60)
    assert lab.node.running_image == lab.file
    blocks = lab.node.counters.blocks_received
    assert channel.busy_s == pytest.approx(blocks * 2 * (hop_s(62) + hop_s(112)), rel=0.1)


def test_two_nodes_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="zigbee:0000000000000001"):
        Mesh([NodeSpec(eui64=1), NodeSpec(eui64=1)])


def test_what_is_due_happens_at_its_own_time_however_seldom_the_mesh_is_called() -> None:
    mesh = Mesh([])
    seen: list[float] = []

    def step(now: float) -> None:
        seen.append(round(now, 6))
        if len(seen) % 3:
            mesh.call_at(now + 0.01, step)

    mesh.call_at(1.0, step)
    mesh.handle_timeout(1.09)
    assert seen == [1.0, 1.01, 1.02]
    mesh.call_at(2.0, step)
    mesh.handle_timeout(60.0)
    assert seen[3:] == [59.9, 59.91, 59.92], "after a long pause nothing is caught up: nobody could have answered"
