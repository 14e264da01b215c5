"""What a gateway's refusals mean for the next frame: one is bad luck, several in a row are a gateway that will not send. PURE."""

from radios.lorawan.gateway_bus import TX_DUTY_CYCLE
from radios.lorawan.outgoing import Outgoing
from radios.radio import Fact

_PATIENCE = 2  # refusals one after the other, before fragments wait: each of them costs every node one
_FIRST_S, _MOST_S = 10.0, 600.0
_DUTY_CYCLE_S = 60.0  # its own ledger is fuller than ours


class Refusals:
    """Of one cohort's group."""

    def __init__(self, out: Outgoing) -> None:
        self._out = out
        self._in_a_row = 0

    def told(self, sent: bool, reason: str, now: float) -> float:
        """When the next frame may go; in the past when at once."""
        if sent:
            self._in_a_row = 0
            return 0.0
        self._in_a_row += 1
        over = self._in_a_row - _PATIENCE
        if over == 0:
            for node in self._out.nodes.values():
                if node.in_demand and not node.stalled:
                    node.stalled = True
                    self._out.event(node, Fact.STALLED, now, code="gateway", detail=f"no gateway sends: {reason}")
        least = _DUTY_CYCLE_S if reason == TX_DUTY_CYCLE else 0.0
        pause_s = min(_MOST_S, _FIRST_S * float(2 ** min(over, 10))) if over >= 0 else 0.0
        return now + max(least, pause_s)
