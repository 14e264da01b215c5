"""Requests to nodes by names and numbers: what goes out, what comes back, and that every fault says what and where."""

import asyncio
import json
import random
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
import zigpy.types as t

from radios.clock import SystemClock
from radios.radio import NODE_REQUESTS, CommandResult, Json, NodeCommand, NodeId
from radios.zigbee.config_keeper import ConfigKeeper
from radios.zigbee.node_config import Binding, ReportedAttribute, ReportTerms
from radios.zigbee.requests import NodeRequests
from radios.zigbee.settings import ZigbeeSettings, zigpy_config
from tests.support.answering_radio import Answer, AnsweringRadio
from tests.support.zigpy_library import COORDINATOR, IEEE, NWK, add_node

NODE = NodeId("zigbee:00124b0000000001")
OTHER = NodeId("zigbee:00124b0000000002")
US = COORDINATOR.serialize()
SETTINGS = ZigbeeSettings("fake", request_timeout_s=0.2, sleepy_request_timeout_s=0.2, concurrent_requests=4)


class Desk:
    """Requests on a network of two nodes."""

    def __init__(self, app: Any, journal: Any) -> None:
        self.app = app
        self.journal = journal
        self.keeper = ConfigKeeper(SystemClock(), SETTINGS, lambda: app)
        self.requests = NodeRequests(SETTINGS, self.keeper)

    def answers(self, answer: Answer) -> None:
        type(self.app).answer = staticmethod(answer)

    async def ask(self, name: str, node: NodeId = NODE, /, **arguments: Json) -> CommandResult:
        return await self.requests.run(self.app, NodeCommand(name, node, arguments))

    def sent(self) -> list[bytes]:
        """Frames without their sequence numbers."""
        frames = [(p.profile_id, p.data.serialize()) for p in self.app.sent]
        return [f[1:] if profile == 0 else f[:1] + f[2:] for profile, f in frames]


@pytest.fixture
async def desk(journal: Any) -> AsyncIterator[Desk]:
    library = type(
        "Fake", (AnsweringRadio,), {"instances": [], "refusals": [], "answer": staticmethod(lambda *_: None)}
    )
    app = await library.new(zigpy_config(SETTINGS), start_radio=False)
    await app.startup()
    device = app.devices[IEEE]
    for cluster in (0x0006, 0x0402, 0xFC01):
        device.endpoints[1].add_input_cluster(cluster)
    device.endpoints[1].add_output_cluster(0x0006)
    add_node(app, t.EUI64.convert("00:12:4b:00:00:00:00:02"), NWK + 1, sleepy=True)
    app.sent.clear()
    desk = Desk(app, journal)
    await desk.keeper.load(journal)
    yield desk
    await app.shutdown()


async def test_reads_by_name_and_by_number(desk: Desk) -> None:
    def answer(_cluster: int, frame: bytes) -> tuple[int, bytes]:
        assert frame[3:] == struct.pack("<HHH", 0x0000, 0x7777, 0x0002)
        return 0x01, (
            struct.pack("<HBBh", 0x0000, 0, 0x29, 2150)
            + struct.pack("<HBBB", 0x7777, 0, 0x20, 5)
            + struct.pack("<HB", 0x0002, 0x86)
        )

    desk.answers(answer)
    result = await desk.ask(
        "read", endpoint=1, cluster="temperature", attributes=["measured_value", "0x7777", "max_measured_value"]
    )
    assert result.ok, result.detail
    assert result.value == {
        "values": {"measured_value": 2150, "0x7777": 5},
        "failed": {"max_measured_value": "UNSUPPORTED_ATTRIBUTE"},
    }


async def test_writes_typed_values(desk: Desk) -> None:
    desk.answers(lambda *_: (0x04, b"\x00"))
    assert (await desk.ask("write", cluster="basic", attributes={"location_desc": "cellar", "physical_env": 1})).ok
    assert desk.sent() == [b"\x00\x02" + b"\x10\x00\x42\x06cellar" + b"\x11\x00\x30\x01"]
    assert (await desk.ask("write", cluster=0, attributes={"0x7001": {"type": "uint16", "value": 513}})).ok
    assert desk.sent()[-1] == b"\x00\x02\x01\x70\x21\x01\x02"
    desk.answers(lambda *_: (0x04, struct.pack("<BH", 0x88, 0x0010)))
    refused = await desk.ask("write", cluster="basic", attributes={"location_desc": "attic"})
    assert refused == CommandResult(False, "write: the node refused location_desc: READ_ONLY")


