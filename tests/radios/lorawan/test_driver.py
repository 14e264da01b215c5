"""The driver over an in-memory network server: refusals, outages, late joiners, several transfers. No sockets."""

import asyncio
import hashlib
import json
import time
import uuid
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from radios.clock import ScaledClock
from radios.errors import ContractError, LinkError
from radios.lorawan.chirpstack import ChirpStackSettings
from radios.lorawan.chirpstack_events import parse_uplink
from radios.lorawan.driver import LorawanRadio, LorawanSettings
from radios.lorawan.keys import Key
from radios.lorawan.network_server import Device, DeviceClass, NotThere
from radios.radio import Fact, ImageRef, NodeDirective, NodeId, TransferOrder, Want
from radios.simulated.chirpstack.model import ApiError, GroupSettings, GroupType, Scheduling
from radios.simulated.chirpstack.network import NetworkServer, NetworkSettings
from radios.simulated.lorawan import firmware
from tests.radios.lorawan.world import GATEWAY, HARDWARE, new_image, spec, verify

SCALE = 1500.0


class Network:
    """`radios.lorawan.network_server.NetworkServer` over the simulated one, called directly."""

    def __init__(self, specs, clock):
        self.clock = clock
        self.specs = {s.dev_eui: s for s in specs}
        self.simulated = NetworkServer(NetworkSettings("t", "a", [GATEWAY]), specs, verify, clock.now())
        self.down = False
        self.regions = {}
        self.names = []

    def _catch_up(self):
        if self.down:
            raise LinkError("the network server is away")
        self.simulated.advance(self.clock.now())

    async def devices(self):
        self._catch_up()
        return [
            Device(s.dev_eui, s.name, DeviceClass.C, self.regions.get(s.dev_eui, "EU868"), (1, 0), 300.0, tags=s.tags)
            for s in self.specs.values()
        ]

    async def root_key(self, dev_eui, mac_version):
        self._catch_up()
        return Key(self.specs[dev_eui].gen_app_key)

    async def gateways(self):
        return [GATEWAY]

    async def enqueue(self, dev_eui, port, data, expires=None):
        self._catch_up()
        return self.simulated.enqueue(dev_eui, port, data, confirmed=False, expires_at=expires)

    async def queue_length(self, dev_eui):
        return 0

    async def flush(self, dev_eui):
        pass

    async def create_group(self, group):
        self._catch_up()
        group_id = str(uuid.uuid4())
        self.names.append(group.name)
        settings = GroupSettings(
            name=group.name,
            application_id="a",
            region=0,
            mc_addr=int(group.mc_addr, 16),
            mc_nwk_s_key=group.mc_net_s_key.reveal(),
            mc_app_s_key=group.mc_app_s_key.reveal(),
            f_cnt=0,
            group_type=GroupType.CLASS_C,
            data_rate=group.data_rate,
            frequency_hz=group.frequency_hz,
            scheduling=Scheduling.DELAY,
        )
        self.simulated.multicast.create(group_id, settings)
        return group_id

    async def add_device(self, group_id, dev_eui):
        pass

    async def add_gateway(self, group_id, gateway_id):
        self.simulated.multicast.get(group_id).gateways.add(gateway_id)

    async def enqueue_multicast(self, group_id, port, data):
        self._catch_up()
        try:
            return self.simulated.multicast.enqueue(group_id, port, data, None)
        except ApiError as error:
            raise NotThere(str(error)) from None

    async def multicast_queue_length(self, group_id):
        self._catch_up()
        try:
            return len(self.simulated.multicast.list_queue(group_id))
        except ApiError as error:
            raise NotThere(str(error)) from None

    async def flush_multicast(self, group_id):
        pass

    async def delete_group(self, group_id):
        self._catch_up()
        self.simulated.multicast.groups.pop(group_id, None)

    async def uplinks(self):
        while True:
            await asyncio.sleep(0.001)
            self.simulated.advance(self.clock.now())
            while self.simulated.events:
                event = self.simulated.events.popleft()
                if event.kind == "up" and not self.down:
                    yield parse_uplink(json.dumps(event.body).encode())

    def link_up(self):
        return {"memory": not self.down}

    async def close(self):
        pass


class MemoryJournal:
    def __init__(self):
        self.records = {}
        self.events = []
        self.refuse_install = set()

    async def load(self):
        return list(self.records.values())

    async def commit(self, records, events):
        if any(e.fact is Fact.INSTALLING and e.node in self.refuse_install for e in events):
            raise RuntimeError("this installation is not ordered any more")
        for record in records:
            self.records[record.scope, record.key] = record
            if not record.value:
                del self.records[record.scope, record.key]
        self.events += events

    def progress(self, events, records=()):
        self.events += events
        self.records |= {(record.scope, record.key): record for record in records}

    def facts(self, node):
        return [e.fact for e in self.events if e.node == node]

    async def until(self, fact, *nodes):
        while not all(fact in self.facts(node) for node in nodes):
            await asyncio.sleep(0.01)


class Store:
    def __init__(self, image):
        self.image = image

    def read(self, digest, offset, length):
        return self.image[offset : offset + length]

    def size(self, digest):
        return len(self.image)


def node_id(s):
    return NodeId(f"lorawan:{s.dev_eui}")


def order(image, transfer="t1", days=30):
    ref = ImageRef(hashlib.sha256(image).hexdigest(), len(image), firmware.parse(image).version)
    return TransferOrder(transfer, ref, 1, 1.0, datetime.now(UTC) + timedelta(days=days))


@asynccontextmanager
async def site(specs, image, **changes):
    clock = ScaledClock(SCALE, time.time())
    network = Network(specs, clock)
    chirpstack = ChirpStackSettings("127.0.0.1:1", "token", "a", "t", "127.0.0.1")
    settings = replace(LorawanSettings(chirpstack=chirpstack, multicast_data_rate=5, device_poll_s=60.0), **changes)
    radio = LorawanRadio(settings, clock, network)
    journal = MemoryJournal()
    async with asyncio.timeout(60):
        task = asyncio.create_task(radio.run(journal, Store(image)))
        try:
            yield radio, journal, network
        finally:
            if task.done():
                task.result()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


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
        while not any(cohort["sent"] > 8 for cohort in radio.status()["cohorts"]):
            await asyncio.sleep(0.01)
        network.down = True
        await asyncio.sleep(0.5)
        network.down = False
        await journal.until(Fact.RUNNING, *map(node_id, specs))
        assert all(network.simulated.nodes[s.dev_eui].fragment_counters.sessions_set_up == 1 for s in specs)


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
        await journal.until(Fact.FAILED, *map(node_id, specs))
        assert {e.code for e in journal.events if e.fact is Fact.FAILED} == {"refused", "expired"}
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
