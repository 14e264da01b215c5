"""What a node holds that was not set through us: its bindings, and the reporting of what is bound. SHELL.

A network that moved in brings them along, and a new firmware may lose them. So each node is asked once, and again before
each update: some 5 exchanges with low priority, 34 at most, one listening node at a time and a second between two; sleeping
nodes when they are heard. What is found is remembered by `config_keeper`, which sets it again.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import zigpy.types
import zigpy.zcl.foundation as zcl

from radios.clock import Clock
from radios.errors import LinkError
from radios.radio import Json, NodeId
from radios.zigbee.config_keeper import ConfigKeeper
from radios.zigbee.errands import Errands, ErrandTerms
from radios.zigbee.exchanges import read_bindings, read_reporting
from radios.zigbee.node_config import MAX_FOUND, Binding, ReportedAttribute, ReportTerms
from radios.zigbee.nodes import eui64, is_sleepy
from radios.zigbee.ota_commands import OTA_CLUSTER_ID
from radios.zigbee.settings import ZigbeeSettings

SURVEY_AFTER_S: Final = 30.0  # of the start: interviews go first
FRESH_S: Final = 3600.0  # before an update a node is asked again, if it was not since

_TERMS: Final = ErrandTerms(places=1, sleepers_places=4, rest_s=1.0, sleepers_when_heard=True, attempts_most=4)
_EXCHANGES_MOST: Final = 5.0  # of a request's time limit, for the table and for the reporting

_LOG = logging.getLogger(__name__)
_PER_CLUSTER: Final = 16
_NO_REPORTS: Final = 0xFFFF

# What is reported by most that have the cluster, and not marked so (or not among the first) in zigpy's definitions.
_USUAL: Final[Mapping[int, tuple[int, ...]]] = {
    0x0001: (0x0020, 0x0021),
    0x0702: (0x0000, 0x0400),
    0x0B04: (0x0505, 0x0508, 0x050B),
}


class Surveys:
    """`app` gives zigpy's application while the link is up; `done` is told when nothing more is to be asked of a node,
    whether or not it answered. Runs while `run` does."""

    def __init__(
        self,
        clock: Clock,
        settings: ZigbeeSettings,
        app: Callable[[], Any],
        keeper: ConfigKeeper,
        done: Callable[[NodeId], None],
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._app = app
        self._keeper = keeper
        self._done = done
        self._errands = Errands(clock, app, self._survey, self._failed, _TERMS)
        self._surveyed_at: dict[NodeId, float] = {}
        self._given_up = 0
        self.run = self._errands.run
        self.heard = self._errands.heard
        self.link_up = self._errands.link_up

    def look(self, node: NodeId) -> None:
        """A node of this network is known: what does it hold?"""
        if not self._keeper.wanted(node).surveyed and node not in self._errands:
            self._errands.put(node, after_s=SURVEY_AFTER_S)

    def before_update(self, node: NodeId) -> bool:
        """Whether nothing needs to be asked before the node's firmware changes; else it is asked as soon as may be."""
        if self._clock.now() - self._surveyed_at.get(node, float("-inf")) < FRESH_S:
            return True
        self._errands.put(node, first=True)
        return False

    def forget(self, node: NodeId) -> None:
        self._errands.drop(node)
        self._surveyed_at.pop(node, None)

    def status(self) -> dict[str, Json]:
        return {"surveys_due": len(self._errands), "surveys_given_up": self._given_up}

    # -- within --------------------------------------------------------------------------------------------------

    async def _survey(self, node: NodeId) -> None:
        keeper, app = self._keeper, self._app()
        device = None if app is None else app.devices.get(eui64(node))
        if device is None:
            raise LinkError(f"{node} is not in this network")
        settings = self._settings
        limit = settings.sleepy_request_timeout_s if is_sleepy(device) else settings.request_timeout_s
        limit *= _EXCHANGES_MOST
        async with keeper.alone(node):
            await keeper.compare_if_due(node)  # what it has lost is nothing that it should not have
            async with app.request_priority(zigpy.types.PacketPriority.LOW):
                async with asyncio.timeout(limit):
                    bindings = await read_bindings(device)
                # Kept at once: many nodes do not answer what comes next.
                await keeper.keep(node, keeper.wanted(node).adopting(bindings or (), {}, surveyed=False))
                async with asyncio.timeout(limit):
                    reporting = await reporting_of(device, reportable(device, bindings))
            await keeper.keep(node, keeper.wanted(node).adopting((), reporting))
        self._surveyed_at[node] = self._clock.now()
        self._done(node)

    def _failed(self, node: NodeId, given_up: bool) -> None:
        if given_up:
            self._given_up += 1
            _LOG.warning("%s: does not say what it is bound to and reports; a new firmware may lose it for good", node)
            self._done(node)


def reportable(device: Any, bindings: Sequence[Binding] | None) -> list[ReportedAttribute]:
    """The attributes whose reporting is asked for: of bound clusters, or of all where the node shows no table. First those
    of which zigpy has a value, for they were reported or read; `MAX_FOUND` at most."""
    bound = None if bindings is None else {(b.endpoint, b.cluster) for b in bindings}
    found: list[ReportedAttribute] = []
    for endpoint in device.non_zdo_endpoints:
        number = int(endpoint.endpoint_id)
        for cluster_id, cluster in sorted(endpoint.in_clusters.items()):
            if cluster_id != OTA_CLUSTER_ID and (bound is None or (number, int(cluster_id)) in bound):
                found += [ReportedAttribute(number, int(cluster_id), a) for a in _attributes(cluster)[:_PER_CLUSTER]]
    return found[:MAX_FOUND]


async def reporting_of(device: Any, attributes: Iterable[ReportedAttribute]) -> dict[ReportedAttribute, ReportTerms]:
    """What of it is reported. Raises what zigpy does when the node does not answer."""
    said = await read_reporting(device, attributes)
    return {a: terms for a, terms in said.items() if terms is not None and terms.max_s != _NO_REPORTS}


def _attributes(cluster: Any) -> list[int]:
    usual = _USUAL.get(int(cluster.cluster_id), ())
    known: list[int] = []
    for number, definition in cluster.attributes.items():
        if definition.is_manufacturer_specific:
            continue
        if number in usual or zcl.ZCLAttributeAccess.Report in definition.access or cluster.get(number) is not None:
            known.append(int(number))
    return sorted(known, key=lambda number: (cluster.get(number) is None, number not in usual, number))
