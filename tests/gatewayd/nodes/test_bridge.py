"""The site's own traffic over a real broker, with a Zigbee radio on a simulated mesh."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
import zigpy.types as t
import zigpy.zgp.types as zgp

from gatewayd.cloud.connection import CloudSettings, TlsFiles
from gatewayd.demo.authority import Authority
from gatewayd.nodes.bridge import BridgeSettings, NodeBridge
from gatewayd.nodes.bridge_messages import GreenPowerTraffic, NodeResponse, NodeTraffic
from radios.radio import NodeId
from radios.simulated.zigbee.node_spec import NodeSpec
from tests.support.mesh_radio import NEW, MeshRadio, mesh_radio
from tests.support.mosquitto import Mosquitto

pytestmark = pytest.mark.services

GATEWAY = "gw-a"
PREFIX = f"ota/v1/gateways/{GATEWAY}/nodes"
SPECS = [NodeSpec(0x00124B0000000200 + n, battery_percent=80.0, loss=0.05, seed=n) for n in range(1, 4)]
LAMP, OTHER, THIRD = (NodeId(spec.id) for spec in SPECS)
BATTERY = (0x0001, 0x0021)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


AHEAD_S = 1e6  # the wall clock's of the radio's


@pytest.fixture
def broker(tmp_path: Path, authority: Authority) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "broker", authority, {GATEWAY: (), "gw-b": ()}) as broker:
        yield broker


class Listener:
    """A program that uses the site's nodes."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self.client = client
        self.heard: list[tuple[str, Any]] = []

    async def run(self) -> None:
        async for message in self.client.messages:
            assert not message.retain
            self.heard.append((message.topic.value, json.loads(bytes(message.payload))))

    def traffic(self) -> list[NodeTraffic]:
        own = (f"{PREFIX}/requests", f"{PREFIX}/responses")
        return [NodeTraffic.model_validate_json(json.dumps(d)) for topic, d in self.heard if topic not in own]

    def reports(self) -> Counter[tuple[str, int]]:
        """Node and sequence."""
        return Counter((t.node, int(str(t.data["sequence"]))) for t in self.traffic() if t.kind == "attribute_report")

    def responses(self) -> dict[str, NodeResponse]:
        found = [
            NodeResponse.model_validate_json(json.dumps(d)) for topic, d in self.heard if topic == f"{PREFIX}/responses"
        ]
        return {response.id: response for response in found}

    async def ask(self, identity: str, name: str, node: str, **arguments: Any) -> None:
        document = {"id": identity, "name": name, "node": node, "arguments": arguments}
        await self.client.publish(f"{PREFIX}/requests", json.dumps(document), qos=1)


@contextlib.asynccontextmanager
async def listening(broker: Mosquitto) -> AsyncIterator[Listener]:
    async with broker.client("cloud") as client:
        await client.subscribe(f"{PREFIX}/#", 1)
        listener = Listener(client)
        task = asyncio.create_task(listener.run())
        try:
            yield listener
        finally:
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                task.exception()


@contextlib.asynccontextmanager
async def bridged(
    world: MeshRadio, broker: Mosquitto, authority: Authority, identity: str = GATEWAY, **changes: Any
) -> AsyncIterator[NodeBridge]:
    credentials = authority.client(identity)
    settings = BridgeSettings(
        CloudSettings(
            broker.host,
            broker.port,
            TlsFiles(authority.ca, credentials.cert, credentials.key),
            backoff_first_s=0.05,
            backoff_max_s=0.2,
            refused_retry_s=0.1,
            timeout_s=2.0,
        ),
        "all",
    )
    bridge = NodeBridge(
        replace(settings, **changes), GATEWAY, {"zigbee": world.radio}, moved=lambda _kind, at: at + AHEAD_S
    )
    running = asyncio.create_task(bridge.run())
    try:
        yield bridge
    finally:
        running.cancel()
        await asyncio.wait({running})
        assert running.cancelled() or running.exception() is None


def connected(bridge: NodeBridge) -> bool:
    return bridge.status()["connected"] is True


