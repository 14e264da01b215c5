"""The driver with nodes of all kinds: class A only, without TS006, with TS007, far away, of several gateways."""

import asyncio
import json
import logging

import pytest

from radios.lorawan.cohort import SessionSettings
from radios.lorawan.inventory import ports_by_tags
from radios.lorawan.keys import Key
from radios.lorawan.session_node import Ports
from radios.radio import Fact, NodeCommand, NodeDirective, Want
from radios.simulated.lorawan.packages.fragmentation import StatusStyle
from tests.radios.lorawan.memory_site import node_id, order, site
from tests.radios.lorawan.world import GATEWAY, new_image, spec

SECOND = "00800000a0000002"


async def deliver(radio, journal, specs, image, want=Want.INSTALL):
    await radio.put(order(image))
    await radio.direct([NodeDirective("t1", node_id(s), 1, want) for s in specs])


async def known(radio, specs, *, packages=3):
    """Until the nodes have told what they are."""
    while True:
        listed = (await radio.manage(NodeCommand("list"))).value or []
        told = {entry["node"] for entry in listed if len(entry["packages"]) >= packages}
        if told >= {node_id(s) for s in specs}:
            return {entry["node"]: entry for entry in listed}
        await asyncio.sleep(0.01)


async def test_a_node_without_ts005_gets_its_image_by_unicast():
    quiet, others = spec(1, device_class="A", package_versions={0: 1, 2: 0}), [spec(2), spec(3)]
    image = new_image()
    async with site([quiet, *others], image) as (radio, journal, network):
        await deliver(radio, journal, [quiet, *others], image)
        await journal.until(Fact.RUNNING, *(node_id(s) for s in (quiet, *others)))
        assert network.simulated.nodes[quiet.dev_eui].running_image == image
        assert network.simulated.nodes[quiet.dev_eui].multicast.groups == {}
        assert len(network.names) == 1  # only the others have a group


async def test_a_node_that_refuses_the_window_is_served_by_unicast():
    stubborn = spec(1, device_class="A")
    image = new_image()
    async with site([stubborn], image) as (radio, journal, network):
        held = network.simulated.nodes[stubborn.dev_eui].multicast
        held._max_groups = 0  # IDError for every group
        await deliver(radio, journal, [stubborn], image)
        await journal.until(Fact.RUNNING, node_id(stubborn))
        assert network.simulated.nodes[stubborn.dev_eui].running_image == image
        assert network.names == []


async def test_a_node_that_derives_other_group_keys_ends_with_the_image_by_unicast():
    specs = [spec(1), spec(2)]
    image = new_image()
    async with site(specs, image) as (radio, journal, network):
        vendor = network.simulated.nodes[specs[0].dev_eui]
        vendor._ke_key = vendor.multicast._ke_key = bytes(16)
        await deliver(radio, journal, specs, image)
        await journal.until(Fact.RUNNING, *(node_id(s) for s in specs))
        assert vendor.running_image == image
        assert vendor.counters.bad_mic > 0


async def test_class_b_nodes_are_served_in_the_ping_slots_of_a_group_of_their_own():
    specs = [*(spec(n, device_class="B", uplink_interval_s=60.0) for n in (1, 2)), spec(3), spec(4)]
    image = new_image()
    async with site(specs, image) as (radio, journal, network):
        await deliver(radio, journal, specs, image)
        await journal.until(Fact.RUNNING, *(node_id(s) for s in specs))
        assert all(network.simulated.nodes[s.dev_eui].running_image == image for s in specs)
        assert all(network.simulated.nodes[s.dev_eui].counters.multicast_received for s in specs)
        assert len(network.names) == 2


async def test_ts007_tells_all_packages_and_ports_at_once():
    specs = [spec(1, package_versions={0: 1, 3: 2}, ports={1: 12, 2: 10, 3: 11, 4: 13})]
    image = new_image()
    async with site(specs, image) as (radio, journal, network):
        await deliver(radio, journal, specs, image)
        await journal.until(Fact.RUNNING, node_id(specs[0]))
        node = network.simulated.nodes[specs[0].dev_eui]
        assert node.running_image == image
        assert node.multi_package.malformed == 0


