"""Who this gateway is and how it is, when the cloud asks."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from gatewayd.campaign.authority import Authority
from gatewayd.cloud.messages import GatewayIdentity, RadioIdentity, utc
from gatewayd.cloud.outbox import Outbox
from gatewayd.config import Gateway
from gatewayd.health import OK, Troubles
from gatewayd.nodes.inventory import Inventory


@dataclass(frozen=True, slots=True)
class Identity:
    """Called for each answer; made when the daemon starts."""

    gateway: Gateway
    version: str
    kinds: tuple[str, ...]  # of the radios that are configured
    authority: Authority
    inventory: Inventory
    outbox: Outbox
    troubles: Callable[[], Troubles]
    started: float = field(default_factory=time.monotonic)

    def __call__(self) -> GatewayIdentity:
        troubles = self.troubles()
        view = self.authority.view
        nodes = [node.radio for node in self.inventory.all()]
        return GatewayIdentity(
            gateway=self.gateway.id,
            version=self.version,
            uptime_s=round(time.monotonic() - self.started, 1),
            epoch=self.outbox.epoch,
            reports_waiting=self.outbox.depth.reports,
            fleets=tuple(self.gateway.fleets),
            region=self.gateway.region,
            timezone=self.gateway.timezone,
            radios={kind: RadioIdentity(up=troubles[kind][0] == OK, nodes=nodes.count(kind)) for kind in self.kinds},
            health={part: code for part, (code, _) in troubles.items()},
            trust_root=view.root_version if view else None,
            trust_expires=utc(view.expires) if view else None,
        )
