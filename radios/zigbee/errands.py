"""What is to be asked of nodes sooner or later: each by itself, with back-off, and at once when the node is heard. SHELL.

An errand is a task of its own, and sleeping nodes have their own places: one that says nothing holds up nobody else. A node that
the network does not know yet is not asked, and that is no failed attempt: it is asked with the first frame that is heard. What is
asked, and where it is remembered, is the business of who has the errands.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from radios.clock import Clock
from radios.radio import NodeId
from radios.zigbee.nodes import device_of, is_sleepy
from radios.zigbee.sleep import sleep_until_or

_LOG = logging.getLogger(__name__)
_FIRST_WAIT_S: Final = 10.0
_LONGEST_WAIT_S: Final = 3600.0
_HEARD_WAIT_S: Final = 5.0  # a node that is heard and yet does not answer is not asked with every frame
WHEN_HEARD: Final = float("inf")


@dataclass(frozen=True, slots=True)
class ErrandTerms:
    """How many at the same time, how long a place rests after an errand to a node that listens, and when to give up."""

    places: int
    sleepers_places: int
    rest_s: float = 0.0
    sleepers_when_heard: bool = False  # and at no other time
    attempts_most: int | None = None


@dataclass(slots=True)
class _Due:
    next_at: float
    first: bool = False  # before all others
    attempts: int = 0
    tried_at: float = float("-inf")


class Errands:
    """`run_errand` is done when it returns; what it raises is told to `failed`, and tried again. `app` gives zigpy's
    application while the link is up. Runs while `run` does."""

    def __init__(
        self,
        clock: Clock,
        app: Callable[[], Any],
        run_errand: Callable[[NodeId], Awaitable[None]],
        failed: Callable[[NodeId, bool], None],
        terms: ErrandTerms,
    ) -> None:
        self._clock = clock
        self._app = app
        self._run_errand = run_errand
        self._failed = failed  # with whether it was given up
        self._terms = terms
        self._due: dict[NodeId, _Due] = {}
        self._running: dict[NodeId, bool] = {}  # whether it is a sleeper
        self._resting = 0
        self._news = asyncio.Event()

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, node: NodeId) -> bool:
        return node in self._due

    def put(self, node: NodeId, *, after_s: float = 0.0, first: bool = False) -> None:
        """A new occasion: it takes the place of an errand that is due or under way."""
        at = WHEN_HEARD if self._terms.sleepers_when_heard and self._is_sleepy(node) else self._clock.now() + after_s
        self._due[node] = _Due(at, first)
        self._news.set()

    def drop(self, node: NodeId) -> None:
        self._due.pop(node, None)

    def heard(self, node: NodeId) -> None:
        due, now = self._due.get(node), self._clock.now()
        if due is None or node in self._running:
            return
        if due.next_at > now and now - due.tried_at >= _HEARD_WAIT_S:
            due.next_at = now
        # Perhaps due for long, and known since now. Without a place there is nothing to look for: that it is free is told.
        if due.next_at <= now and self._free()[self._is_sleepy(node)] > 0:
            self._news.set()

    def link_up(self) -> None:
        self._news.set()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._news.clear()
                for node, sleepy in self._startable():
                    self._running[node] = sleepy
                    tasks.create_task(self._attempt(node, sleepy=sleepy))
                await sleep_until_or(self._clock, self._next_at(), self._news)

    # -- within --------------------------------------------------------------------------------------------------

    def _startable(self) -> list[tuple[NodeId, bool]]:
        if self._app() is None:
            return []
        now = self._clock.now()
        free = self._free()
        ready = [
            (node, due)
            for node, due in self._due.items()
            if due.next_at <= now and node not in self._running and self._device(node) is not None
        ]
        started: list[tuple[NodeId, bool]] = []
        for node, _ in sorted(ready, key=lambda item: (not item[1].first, item[1].next_at)):
            sleepy = self._is_sleepy(node)
            if free[sleepy] > 0:
                free[sleepy] -= 1
                started.append((node, sleepy))
        return started

    def _next_at(self) -> float | None:
        if self._app() is None:
            return None
        free = self._free()
        coming = [
            due.next_at
            for node, due in self._due.items()
            if node not in self._running
            and due.next_at != WHEN_HEARD
            and self._device(node) is not None
            and free[self._is_sleepy(node)] > 0
        ]
        return min(coming, default=None)

    def _free(self) -> dict[bool, int]:
        asleep = sum(self._running.values())
        terms = self._terms
        return {
            False: terms.places - (len(self._running) - asleep) - self._resting,
            True: terms.sleepers_places - asleep,
        }

    async def _attempt(self, node: NodeId, *, sleepy: bool) -> None:
        try:
            due = self._due.get(node)
            if due is not None:
                await self._try(node, due, sleepy=sleepy)
        finally:
            self._running.pop(node, None)
            self._news.set()
        if self._terms.rest_s and not sleepy:
            self._resting += 1
            try:
                await self._clock.sleep_until(self._clock.now() + self._terms.rest_s)
            finally:
                self._resting -= 1
                self._news.set()

    async def _try(self, node: NodeId, due: _Due, *, sleepy: bool) -> None:
        due.attempts += 1
        due.tried_at = self._clock.now()
        try:
            await self._run_errand(node)
        except Exception as error:  # noqa: BLE001  # whatever the journal, zigpy or its libraries raise: later again
            wait = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** min(due.attempts - 1, 16))
            due.next_at = WHEN_HEARD if sleepy and self._terms.sleepers_when_heard else self._clock.now() + wait
            given_up = due.attempts == self._terms.attempts_most
            if given_up and self._due.get(node) is due:
                del self._due[node]
            _LOG.debug("%s: not done, %s: %r", node, "given up" if given_up else "later again", error)
            self._failed(node, given_up)
            return
        if self._due.get(node) is due:  # no new occasion came meanwhile
            del self._due[node]

    def _is_sleepy(self, node: NodeId) -> bool:
        device = self._device(node)
        return device is not None and is_sleepy(device)

    def _device(self, node: NodeId) -> Any:
        """zigpy's object; None when the network does not know the node."""
        return device_of(self._app(), node)
