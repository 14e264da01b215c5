"""What unicast downlinks cost on the air, by the data rate that a node really uses, and when they may go. PURE.

A class A node is answered in RX1, on the channel and at about the data rate of its uplink; a class C node in RX2. Which
gateway answers is the network server's choice, so one ledger stands for all gateways: it errs to the safe side.
"""

from collections.abc import Mapping

from radios.errors import Unsupported
from radios.lorawan.air import RESERVE
from radios.lorawan.airtime import DutyCycleLedger, downlink_airtime
from radios.lorawan.regions import Region

_FIRST_CHANNEL_HZ = {"EU868": 868_100_000}  # where RX1 is in another sub-band than RX2
_RX1_OFFSET = {"US915": 10, "AU915": 8}  # RX1DROffset 0
_RX1_MOST = 13


class UnicastAir:
    """`rx2`: the ledgers of the gateways for the sub-band of RX2, shared with multicast there."""

    def __init__(self, plan: Region, *, repeater: bool, rx2: Mapping[str, DutyCycleLedger]) -> None:
        self._plan = plan
        self._repeater = repeater
        first_hz = _FIRST_CHANNEL_HZ.get(plan.name, plan.rx2_frequency_hz)
        self._rx1 = DutyCycleLedger(plan.sub_band(first_hz).duty_cycle)
        self._rx2 = rx2

    def data_rate(self, uplink_dr: int | None, *, always_on: bool) -> int | None:
        """Of a downlink to a node with this last uplink; None: not known, or not LoRa."""
        if always_on:
            return self._plan.rx2_dr
        if uplink_dr is None or uplink_dr not in self._plan.uplinks:
            return None
        offset = _RX1_OFFSET.get(self._plan.name, 0)
        rate = min(uplink_dr + offset, _RX1_MOST) if offset else uplink_dr
        return rate if rate in self._plan.downlinks else None

    def max_payload(self, data_rate: int) -> int:
        """Largest FRMPayload; 0 when nothing may be sent."""
        try:
            return self._plan.max_payload(data_rate, repeater=self._repeater)
        except Unsupported:
            return 0

    def airtime_s(self, data_rate: int, payload_len: int) -> float:
        return downlink_airtime(self._plan.downlink(data_rate).modulation, payload_len)

    def earliest(self, airtime_s: float, now: float, *, always_on: bool) -> float:
        """When so much may be handed to the network server, at or after `now`."""
        return max([now, *(ledger.earliest(now, airtime_s, RESERVE) for ledger in self._ledgers(always_on))])

    def book(self, airtime_s: float, now: float, *, always_on: bool) -> None:
        for ledger in self._ledgers(always_on):
            ledger.add(now, airtime_s)

    def _ledgers(self, always_on: bool) -> list[DutyCycleLedger]:
        return list(self._rx2.values()) if always_on else [self._rx1]
