"""What the radios have been told by this process: orders and directives, each once. SHELL.

Whatever a radio refused, and everything after a restart, is told again; both are idempotent there. Not responsible for what
is wanted of a node (`planner.py`): it is stored before it comes here.
"""

from collections.abc import Callable, Mapping

import structlog

from gatewayd.campaign.authority import Authority
from gatewayd.campaign.node_update import NodeUpdate
from gatewayd.campaign.payloads import order_for, payload_of
from gatewayd.campaign.planner import wishes
from gatewayd.campaign.supply import Supply
from gatewayd.cloud.messages import Campaign, Payload, utc
from gatewayd.trust.release import VerifiedRelease
from radios.errors import RadioError
from radios.radio import NodeDirective, NodeId, Radio, TransferOrder, Want, radio_of

log = structlog.get_logger()


class Orders:
    """`radio` by kind; None: this gateway has no such radio."""

    def __init__(self, authority: Authority, supply: Supply, radio: Callable[[str], Radio | None]) -> None:
        self._authority = authority
        self._supply = supply
        self._radio = radio
        self._orders: dict[tuple[str, str], TransferOrder] = {}  # by transfer and radio
        self._directed: dict[tuple[str, str], int] = {}

    async def give(
        self, document: Campaign, release: VerifiedRelease | None, updates: Mapping[str, NodeUpdate]
    ) -> None:
        """Order and direct, where the radios have not heard it from this process. Without a release only hold and drop."""
        ready: set[str] = set()
        for transfer, kind in sorted({(u.transfer, radio_of(u.node)) for u in wishes(updates)}):
            payload = None if release is None else payload_of(transfer, release)
            # Begun with another payload, or with one that is not verified in this process: not a byte on air.
            if release is None or payload is None or not self._authority.believes(document, release):
                continue  # newer metadata came while the decision was stored
            if self._supply.blocked(release, payload) is None:
                await self._order(document, release, payload, transfer, kind)
                ready.add(transfer)
        # A node past recall has its image.
        await self._tell({n: u for n, u in updates.items() if u.transfer in ready or not u.needs_payload})

    async def hold_and_drop(self, updates: Mapping[str, NodeUpdate]) -> None:
        """Direct those alone for whom nothing has to be believed."""
        await self._tell({n: u for n, u in updates.items() if not u.needs_payload})

    async def _order(
        self, document: Campaign, release: VerifiedRelease, payload: Payload, transfer: str, kind: str
    ) -> None:
        order, radio = order_for(document, release, payload, transfer), self._radio(kind)
        if radio is None or self._orders.get((transfer, kind)) == order:
            return
        try:
            await radio.put(order)
        except RadioError as error:
            log.error("order_refused", transfer=transfer, radio=kind, error=str(error))
            return
        self._orders[transfer, kind] = order

    async def _tell(self, updates: Mapping[str, NodeUpdate]) -> None:
        untold: dict[str, list[NodeUpdate]] = {}  # by kind of radio
        for update in wishes(updates):
            if self._directed.get((update.transfer, update.node)) != update.generation:
                untold.setdefault(radio_of(update.node), []).append(update)
        for kind, wished in untold.items():
            if (radio := self._radio(kind)) is None:
                continue
            directives = [_directive(update) for update in wished]
            try:
                await radio.direct(directives)
            except RadioError as error:
                log.error("directives_refused", radio=kind, error=str(error))
                continue
            for directive in directives:
                self._directed[directive.transfer, directive.node] = directive.generation


def _directive(update: NodeUpdate) -> NodeDirective:
    install_at = utc(update.install_at) if update.install_at else None
    return NodeDirective(update.transfer, NodeId(update.node), update.generation, Want(update.want), install_at)
