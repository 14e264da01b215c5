"""What the daemon wants of which node, and what of that is over. PURE."""

from radios.radio import Fact, NodeDirective, TransferEvent, TransferOrder, Want


class Directives:
    """Orders by transfer; directives by DevEUI, one at a time for each node."""

    def __init__(self) -> None:
        self.orders: dict[str, TransferOrder] = {}
        self.of: dict[str, NodeDirective] = {}
        self._ended: dict[str, tuple[str, int]] = {}  # DevEUI -> transfer and generation that is over
        self._held_back: set[tuple[str, str]] = set()  # DevEUI and transfer, of which it was told that it came too late

    def take(self, dev_eui: str, directive: NodeDirective) -> bool:
        """False when one as new is known."""
        before = self.of.get(dev_eui)
        if before is not None and before.transfer == directive.transfer and directive.generation <= before.generation:
            return False
        self.of[dev_eui] = directive
        return True

    def is_over(self, dev_eui: str, directive: NodeDirective) -> bool:
        return self._ended.get(dev_eui) == (directive.transfer, directive.generation)

    def end(self, dev_eui: str, directive: NodeDirective) -> None:
        self._ended[dev_eui] = (directive.transfer, directive.generation)

    def hold_back(self, dev_eui: str, transfer: str) -> bool:
        """That it came too late; False when that was told before."""
        if (dev_eui, transfer) in self._held_back:
            return False
        self._held_back.add((dev_eui, transfer))
        return True

    def dropping(self, dev_eui: str, transfer: str) -> bool:
        """Whether the node is wanted no more in this transfer."""
        directive = self.of.get(dev_eui)
        return directive is None or directive.transfer != transfer or directive.want is Want.DROP


def event(
    directive: NodeDirective, fact: Fact, now: float, code: str = "", detail: str = "", version: int | None = None
) -> TransferEvent:
    return TransferEvent(
        directive.transfer, directive.node, directive.generation, fact, now, version=version, code=code, detail=detail
    )
