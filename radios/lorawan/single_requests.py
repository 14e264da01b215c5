"""Requests to single nodes outside of sessions, into their queues: once each, whoever asks at the same time. SHELL."""

import asyncio
import logging
from collections.abc import Callable
from weakref import WeakValueDictionary

from radios.clock import Clock
from radios.errors import LinkError, Unsupported
from radios.lorawan.messages import Unicast, waits
from radios.lorawan.network_server import NetworkServer
from radios.lorawan.single_air import SingleAir

_log = logging.getLogger(__name__)


class SingleRequests:
    """`booked()` is told that air was used."""

    def __init__(self, network: NetworkServer, single: SingleAir, clock: Clock, booked: Callable[[], None]) -> None:
        self._network = network
        self._single = single
        self._clock = clock
        self._booked = booked
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # while somebody sends

    async def send(self, action: Unicast) -> bool:
        """Whether it is in the node's queue: since now, or since before. One at a time looks into a node's queue and adds."""
        dev_eui, size = action.dev_eui, len(action.data)
        if reason := self._single.oversize(dev_eui, size):
            _log.info("lorawan:%s %s: %s", dev_eui, action.name, reason)
            return False
        lock = self._locks.setdefault(dev_eui, asyncio.Lock())
        try:
            async with lock:
                queued = await self._network.queued(dev_eui)
                if waits(action, queued, self._clock.now()):
                    return True  # since before a restart, or it went down with no uplink yet
                await self._network.enqueue(dev_eui, action.port, action.data, action.expires)
        except (LinkError, Unsupported) as error:
            _log.info("lorawan:%s %s: %s", dev_eui, action.name, error)
            return False
        self._single.book(dev_eui, size, self._clock.now())
        self._booked()
        return True