async def test_commands_with_named_arguments_both_ways(desk: Desk) -> None:
    desk.answers(lambda _, frame: (0x0B, bytes((frame[2], 0))))
    arguments: Json = {"on_off_control": 0, "on_time": 20, "off_wait_time": 0}
    result = await desk.ask("command", cluster="on_off", command="on_with_timed_off", arguments=arguments)
    assert result == CommandResult(True, value={"status": "SUCCESS"})
    assert desk.sent() == [b"\x01\x42" + struct.pack("<BHH", 0, 20, 0)]
    desk.answers(lambda *_: None)
    assert (await desk.ask("command", cluster=6, side="server", command="0xee", payload="0a0b")).detail
    assert desk.sent()[1] == b"\x01\xee\x0a\x0b"


async def test_the_answer_to_a_command_comes_back(desk: Desk) -> None:
    desk.app.devices[IEEE].endpoints[1].add_input_cluster(0x0003)
    desk.answers(lambda *_: (0x00, struct.pack("<H", 30)))
    result = await desk.ask("command", cluster="identify", command="identify_query")
    assert result.value == {"command": "identify_query_response", "arguments": {"timeout": 30}}
    refused = CommandResult(False, "command: the node refused it: UNSUP_CLUSTER_COMMAND")
    desk.answers(lambda _, frame: (0x0B, bytes((frame[2], 0x81))))
    assert await desk.ask("command", cluster="identify", command="identify", arguments={"identify_time": 3}) == refused


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("read", {"cluster": "temprature", "attributes": ["x"]}, ("'temprature'", "temperature", "endpoint 1")),
        ("read", {"cluster": "on_off", "endpoint": 7, "attributes": ["on_off"]}, ("endpoint 7", "known: 1")),
        ("read", {"cluster": "on_off", "attributes": ["onoff"]}, ("'onoff'", "on_off")),
        ("read", {"cluster": "on_off", "attributes": []}, ("attributes",)),
        ("read", {"cluster": "on_off", "attributes": ["on_off"], "endpont": 1}, ("endpont", "endpoint")),
        ("read", {"cluster": "temperature", "side": "client", "attributes": [0]}, ("client", "on_off")),
        ("write", {"cluster": "basic", "attributes": {"physical_env": "on the moon"}}, ("physical_env", "Kitchen")),
        ("write", {"cluster": "basic", "attributes": {"0x7001": 5}}, ("0x7001", "type")),
        ("write", {"cluster": "basic", "attributes": {"0x7001": {"type": "u16", "value": 1}}}, ("u16", "uint8")),
        ("write", {"cluster": "ota", "side": "client", "attributes": {"image_upgrade_status": 0}}, ("OTA", "campaign")),
        ("command", {"cluster": "ota", "side": "client", "command": 0, "payload": "0064"}, ("OTA", "campaign")),
        ("command", {"cluster": "on_off", "command": "tuggle"}, ("'tuggle'", "toggle")),
        ("command", {"cluster": "on_off", "command": "toggle", "arguments": {"now": 1}}, ("toggle", "now")),
        ("command", {"cluster": "on_off", "command": "on_with_timed_off"}, ("needs", "on_time")),
        ("command", {"cluster": "on_off", "command": 0xEE, "payload": "xx"}, ("payload",)),
        ("bind", {"cluster": "on_off", "target": {"group": 0}}, ("group", "1 to")),
        ("bind", {"cluster": "on_off", "target": {"node": "lamp", "endpoint": 1}}, ("lamp", "node id")),
        ("bind", {"cluster": "on_off", "target": {"node": "zigbee:00124b0000000077", "endpoint": 1}}, ("0077",)),
        ("configure_reporting", {"cluster": "temperature", "attributes": {"measured_value": {"min_s": 1}}}, ("max_s",)),
        (
            "configure_reporting",
            {"cluster": "temperature", "attributes": {"measured_value": {"min_s": 60, "max_s": 30, "change": 1}}},
            ("min_s 60",),
        ),
        (
            "configure_reporting",
            {"cluster": "temperature", "attributes": {"measured_value": {"min_s": 1, "max_s": 30}}},
            ("measured_value", "change"),
        ),
        (
            "configure_reporting",
            {"cluster": "temperature", "attributes": {"measured_value": {"min_s": 1, "max_s": 30, "change": 99999}}},
            ("measured_value: change", "99999"),
        ),
        (
            "configure_reporting",
            {"cluster": "on_off", "attributes": {"on_off": {"min_s": 1, "max_s": 30, "change": 1}}},
            ("on_off", "bool", "leave change out"),
        ),
    ],
)
async def test_faults_say_what_and_where(desk: Desk, name: str, arguments: dict[str, Json], words: tuple[str]) -> None:
    result = await desk.ask(name, **arguments)
    assert not result.ok
    for word in (name, *words):
        assert word in result.detail, result.detail
    assert desk.sent() == []
    assert desk.journal.records == {}


