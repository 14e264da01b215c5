"""Which files the service takes for which nodes, and hostile frames at its door."""

import asyncio
import struct
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from radios.clock import SystemClock
from radios.radio import Fact, NodeDirective, NodeId, TransferOrder, Want
from radios.zigbee.ota_commands import (
    Command,
    FileId,
    ImageBlockRequest,
    ImagePageRequest,
    QueryNextImageRequest,
    QuerySpecificFileRequest,
    UpgradeEndRequest,
)
from radios.zigbee.ota_frames import request
from radios.zigbee.pacing import Pacer, PacingLimits
from radios.zigbee.service import OtaService
from radios.zigbee.session_state import SessionLimits

NODE = NodeId("zigbee:0807060504030201")
FILE = FileId(0x1049, 1, 2)


def ota_file(version: int, destination: bytes = b"") -> bytes:
    length = 56 + len(destination)
    fields = (0x0BEEF11E, 0x0100, length, 2 if destination else 0, 0x1049, 1, version, 2, bytes(32), length + 100)
    return struct.pack("<LHHHHHLH32sL", *fields) + destination + bytes(100)


class Bench:
    def __init__(self, journal: Any, images: Any) -> None:
        self.journal, self.images = journal, images
        self.sent: list[bytes] = []
        pacer = Pacer(PacingLimits())
        self.service = OtaService(pacer, SessionLimits(), SystemClock(), self.transmit, lambda _: 1)

    async def transmit(self, node: NodeId, endpoint: int, frame: bytes, **more: object) -> bool:
        self.sent.append(frame)
        return True

    def order(self, file: bytes, version: int) -> None:
        expires = datetime.now(UTC) + timedelta(days=1)
        self.service.put(TransferOrder("t", self.images.add(file, version), 0, 1.0, expires))
        self.service.direct(NodeDirective("t", NODE, 1, Want.DELIVER))

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("version", "destination", "code"),
    [
        (2, b"", ""),
        (2, bytes.fromhex("0102030405060708"), ""),
        (2, bytes.fromhex("0807060504030201"), "wrong_node"),
        (0xFFFFFFFF, b"", "invalid_image"),
    ],
)
async def test_files_for_one_node_and_for_no_version(
    journal: Any, images: Any, version: int, destination: bytes, code: str
) -> None:
    bench = Bench(journal, images)
    await bench.service.load(journal, images)
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(bench.service.run(tasks))
        await bench.settle()
        bench.order(ota_file(version, destination), version)
        await bench.settle()
        expected = (Fact.FAILED, code) if code else (Fact.PREPARING, "")
        assert [(event.fact, event.code) for event in journal.events] == [expected]
        serving.cancel()


COMMANDS: list[Command] = [
    QueryNextImageRequest(0x1049, 1, 1, 7),
    ImageBlockRequest(FILE, 50, 50, bytes(8), 250),
    ImagePageRequest(FILE, 50, 50, 512, 100, bytes(8)),
    UpgradeEndRequest(0, FILE),
    UpgradeEndRequest(0x96, FILE),
    QuerySpecificFileRequest(bytes(8), FILE, 2),
]


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
async def test_a_frame_cut_at_any_byte_is_answered_or_not_and_raises_nothing(
    journal: Any, images: Any, command: Command, known: bool, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(journal, images)
    await bench.service.load(journal, images)
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(bench.service.run(tasks))
        await bench.settle()
        if known:
            bench.order(ota_file(2), 2)
            await bench.settle()
        whole = request(command, 9)  # type: ignore[arg-type]  # client commands
        for length in range(len(whole)):
            if isinstance(command, UpgradeEndRequest) and command.status and length == 4:
                continue  # the one-byte form is whole
            bench.sent.clear()
            bench.service.receive(NODE, 1, whole[:length])
            await bench.settle()
            answers = [frame for frame in bench.sent if frame[1] == 9 and frame[2] != 0]
            assert answers == ([] if length < 3 else [bytes((0x18, 9, 0x0B, whole[2], 0x80))])
        serving.cancel()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    assert bench.service.stages() == ({"offered": 1} if known else {})
