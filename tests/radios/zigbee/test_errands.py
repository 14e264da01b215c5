"""What is to be asked of nodes: one that is silent holds up nobody, one that is heard is asked at once, and all back off."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

from radios.radio import NodeId
from radios.zigbee.errands import Errands, ErrandTerms
from radios.zigbee.nodes import eui64
from tests.support.manual_clock import ManualClock


def sleeper(number: int) -> NodeId:
    return NodeId(f"zigbee:00124b00000001{number:02x}")


def router(number: int) -> NodeId:
    return NodeId(f"zigbee:00124b00000000{number:02x}")


class Site:
    """Nodes that are asked; those in `silent` never answer, those in `refusing` raise."""

    def __init__(self, terms: ErrandTerms) -> None:
        self.clock = ManualClock()
        self.app: Any = SimpleNamespace(devices={})
        self.up = True
        self.silent: set[NodeId] = set()
        self.refusing: set[NodeId] = set()
        self.asked: list[NodeId] = []
        self.done: list[NodeId] = []
        self.failed: list[tuple[NodeId, bool]] = []
        self.errands = Errands(
            self.clock,
            lambda: self.app if self.up else None,
            self.ask,
            lambda node, given_up: self.failed.append((node, given_up)),
            terms,
        )
        for number in range(20):
            for node, listens in ((sleeper(number), False), (router(number), True)):
                descriptor = SimpleNamespace(is_receiver_on_when_idle=listens)
                self.app.devices[eui64(node)] = SimpleNamespace(node_desc=descriptor)

    async def ask(self, node: NodeId) -> None:
        self.asked.append(node)
        if node in self.silent:
            await asyncio.Event().wait()
        if node in self.refusing:
            raise OSError("no answer")
        self.done.append(node)


@contextlib.asynccontextmanager
async def running(terms: ErrandTerms) -> AsyncIterator[Site]:
    site = Site(terms)
    task = asyncio.create_task(site.errands.run())
    yield site
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()


async def test_silent_sleepers_hold_up_nobody_that_listens_and_no_other_sleeper_while_there_are_places() -> None:
    async with running(ErrandTerms(places=2, sleepers_places=4)) as site:
        site.silent = {sleeper(number) for number in range(3)}
        for number in range(3):
            site.errands.put(sleeper(number))
        for number in range(5):
            site.errands.put(router(number))
        site.errands.put(sleeper(9))
        await site.clock.move(0)
        assert sorted(site.done) == sorted([*(router(number) for number in range(5)), sleeper(9)])
        assert len(site.errands) == 3


async def test_one_silent_node_takes_one_place_only() -> None:
    async with running(ErrandTerms(places=2, sleepers_places=1)) as site:
        site.silent = {router(0)}
        for number in range(6):
            site.errands.put(router(number))
        await site.clock.move(0)
        assert site.done == [router(number) for number in range(1, 6)]
        site.silent |= {router(7), router(8)}
        site.errands.put(router(7))
        site.errands.put(router(8))
        await site.clock.move(0)
        assert Counter(site.asked)[router(7)] + Counter(site.asked)[router(8)] == 1, "no more than places"


async def test_a_place_rests_and_what_is_first_goes_before() -> None:
    async with running(ErrandTerms(places=1, sleepers_places=1, rest_s=1.0)) as site:
        for number in range(3):
            site.errands.put(router(number))
        site.errands.put(router(9), first=True)
        await site.clock.move(0)
        assert site.done == [router(9)]
        await site.clock.move(1)
        await site.clock.move(1)
        assert site.done == [router(9), router(0), router(1)]


async def test_a_sleeper_that_is_waited_for_is_asked_when_it_is_heard() -> None:
    async with running(ErrandTerms(places=1, sleepers_places=1, sleepers_when_heard=True)) as site:
        site.errands.put(sleeper(1))
        await site.clock.move(100_000)
        assert not site.asked
        site.refusing = {sleeper(1)}
        site.errands.heard(sleeper(1))
        await site.clock.move(0)
        await site.clock.move(100_000)
        assert site.asked == [sleeper(1)], "and after a failure not by itself either"
        site.refusing.clear()
        site.errands.heard(sleeper(1))
        await site.clock.move(0)
        assert site.done == [sleeper(1)]


async def test_a_node_that_is_not_known_yet_is_asked_with_its_first_frame() -> None:
    async with running(ErrandTerms(places=1, sleepers_places=1, attempts_most=2)) as site:
        device = site.app.devices.pop(eui64(router(1)))
        site.errands.put(router(1))
        await site.clock.move(0)
        await site.clock.move(100_000)
        assert (site.asked, site.failed) == ([], [])
        site.errands.heard(router(1))  # of a sender that has no name yet
        await site.clock.move(0)
        assert site.asked == []
        site.app.devices[eui64(router(1))] = device
        site.errands.heard(router(1))
        await site.clock.move(0)
        assert site.done == [router(1)]


async def test_it_is_given_up_after_so_many_attempts() -> None:
    async with running(ErrandTerms(places=1, sleepers_places=1, attempts_most=2)) as site:
        site.refusing = {router(1)}
        site.errands.put(router(1))
        await site.clock.move(0)
        await site.clock.move(10)
        assert site.failed == [(router(1), False), (router(1), True)]
        assert router(1) not in site.errands


async def test_nothing_is_asked_while_the_link_is_down() -> None:
    async with running(ErrandTerms(places=1, sleepers_places=1)) as site:
        site.up = False
        site.errands.put(router(1))
        await site.clock.move(10)
        assert not site.asked
        site.up = True
        site.errands.link_up()
        await site.clock.move(0)
        assert site.done == [router(1)]
