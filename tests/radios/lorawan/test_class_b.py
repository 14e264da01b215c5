"""Class B sessions: nodes that are locked to beacons get fragments in the ping slots of their group."""

from dataclasses import replace

import pytest

from radios.lorawan.cohort import beacon_at, beacon_time_out_for, periodicity_for
from radios.lorawan.gps_time import GpsTime
from radios.lorawan.messages import Unicast
from radios.lorawan.packages import multicast
from radios.lorawan.placement import Candidate, assign
from radios.radio import Fact
from radios.simulated.lorawan.packages.fragmentation import StatusStyle
from radios.wall_time import WallTime
from tests.radios.lorawan.world import T0, World, all_running, new_image, spec

GATEWAY = "00800000a0000001"


def beacon_world(specs, *, periodicity=0, **changes):
    world = World(specs, new_image(), data_rate=3, frag_size=112, **changes)
    world.cohort.ping_periodicity = periodicity
    return world


def asked(world):
    frames = [a.data for a in world.log if isinstance(a, Unicast) and a.name == "McClassBSessionReq"]
    return [command for data in frames for command in multicast.decode_downlink(data, 1).commands]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("style", list(StatusStyle))
def test_class_b_nodes_get_the_image_in_ping_slots(version, style):
    specs = [
        spec(n, device_class="B", package_versions={2: version}, status_style=style, downlink_loss=0.1, uplink_loss=0.1)
        for n in (1, 2)
    ]
    world = beacon_world(specs, periodicity=1)
    world.run(all_running)
    assert world.violations == []
    for s in specs:
        assert world.facts(s)[-1] is Fact.RUNNING
        assert world.node(s).running_image == world.image
        assert world.node(s).counters.multicast_received > 0
    for command in asked(world):
        assert command.session_time % 128 == 0
        assert command.periodicity == 1


def test_a_class_b_window_ends_and_opens_again():
    node = spec(1, device_class="B", downlink_loss=0.5, redundancy_limit=2000, uplink_interval_s=60.0)
    world = World([node, spec(2, device_class="B")], new_image(60_000), data_rate=3, frag_size=112)
    world.cohort.ping_periodicity = 0
    windows = set()
    world.run(lambda w: windows.add(w.cohort.window_start) or w.session.highest_sent > w.cohort.nb_frag)
    world.cohort.window_end = world.now + 20.0  # as if more had been lost than was thought
    world.run(lambda w: windows.add(w.cohort.window_start) or all_running(w))
    assert len(windows - {0.0}) > 1
    assert world.facts(node)[-1] is Fact.RUNNING


@pytest.mark.parametrize("at", range(4, 90, 7))
def test_a_class_b_delivery_survives_a_crash(at):
    world = beacon_world([spec(1, device_class="B", downlink_loss=0.2), spec(2, device_class="B")])
    world.crash_at = {at}
    world.run(all_running)
    assert world.violations == []
    assert all(world.node(s).running_image == world.image for s in world.specs.values())


def test_a_node_that_refuses_class_b_leaves_for_unicast():
    world = beacon_world([spec(1), spec(2, device_class="B")])
    world.run(lambda w: w.released and Fact.RUNNING in w.facts(spec(2)))
    assert [(r.dev_eui, r.again, r.reason) for r in world.released] == [(spec(1).dev_eui, True, "no_multicast")]


def test_an_answer_about_the_other_class_is_none():
    world = beacon_world([spec(1, device_class="B")])
    node = world.session.nodes[spec(1).dev_eui]
    world.run(lambda w: node.asked and node.step == "window")
    uplink = multicast.encode(multicast.McClassCSessionAns(mc_group_id=0, dr_error=True), 1)
    world.session.receive(_up(world, uplink), world.now)
    assert node.step == "window"


def _up(world, data):
    from radios.lorawan.network_server import Uplink

    return Uplink(spec(1).dev_eui, 200, data, 1, data_rate=5, received_at=world.now)


def test_class_b_and_class_c_nodes_are_in_different_cohorts():
    base = Candidate("a", 1, 3, frozenset({GATEWAY}), 201)
    found = assign([base, replace(base, dev_eui="b", class_b=True)], {}, [GATEWAY], lambda _: 1.0)
    assert sorted((place.class_b, nodes) for place, nodes in found) == [(False, ["a"]), (True, ["b"])]
    single = assign(
        [replace(base, dev_eui="c", class_b=True)], {place: 1 for place, _ in found}, [GATEWAY], lambda _: 1.0
    )
    assert [place.class_b for place, _ in single] == [True]


@pytest.mark.parametrize("ahead_s", [0.0, 3607.5, 60.0 - T0])
def test_a_beacon_is_a_multiple_of_128_gps_seconds(ahead_s):
    gps = GpsTime(WallTime(ahead_s))
    for when in (T0, T0 + 0.5, T0 + 127.99):
        at = beacon_at(when, gps)
        assert 0 <= at - when < 128
        assert round(gps.at(at), 6) % 128 == 0
        assert beacon_at(at, gps) == at


def test_windows_and_slots_are_as_long_as_needed():
    assert [beacon_time_out_for(s) for s in (1.0, 256.0, 257.0, 1e9)] == [1, 1, 2, 15]
    assert [periodicity_for(s) for s in (0.1, 3.7, 4.0, 6.8, 27.9, 500.0)] == [0, 0, 1, 1, 3, 3]
