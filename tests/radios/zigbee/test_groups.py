"""Commands to groups of nodes: one frame, no answer, and the bounds that broadcasts need."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import zigpy.types as t

from radios.clock import SystemClock
from radios.radio import CommandResult, Json, NodeCommand, NodeId
from radios.zigbee.config_keeper import ConfigKeeper
from radios.zigbee.groups import MOST_AT_ONCE, WITHIN_S
from radios.zigbee.requests import NodeRequests
from radios.zigbee.settings import ZigbeeSettings, zigpy_config
from tests.support.answering_radio import AnsweringRadio
from tests.support.zigpy_library import IEEE

NODE = NodeId("zigbee:00124b0000000001")
SETTINGS = ZigbeeSettings("fake", request_timeout_s=0.2)


@pytest.fixture
async def app() -> AsyncIterator[Any]:
    library = type(
        "Fake", (AnsweringRadio,), {"instances": [], "refusals": [], "answer": staticmethod(lambda *_: None)}
    )
    app = await library.new(zigpy_config(SETTINGS), start_radio=False)
    await app.startup()
    app.devices[IEEE].endpoints[1].add_input_cluster(0x0004)
    app.sent.clear()
    yield app
    await app.shutdown()


@pytest.fixture
def requests(app: Any) -> NodeRequests:
    return NodeRequests(SETTINGS, ConfigKeeper(SystemClock(), SETTINGS, lambda: app))


async def ask(requests: NodeRequests, app: Any, node: NodeId | None = None, /, **arguments: Json) -> CommandResult:
    return await requests.run(app, NodeCommand("command", node, arguments))


async def test_a_command_goes_to_the_group_as_one_frame_that_nobody_answers(requests: NodeRequests, app: Any) -> None:
    move: Json = {"level": 128, "transition_time": 20}
    result = await ask(requests, app, group=0x1234, cluster="level", command="move_to_level", arguments=move)
    assert result == CommandResult(True)
    (packet,) = app.sent
    assert packet.dst == t.AddrModeAddress(addr_mode=t.AddrMode.Group, address=0x1234)
    assert (packet.profile_id, packet.cluster_id, packet.src_ep) == (0x0104, 0x0008, 1)
    assert packet.tx_options == t.TransmitOptions.NONE
    frame = packet.data.serialize()
    assert (frame[0], frame[1], frame[2:]) == (0x11, packet.tsn, bytes.fromhex("00 80 1400"))


async def test_numbers_and_octets_do_where_zigpy_has_no_name(requests: NodeRequests, app: Any) -> None:
    assert (await ask(requests, app, group=1, cluster=0xFC99, command=0x07, payload="0a0b", manufacturer=0x1049)).ok
    frame = app.sent[0].data.serialize()
    assert frame == bytes.fromhex("15 4910") + frame[3:4] + bytes.fromhex("07 0a0b")
    assert app.sent[0].cluster_id == 0xFC99


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"cluster": "on_off", "command": "off"}, ("a node or a group",)),
        ({"group": 0, "cluster": "on_off", "command": "off"}, ("group", "1 to 65527")),
        ({"group": 1, "cluster": "on_of", "command": "off"}, ("'on_of'",)),
        ({"group": 1, "cluster": "on_off", "command": "uff"}, ("'uff'", "toggle")),
        ({"group": 1, "cluster": "level", "command": "move_to_level"}, ("needs", "level")),
        ({"group": 1, "cluster": "on_off", "command": "off", "endpoint": 1}, ("endpoint",)),
        ({"group": 1, "cluster": "ota", "command": 0, "payload": "0064"}, ("OTA", "campaign")),
        ({"group": 1, "cluster": 0x0019, "command": 0, "payload": "0064"}, ("OTA", "campaign")),
    ],
)
async def test_a_fault_says_what_and_where_and_sends_nothing(
    requests: NodeRequests, app: Any, arguments: dict[str, Json], words: tuple[str, ...]
) -> None:
    result = await ask(requests, app, **arguments)
    assert not result.ok
    assert all(word in result.detail for word in words)
    assert app.sent == []


async def test_more_than_routers_remember_are_refused(requests: NodeRequests, app: Any) -> None:
    results = [await ask(requests, app, group=1, cluster="on_off", command="toggle") for _ in range(MOST_AT_ONCE + 2)]
    assert [result.ok for result in results] == [True] * MOST_AT_ONCE + [False] * 2
    assert f"{WITHIN_S:g} s" in results[-1].detail
    assert len(app.sent) == MOST_AT_ONCE


async def test_nodes_join_and_leave_groups_by_their_own_cluster(requests: NodeRequests, app: Any) -> None:
    type(app).answer = staticmethod(lambda _, frame: (frame[2], bytes.fromhex("00 3412")))
    joined = await ask(
        requests, app, NODE, cluster="groups", command="add", arguments={"group_id": 0x1234, "group_name": ""}
    )
    left = await ask(requests, app, NODE, cluster="groups", command="remove", arguments={"group_id": 0x1234})
    assert joined.value == {
        "command": "add_response",
        "arguments": {"status": {"value": 0, "name": "SUCCESS"}, "group_id": 0x1234},
    }
    assert isinstance(left.value, dict)
    assert left.value["command"] == "remove_response"
    assert [packet.data.serialize()[2:] for packet in app.sent] == [
        bytes.fromhex("00 3412 00"),
        bytes.fromhex("03 3412"),
    ]