async def test_a_node_that_does_not_answer_costs_its_time_and_no_more(desk: Desk) -> None:
    asked = [desk.ask("read", OTHER, cluster="basic", attributes=["model"]) for _ in range(6)]
    results = await asyncio.gather(*asked)
    assert [r.detail for r in results[:4]] == [f"read: {OTHER} did not answer"] * 4
    assert all("busy" in r.detail for r in results[4:])


async def test_a_node_of_another_network_and_no_node(desk: Desk) -> None:
    assert "not in this network" in (await desk.ask("bindings", NodeId("zigbee:00124b0000000077"))).detail
    assert "needs a node" in (await desk.requests.run(desk.app, NodeCommand("bindings"))).detail


async def test_a_binding_is_kept_before_the_node_hears_of_it(desk: Desk) -> None:
    kept_when_asked: list[bool] = []

    def answer(cluster: int, _frame: bytes) -> tuple[int, bytes]:
        kept_when_asked.append(bool(desk.journal.records))
        return cluster, b"\x00"

    desk.answers(answer)
    assert (await desk.ask("bind", cluster="temperature")).ok
    assert kept_when_asked == [True]
    assert desk.sent() == [IEEE.serialize() + b"\x01\x02\x04\x03" + US + b"\x01"]
    assert desk.keeper.wanted(NODE).bindings == (Binding(1, 0x0402, "00124b00000000ff", 1),)
    assert (await desk.ask("unbind", cluster="temperature")).ok
    assert desk.journal.records == {}


async def test_nothing_is_asked_when_it_cannot_be_kept(desk: Desk) -> None:
    desk.journal.broken = True
    result = await desk.ask("bind", cluster="temperature")
    assert not result.ok
    assert desk.sent() == []
    assert desk.keeper.wanted(NODE).empty


async def test_a_binding_that_the_node_refuses_is_not_kept(desk: Desk) -> None:
    desk.answers(lambda cluster, _: (cluster, b"\x8c"))
    result = await desk.ask("bind", cluster="on_off", side="client", target={"group": 3})
    assert result == CommandResult(False, "bind: the node refused it: TABLE_FULL")
    assert desk.journal.records == {}


async def test_a_binding_that_was_not_answered_stays_to_be_done(desk: Desk) -> None:
    result = await desk.ask("bind", cluster="on_off", side="client", target={"node": OTHER, "endpoint": 1})
    assert not result.ok
    assert "set when it is heard" in result.detail
    assert desk.keeper.wanted(NODE).bindings == (Binding(1, 0x0006, "00124b0000000002", 1),)
    assert desk.keeper.status()["due"] == 1


async def test_the_nodes_own_table(desk: Desk) -> None:
    entries = (
        IEEE.serialize() + b"\x01\x02\x04\x03" + US + b"\x01",
        IEEE.serialize() + b"\x01\x06\x00\x01\x03\x00",
    )

    def answer(cluster: int, frame: bytes) -> tuple[int, bytes]:
        return cluster, bytes((0, 2, frame[1], 1)) + entries[frame[1]]

    desk.answers(answer)
    result = await desk.ask("bindings")
    assert result.value == [
        {"endpoint": 1, "cluster": "temperature", "target": "coordinator", "kept": False},
        {"endpoint": 1, "cluster": "on_off", "target": {"group": 3}, "kept": False},
    ]
    desk.answers(lambda cluster, _: (cluster, b"\x84"))
    assert "does not show its table" in (await desk.ask("bindings")).detail


