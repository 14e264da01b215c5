"""Keeps what nodes were configured with (bindings, reporting), and sets it again where a new firmware lost it.

Wishes come through us, or were found on the node (`survey`). A wish is in the journal before the node is asked. A node is compared after an announcement (each reboot makes one) and
when it says another version; what cannot be asked now stays to be done, with back-off, and at once when the node is heard.
It is the lowest of all traffic.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any, Final

import zigpy.types

from radios.clock import Clock
from radios.errors import FrameError, LinkError
from radios.radio import Journal, Json, NodeId
from radios.zigbee.errands import Errands, ErrandTerms
from radios.zigbee.exchanges import read_bindings, read_reporting, restore
from radios.zigbee.node_config import MAX_BINDINGS, Binding, NodeConfig, config_record, is_config, lost, node_config
from radios.zigbee.nodes import device_of, is_sleepy
from radios.zigbee.settings import ZigbeeSettings

_LOG = logging.getLogger(__name__)
_AT_ONCE: Final = ErrandTerms(places=4, sleepers_places=16)  # a frame that waits at a sleeper's parent takes no air
_EXCHANGES_MOST: Final = 10.0  # of a request's time limit, for a whole comparison


class ConfigKeeper:
    """`app` gives zigpy's application while the link is up. Runs while `run` does."""

    def __init__(self, clock: Clock, settings: ZigbeeSettings, app: Callable[[], Any]) -> None:
        self._settings = settings
        self._app = app
        self._journal: Journal | None = None
        self._configs: dict[NodeId, NodeConfig] = {}
        self._versions: dict[NodeId, int] = {}
        self._locks: dict[NodeId, asyncio.Lock] = {}
        self._errands = Errands(clock, app, self._compare_alone, self._unanswered, _AT_ONCE)
        self._counts = {"compared": 0, "bindings_restored": 0, "reporting_restored": 0, "refused": 0, "unanswered": 0}

    async def load(self, journal: Journal) -> None:
        self._journal = journal
        for record in await journal.load():
            if not is_config(record):
                continue
            try:
                node, config = node_config(record)
            except FrameError as error:
                _LOG.error("Zigbee journal: %s; left out, the node keeps what it has", error)
                continue
            self._configs[node] = config
            if config.due:
                self._errands.put(node)

    async def run(self) -> None:
        """Compare what is due until cancelled."""
        await self._errands.run()

    # -- wishes --------------------------------------------------------------------------------------------------

    def wanted(self, node: NodeId) -> NodeConfig:
        return self._configs.get(node, NodeConfig())

    @contextlib.asynccontextmanager
    async def alone(self, node: NodeId) -> AsyncIterator[None]:
        """Nobody else configures this node meanwhile."""
        lock = self._locks.setdefault(node, asyncio.Lock())
        async with lock:
            yield

    async def keep(self, node: NodeId, config: NodeConfig) -> None:
        """Durable on return. Raises when it could not be made durable: the node must not be asked."""
        if self._journal is None:
            raise LinkError("the radio does not run")
        config = replace(config, version=self._versions.get(node, config.version))
        if config == self._configs.get(node, NodeConfig()):
            return
        await self._journal.commit([config_record(node, config)], [])
        if not config.wishes:
            self._errands.drop(node)
        if config.empty:
            self._configs.pop(node, None)
        else:
            self._configs[node] = config

    async def ensure(self, node: NodeId, binding: Binding) -> None:
        """A binding that the gateway itself needs: looked for in the node's table now, and after each reboot as all others."""
        async with self.alone(node):
            config = self.wanted(node)
            if binding in config.bindings or len(config.bindings) >= MAX_BINDINGS:
                return
            await self.keep(node, replace(config.with_binding(binding), due=True))
        self.check(node)

    async def compare_if_due(self, node: NodeId) -> None:
        """What is to be compared soon is compared now. To be called `alone`; raises when the node does not answer."""
        if node in self._errands:
            await self._compare(node)

    async def forget(self, node: NodeId) -> None:
        """The node was removed from the network by us."""
        if node in self._configs:
            await self.keep(node, NodeConfig())

    # -- occasions -----------------------------------------------------------------------------------------------

    def check(self, node: NodeId) -> None:
        """The node may have lost something: compare as soon as it answers."""
        if self.wanted(node).wishes:
            self._errands.put(node)

    def version_seen(self, node: NodeId, version: int) -> None:
        """The node says what it runs; another version than at the last comparison is an occasion for one."""
        if self._versions.get(node) == version:
            return
        self._versions[node] = version
        config = self._configs.get(node)
        if config is not None and config.version not in (None, version):
            self.check(node)

    def heard(self, node: NodeId) -> None:
        self._errands.heard(node)

    def link_up(self) -> None:
        self._errands.link_up()

    def status(self) -> dict[str, Json]:
        counts: dict[str, Json] = dict(self._counts)
        configs = self._configs.values()
        return {
            "nodes": sum(config.wishes for config in configs),
            "surveyed": sum(config.surveyed for config in configs),
            "found": sum(len(config.found) for config in configs),
            "due": len(self._errands),
            **counts,
        }

    # -- within --------------------------------------------------------------------------------------------------

    async def _compare_alone(self, node: NodeId) -> None:
        async with self.alone(node):
            await self._compare(node)

    def _unanswered(self, _node: NodeId, _given_up: bool) -> None:
        self._counts["unanswered"] += 1

    async def _compare(self, node: NodeId) -> None:
        config, app = self.wanted(node), self._app()
        if not config.wishes:
            return
        device = device_of(app, node)
        if device is None:
            raise LinkError(f"{node} is not in this network")
        if not config.due:
            await self.keep(node, replace(config, due=True))  # a crash from here on does not forget it
        limit = self._settings.sleepy_request_timeout_s if is_sleepy(device) else self._settings.request_timeout_s
        async with app.request_priority(zigpy.types.PacketPriority.LOW), asyncio.timeout(limit * _EXCHANGES_MOST):
            bindings = await read_bindings(device) if config.bindings else []
            missing = lost(config, bindings, await read_reporting(device, config.reporting))
            done = await restore(device, missing)
        self._counts["compared"] += 1
        self._counts["bindings_restored"] += len(done["bindings"])
        self._counts["reporting_restored"] += len(done["reporting"])
        self._counts["refused"] += len(done["refused"])
        if done["bindings"] or done["reporting"]:
            _LOG.info("%s: set again what it had lost: %s", node, "; ".join(done["bindings"] + done["reporting"]))
        if done["refused"]:
            _LOG.warning("%s: refuses to be configured as before: %s", node, "; ".join(done["refused"]))
        await self.keep(node, replace(config, due=False))
