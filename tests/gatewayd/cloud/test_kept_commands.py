"""A command that the store could not take is not lost, nor overtaken by a later one."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from gatewayd.cloud.kept_commands import KEPT_MOST, KeptCommands
from gatewayd.errors import Refused, StoreError, Unavailable
from tests.gatewayd.cloud.conftest import eventually

TOPIC = "ota/v1/gateways/gw-a/commands"


class Handler:
    """Does what it is given, or raises."""

    def __init__(self) -> None:
        self.tried: list[bytes] = []
        self.done: list[bytes] = []
        self.raises: Exception | None = None

    async def __call__(self, topic: str, raw: bytes) -> None:
        self.tried.append(raw)
        if self.raises is not None:
            raise self.raises
        self.done.append(raw)


@pytest.fixture
def handler() -> Handler:
    return Handler()


@pytest.fixture
async def kept(handler: Handler) -> AsyncIterator[KeptCommands]:
    kept = KeptCommands(handler, 30.0, rng=lambda: 0.0)
    running = asyncio.create_task(kept.run())
    yield kept
    running.cancel()
    await asyncio.wait({running})


@pytest.mark.parametrize("error", [StoreError("disk full"), Unavailable("no room")])
async def test_what_the_store_did_not_take_is_done_when_it_can_be(
    kept: KeptCommands, handler: Handler, error: Exception
) -> None:
    handler.raises = error
    with pytest.raises(type(error)):
        await kept.take(TOPIC, b"resync")
    await eventually(lambda: len(handler.tried) > 3)
    handler.raises = None
    await eventually(lambda: handler.done == [b"resync"])
    await kept.take(TOPIC, b"identify")
    assert handler.done == [b"resync", b"identify"]


async def test_later_ones_wait_behind_it_and_the_same_one_waits_once(kept: KeptCommands, handler: Handler) -> None:
    handler.raises = StoreError("disk full")
    with pytest.raises(StoreError):
        await kept.take(TOPIC, b"1")
    for raw in (b"2", b"1", b"3"):
        await kept.take(TOPIC, raw)
    assert set(handler.tried) == {b"1"}
    handler.raises = None
    await eventually(lambda: handler.done == [b"1", b"2", b"3"])


@pytest.mark.parametrize("error", [Refused("expired", "since yesterday"), RuntimeError("a bug")])
async def test_one_that_is_refused_or_meets_a_bug_does_not_keep_the_next_from_its_turn(
    kept: KeptCommands, handler: Handler, error: Exception
) -> None:
    handler.raises = StoreError("disk full")
    with pytest.raises(StoreError):
        await kept.take(TOPIC, b"1")
    await kept.take(TOPIC, b"2")
    handler.raises = error
    await eventually(lambda: b"2" in handler.tried)
    handler.raises = None
    await kept.take(TOPIC, b"3")
    await eventually(lambda: handler.done == [b"3"])


async def test_they_are_bounded(kept: KeptCommands, handler: Handler) -> None:
    handler.raises = StoreError("disk full")
    with pytest.raises(StoreError):
        await kept.take(TOPIC, b"0")
    for number in range(1, KEPT_MOST):
        await kept.take(TOPIC, b"%d" % number)
    with pytest.raises(Unavailable, match="lost"):
        await kept.take(TOPIC, b"one more")
    handler.raises = None
    await eventually(lambda: len(handler.done) == KEPT_MOST)
