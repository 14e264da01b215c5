"""What unicast downlinks cost on the air, by the data rate that a node really uses, and when they may go. PURE.

A class A node is answered in RX1, on the channel and at about the data rate of its uplink, or the lowest that dwell time
allows; a class C node in RX2. Which
gateway answers is the network server's choice, so a downlink is booked for every gateway: it errs to the safe side. Where the
gateway bus tells what each of them sends, that is booked instead.
"""

from collections.abc import Callable, Mapping

from radios.errors import Unsupported
from radios.lorawan.air import RESERVE
from radios.lorawan.airtime import DutyCycleLedger, downlink_airtime
from radios.lorawan.regions import Region

_FIRST_CHANNEL_HZ = {"EU868": 868_100_000}  # where RX1 is in another sub-band than RX2
_RX1_OFFSET = {"US915": 10, "AU915": 8}  # RX1DROffset 0
_RX1_MOST = 13


class UnicastAir:
    """`rx1` and `rx2`: the ledgers of the gateways for the sub-bands of the receive windows, shared with multicast there.

    `plan`: with the sizes that are left to a downlink. `told_elsewhere`: whether what is sent is booked by others, as it is heard.
    """

    def __init__(
        self,
        plan: Region,
        *,
        rx2: Mapping[str, DutyCycleLedger],
        rx1: Mapping[str, DutyCycleLedger] | None = None,
        reserve: float = RESERVE,
        told_elsewhere: Callable[[], bool] = bool,
    ) -> None:
        self._plan = plan
        self._rx1 = {"": DutyCycleLedger(plan.sub_band(rx1_frequency_hz(plan)).duty_cycle)} if rx1 is None else rx1
        self._rx2 = rx2
        self._reserve = reserve
        self._told_elsewhere = told_elsewhere

    def data_rate(self, uplink_dr: int | None, *, always_on: bool) -> int | None:
        """Of a downlink to a node with this last uplink; None: not known, or not LoRa."""
        if always_on:
            return self._plan.rx2_dr
        if uplink_dr is None or uplink_dr not in self._plan.uplinks:
            return None
        offset = _RX1_OFFSET.get(self._plan.name, 0)
        rate = min(uplink_dr + offset, _RX1_MOST) if offset else uplink_dr
        if rate not in self._plan.downlinks:
            return None
        return rate if self.max_payload(rate) else min(dr for dr in self._plan.downlinks if self.max_payload(dr))

    def max_payload(self, data_rate: int) -> int:
        """Largest FRMPayload; 0 when nothing may be sent."""
        try:
            return self._plan.max_payload(data_rate)
        except Unsupported:
            return 0

    def airtime_s(self, data_rate: int, payload_len: int) -> float:
        return downlink_airtime(self._plan.downlink(data_rate).modulation, payload_len)

    def earliest(self, airtime_s: float, now: float, *, always_on: bool) -> float:
        """When so much may be handed to the network server, at or after `now`."""
        whens = [ledger.earliest(now, airtime_s, self._left(ledger, airtime_s)) for ledger in self._ledgers(always_on)]
        return max([now, *whens])

    def book(self, airtime_s: float, now: float, *, always_on: bool) -> None:
        if self._told_elsewhere():
            return
        for ledger in self._ledgers(always_on):
            ledger.add(now, airtime_s)

    def _left(self, ledger: DutyCycleLedger, airtime_s: float) -> float:
        """The reserve, or as much of it as lets so long a batch go at all."""
        return max(0.0, min(self._reserve, 1 - 1.001 * airtime_s / ledger.budget_s))

    def _ledgers(self, always_on: bool) -> list[DutyCycleLedger]:
        return list((self._rx2 if always_on else self._rx1).values())


def rx1_frequency_hz(plan: Region) -> int:
    """A frequency in the sub-band of RX1."""
    return _FIRST_CHANNEL_HZ.get(plan.name, plan.rx2_frequency_hz)
