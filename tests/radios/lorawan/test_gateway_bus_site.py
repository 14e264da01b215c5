"""The gateway bus and the owner tag against the simulated ChirpStack: real gRPC, real mosquitto, time scaled."""

import asyncio
import dataclasses
import time

import pytest

from radios.clock import ScaledClock
from radios.lorawan.chirpstack import ChirpStack, GatewayBusSettings
from radios.lorawan.driver import LorawanRadio
from radios.lorawan.journal_codec import read_known
from radios.radio import Fact, NodeDirective, Want
from radios.simulated.lorawan import firmware
from tests.radios.lorawan.test_driver_site import (
    HARDWARE,
    SCALE,
    MemoryJournal,
    Store,
    node_id,
    order,
    running,
    site_of,
    spec,
)

pytestmark = pytest.mark.services


@pytest.mark.parametrize("as_json", [False, True])
async def test_what_gateways_refuse_is_heard_and_made_up(tmp_path, as_json):
    specs = [spec(1), spec(2)]
    image = firmware.build(version=2, hardware=HARDWARE, size=12_000, seed=2)
    clock = ScaledClock(SCALE, time.time())
    journal = MemoryJournal()
    bus = {"gateway_prefix": "eu868", "gateway_json": as_json}
    async with site_of(specs, tmp_path, clock, mqtt_changes=bus, ack_loss=0.1) as (site, settings):
        for gateway in site.network.air.gateways.values():
            gateway.refused_share = 0.1
        chirpstack = dataclasses.replace(settings.chirpstack, gateway_bus=GatewayBusSettings(("us915_0", "eu868")))
        radio = LorawanRadio(dataclasses.replace(settings, chirpstack=chirpstack), clock)
        nodes = [node_id(s) for s in specs]
        await radio.put(order(image))
        await radio.direct([NodeDirective("t1", node, 1, Want.INSTALL) for node in nodes])
        seen = {}
        async with running(radio, journal, Store(image)), asyncio.timeout(90):
            while not any(e.fact is Fact.RUNNING for e in journal.events):
                for cohort in radio.status()["cohorts"]:
                    seen = {**cohort, **radio.status()["gateway_bus"], "link": radio.status()["link"]}
                await asyncio.sleep(0.02)
            await journal.until({Fact.RUNNING, Fact.FAILED}, nodes)
        assert Fact.FAILED not in {e.fact for e in journal.events}
        assert all(site.nodes[n].running_image == image for n in nodes)
        assert seen["link"] == {"grpc": True, "mqtt": True, "gateway_bus": True}
        assert seen["sent_by_gateways"] > 20
        assert seen["refused_by_gateways"] > 0
        assert seen["downlinks"] > seen["acks"] > 20
        assert any(record.key.endswith("/868.0-868.6") or "/869" in record.key for record in journal.records.values())


class Asking(ChirpStack):
    """Keeps which nodes something was sent to."""

    def __init__(self, settings):
        super().__init__(settings)
        self.asked = set()

    async def enqueue(self, dev_eui, port, data, expires=None):
        self.asked.add(dev_eui)
        return await super().enqueue(dev_eui, port, data, expires)


@pytest.mark.parametrize("apart_s", [0.0, 45.0, 300.0])
async def test_two_daemons_never_set_up_the_same_node(tmp_path, apart_s):
    """The second one reads its inventory with the first and begins later: what it knows of owners is old by then."""
    owners = {1: "gw-a", 2: "gw-b", 3: None, 4: None, 5: None, 6: "gw-c"}
    specs = [spec(n, tags={"gatewayd": owner} if owner else {}) for n, owner in owners.items()]
    image = firmware.build(version=2, hardware=HARDWARE, size=4_000, seed=2)
    clock = ScaledClock(SCALE, time.time())
    nodes = {n: node_id(s) for n, s in zip(owners, specs, strict=True)}
    async with site_of(specs, tmp_path, clock) as (site, settings), asyncio.timeout(90):
        journals, asked = {}, {}
        async with asyncio.TaskGroup() as group:
            tasks, radios = [], {}
            for owner in ("gw-a", "gw-b"):
                server = Asking(settings.chirpstack)
                asked[owner] = server.asked
                radio = LorawanRadio(dataclasses.replace(settings, owner=owner, device_poll_s=3000.0), clock, server)
                journals[owner] = MemoryJournal()
                await radio.put(order(image, transfer=owner))
                radios[owner] = radio
                tasks.append(group.create_task(radio.run(journals[owner], Store(image))))
            for owner, radio in radios.items():
                await radio.direct([NodeDirective(owner, node, 1, Want.INSTALL) for node in nodes.values()])
                await clock.sleep_until(clock.now() + apart_s)
            served = [nodes[n] for n, owner in owners.items() if owner != "gw-c"]
            while {e.node for j in journals.values() for e in j.events if e.fact is Fact.RUNNING} != set(served):
                await asyncio.sleep(0.02)
            for task in tasks:
                task.cancel()
        for n, s in enumerate(specs, 1):
            owners[n] = site.network.device(s.dev_eui).spec.tags["gatewayd"]  # nobody's were claimed
        assert {owners[n] for n in (3, 4, 5)} <= {"gw-a", "gw-b"}
        for owner, journal in journals.items():
            mine = {nodes[n] for n, o in owners.items() if o == owner}
            assert {e.node for e in journal.events if e.fact is Fact.PREPARING} == mine
            assert {e.node for e in journal.events if e.fact is Fact.RUNNING} == mine
            assert asked[owner] == {
                node.removeprefix("lorawan:") for node in mine
            }  # nobody else's air was used, by no question
        for n, s in enumerate(specs, 1):
            told = {
                owner
                for owner, journal in journals.items()
                if (record := journal.records.get(("node", f"known/{s.dev_eui}"))) and read_known(record).session_cnt
            }
            assert told == ({owners[n]} & set(journals))
            set_up = site.nodes[nodes[n]].fragment_counters.sessions_set_up
            assert bool(set_up) == bool(told)  # twice where an answer was lost


async def test_profiles_that_chirpstack_answers_for_are_refused_with_the_reason(tmp_path):
    specs = [spec(1), spec(2), spec(3)]
    app_layer = {specs[0].dev_eui: (1, 0, 0), specs[1].dev_eui: (1, 1, 0), specs[2].dev_eui: (0, 0, 2)}
    image = firmware.build(version=2, hardware=HARDWARE, size=4_000, seed=2)
    clock = ScaledClock(SCALE, time.time())
    journal = MemoryJournal()
    async with site_of(specs, tmp_path, clock, app_layer=app_layer) as (site, settings), asyncio.timeout(90):
        radio = LorawanRadio(settings, clock)
        nodes = [node_id(s) for s in specs]
        await radio.put(order(image))
        await radio.direct([NodeDirective("t1", node, 1, Want.INSTALL) for node in nodes])
        async with running(radio, journal, Store(image)):
            await journal.until({Fact.RUNNING, Fact.FAILED}, nodes)
        told = {e.node: (e.fact, e.code) for e in journal.events if e.fact in (Fact.RUNNING, Fact.FAILED)}
        assert told[nodes[0]] == (Fact.RUNNING, "")
        assert told[nodes[1]] == told[nodes[2]] == (Fact.FAILED, "refused")
        assert all("TS004 or TS005" in e.detail for e in journal.events if e.fact is Fact.FAILED)
        assert [site.nodes[n].fragment_counters.sessions_set_up for n in nodes] == [1, 0, 0]
