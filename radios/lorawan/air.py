"""When the next multicast frame of one set of gateways may go out. PURE.

Smooth pacing: frames are spread over the hour so that the duty cycle, less a reserve for class A downlinks, is never used
up; where it is known how many there will be, what does not fill an hour goes early, only as fast as the end needs. Burst pacing: as fast as uplinks still come through, until only the reserve of the hour is left. The ledgers are asked
besides, because others send there too. The same frame leaves every gateway one after another.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil

from radios.lorawan.airtime import WINDOW_S, DutyCycleLedger, downlink_airtime
from radios.lorawan.pacing import earliest_end, share_for
from radios.lorawan.regions import Modulation
from radios.quiet_hours import QuietHours

RESERVE = 0.1
"""Share of the duty cycle that stays for class A downlinks and answers."""

_CATCH_UP_S = 180.0  # time without frames, as while answers are awaited, that is made up for
_CATCH_UP_TIMES = 2.0  # faster than even, so that uplinks still come through
_GAP_S = 0.1  # between two frames where no duty cycle spaces them
_BURST_ON_AIR = 0.5  # of the time: a gateway that sends hears no uplink, and answers are needed
_LATER = 1.02  # than the earliest end: what smooth pacing takes the more, so that it need not hurry
_WANTED_S = 2.0  # so long a request that was told to wait may take to come back


class Turn:
    """One frame at a time: a gateway can send only one, and hears nothing meanwhile. Shared by all that send."""

    def __init__(self) -> None:
        self._free_at = 0.0
        self._wanted_until = 0.0

    def free_at(self, now: float) -> float:
        """When the next frame may be handed to the network server, at or after `now`."""
        return max(now, self._free_at)

    def request_at(self, now: float) -> float:
        """The same for a request to one node, which goes before fragments: they wait until it was sent."""
        free_at = self.free_at(now)
        if free_at > now:
            self._wanted_until = free_at + _WANTED_S
        return free_at

    def fragment_at(self, now: float) -> float:
        """The same for a frame that gives way to requests."""
        return max(self.free_at(now), self._wanted_until)

    def take(self, now: float, busy_s: float) -> None:
        self._free_at = now + busy_s
        self._wanted_until = 0.0


@dataclass(frozen=True, slots=True)
class AirLimits:
    """What the operator leaves to multicasts of the air that a duty cycle, or a region without one, allows."""

    air_share: float = 1.0
    reserve: float = RESERVE
    burst: bool = False  # True: as fast as the budget of the hour lasts; False: evenly over it
    quiet_hours: QuietHours | None = None

    def __post_init__(self) -> None:
        if not 0 < self.air_share <= 1 or not 0 <= self.reserve < 1:
            raise ValueError("air_share must be above 0 and at most 1, reserve at least 0 and below 1")


_NO_LIMITS = AirLimits()


def _midnight(_now: float) -> int:
    return 0


class MulticastAir:
    """Pacing of one cohort. `share`: the order's, of what the duty cycle, or the air where there is none, allows.

    `least_spacing_s`: between two frames of a queue that is looked at only so often. `minute_of_day` turns a time into the site's own minutes since midnight, for quiet hours.
    """

    def __init__(
        self,
        ledgers: Mapping[str, DutyCycleLedger],
        modulation: Modulation,
        turn: Turn,
        *,
        share: float,
        gateway_gap_s: float,
        limits: AirLimits = _NO_LIMITS,
        least_spacing_s: float = 0.0,
        minute_of_day: Callable[[float], int] = _midnight,
    ) -> None:
        self.share = share
        self.used_s = 0.0
        self._ledgers = ledgers
        self._modulation = modulation
        self._turn = turn
        self._gateway_gap_s = gateway_gap_s
        self._limits = limits
        self._minute_of_day = minute_of_day
        self._quiet = False
        self._next_at = 0.0
        self._due = 0.0  # what would be due at an even pace since the first frame
        self._begun: float | None = None
        self._done_s = 0.0  # on air, at one gateway
        self._least_s = least_spacing_s
        self._left_s: float | None = None  # to be sent yet, as far as is known
        self._looked_at = 0.0

    def airtime_s(self, payload_len: int) -> float:
        return downlink_airtime(self._modulation, payload_len)

    def spacing_s(self, payload_len: int) -> float:
        """From the start of one frame to the next, while the budget lasts."""
        airtime, least = self.airtime_s(payload_len), self._closest_s(payload_len)
        if self._limits.burst:
            return max(least, airtime / _BURST_ON_AIR)
        return max(least, airtime / self._smooth())

    def duration_s(self, frames: int, payload_len: int) -> float:
        """About how long so many frames take; at the worst an hour more, when the budget was used before."""
        airtime = frames * self.airtime_s(payload_len)
        budget = self._sustained() * WINDOW_S
        if not self._limits.burst:
            hours, rest = divmod(airtime, budget)
            early_s = _LATER * hours * WINDOW_S + rest / self._most()
            return max(frames * self._closest_s(payload_len), min(airtime / self._sustained(), early_s))
        even = frames * self.spacing_s(payload_len)
        if airtime <= budget:
            return even
        hours = ceil(airtime / budget) - 1
        return max(even, hours * WINDOW_S + (airtime - hours * budget) / _BURST_ON_AIR)

    def expect(self, frames: int, payload_len: int) -> None:
        """About so many frames are still to come."""
        self._left_s = frames * self.airtime_s(payload_len)

    def earliest(self, payload_len: int, now: float) -> float:
        """When a frame may start, at or after `now`."""
        self._look(now)
        airtime = self.airtime_s(payload_len)
        allowed = [ledger.earliest(now, airtime, self._reserve(ledger, airtime)) for ledger in self._ledgers.values()]
        return max(self._turn.fragment_at(now), self._next_at, *allowed)

    def book(self, payload_len: int, now: float) -> None:
        """A frame was given to the gateways."""
        self._look(now)
        airtime = self.airtime_s(payload_len)
        for ledger in self._ledgers.values():
            ledger.add(now, airtime)
        self.used_s += airtime * max(1, len(self._ledgers))
        self._turn.take(now, airtime + _GAP_S)
        self._begun = now if self._begun is None else self._begun
        self._done_s += airtime
        if self._left_s is not None:
            self._left_s = max(airtime, self._left_s - airtime)
        spacing = self.spacing_s(payload_len)
        if self._limits.burst:
            self._next_at = now + spacing
            return
        self._due = (max(self._due, now - _CATCH_UP_S) if self._due else now) + spacing
        self._next_at = max(self._due, now + max(spacing / _CATCH_UP_TIMES, airtime / self._most()))

    def _closest_s(self, payload_len: int) -> float:
        """Between two frames, whatever the duty cycle allows."""
        one_by_one = self._gateway_gap_s * (len(self._ledgers) - 1)
        return max(self.airtime_s(payload_len) + _GAP_S, one_by_one, self._least_s)

    def _look(self, now: float) -> None:
        self._looked_at = now
        quiet = self._limits.quiet_hours
        self._quiet = quiet is not None and quiet.cover(self._minute_of_day(now))

    def _share(self) -> float:
        quiet = self._limits.quiet_hours
        most = min(self.share, self._limits.air_share)
        return min(most, quiet.air_share) if quiet is not None and self._quiet else most

    def _sustained(self) -> float:
        """Share of the time that frames may take, over hours."""
        duty = min((ledger.duty_cycle for ledger in self._ledgers.values()), default=1.0)
        return duty * (1 - self._limits.reserve if duty < 1 else 1.0) * self._share()

    def _most(self) -> float:
        """Share of the time on air that still lets answers through, unless the operator wants it otherwise."""
        return max(_BURST_ON_AIR, self._sustained())

    def _smooth(self) -> float:
        """Share of the time on air, now."""
        even, now = self._sustained(), self._looked_at
        if self._left_s is None or self._begun is None:
            return even
        budget = even * WINDOW_S
        planned_s = _LATER * earliest_end(0.0, self._done_s + self._left_s, budget)
        possible_s = max(
            (earliest_end(now, self._left_s, budget, ledger.counting(now)) - now for ledger in self._ledgers.values()),
            default=self._left_s,
        )
        left_s = max(self._begun + planned_s - now, possible_s)
        return min(self._most(), share_for(self._left_s, left_s, budget))

    def _reserve(self, ledger: DutyCycleLedger, airtime: float) -> float:
        """Share of the hour's budget that is left alone; never so much that no frame would ever fit."""
        keep = self._limits.reserve
        if self._limits.burst:
            keep = 1 - (1 - keep if ledger.duty_cycle < 1 else 1.0) * self._share()
        return max(0.0, min(keep, 1 - 1.001 * airtime / ledger.budget_s))
