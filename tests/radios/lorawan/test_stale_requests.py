"""What waits in the queue of a class A node may be of another cohort or order: it is not taken for what is asked now."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from radios.lorawan import keys
from radios.lorawan.keys import Key
from radios.lorawan.messages import Unicast, waits
from radios.lorawan.network_server import Queued
from radios.lorawan.packages import firmware_management, multicast
from radios.lorawan.session_node import Step
from radios.radio import Fact, NodeDirective, NodeId, Want
from tests.radios.lorawan.world import T0, World, all_running, new_image, spec


def test_a_group_of_another_cohort_that_waits_in_its_queue_is_not_taken_for_ours():
    """It left that cohort as late, with the request still in its queue, and would hear nothing of the group of this one."""
    node = spec(1, device_class="A", uplink_interval_s=60.0)
    world = World([node], new_image())
    old = multicast.McGroupSetupReq(
        mc_group_id=0,
        mc_addr=0x0A0B0C0D,
        mc_key_encrypted=keys.encrypt_mc_key(
            keys.mc_ke_key(keys.mc_root_key_1_0(Key(node.gen_app_key))), Key(bytes([7] * 16))
        ),
        min_mc_f_count=0,
        max_mc_f_count=0xFFFFFFFF,
    )
    world.network.enqueue(node.dev_eui, 200, multicast.encode(old, 1), confirmed=False, expires_at=T0 + 600.0)
    world.run(lambda w: w.session.nodes[node.dev_eui].step is Step.WINDOW)
    assert [held.session.dev_addr for held in world.node(node).multicast.groups.values()] == [world.cohort.mc_addr]
    world.run(all_running)
    assert world.released == []
    assert world.node(node).running_image == world.image


@pytest.mark.parametrize("want", [Want.HOLD, Want.INSTALL])
def test_a_moment_that_waits_in_its_queue_is_not_taken_for_what_replaces_it(want):
    node = spec(1, device_class="A", uplink_interval_s=3600.0)
    world = World([node], new_image())
    at = {2: T0 + 86_400.0, 3: T0 + 90_000.0}

    def order(generation, wanted):
        moment = datetime.fromtimestamp(at[generation], UTC)
        world.session.direct(
            NodeDirective("t1", NodeId(f"lorawan:{node.dev_eui}"), generation, wanted, moment), world.now
        )

    world.session.direct(world.directive(node, Want.DELIVER, 1), world.now)
    world.session.nodes[node.dev_eui].want = Want.DELIVER
    world.run(lambda w: Fact.READY in w.facts(node))
    order(2, Want.INSTALL)
    queue = world.network.devices[node.dev_eui].queue
    world.run(lambda _: any(item.f_port == 203 for item in queue))
    order(3, want)
    world.run(lambda _: len(queue) > 1, limit_s=10.0)
    assert [item.data[:1] for item in queue] == [b"\x02", b"\x02"]


def test_the_same_request_waits_whatever_is_beside_it():
    asked = Unicast("70b3d54990000001", 203, firmware_management.encode(firmware_management.DevVersionReq()), 9.0, "x")
    other = replace(asked, data=firmware_management.encode(firmware_management.DevUpgradeImageReq()))
    queued = [Queued(203, other.data, None), Queued(203, asked.data, 5.0)]
    assert waits(asked, queued, 4.0)
    assert not waits(asked, queued, 5.0)
    assert not waits(replace(asked, port=201), queued, 4.0)
