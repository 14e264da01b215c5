"""What a transfer would cost, and requests to single nodes as the air sees them."""

from dataclasses import replace

import pytest

from radios.clock import ScaledClock
from radios.lorawan.air import MulticastAir, Turn
from radios.lorawan.airtime import DutyCycleLedger
from radios.lorawan.inventory import Node
from radios.lorawan.journal_codec import Known
from radios.lorawan.messages import Unicast
from radios.lorawan.network_server import Device, DeviceClass, Queued
from radios.lorawan.placement import Candidate
from radios.lorawan.regions import region
from radios.lorawan.runner import Runner
from radios.lorawan.single_air import SingleAir
from radios.lorawan.transfer_plan import RECEIVING_W, planned
from radios.lorawan.unicast_air import UnicastAir
from radios.radio import ImageRef, NodeCommand, NodeDirective, NodeId, Want
from tests.radios.lorawan.memory_site import node_id, order, site
from tests.radios.lorawan.world import GATEWAY, World, new_image, spec

EU868 = region("EU868")
PLAN = EU868.held_to(repeater=True, dwell_time=False)
IMAGE = ImageRef("00" * 32, 100 * 1024, 2)


def made(candidates, uplinks, image=IMAGE):
    ledgers = {GATEWAY: DutyCycleLedger(0.1)}

    def pace(place):
        rate = EU868.downlink(place.data_rate).modulation
        return MulticastAir(ledgers, rate, Turn(), share=1.0, gateway_gap_s=5.0)

    air = UnicastAir(PLAN, rx2=ledgers)
    return planned(image, candidates, [GATEWAY], PLAN, air, pace, lambda name: uplinks[name])


def test_each_cohort_has_its_own_part_and_a_later_one_is_done_later():
    reach = frozenset({GATEWAY})
    names = [f"near{n}" for n in range(3)] + [f"far{n}" for n in range(3)]
    candidates = [Candidate(name, 1, 5 if name.startswith("near") else 3, reach, 201) for name in names]
    parts = made(candidates, dict.fromkeys(names, 300.0)).parts
    assert sorted((part.nodes, part.frames) for part in parts) == [(3, 541), (3, 1062)]
    by_rate = {part.name[:3]: part for part in parts}
    assert by_rate["DR3"].airtime_s == pytest.approx(1062 * 0.656, rel=0.02)
    assert by_rate["DR5"].airtime_s == pytest.approx(541 * 0.364, rel=0.02)
    assert parts[0].eta_s == pytest.approx(lasting(parts[0]), rel=0.1)
    assert parts[1].eta_s == pytest.approx(parts[0].eta_s + lasting(parts[1]), rel=0.1)
    assert all(part.node_energy_j == pytest.approx(lasting(part) * RECEIVING_W, rel=0.1) for part in parts)


def lasting(part):
    """About: what does not fill an hour goes early."""
    budget_s = 0.09 * 3600
    return part.airtime_s // budget_s * 3600 * 1.02 + 2 * (part.airtime_s % budget_s)


def test_energy_counts_only_for_nodes_that_would_sleep():
    always_on = made([Candidate("c", 1, 5, frozenset({GATEWAY}), 201)], {"c": 0.0}).parts
    assert always_on[0].node_energy_j == 0.0
    alone = made([Candidate("a", 1, 5, frozenset(), 201, unicast=True)], {"a": 300.0}).parts
    assert alone[0].eta_s == pytest.approx(alone[0].frames * 300.0)
    assert 5.0 < alone[0].node_energy_j < 20.0


def test_an_image_that_is_too_much_for_a_slow_node_leaves_it_out_and_plans_the_others():
    reach = frozenset({GATEWAY})
    candidates = [Candidate("fa2", 1, 0, reach, 201), Candidate("ea2", 1, 5, reach, 201)]
    found = made(candidates, {"fa2": 300.0, "ea2": 300.0}, ImageRef("00" * 32, 500_000, 2))
    assert [(part.members, part.multicast) for part in found.parts] == [(("lorawan:ea2",), True)]
    assert list(found.skipped) == ["lorawan:fa2"]
    assert found.skipped[NodeId("lorawan:fa2")].startswith("DR0: 500000 bytes in fragments of")