class Reporter:
    """Nodes that report with APS acknowledgement, and remember what was acknowledged."""

    def __init__(self, world: MeshRadio) -> None:
        self.world = world
        self.acknowledged: set[tuple[str, int]] = set()
        self.ended = self.begun = 0

    def report(self, node: NodeId) -> None:
        virtual = self.world.node(node)
        frame = virtual.report_frame(*BATTERY)
        self.begun += 1

        def done(arrived: bool) -> None:
            self.ended += 1
            if arrived:
                self.acknowledged.add((node, frame.payload[1]))

        self.world.mesh.uplink(virtual, frame, self.world.clock.now(), acknowledged=True, done=done)


async def test_every_report_arrives_while_an_update_runs(broker: Mosquitto, authority: Authority) -> None:
    async with (
        mesh_radio(SPECS, image_size=6_000) as world,
        bridged(world, broker, authority) as bridge,
        listening(broker) as listener,
    ):
        await world.until(lambda: connected(bridge), "connected")
        await world.update(LAMP)
        reporter = Reporter(world)
        for _ in range(60):
            for node in (LAMP, OTHER, THIRD):
                if world.node(node).listens:
                    reporter.report(node)
            await asyncio.sleep(0.02)
        await world.until(lambda: world.node(LAMP).running_version == NEW, "updated")
        await world.until(lambda: reporter.ended == reporter.begun, "all reports are on their end")
        assert len(reporter.acknowledged) > 100
        assert {node for node, _ in reporter.acknowledged} == {LAMP, OTHER, THIRD}
        await world.until(lambda: reporter.acknowledged <= set(listener.reports()), "every report")
        first = next(t for t in listener.traffic() if t.kind == "attribute_report")
        assert (first.cluster, first.cluster_id, first.endpoint) == ("power", 1, 1)
        assert isinstance(first.data["attributes"], dict)
        assert set(first.data["attributes"]) == {"battery_percentage_remaining"}
        assert {topic.rsplit("/", 2)[1] for topic, _ in listener.heard} == {LAMP, OTHER, THIRD}
        assert bridge.status()["dropped"] == {"overflow": 0, "refused": 0, "responses_overflow": 0}


async def test_green_power_devices_have_topics_of_their_own(broker: Mosquitto, authority: Authority) -> None:
    async with (
        mesh_radio(SPECS) as world,
        bridged(world, broker, authority) as bridge,
        listening(broker) as listener,
    ):
        await world.until(lambda: connected(bridge), "connected")
        toggle = t.ZigbeeGpPacket(
            application_id=zgp.ApplicationID.SrcID,
            src_id=zgp.SrcID(0x0171F2A3),
            command_id=zgp.GPDCommandID.Toggle,
            frame_counter=t.uint32_t(7),
            security_status=zgp.SecurityStatus.SecuritySuccess,
            lqi=t.uint8_t(99),
        )
        world.mesh.coordinator.gp_packet_received(toggle)
        await world.until(lambda: listener.heard, "the frame")
        topic, document = listener.heard[0]
        assert topic == f"{PREFIX}/green-power/0171f2a3"
        told = GreenPowerTraffic.model_validate_json(json.dumps(document))
        assert (told.kind, told.security, told.sequence, told.commissioned) == ("command", "proven", 7, False)
        assert told.data == {"command": "Toggle", "command_id": 0x22, "arguments": {}}
        assert told.at.timestamp() == pytest.approx(world.clock.now() + AHEAD_S, abs=600)
        assert bridge.status()["dropped"] == {"overflow": 0, "refused": 0, "responses_overflow": 0}


async def test_a_broker_that_goes_and_comes_back(broker: Mosquitto, authority: Authority) -> None:
    async with mesh_radio(SPECS) as world, bridged(world, broker, authority) as bridge:
        await world.until(lambda: connected(bridge), "connected")
        broker.kill()
        await world.until(lambda: not connected(bridge), "noticed")
        reporter = Reporter(world)
        for _ in range(20):
            reporter.report(OTHER)
        await world.until(lambda: reporter.ended == 20, "sent")
        await world.until(lambda: bridge.status()["queued"] == len(reporter.acknowledged), "they wait")
        broker.start()
        await world.until(lambda: bridge.status()["published"] == len(reporter.acknowledged), "published")
        assert bridge.status()["queued"] == 0
        assert bridge.status()["connections"] == 2


