"""When the next multicast frame of one set of gateways may go out. PURE.

Smooth pacing: frames are spread over the hour so that the duty cycle, less a reserve for class A downlinks, is never used
up; the ledgers are asked besides, because others send there too. The same frame leaves every gateway one after another.
"""

from collections.abc import Mapping

from radios.lorawan.airtime import DutyCycleLedger, downlink_airtime
from radios.lorawan.regions import Modulation

RESERVE = 0.1
"""Share of the duty cycle that stays for class A downlinks and answers."""

_CATCH_UP_S = 180.0  # time without frames, as while answers are awaited, that is made up for
_CATCH_UP_TIMES = 2.0  # faster than even, so that uplinks still come through
_GAP_S = 0.1  # between two frames where no duty cycle spaces them


class Turn:
    """One frame at a time: a gateway can send only one, and hears nothing meanwhile. Shared by all that send."""

    def __init__(self) -> None:
        self._free_at = 0.0

    def free_at(self, now: float) -> float:
        """When the next frame may be handed to the network server, at or after `now`."""
        return max(now, self._free_at)

    def take(self, now: float, busy_s: float) -> None:
        self._free_at = now + busy_s


class MulticastAir:
    """Pacing of one cohort. `share`: of what the duty cycle, or the air where there is none, allows."""

    def __init__(
        self,
        ledgers: Mapping[str, DutyCycleLedger],
        modulation: Modulation,
        turn: Turn,
        *,
        share: float,
        gateway_gap_s: float,
    ) -> None:
        self.share = share
        self.used_s = 0.0
        self._ledgers = ledgers
        self._modulation = modulation
        self._turn = turn
        self._gateway_gap_s = gateway_gap_s
        self._next_at = 0.0
        self._due = 0.0  # what would be due at an even pace since the first frame

    def airtime_s(self, payload_len: int) -> float:
        return downlink_airtime(self._modulation, payload_len)

    def spacing_s(self, payload_len: int) -> float:
        """From the start of one frame to the next."""
        airtime = self.airtime_s(payload_len)
        duty = min((ledger.duty_cycle for ledger in self._ledgers.values()), default=1.0)
        smooth = airtime / (duty * (1 - RESERVE if duty < 1 else 1.0) * self.share)
        one_by_one = self._gateway_gap_s * (len(self._ledgers) - 1)
        return max(smooth, airtime + _GAP_S, one_by_one)

    def earliest(self, payload_len: int, now: float) -> float:
        """When a frame may start, at or after `now`."""
        airtime = self.airtime_s(payload_len)
        allowed = [ledger.earliest(now, airtime, RESERVE) for ledger in self._ledgers.values()]
        return max(self._turn.free_at(now), self._next_at, *allowed)

    def book(self, payload_len: int, now: float) -> None:
        """A frame was given to the gateways."""
        airtime = self.airtime_s(payload_len)
        for ledger in self._ledgers.values():
            ledger.add(now, airtime)
        self.used_s += airtime * max(1, len(self._ledgers))
        self._turn.take(now, airtime + _GAP_S)
        spacing = self.spacing_s(payload_len)
        self._due = (max(self._due, now - _CATCH_UP_S) if self._due else now) + spacing
        self._next_at = max(self._due, now + spacing / _CATCH_UP_TIMES)
