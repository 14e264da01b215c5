"""The driver over an in-memory network server: refusals, outages, late joiners, several transfers. No sockets."""

import asyncio
import json

import pytest

from radios.errors import ContractError
from radios.radio import Fact, NodeDirective, NodeId, Want
from radios.simulated.lorawan import firmware
from tests.radios.lorawan.memory_site import node_id, order, site
from tests.radios.lorawan.world import HARDWARE, new_image, spec


async def test_a_refused_installation_is_not_begun_and_others_go_on():
    specs, image = [spec(1), spec(2)], new_image()
    first, second = map(node_id, specs)
    async with site(specs, image) as (radio, journal, network):
        journal.refuse_install = {first}
        await radio.put(order(image))
        await radio.direct([NodeDirective("t1", node, 1, Want.INSTALL) for node in (first, second)])
        await journal.until(Fact.READY, first)
        await journal.until(Fact.RUNNING, second)
        assert network.simulated.nodes[specs[0].dev_eui].version == 1
        journal.refuse_install = set()
        await radio.direct([NodeDirective("t1", first, 2, Want.INSTALL)])
        await journal.until(Fact.RUNNING, first)
        assert network.simulated.nodes[specs[0].dev_eui].running_image == image


async def test_an_outage_of_the_network_server_costs_only_time():
    specs, image = [spec(1), spec(2, downlink_loss=0.1)], new_image()
    async with site(specs, image) as (radio, journal, network):
        await radio.put(order(image))
        await radio.direct([NodeDirective("t1", node_id(s), 1, Want.INSTALL) for s in specs])
        counters = [network.simulated.nodes[s.dev_eui].fragment_counters for s in specs]
        while any(counter.fragments_received < 5 for counter in counters):
            await asyncio.sleep(0.01)
        # Not 1: where the machine is slow, an answer is late by minutes of the nodes' time, and a request is made again.
        set_up = [counter.sessions_set_up for counter in counters]
        network.down = True
        await asyncio.sleep(0.5)
        network.down = False
        await journal.until(Fact.RUNNING, *map(node_id, specs))
        assert [counter.sessions_set_up for counter in counters] == set_up
        assert all(network.simulated.nodes[s.dev_eui].running_image == image for s in specs)


async def test_a_late_joiner_has_a_plain_pass_of_its_own():
    specs, image = [spec(1), spec(2)], new_image()
    first, second = map(node_id, specs)
    async with site(specs, image) as (radio, journal, network):
        await radio.put(order(image))
        await radio.direct([NodeDirective("t1", first, 1, Want.INSTALL)])
        while not any(cohort["sent"] > 8 for cohort in radio.status()["cohorts"]):
            await asyncio.sleep(0.01)
        await radio.direct([NodeDirective("t1", second, 1, Want.INSTALL)])
        await journal.until(Fact.RUNNING, first, second)
        assert len(set(network.names)) == 2
        assert all(network.simulated.nodes[s.dev_eui].running_image == image for s in specs)


async def test_what_can_never_be_is_refused_with_its_reason():
    specs, image = [spec(1), spec(2)], new_image()
    async with site(specs, image) as (radio, journal, network):
        network.regions = {specs[0].dev_eui: "US915"}
        await radio.put(order(image))
        await radio.put(order(image, "old", days=-1))
        await radio.direct([NodeDirective("t1", node_id(specs[0]), 1, Want.INSTALL)])
        await radio.direct([NodeDirective("old", node_id(specs[1]), 1, Want.INSTALL)])
        await journal.until(Fact.FAILED, node_id(specs[0]))
        await journal.until(
            Fact.STALLED, node_id(specs[1])
        )  # no verdict: the daemon knows whether the clock can be believed
        assert {(e.fact, e.code) for e in journal.events} == {(Fact.FAILED, "refused"), (Fact.STALLED, "expired")}
        assert network.names == []


async def test_dropping_what_never_began_is_done_at_once():
    async with site([spec(1)], new_image()) as (radio, journal, _):
        await radio.direct([NodeDirective("t1", node_id(spec(9)), 1, Want.DROP)])
        await journal.until(Fact.DROPPED, node_id(spec(9)))


async def test_a_second_transfer_waits_for_the_end_of_the_first():
    third = firmware.build(version=3, hardware=HARDWARE, size=6000, seed=9)
    specs, image = [spec(1)], new_image()
    node = node_id(specs[0])
    async with site(specs, image) as (radio, journal, network):
        await radio.put(order(image))
        await radio.direct([NodeDirective("t1", node, 1, Want.INSTALL)])
        await journal.until(Fact.RUNNING, node)
        await radio.put(order(third, "t2"))
        radio_images = network.simulated.nodes[specs[0].dev_eui]
        await radio.direct([NodeDirective("t2", node, 1, Want.DELIVER)])
        await journal.until(Fact.DROPPED, node)
        while not any(e.transfer == "t2" and e.fact is Fact.PREPARING for e in journal.events):
            await asyncio.sleep(0.01)
        assert radio_images.version == 2


async def test_an_image_never_changes_under_a_transfer():
    async with site([spec(1)], new_image()) as (radio, _, _network):
        await radio.put(order(new_image()))
        with pytest.raises(ContractError):
            await radio.put(order(new_image(7000)))
        with pytest.raises(ContractError):
            await radio.direct([NodeDirective("t1", NodeId("zigbee:0000000000000001"), 1, Want.DROP)])


async def test_secrets_are_marked_and_nowhere_else():
    specs, image = [spec(1)], new_image()
    async with site(specs, image) as (radio, journal, _):
        await radio.put(order(image))
        await radio.direct([NodeDirective("t1", node_id(specs[0]), 1, Want.DELIVER)])
        await journal.until(Fact.READY, node_id(specs[0]))
        keys = [r for r in journal.records.values() if r.secret]
        assert len(keys) == 1
        public = b"".join(r.value for r in journal.records.values() if not r.secret)
        told = json.dumps(radio.status()) + repr(journal.events)
        for secret in (keys[0].value, specs[0].gen_app_key):
            assert secret not in public
            assert secret.hex().encode() not in public
            assert secret.hex() not in told
