"""Which daemon a device belongs to, where several are beside one network server. SHELL around the network server's tags.

Tags are read afresh before a device is set up, because the inventory's may be as old as its last poll. A device without an
owner is claimed: its tag is written, and only if it still says the same after a while, in which every other daemon's
writing has come to an end, the device is ours. The last one to write wins, for all of them.
"""

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace

from radios.errors import LinkError, Unsupported
from radios.lorawan.inventory import Node
from radios.lorawan.network_server import NetworkServer
from radios.lorawan.settings import LorawanSettings

_log = logging.getLogger(__name__)


class Owners:
    def __init__(self, settings: LorawanSettings, network: NetworkServer) -> None:
        self._settings = settings
        self._network = network
        self._claimed_at: dict[str, float] = {}
        self._again_at: dict[str, float] = {}  # after the network server did not take a claim

    async def may_ask(self, node: Node, gateways: Collection[str], now: float) -> bool:
        """Whether the node may be asked what it is: another daemon's must not pay for our questions.

        One that nobody owns is claimed first, unless it is in another region, or only gateways hear it that are not among
        `gateways`, ours.
        """
        if self._settings.owns(node.device.tags):
            return True
        heard_by = node.known.snr_db.keys()
        elsewhere = node.device.region != self._settings.region or (heard_by and heard_by.isdisjoint(gateways))
        if elsewhere or now < self._again_at.get(node.device.dev_eui, now):
            return False
        return await self.ours(node, now)

    async def ours(self, node: Node, now: float) -> bool:
        """Whether it may be set up now; asked again and again. A device that a person gave to this daemon is known at once."""
        settings, dev_eui = self._settings, node.device.dev_eui
        if not settings.owner:
            return True
        if not settings.may_set_up(node.device.tags):
            self._claimed_at.pop(dev_eui, None)
            return False
        claimed_at = self._claimed_at.get(dev_eui)
        if claimed_at is not None and now < claimed_at + settings.claim_settle_s:
            return False
        try:
            tags = await self._fresh(node)
            self._claimed_at.pop(dev_eui, None)
            if settings.owner_tag in tags:
                return tags[settings.owner_tag] == settings.owner
            if settings.may_set_up(tags):
                await self._network.set_tag(dev_eui, settings.owner_tag, settings.owner)
                self._claimed_at[dev_eui] = now
        except (LinkError, Unsupported) as error:
            _log.warning("lorawan:%s cannot be claimed: %s", dev_eui, error)
            self._again_at[dev_eui] = now + settings.session.retry_s
        return False

    async def _fresh(self, node: Node) -> Mapping[str, str]:
        tags = await self._network.tags(node.device.dev_eui)
        node.device = replace(node.device, tags=tags)
        return tags
