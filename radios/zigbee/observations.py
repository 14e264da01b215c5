"""Observations on their way to the daemon: what is not fetched yet is merged per node, so a slow reader costs no memory."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import fields, replace

from radios.radio import NodeId, NodeObservation


class ObservationFeed:
    """One writer's queue with at most one entry per node; a newer value replaces an older one, None replaces nothing."""

    def __init__(self) -> None:
        self._waiting: dict[NodeId, NodeObservation] = {}
        self._filled = asyncio.Event()

    def put(self, observation: NodeObservation) -> None:
        older = self._waiting.get(observation.node)
        self._waiting[observation.node] = observation if older is None else _merged(older, observation)
        self._filled.set()

    async def __aiter__(self) -> AsyncIterator[NodeObservation]:
        while True:
            await self._filled.wait()
            if not self._waiting:
                self._filled.clear()
                continue
            node = next(iter(self._waiting))
            yield self._waiting.pop(node)


def _merged(older: NodeObservation, newer: NodeObservation) -> NodeObservation:
    said = {f.name: value for f in fields(newer) if (value := getattr(newer, f.name)) is not None}
    return replace(older, **{**said, "alive": older.alive or newer.alive})
