"""Nodes asked who they are: when each is due, and who hears what it said. SHELL.

A node that listens is asked at once, one that sleeps with its next frame, and any again after an announcement. What is asked
and how, `nodes` says; not responsible for what a version or the client's attributes mean to a download (`service`).
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from radios.clock import Clock
from radios.radio import NodeId, NodeObservation
from radios.zigbee import nodes
from radios.zigbee.config_keeper import ConfigKeeper
from radios.zigbee.exchanges import check_in_binding
from radios.zigbee.observations import ObservationFeed
from radios.zigbee.ota_commands import ImageNotify
from radios.zigbee.ota_frames import reply
from radios.zigbee.poll_control import FastPolls
from radios.zigbee.reset_cause import read_reset_cause
from radios.zigbee.service import OtaService
from radios.zigbee.settings import ZigbeeSettings
from radios.zigbee.transmit import Transmit


class Interviews:
    """`application` gives zigpy's, None while there is none; the others are told what a node said."""

    def __init__(
        self,
        clock: Clock,
        settings: ZigbeeSettings,
        application: Callable[[], Any],
        feed: ObservationFeed,
        keeper: ConfigKeeper,
        polls: FastPolls,
        service: OtaService,
        transmit: Transmit,
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._application = application
        self._feed = feed
        self._keeper = keeper
        self._polls = polls
        self._service = service
        self._transmit = transmit
        self._at_once = asyncio.Semaphore(settings.concurrent_interviews)
        self._sleepers_at_once = asyncio.Semaphore(settings.concurrent_sleepy_interviews)
        self._due: set[NodeId] = set()  # with their next frame
        self._uncompared: set[NodeId] = set()  # with what they were configured with, once they are interviewed
        self._announcements: dict[NodeId, int] = {}
        self._queries: dict[NodeId, tuple[float, int]] = {}  # the last one's time and version
        self._resets: dict[NodeId, int] = {}

    def begin(self, node: NodeId) -> None:
        self._service.spawn(self._interview(node))

    def when_heard(self, node: NodeId) -> None:
        self._due.add(node)

    def heard(self, node: NodeId) -> None:
        """It is awake."""
        if node in self._due:
            self._due.discard(node)
            self.begin(node)

    def queried(self, node: NodeId, version: int) -> None:
        """It said its version in a query: that is newer than what it was asked for before."""
        self._queries[node] = self._clock.now(), version

    def announced(self, node: NodeId) -> None:
        """It joined or rebooted: what it said before may hold no longer."""
        self.when_heard(node)
        self._announcements[node] = self._announcements.get(node, 0) + 1
        if self._sleeps(node):
            self._uncompared.add(node)  # its few waking moments are for its version first
        else:
            self._keeper.check(node)

    def _sleeps(self, node: NodeId) -> bool:
        """Such a node is awake now, or not for long: it waits for no other kind of node."""
        device = nodes.device_of(self._application(), node)
        return device is not None and nodes.is_sleepy(device)

    async def _interview(self, node: NodeId) -> None:
        try:
            await self._learn(node)
        finally:
            if node in self._uncompared:
                self._uncompared.discard(node)
                self._keeper.check(node)

    async def _learn(self, node: NodeId) -> None:
        """Learn versions, hardware and battery of a node; where attributes say no version, provoke a query."""
        async with self._sleepers_at_once if self._sleeps(node) else self._at_once:
            device = nodes.device_of(self._application(), node)
            if device is None:
                return
            announcements, asked_at = self._announcements.get(node, 0), self._clock.now()
            try:
                async with asyncio.timeout(self._settings.interview_timeout_s):
                    said = await nodes.interview(device, asked_at)
                    # Only after a reset that was heard of: what is told later may be of one long ago.
                    cause = await self._reset_cause(device, said) if announcements else None
            except TimeoutError:
                self._due.add(node)
                return
        if said.silent:
            self._due.add(node)  # many reboot together after a power cut, and what they are asked then gets lost
        if self._announcements.get(node, 0) != announcements or self._contradicts(node, said.observation, asked_at):
            # It rebooted in between: a version read before would be taken for the one after, a rollback that never was.
            self._due.add(node)
            return
        observation = replace(said.observation, reset_cause=cause, alive=not said.silent)
        self._feed.put(observation)
        if observation.version is not None:
            self._keeper.version_seen(node, observation.version)
        if said.fast_poll_timeout_max is not None:
            self._polls.limit(node, said.fast_poll_timeout_max)
        if (binding := check_in_binding(self._application(), device)) is not None:
            self._service.spawn(self._keeper.ensure(node, binding))
        if self._counts_reset(node, said.resets):
            self._service.rebooted(node)
        if self._service.client_described(node, said.client, asked_at):
            return  # its session sends notifications, and none in mid-download
        endpoint = nodes.ota_endpoint(device)
        if endpoint is not None and (observation.version is None or observation.hardware is None):
            await self._transmit(node, endpoint, reply(ImageNotify(100), 0))

    def _contradicts(self, node: NodeId, said: NodeObservation, asked_at: float) -> bool:
        """Whether a query since then named another version: an announcement is a broadcast, and may be lost."""
        at, version = self._queries.get(node, (asked_at, None))
        return at > asked_at and said.version not in (None, version)

    async def _reset_cause(self, device: Any, said: nodes.Interview) -> str | None:
        where = self._settings.reset_causes.get(said.observation.hardware or "")
        return None if where is None else await read_reset_cause(device, where)

    def _counts_reset(self, node: NodeId, resets: int | None) -> bool:
        """Whether the node counted a reset since it was asked before: the proof of a reboot that was not announced."""
        before = self._resets.get(node)
        if resets is not None:
            self._resets[node] = resets
        return before is not None and resets is not None and resets != before
