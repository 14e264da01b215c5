"""Requests to nodes: each is answered, done once, and only what is allowed."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from gatewayd.nodes.bridge_messages import NodeRequest, NodeResponse
from gatewayd.nodes.bridge_requests import RequestDesk
from radios.radio import NODE_REQUESTS, CommandResult, NodeCommand

NODE = "zigbee:00124b0000000001"


class Radio:
    """Does what it is told when `go` is set."""

    def __init__(self) -> None:
        self.commands: list[NodeCommand] = []
        self.go = asyncio.Event()
        self.go.set()
        self.result = CommandResult(True, value={"values": {"on_off": True}, "failed": {}})
        self.raises: Exception | None = None

    async def manage(self, command: NodeCommand) -> CommandResult:
        self.commands.append(command)
        await self.go.wait()
        if self.raises is not None:
            raise self.raises
        return self.result


class Bench:
    def __init__(self, allowed: Any) -> None:
        self.radio = Radio()
        self.said: list[NodeResponse] = []
        self.desk = RequestDesk({"zigbee": self.radio}, allowed, self._say)  # type: ignore[dict-item]

    def _say(self, raw: bytes) -> None:
        self.said.append(NodeResponse.model_validate_json(raw))

    async def ask(self, *, retained: bool = False, **changes: Any) -> None:
        document = {"id": "1", "node": NODE, "name": "read", "arguments": {"cluster": "on_off"}} | changes
        self.desk.take(json.dumps(document).encode(), retained=retained)
        await self.settled()

    async def settled(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)


@pytest.fixture
async def make() -> AsyncIterator[Callable[[str], Bench]]:
    running: list[asyncio.Task[None]] = []

    def make(allowed: str) -> Bench:
        bench = Bench(allowed)
        running.append(asyncio.create_task(bench.desk.run()))
        return bench

    yield make
    for task in running:
        task.cancel()
    await asyncio.wait(running)


@pytest.fixture
async def bench(make: Callable[[str], Bench]) -> Bench:
    bench = make("all")
    await bench.settled()
    return bench


def test_the_names_are_those_of_the_radios() -> None:
    schema = NodeRequest.model_json_schema()
    assert set(schema["properties"]["name"]["enum"]) == NODE_REQUESTS


async def test_a_request_is_done_and_answered(bench: Bench) -> None:
    await bench.ask()
    (answer,) = bench.said
    assert (answer.id, answer.ok, answer.code) == ("1", True, "")
    assert answer.value == {"values": {"on_off": True}, "failed": {}}
    assert bench.radio.commands == [NodeCommand("read", NODE, {"cluster": "on_off"})]  # type: ignore[arg-type]


async def test_a_command_to_a_group_goes_to_the_radio_that_knows_groups(bench: Bench) -> None:
    await bench.ask(node=None, group=7, name="command", arguments={"cluster": "on_off", "command": "off"})
    assert bench.radio.commands == [NodeCommand("command", None, {"cluster": "on_off", "command": "off", "group": 7})]
    assert bench.said[0].ok


async def test_a_group_is_under_the_same_rights_and_bounds_as_a_node(make: Callable[[str], Bench]) -> None:
    reader, writer = make("read"), make("all")
    await reader.settled()
    await reader.ask(node=None, group=7, name="command")
    assert reader.said[0].code == "forbidden"
    writer.radio.go.clear()
    for number in range(5):
        await writer.ask(id=str(number), node=None, group=7, name="command")
    assert [answer.code for answer in writer.said] == ["busy"]
    await writer.ask(id="other", node=None, group=8, name="command")
    assert len(writer.radio.commands) == 5
    writer.radio.go.set()


@pytest.mark.parametrize(
    "changes",
    [
        {"group": 7, "name": "command"},  # and a node
        {"node": None, "name": "command"},
        {"node": None, "group": 0, "name": "command"},
        {"node": None, "group": 0xFFF8, "name": "command"},
        {"node": None, "group": 7, "name": "read"},
        {"node": None, "group": 7, "name": "command", "arguments": {"group": 9}},
    ],
)
async def test_one_target_and_for_a_group_a_command_alone(bench: Bench, changes: dict[str, Any]) -> None:
    await bench.ask(**changes)
    assert bench.said[0].code == "bad_document"
    assert bench.radio.commands == []


async def test_a_failure_is_told_in_the_radios_words(bench: Bench) -> None:
    bench.radio.result = CommandResult(False, "read: no such cluster")
    await bench.ask()
    bench.radio.raises = RuntimeError("a bug")
    await bench.ask(id="2")
    assert [(a.ok, a.code, a.detail) for a in bench.said] == [
        (False, "failed", "read: no such cluster"),
        (False, "failed", "a bug"),
    ]


async def test_a_repetition_is_answered_from_memory_and_not_done_again(bench: Bench) -> None:
    bench.radio.go.clear()
    await bench.ask()
    await bench.ask()
    assert bench.said == []
    bench.radio.go.set()
    await bench.settled()
    await bench.ask()
    assert len(bench.radio.commands) == 1
    assert len(bench.said) == 2
    assert bench.said[0] == bench.said[1]
    assert bench.desk.outcomes == {"ok": 1, "repeated": 2}


@pytest.mark.parametrize(
    ("raw", "identity", "code"),
    [
        (b"{", "", "bad_document"),
        (b'{"id": "7", "node": "lamp", "name": "read"}', "7", "bad_document"),
        (b'{"id": "7", "node": "zigbee:00124b0000000001", "name": "remove"}', "7", "bad_document"),
        (b'{"id": "7", "node": "zigbee:00124b0000000001", "name": "permit_join"}', "7", "bad_document"),
        (b'{"id": "7", "node": "zigbee:00124b0000000001", "name": "read", "more": 1}', "7", "bad_document"),
        (b'{"id": 7, "node": "zigbee:00124b0000000001", "name": "read"}', "", "bad_document"),
        (b'{"id": "7", "node": "lorawan:00124b0000000001", "name": "read"}', "7", "unknown_radio"),
        (b'{"id": "7", "node": "zigbee:00124b0000000001", "name": "read", "timeout_s": 1e9}', "7", "bad_document"),
        (b'{"id": "7", "arguments": "' + b"x" * 20_000 + b'"}', "", "too_large"),
        (b"[" * 10_000, "", "bad_document"),
        (b"\xff\xfe", "", "bad_document"),
        (b'{"id": "\\ud800", "node": "lamp"}', "", "bad_document"),
        (
            b'{"id": "7", "node": "zigbee:00124b0000000001", "name": "read", "arguments": {"\\udfff": 1}}',
            "7",
            "bad_document",
        ),
        (b'{"id": "7", "node": "lamp", "x": ' + b"[" * 9000 + b"]" * 5000, "", "bad_document"),
    ],
)
async def test_what_is_no_request_is_answered_too(bench: Bench, raw: bytes, identity: str, code: str) -> None:
    bench.desk.take(raw)
    await bench.settled()
    assert [(a.id, a.ok, a.code) for a in bench.said] == [(identity, False, code)]
    assert bench.said[0].detail
    assert bench.radio.commands == []


async def test_only_what_is_allowed(make: Callable[[str], Bench]) -> None:
    bench = make("read")
    await bench.settled()
    for number, name in enumerate(sorted(NODE_REQUESTS)):
        await bench.ask(id=str(number), name=name)
    assert {command.name for command in bench.radio.commands} == {"read", "bindings", "reporting"}
    assert sum(answer.code == "forbidden" for answer in bench.said) == len(NODE_REQUESTS) - 3


async def test_a_retained_request_is_refused(bench: Bench) -> None:
    await bench.ask(retained=True)
    assert [a.code for a in bench.said] == ["retained"]
    assert bench.radio.commands == []


async def test_few_at_a_time(bench: Bench) -> None:
    bench.radio.go.clear()
    for number in range(5):
        await bench.ask(id=f"same-{number}")
    assert [(a.id, a.code) for a in bench.said] == [("same-4", "busy")]
    for number in range(14):
        await bench.ask(id=f"other-{number}", node=f"zigbee:{number + 16:016x}")
    assert [a.id for a in bench.said if a.code == "busy"] == ["same-4", "other-12", "other-13"]
    assert bench.desk.in_flight == 16
    bench.radio.go.set()
    await bench.settled()
    await bench.ask(id="same-4")
    assert bench.said[-1].ok, "what was refused for want of room may be asked again"


async def test_a_deadline(bench: Bench) -> None:
    bench.radio.go.clear()
    await bench.ask(timeout_s=0.01)
    async with asyncio.timeout(10):
        while not bench.said:
            await asyncio.sleep(0.01)
    assert (bench.said[0].code, bench.desk.in_flight) == ("timeout", 0)


async def test_an_answer_that_is_too_large_says_so(bench: Bench) -> None:
    bench.radio.result = CommandResult(True, value="x" * 70_000)
    await bench.ask()
    assert bench.said[0].code == "too_large"
    assert not bench.said[0].ok


async def test_text_that_cannot_be_sent_costs_the_text_and_not_the_bridge(bench: Bench) -> None:
    bench.radio.result = CommandResult(False, "refused: \ud800", value="\udfff")
    await bench.ask()
    assert [(a.id, a.code) for a in bench.said] == [("1", "failed")]
