"""Nodes that are in the network and not in zigpy's table: one that joined just before a power cut, or was never restored. SHELL.

They are looked for in the neighbour tables of coordinator and routers, once after the start, a question a second; so one that
sleeps or says nothing is found too. One that speaks is asked who it is: by name, not by zigpy's broadcast for each of its
frames, which no sleeping node would hear.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

import zigpy.types as t
import zigpy.zdo.types as zdo

from radios.clock import Clock

LOOK_AFTER_S: Final = 60.0  # interviews and reconciliation go first
LOOK_AGAIN_AFTER_S: Final = 6 * 3600.0  # however often the link comes and goes
ASK_AGAIN_AFTER_S: Final = 30.0
QUESTIONS_MOST: Final = 10  # to different strangers within ASK_AGAIN_AFTER_S

_BETWEEN_QUESTIONS_S: Final = 1.0
_ANSWER_WITHIN_S: Final = 15.0
_PAGES_MOST: Final = 64
_BROADCAST_AND_RESERVED: Final = 0xFFF8  # short addresses from here on are no node's
_NO_EUI64: Final = (bytes(8), b"\xff" * 8)

_LOG = logging.getLogger(__name__)


class MissingNodes:
    """`app` gives zigpy's application while the link is up."""

    def __init__(self, clock: Clock, app: Callable[[], Any]) -> None:
        self._clock = clock
        self._app = app
        self._looked_at = float("-inf")
        self._asked: dict[int, float] = {}
        self.found = 0

    def may_ask(self, nwk: int) -> bool:
        """Whether a sender whose EUI64 is not known is to be asked for it now; the question counts as asked."""
        now = self._clock.now()
        self._asked = {known: at for known, at in self._asked.items() if now - at < ASK_AGAIN_AFTER_S}
        if not 0 < nwk < _BROADCAST_AND_RESERVED or nwk in self._asked or len(self._asked) >= QUESTIONS_MOST:
            return False
        self._asked[nwk] = now
        return True

    async def look(self) -> None:
        """The link came up: go through the neighbour tables, unless that was done lately."""
        now = self._clock.now()
        if now - self._looked_at < LOOK_AGAIN_AFTER_S:
            return
        self._looked_at = now
        await self._clock.sleep_until(now + LOOK_AFTER_S)
        app = self._app()
        if app is None:
            self._looked_at = float("-inf")
            return
        for device in [device for device in app.devices.values() if _has_neighbours(device)]:
            await self._ask(app, device)

    async def _ask(self, app: Any, device: Any) -> None:
        """Go through one table. Who does not answer is left out: others may know the same nodes."""
        seen = 0
        for _ in range(_PAGES_MOST):
            if self._app() is not app:
                return
            try:
                async with app.request_priority(t.PacketPriority.LOW), asyncio.timeout(_ANSWER_WITHIN_S):
                    status, page = await device.zdo.Mgmt_Lqi_req(seen)
            except Exception as error:  # noqa: BLE001  # zigpy and its libraries raise what they like for "no answer"
                _LOG.debug("%s: neighbours not read: %r", device.ieee, error)
                return
            if status != zdo.Status.SUCCESS or page is None:
                return
            for neighbour in page.NeighborTableList:
                self._take(app, device, neighbour)
            seen += len(page.NeighborTableList)
            if not page.NeighborTableList or seen >= page.Entries:
                return
            await self._clock.sleep_until(self._clock.now() + _BETWEEN_QUESTIONS_S)

    def _take(self, app: Any, device: Any, neighbour: Any) -> None:
        left = neighbour.relationship == zdo.Neighbor.Relationship.PreviousChild
        own = neighbour.extended_pan_id == app.state.network_info.extended_pan_id
        if left or not own or neighbour.ieee in app.devices or neighbour.ieee.serialize() in _NO_EUI64:
            return
        if not 0 < neighbour.nwk < _BROADCAST_AND_RESERVED:
            return
        self.found += 1
        _LOG.info("Zigbee: %s is in the network, says %s, and was not known here", neighbour.ieee, device.ieee)
        app.handle_join(nwk=neighbour.nwk, ieee=neighbour.ieee, parent_nwk=device.nwk, handle_rejoin=False)


def _has_neighbours(device: Any) -> bool:
    descriptor = getattr(device, "node_desc", None)
    return descriptor is not None and bool(descriptor.is_router or descriptor.is_coordinator)


async def ask_address(app: Any, nwk: int) -> None:
    """IEEE_addr_req to the node itself; zigpy takes note of the answer. Raises what the library does when it did not arrive."""
    sequence = int(app.get_sequence())
    here, there = (t.AddrModeAddress(addr_mode=t.AddrMode.NWK, address=t.NWK(at)) for at in (0, nwk))
    await app.send_packet(
        t.ZigbeePacket(
            src=here,
            src_ep=0,
            dst=there,
            dst_ep=0,
            tsn=sequence,
            profile_id=0,
            cluster_id=zdo.ZDOCmd.IEEE_addr_req,
            data=t.SerializableBytes(bytes((sequence, *nwk.to_bytes(2, "little"), 0, 0))),
            extended_timeout=True,  # it may sleep
            tx_options=t.TransmitOptions.ACK,
            priority=t.PacketPriority.NORMAL,
        )
    )