async def test_groups_of_others_are_left_alone():
    specs = [spec(1)]
    image = new_image()
    async with site(specs, image) as (radio, journal, network):
        groups = network.simulated.nodes[specs[0].dev_eui].multicast.groups
        foreign = object.__new__(type("Foreign", (), {}))
        foreign.session = type("Session", (), {"dev_addr": 0xDEADBEEF})()
        groups[0] = foreign
        await deliver(radio, journal, specs, image, Want.DELIVER)
        await journal.until(Fact.READY, node_id(specs[0]))
        assert groups[0] is foreign
        assert 1 in groups


async def test_a_node_without_ts006_is_never_said_to_run_the_image():
    specs = [spec(1, package_versions={0: 1, 4: 0, 3: 2}), spec(2, package_versions={3: 2})]
    image = new_image()
    blind, seeing = map(node_id, specs)
    async with site(specs, image, session=SessionSettings(unproven_after_s=7200.0)) as (radio, journal, network):
        await deliver(radio, journal, specs, image)
        await journal.until(Fact.RUNNING, seeing)
        await journal.until(Fact.FAILED, blind)
        facts = journal.facts(blind)
        assert Fact.RUNNING not in facts
        assert facts.index(Fact.COMPLETE) < facts.index(Fact.READY) < facts.index(Fact.FAILED)
        assert [e.code for e in journal.events if e.node == blind and e.fact is Fact.FAILED] == ["unproven"]
        assert network.simulated.nodes[specs[0].dev_eui].bootloader.download == image  # it is there all the same


async def test_far_nodes_have_a_slower_cohort_of_their_own():
    near, far = [spec(1), spec(2)], [spec(3, snr_db=-14.0), spec(4, snr_db=-14.0)]
    image = new_image()
    async with site([*near, *far], image) as (radio, journal, _):
        while not all(n.device.last_seen for n in radio._cohorts.nodes.values()) or len(radio._cohorts.nodes) < 4:
            await asyncio.sleep(0.01)
        await deliver(radio, journal, [*near, *far], image)
        rates = set()
        while journal.facts(node_id(far[0]))[-1:] != [Fact.RUNNING] or Fact.RUNNING not in journal.facts(
            node_id(far[1])
        ):
            rates |= {cohort["data_rate"] for cohort in radio.status()["cohorts"]}
            await asyncio.sleep(0.01)
        await journal.until(Fact.RUNNING, *(node_id(s) for s in (*near, *far)))
        assert rates == {5, 1}


async def test_each_gateway_serves_the_nodes_that_it_alone_reaches():
    here = [spec(1, gateways=(GATEWAY,)), spec(2, gateways=(GATEWAY,))]
    there = [spec(3, gateways=(SECOND,)), spec(4, gateways=(SECOND,))]
    image = new_image()
    async with site([*here, *there], image, gateways=(GATEWAY, SECOND)) as (radio, journal, _):
        await deliver(radio, journal, [*here, *there], image)
        await journal.until(Fact.PREPARING, *(node_id(s) for s in (*here, *there)))
        sets = {tuple(cohort["gateways"]) for cohort in radio.status()["cohorts"]}
        assert sets == {(GATEWAY,), (SECOND,)}
        await journal.until(Fact.RUNNING, *(node_id(s) for s in (*here, *there)))


async def test_who_lost_more_than_it_makes_up_moves_to_a_lower_data_rate():
    weak = spec(1, downlink_loss=0.35, redundancy_limit=20, tags={"gatewayd-redundancy": "5"})
    image = new_image()
    async with site([weak, spec(2), spec(3)], image) as (radio, journal, network):
        await deliver(radio, journal, [weak, spec(2), spec(3)], image)
        rates = set()
        node = network.simulated.nodes[weak.dev_eui]
        while 4 not in rates:
            rates |= {cohort["data_rate"] for cohort in radio.status()["cohorts"]}
            held, serving = node.fragmentation.session, radio._cohorts.runner_of(weak.dev_eui)
            if held is not None and serving is not None and serving.session.cohort.data_rate == 5:
                assert not held.decoder.coding  # it left before the first coded fragment
            await asyncio.sleep(0.01)
        assert rates == {5, 4}


