"""The driver against the simulated ChirpStack: real gRPC, real mosquitto, virtual nodes, time scaled."""

import asyncio
import dataclasses
import hashlib
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from radios.clock import ScaledClock
from radios.errors import FrameError
from radios.lorawan.chirpstack import ChirpStackSettings
from radios.lorawan.driver import LorawanRadio, LorawanSettings
from radios.radio import Fact, ImageRef, NodeCommand, NodeDirective, NodeId, TransferOrder, Want
from radios.simulated.chirpstack.mqtt import MqttSettings
from radios.simulated.chirpstack.network import NetworkSettings
from radios.simulated.chirpstack.site import LorawanSite
from radios.simulated.lorawan import firmware
from radios.simulated.lorawan.packages.fragmentation import StatusStyle
from radios.simulated.lorawan.spec import NodeSpec
from tests.support.mosquitto import Mosquitto

TOKEN = "a-token"
TENANT, APPLICATION = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
GATEWAY = "00800000a0000001"
HARDWARE = 0x0000BEEF
SCALE = 200.0

pytestmark = pytest.mark.services


def verify(image):
    try:
        return firmware.parse(image).version
    except FrameError:
        return None


class Store:
    def __init__(self, image):
        self.image = image
        self.digest = hashlib.sha256(image).hexdigest()

    def read(self, digest, offset, length):
        assert digest == self.digest
        return self.image[offset : offset + length]

    def size(self, digest):
        return len(self.image)


class MemoryJournal:
    """Committed records and events; `progress` is lost by a crash unless a commit follows."""

    def __init__(self):
        self.records = {}
        self.events = []
        self.pending = {}
        self.changed = asyncio.Condition()

    async def load(self):
        return [record for record in self.records.values() if record.value]

    async def commit(self, records, events):
        for record in (*self.pending.values(), *records):
            self.records[record.scope, record.key] = record
            if not record.value:
                del self.records[record.scope, record.key]
        self.pending = {}
        self.events += events
        async with self.changed:
            self.changed.notify_all()

    def progress(self, events, records=()):
        self.events += events
        self.pending |= {(record.scope, record.key): record for record in records}

    async def until(self, facts, node_ids):
        """Every node has one of the facts."""
        async with self.changed:
            await self.changed.wait_for(
                lambda: all(any(e.node == n and e.fact in facts for e in self.events) for n in node_ids)
            )


def spec(number, **changes):
    dev_eui = f"70b3d5499000{number:04x}"
    values = {
        "dev_eui": dev_eui,
        "name": f"node {number}",
        "gen_app_key": bytes([number] * 16),
        "image": firmware.build(version=1, hardware=HARDWARE, size=2000, seed=1),
        "version": 1,
        "hardware": HARDWARE,
        "device_class": "C",
        "seed": number,
    }
    return NodeSpec(**(values | changes))


def node_id(node):
    return NodeId(f"lorawan:{node.dev_eui}")


def merged(before, seen):
    """As the daemon keeps them: None is "not said now"."""
    if before is None:
        return seen
    names = [field.name for field in dataclasses.fields(seen)]
    return dataclasses.replace(before, **{n: value for n in names if (value := getattr(seen, n)) is not None})


@asynccontextmanager
async def running(radio, journal, store):
    task = asyncio.create_task(radio.run(journal, store))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def site_of(specs, tmp_path, clock, *, mqtt_changes=None, **network):
    with Mosquitto(tmp_path) as broker:
        settings = NetworkSettings(TENANT, APPLICATION, [GATEWAY], **network)
        mqtt = MqttSettings("127.0.0.1", broker.port, **(mqtt_changes or {}))
        async with LorawanSite(specs, clock, verify=verify, settings=settings, api_token=TOKEN, mqtt=mqtt) as site:
            yield site, radio_settings(site, broker.port)


def radio_settings(site, mqtt_port, **changes):
    chirpstack = ChirpStackSettings(
        grpc_target=site.grpc_target,
        api_token=TOKEN,
        application_id=APPLICATION,
        tenant_id=TENANT,
        mqtt_host="127.0.0.1",
        mqtt_port=mqtt_port,
    )
    return LorawanSettings(chirpstack=chirpstack, multicast_data_rate=5, **changes)


def order(image, version=2, transfer="t1"):
    ref = ImageRef(hashlib.sha256(image).hexdigest(), len(image), version)
    return TransferOrder(transfer, ref, 1, 1.0, datetime.now(UTC) + timedelta(days=30))