async def test_the_operator_reads_the_plan_of_a_transfer():
    specs = [spec(1), spec(2, device_class="A", uplink_interval_s=60.0)]
    async with site(specs, new_image()) as (radio, _, _network):
        await radio.put(order(new_image()))
        nodes = [*map(node_id, specs), NodeId("lorawan:00000000000000ff")]
        await radio.direct([NodeDirective("t1", node, 1, Want.HOLD) for node in nodes])
        while True:
            told = await radio.manage(NodeCommand("plan", arguments={"transfer": "t1"}))
            if told.value["frames"]:
                break
            await radio._clock.sleep_until(radio._clock.now() + 10)
        assert told.ok
        assert "3.3 V" in told.detail
        assert sum(part["nodes"] for part in told.value["parts"]) == 2
        assert list(told.value["skipped"]) == [nodes[2]]
        assert not (await radio.manage(NodeCommand("plan", arguments={"transfer": "?"}))).ok


def single(uplink_dr, device_class=DeviceClass.A):
    device = Device("a" * 16, "", device_class, "EU868", (1, 0), 60.0)
    ledger = DutyCycleLedger(0.01)
    air = UnicastAir(PLAN, rx2={GATEWAY: ledger}, rx1={GATEWAY: ledger})
    return SingleAir({"a" * 16: Node(device, Known("a" * 16, uplink_dr=uplink_dr))}, air), ledger


@pytest.mark.parametrize(
    ("uplink_dr", "size", "fits"), [(0, 51, True), (0, 52, False), (5, 222, True), (None, 250, True)]
)
def test_what_does_not_fit_the_node_is_not_queued(uplink_dr, size, fits):
    air, _ = single(uplink_dr)
    assert bool(air.oversize("a" * 16, size)) is not fits
    assert air.oversize("b" * 16, 250) == ""


def test_requests_are_booked_by_the_data_rate_of_the_node():
    slow, slow_ledger = single(0)
    fast, fast_ledger = single(5)
    for air in (slow, fast):
        air.book("a" * 16, 30, 1000.0)
        air.book("b" * 16, 30, 1000.0)
    assert slow_ledger.used(1000.0) > 20 * fast_ledger.used(1000.0) > 0


class Queue:
    """A network server with one device's queue."""

    def __init__(self, *waiting):
        self.waiting = list(waiting)

    async def queued(self, dev_eui):
        return list(self.waiting)

    async def enqueue(self, dev_eui, port, data, expires=None):
        self.waiting.append(Queued(port, data, expires))


def runner_at(network, device_class):
    air, _ = single(5, device_class)
    session = World([spec(1)], new_image()).session
    return Runner(session, network, None, ScaledClock(1.0, 1000.0), None, None, air)


ASK = Unicast("a" * 16, 200, b"\x01\x0f", 2000.0, "McGroupStatusReq")


@pytest.mark.parametrize("device_class", list(DeviceClass))
async def test_a_request_that_waits_since_before_a_restart_is_not_queued_twice(device_class):
    network = Queue(Queued(200, b"\x01\x03"))  # the same command
    runner = runner_at(network, device_class)
    await runner._unicast(ASK)
    assert len(network.waiting) == 1
    for _ in range(2):
        await runner._unicast(ASK)  # class C is served at once; class A may not have been heard since
    assert len(network.waiting) == (3 if device_class is DeviceClass.C else 1)


async def test_what_has_expired_or_is_another_command_or_port_does_not_wait():
    others = Queued(200, b"\x01\x0f", 999.0), Queued(200, b"\x02\x0f"), Queued(201, b"\x01\x0f")
    network = Queue(*others)
    await runner_at(network, DeviceClass.A)._unicast(ASK)
    assert len(network.waiting) == 4


async def test_a_window_that_was_asked_for_before_a_restart_is_asked_for_again():
    """Nobody knows any more which start that was."""
    network = Queue(Queued(200, b"\x04old"))
    runner = runner_at(network, DeviceClass.A)
    request = replace(ASK, data=b"\x04new", name="McClassCSessionReq")
    await runner._unicast(request)
    assert [item.data for item in network.waiting] == [b"\x04old", b"\x04new"]
    await runner._unicast(replace(request, data=b"\x04newer"))
    assert len(network.waiting) == 2
