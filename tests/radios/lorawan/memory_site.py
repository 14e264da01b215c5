"""The driver over an in-memory network server: virtual nodes, a journal, an image store. No sockets."""

import asyncio
import hashlib
import json
import time
import uuid
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from radios.clock import ScaledClock
from radios.errors import LinkError
from radios.lorawan.chirpstack import ChirpStackSettings
from radios.lorawan.chirpstack_events import parse_uplink
from radios.lorawan.driver import LorawanRadio, LorawanSettings
from radios.lorawan.gateway_bus_messages import ack_of, downlink_of
from radios.lorawan.keys import Key
from radios.lorawan.network_server import Device, DeviceClass, NotThere, Queued
from radios.radio import Fact, ImageRef, NodeId, TransferOrder
from radios.simulated.chirpstack.bus import encoded
from radios.simulated.chirpstack.model import ApiError, GroupSettings, GroupType, Scheduling
from radios.simulated.chirpstack.network import NetworkServer, NetworkSettings
from radios.simulated.lorawan import firmware
from tests.radios.lorawan.world import GATEWAY, verify

SCALE = 1500.0


class Network:
    """`radios.lorawan.network_server.NetworkServer` over the simulated one, called directly."""

    def __init__(self, specs, clock, gateways=(GATEWAY,), signed=verify):
        """`signed`: the manufacturer's signature; by default whatever has a header is good."""
        self.clock = clock
        self.specs = {s.dev_eui: s for s in specs}
        self.gateway_ids = list(gateways)
        self.simulated = NetworkServer(NetworkSettings("t", "a", self.gateway_ids), specs, signed, clock.now())
        self.down = False
        self.regions = {}
        self.device_tags = {s.dev_eui: dict(s.tags) for s in specs}
        self.names = []
        self.heard_of_gateways = asyncio.Queue()  # what the gateway bus says

    def _catch_up(self):
        if self.down:
            raise LinkError("the network server is away")
        self.simulated.advance(self.clock.now())

    async def devices(self):
        self._catch_up()
        return [
            Device(
                s.dev_eui,
                s.name,
                DeviceClass(s.device_class),
                self.regions.get(s.dev_eui, "EU868"),
                (1, 0),
                s.uplink_interval_s,
                tags=dict(self.device_tags[s.dev_eui]),
                last_seen=self.simulated.devices[s.dev_eui].last_seen_at,
            )
            for s in self.specs.values()
        ]

    async def tags(self, dev_eui):
        self._catch_up()
        return dict(self.device_tags[dev_eui])

    async def set_tag(self, dev_eui, name, value):
        self._catch_up()
        self.device_tags[dev_eui][name] = value

    async def root_key(self, dev_eui, mac_version):
        self._catch_up()
        return Key(self.specs[dev_eui].gen_app_key)

    async def gateways(self):
        return self.gateway_ids

    async def enqueue(self, dev_eui, port, data, expires=None):
        self._catch_up()
        return self.simulated.enqueue(dev_eui, port, data, confirmed=False, expires_at=expires)

    async def queue_length(self, dev_eui):
        self._catch_up()
        return len(self.simulated.devices[dev_eui].queue)

    async def queued(self, dev_eui):
        self._catch_up()
        return [Queued(item.f_port, item.data, item.expires_at) for item in self.simulated.devices[dev_eui].queue]

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
            group_type=GroupType.CLASS_C if group.ping_periodicity is None else GroupType.CLASS_B,
            class_b_ping_slot_periodicity=group.ping_periodicity or 0,
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
            self._tell_of_gateways()
            while self.simulated.events:
                event = self.simulated.events.popleft()
                if event.kind == "up" and not self.down:
                    yield parse_uplink(json.dumps(event.body).encode())

    async def gateway_events(self):
        while True:
            yield await self.heard_of_gateways.get()

    def _tell_of_gateways(self):
        while self.simulated.bus:
            _, payload = encoded(said := self.simulated.bus.popleft(), "", as_json=False)
            heard = downlink_of if said.statuses is None else ack_of
            self.heard_of_gateways.put_nowait(heard(said.gateway_id, payload))

    def link_up(self):
        return {"memory": not self.down, "gateway_bus": True}

    async def close(self):
        pass


class MemoryJournal:
    def __init__(self):
        self.records = {}
        self.events = []
        self.batches = []  # committed: records and events that became durable together
        self.refuse_install = set()

    async def load(self):
        return list(self.records.values())

    async def commit(self, records, events):
        if any(e.fact is Fact.INSTALLING and e.node in self.refuse_install for e in events):
            raise RuntimeError("this installation is not ordered any more")
        self.batches.append((list(records), list(events)))
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
async def site(specs, image, gateways=(GATEWAY,), **changes):
    clock = ScaledClock(SCALE, time.time())
    network = Network(specs, clock, gateways)
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