async def test_reporting_is_configured_kept_and_read(desk: Desk) -> None:
    desk.answers(lambda *_: (0x07, b"\x00"))
    terms: Json = {"measured_value": {"min_s": 10, "max_s": 300, "change": 50}}
    assert (await desk.ask("configure_reporting", cluster="temperature", attributes=terms)).ok
    assert desk.sent() == [b"\x00\x06" + struct.pack("<BHBHHh", 0, 0, 0x29, 10, 300, 50)]
    assert desk.keeper.wanted(NODE).reporting == {ReportedAttribute(1, 0x0402, 0): ReportTerms(0x29, 10, 300, 50)}

    said = struct.pack("<BBHBHHh", 0, 0, 0, 0x29, 10, 300, 50) + struct.pack("<BBH", 0x8B, 0, 1)
    desk.answers(lambda *_: (0x09, said + struct.pack("<BBH", 0x86, 0, 2)))
    names: Json = ["measured_value", "min_measured_value", "max_measured_value"]
    result = await desk.ask("reporting", cluster="temperature", attributes=names)
    assert result.value == {
        "values": {"measured_value": {"min_s": 10, "max_s": 300, "change": 50}, "min_measured_value": None},
        "failed": {"max_measured_value": "UNSUPPORTED_ATTRIBUTE"},
    }


async def test_an_attribute_of_a_type_without_amounts_is_configured_too(desk: Desk) -> None:
    """On or off has no smallest change: such a record is shorter, and zigpy's own log of it must not fail."""
    desk.answers(lambda *_: (0x07, b"\x00"))
    terms: Json = {"on_off": {"min_s": 0, "max_s": 300}}
    result = await desk.ask("configure_reporting", cluster="on_off", attributes=terms)
    assert result.ok, result.detail
    assert desk.sent() == [b"\x00\x06" + struct.pack("<BHBHH", 0, 0, 0x10, 0, 300)]
    assert desk.keeper.status()["due"] == 0


async def test_reporting_that_the_node_refuses_is_not_kept(desk: Desk) -> None:
    desk.answers(lambda *_: (0x07, struct.pack("<BBH", 0x8C, 0, 0)))
    terms: Json = {
        "measured_value": {"min_s": 1, "max_s": 300, "change": 50},
        "tolerance": {"min_s": 1, "max_s": 300, "change": 1},
    }
    result = await desk.ask("configure_reporting", cluster="temperature", attributes=terms)
    assert result.detail == "configure_reporting: the node refused measured_value: UNREPORTABLE_ATTRIBUTE"
    assert list(desk.keeper.wanted(NODE).reporting) == [ReportedAttribute(1, 0x0402, 3)]


async def test_no_arguments_whatever_are_more_than_a_fault(desk: Desk) -> None:
    """Drawn from what comes near to being right: none ends in an exception of ours or of zigpy's."""
    draw = random.Random(20)
    odd: list[Json] = [
        None,
        True,
        -1,
        70_000,
        1.5,
        "",
        "0x",
        "power",
        "on_off",
        [],
        [[]],
        {},
        {"value": []},
        "\ud800",
        "0xzz",
    ]
    good: dict[str, list[Json]] = {
        "endpoint": [1],
        "cluster": ["basic", "on_off", "temperature", 6, "0x0402"],
        "side": ["server", "client"],
        "attributes": [["model"], ["on_off"], {"location_desc": "x"}, {"measured_value": {"min_s": 1, "max_s": 9}}],
        "command": ["toggle", "on_with_timed_off", 0xEE],
        "arguments": [{}, {"on_time": 1}],
        "payload": ["00"],
        "manufacturer": [0x1049],
        "target": [{"group": 3}, {"node": OTHER, "endpoint": 1}],
    }
    desk.answers(lambda _, frame: (0x0B, bytes((frame[2] if len(frame) > 2 else 0, 0x81))))
    for _ in range(600):
        name = draw.choice(sorted(NODE_REQUESTS))
        keys = draw.sample(sorted(good), draw.randint(1, 6))
        arguments = {key: draw.choice(odd) if draw.random() < 0.2 else draw.choice(good[key]) for key in keys}
        if name in ("bind", "unbind", "bindings") and "cluster" in arguments:
            arguments["cluster"] = draw.choice(odd)  # their answers are of another kind
        result = await desk.ask(name, **arguments)
        assert "Error" not in result.detail, (name, arguments, result.detail)
        json.dumps(result.value)