async def test_an_outage_that_is_too_long_costs_the_oldest(broker: Mosquitto, authority: Authority) -> None:
    async with mesh_radio(SPECS) as world, bridged(world, broker, authority, max_messages=5) as bridge:
        await world.until(lambda: connected(bridge), "connected")
        broker.kill()
        await world.until(lambda: not connected(bridge), "noticed")
        reporter = Reporter(world)
        for _ in range(12):
            reporter.report(OTHER)
        await world.until(lambda: reporter.ended == 12, "sent")
        arrived = len(reporter.acknowledged)
        await world.until(lambda: bridge.status()["dropped"]["overflow"] == arrived - 5, "dropped")  # type: ignore[index, call-overload]
        broker.start()
        await world.until(lambda: bridge.status()["published"] == 5, "the newest go out")


async def test_requests_and_their_answers(broker: Mosquitto, authority: Authority) -> None:
    async with (
        mesh_radio([replace(SPECS[0], loss=0.0)]) as world,
        bridged(world, broker, authority) as bridge,
        listening(broker) as program,
    ):
        await world.until(lambda: connected(bridge), "connected")
        await program.ask("r", "read", LAMP, cluster="basic", attributes=["model", "nonsense"])
        await program.ask("m", "read", LAMP, cluster="basic", attributes=["model", "power_source"])
        await program.ask("b", "bind", LAMP, cluster="power")
        await program.ask("w", "write", LAMP, cluster="ota", side="client", attributes={"file_offset": 0})
        await program.client.publish(f"{PREFIX}/requests", b'{"id": "x", "name": "leave"}', qos=1)
        await world.until(lambda: set(program.responses()) == {"r", "m", "b", "w", "x"}, "answers")
        said = program.responses()
        assert said["m"].value == {
            "values": {"model": "SIM-1", "power_source": {"value": 3, "name": "Battery"}},
            "failed": {},
        }
        assert said["b"].ok
        assert world.node(LAMP).zdo.bindings
        assert "nonsense" in said["r"].detail
        assert "campaign" in said["w"].detail
        assert said["x"].code == "bad_document"
        assert bridge.status()["requests"]["outcomes"] == {"bad_document": 1, "failed": 2, "ok": 2}  # type: ignore[index, call-overload]


async def test_another_gateways_credentials_write_no_requests(broker: Mosquitto, authority: Authority) -> None:
    async with (
        mesh_radio([replace(SPECS[0], loss=0.0)]) as world,
        bridged(world, broker, authority) as bridge,
        listening(broker) as program,
        broker.client("gw-b") as stranger,
        broker.client(GATEWAY) as itself,
    ):
        await world.until(lambda: connected(bridge), "connected")
        for name, client in (("stranger", stranger), ("itself", itself)):
            await Listener(client).ask(name, "read", LAMP, cluster="basic", attributes=["model"])
        await program.ask("program", "read", LAMP, cluster="basic", attributes=["model"])
        await world.until(lambda: "program" in program.responses(), "the answer to who may ask")
        assert set(program.responses()) == {"program"}


async def test_a_broker_that_refuses_what_nodes_say(broker: Mosquitto, authority: Authority) -> None:
    async with mesh_radio(SPECS) as world, bridged(world, broker, authority, identity="gw-b") as bridge:
        await world.until(lambda: connected(bridge), "connected")
        reporter = Reporter(world)
        for _ in range(3):
            reporter.report(OTHER)
        await world.until(lambda: reporter.ended == 3, "sent")
        arrived = len(reporter.acknowledged)
        await world.until(lambda: bridge.status()["dropped"]["refused"] == arrived, "refused and counted")  # type: ignore[index, call-overload]
        assert "ACL" in str(bridge.status()["last_error"])
        assert bridge.status()["connections"] == 1, "refused, not broken off"