async def test_a_lossy_site_is_updated_to_the_last_byte(tmp_path):
    styles = [StatusStyle.LBM, StatusStyle.LORAMAC, StatusStyle.SPEC]
    specs = [
        spec(
            n,
            status_style=styles[n % 3],
            downlink_loss=0.01 + 0.025 * n,
            uplink_loss=0.05,
            package_versions={3: 1 + n % 2, 2: 1 + n % 2},
        )
        for n in range(1, 9)
    ]
    image = firmware.build(version=2, hardware=HARDWARE, size=20_000, seed=2)
    clock = ScaledClock(SCALE, time.time())
    journal = MemoryJournal()
    async with site_of(specs, tmp_path, clock) as (site, settings):
        radio = LorawanRadio(settings, clock)
        nodes = [node_id(s) for s in specs]
        await radio.put(order(image))
        await radio.direct([NodeDirective("t1", node, 1, Want.INSTALL) for node in nodes])
        async with running(radio, journal, Store(image)), asyncio.timeout(90):
            await journal.until({Fact.RUNNING, Fact.FAILED}, nodes)
            last = {e.node: e for e in journal.events if e.fact in (Fact.RUNNING, Fact.FAILED)}
            assert {n: (e.fact, e.version) for n, e in last.items()} == dict.fromkeys(nodes, (Fact.RUNNING, 2))
            assert all(site.nodes[n].running_image == image for n in nodes)
            await radio.direct([NodeDirective("t1", node, 2, Want.DROP) for node in nodes])
            await journal.until({Fact.DROPPED}, nodes)


async def test_a_killed_daemon_goes_on_where_it_was(tmp_path):
    specs = [
        spec(n, downlink_loss=0.04 * n, status_style=StatusStyle.LORAMAC if n == 1 else StatusStyle.LBM)
        for n in (1, 2, 3)
    ]
    image = firmware.build(version=2, hardware=HARDWARE, size=20_000, seed=2)
    clock = ScaledClock(SCALE, time.time())
    journal = MemoryJournal()
    nodes = [node_id(s) for s in specs]
    directives = [NodeDirective("t1", node, 1, Want.INSTALL) for node in nodes]
    async with site_of(specs, tmp_path, clock) as (site, settings), asyncio.timeout(90):
        radio = LorawanRadio(settings, clock)
        await radio.put(order(image))
        await radio.direct(directives)
        async with running(radio, journal, Store(image)):
            while not any(cohort["sent"] > 40 for cohort in radio.status()["cohorts"]) or not all(
                site.nodes[node].fragment_counters.fragments_received for node in nodes
            ):
                await asyncio.sleep(0.01)
        journal.pending = {}
        # Not 1: where the machine is slow, an answer is late by minutes of the nodes' time, and a request is made again.
        set_up = [site.nodes[node].fragment_counters.sessions_set_up for node in nodes]
        groups = set(site.network.multicast.groups)
        again = LorawanRadio(settings, clock)
        async with running(again, journal, Store(image)):
            await again.put(order(image))
            await again.direct(directives)
            await journal.until({Fact.RUNNING, Fact.FAILED}, nodes)
        assert {e.fact for e in journal.events} >= {Fact.RUNNING}
        assert Fact.FAILED not in {e.fact for e in journal.events}
        assert all(site.nodes[node].running_image == image for node in nodes)
        assert [site.nodes[node].fragment_counters.sessions_set_up for node in nodes] == set_up
        assert set(site.network.multicast.groups) <= groups


async def test_a_site_tells_what_it_is_and_what_a_transfer_would_cost(tmp_path):
    specs = [spec(1), spec(2, tags={"gatewayd": "gw-b"}), spec(3, mains=False, battery_percent=40.0)]
    image = firmware.build(version=2, hardware=HARDWARE, size=20_000, seed=2)
    clock = ScaledClock(SCALE, time.time())
    async with site_of(specs, tmp_path, clock) as (_, settings), asyncio.timeout(60):
        settings = dataclasses.replace(settings, owner="gw-a", device_poll_s=60.0)
        radio = LorawanRadio(settings, clock)
        async with running(radio, MemoryJournal(), Store(image)):
            seen = {}
            async for observation in radio.observations():
                seen[observation.node] = merged(seen.get(observation.node), observation)
                if {n for n, o in seen.items() if o.hardware} == {node_id(specs[0]), node_id(specs[2])}:
                    break
            assert {o.hardware for o in seen.values()} == {"lorawan:0000beef", None}
            assert seen[node_id(specs[0])].version == 1
            assert seen[node_id(specs[1])].hardware is None  # another gateway's: it is not asked anything
            plan = await radio.plan(order(image), [node_id(s) for s in specs])
            assert list(plan.skipped) == [node_id(specs[1])]
            assert plan.frames > 92
            assert plan.eta_s > plan.airtime_s > 92 * 0.3
            assert radio.status()["link"] == {"grpc": True, "mqtt": True}
            listed = await radio.manage(NodeCommand("list"))
            assert len(listed.value) == 3
            assert not (await radio.manage(NodeCommand("remove", node_id(specs[0])))).ok