async def test_an_observation_says_only_what_was_said_now():
    specs = [spec(1, mains=False, battery_percent=50.0)]
    async with site(specs, new_image()) as (radio, _, _network):
        seen = []
        async for observation in radio.observations():
            seen.append(observation)
            if observation.version is not None and any(o.name is not None or o.tags is not None for o in seen):
                break
        told = seen[-1]
        assert (told.version, told.tags, told.battery_percent) == (1, None, None)
        async for observation in radio.observations():
            seen.append(observation)
            if observation.tags is not None and len(seen) > 30:
                break
        described = seen[-1]
        assert described.version is None
        assert described.hardware is None
        later = [o for o in seen if o.version is not None]
        assert len(later) <= 2  # not repeated with every uplink


async def test_a_plan_counts_unicast_nodes_each_and_groups_once():
    specs = [spec(1), spec(2), spec(3, device_class="A", package_versions={0: 1, 2: 0})]
    image = new_image(20_000)
    async with site(specs, image) as (radio, _, _network):
        await known(radio, specs, packages=4)
        group = await radio.plan(order(image), [node_id(s) for s in specs[:2]])
        single = await radio.plan(order(image), [node_id(specs[0])])
        both = await radio.plan(order(image), [node_id(s) for s in specs])
        assert group.frames == single.frames
        assert both.frames == 2 * group.frames
        assert both.eta_s > group.eta_s


async def test_styles_of_nodes_without_multicast_all_complete():
    specs = [
        spec(n, device_class="A", package_versions={0: 1, 2: 0}, status_style=style, downlink_loss=0.1, uplink_loss=0.1)
        for n, style in enumerate(StatusStyle, 1)
    ]
    image = new_image()
    async with site(specs, image) as (radio, journal, network):
        await deliver(radio, journal, specs, image)
        await journal.until(Fact.RUNNING, *map(node_id, specs))
        assert network.names == []


async def test_ports_that_a_node_does_not_tell_are_configured_or_stated_by_its_tags():
    by_default = spec(1, ports={1: 12, 2: 10, 3: 11, 4: 13})
    by_tags = spec(2, ports={1: 12, 2: 10, 3: 31, 4: 13}, tags={"gatewayd-port-fragmentation": "31"})
    image = new_image()
    async with site([by_default, by_tags], image, ports=Ports(12, 10, 11, 13)) as (radio, journal, network):
        await deliver(radio, journal, [by_default, by_tags], image)
        await journal.until(Fact.RUNNING, node_id(by_default), node_id(by_tags))
        for s in (by_default, by_tags):
            assert network.simulated.nodes[s.dev_eui].running_image == image


@pytest.mark.parametrize("tag", ["", "0", "224", "-1", "1e2", "٣", "9999"])
def test_a_port_tag_that_is_none_is_not_looked_at(tag):
    assert ports_by_tags({"gatewayd-port-clock": tag}, Ports()) == Ports()
    assert ports_by_tags({"gatewayd-port-clock": "7"}, Ports()) == Ports(clock=7)


async def test_root_keys_that_the_operator_gave_are_used_and_told_to_nobody(caplog):
    given, asked = spec(1), spec(2)
    image = new_image()
    caplog.set_level(logging.DEBUG)
    async with site([given, asked], image, root_keys={given.dev_eui: Key(given.gen_app_key)}) as (
        radio,
        journal,
        network,
    ):
        fetched = []
        root_key = network.root_key

        async def counted(dev_eui, mac_version):
            fetched.append(dev_eui)
            return await root_key(dev_eui, mac_version)

        network.root_key = counted
        await deliver(radio, journal, [given, asked], image)
        await journal.until(Fact.RUNNING, node_id(given), node_id(asked))
        assert set(fetched) == {asked.dev_eui}
        told = json.dumps(radio.status()) + repr(journal.events) + caplog.text + repr(radio._settings)
        kept = b"".join(record.value for record in journal.records.values())
        assert given.gen_app_key.hex() not in told
        assert given.gen_app_key not in kept
        assert given.gen_app_key.hex().encode() not in kept
