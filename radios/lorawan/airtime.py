"""Time on air of LoRa frames, and the ledger of what a gateway has sent in a sub-band during the last hour.

When to send, and how much to leave to others, is decided by the caller: here is only whether it is allowed. All times are
Unix seconds given by the caller, all airtimes seconds.
"""

import struct
from math import ceil
from typing import Final, Self

from radios.errors import Unsupported
from radios.lorawan.regions import Modulation

PHY_OVERHEAD: Final = 13
"""Bytes around the FRMPayload of a data frame without FOpts: MHDR, FHDR, FPort, MIC."""
WINDOW_S: Final = 3600.0
"""A duty cycle is judged over any hour."""
BUCKET_S: Final = 10.0
"""Transmissions that begin within this are one entry, which leaves the window with the last of them."""

_SYMBOL_OF_LOW_DATA_RATE_S = 0.016
_RECORD = struct.Struct("<BdH")
_ENTRY = struct.Struct("<II")
_RECORD_VERSION = 1
_AHEAD_S = 60.0


def time_on_air(spreading_factor: int, bandwidth_hz: int, phy_len: int, crc: bool = False) -> float:
    """Seconds that a frame of `phy_len` bytes takes: explicit header, coding rate 4/5, preamble of 8; crc on uplinks only.

    ValueError for values that LoRa has not.
    """
    if not 5 <= spreading_factor <= 12:
        raise ValueError(f"spreading_factor must be 5..12, not {spreading_factor}")
    if bandwidth_hz <= 0:
        raise ValueError(f"bandwidth_hz must be positive, not {bandwidth_hz}")
    if not 0 <= phy_len <= 255:
        raise ValueError(f"phy_len must be 0..255, not {phy_len}")
    symbol_s = 2**spreading_factor / bandwidth_hz
    bits_per_symbol = spreading_factor - (2 if symbol_s > _SYMBOL_OF_LOW_DATA_RATE_S else 0)
    bits = 8 * phy_len - 4 * spreading_factor + 28 + (16 if crc else 0)
    symbols = 8 + 4.25 + 8 + max(ceil(bits / (4 * bits_per_symbol)) * 5, 0)
    return float(symbols * symbol_s)


def downlink_airtime(modulation: Modulation, frm_payload_len: int) -> float:
    """Seconds on air of an unconfirmed data downlink without FOpts."""
    return time_on_air(modulation.spreading_factor, modulation.bandwidth_hz, PHY_OVERHEAD + frm_payload_len)


def uplink_airtime(modulation: Modulation, frm_payload_len: int) -> float:
    """Seconds on air of a data uplink without FOpts."""
    return time_on_air(modulation.spreading_factor, modulation.bandwidth_hz, PHY_OVERHEAD + frm_payload_len, crc=True)


class DutyCycleLedger:
    """What one gateway has sent in one sub-band: FUOTA and everything else that is known.

    Never too generous: a transmission counts in full until an hour after the end of its entry's last one.
    """

    __slots__ = ("_entries", "duty_cycle")

    def __init__(self, duty_cycle: float) -> None:
        if not 0 < duty_cycle <= 1:
            raise ValueError(f"duty_cycle must be above 0 and at most 1, not {duty_cycle}")
        self.duty_cycle = duty_cycle
        self._entries: list[tuple[float, float, float]] = []  # begin, end, airtime; ordered by end

    @property
    def budget_s(self) -> float:
        """Airtime allowed in any hour."""
        return self.duty_cycle * WINDOW_S

    def used(self, now: float) -> float:
        """Airtime that counts at `now`."""
        return sum(airtime for end, airtime in self.counting(now))

    def earliest(self, now: float, airtime: float, reserve: float = 0.0) -> float:
        """When a transmission may begin, at or after `now`, leaving the share `reserve` of the budget to others.

        Unsupported when it is longer than all that is left after the reserve.
        """
        if not 0 <= reserve < 1:
            raise ValueError(f"reserve must be at least 0 and below 1, not {reserve}")
        budget = self.budget_s * (1 - reserve)
        if airtime > budget:
            raise Unsupported(f"a transmission of {airtime:.3f} s never fits into {budget:.3f} s an hour")
        counting = self.counting(now)
        over = sum(used for _, used in counting) + airtime - budget
        when = now
        for end, used in counting:
            if over <= 0:
                break
            over -= used
            when = end + WINDOW_S
        return when

    def add(self, now: float, airtime: float) -> None:
        """A transmission that begins at `now`, allowed or not."""
        if airtime < 0:
            raise ValueError(f"airtime must not be negative: {airtime}")
        kept = [entry for entry in self._entries if entry[1] + WINDOW_S > now]
        # A clock that was set back must not block the air for as long as it was ahead.
        kept = [
            (min(begin, now), min(end, now), used) if end > now + _AHEAD_S else (begin, end, used)
            for begin, end, used in kept
        ]
        if kept and now - kept[-1][0] < BUCKET_S:
            begin, end, used = kept.pop()
            kept.append((begin, max(end, now + airtime), used + airtime))
        else:
            kept.append((now, now + airtime, airtime))
        self._entries = kept

    def found_at(self, now: float) -> None:
        """Read again from the journal: what another clock dated later than now was sent by now, so it counts for an hour."""
        self._entries = [
            (now, now, used) if end > now + _AHEAD_S else (begin, end, used) for begin, end, used in self._entries
        ]

    def give_back(self, airtime: float) -> None:
        """So much that was added is known not to have been sent; taken off what was added last."""
        left = airtime
        for index in range(len(self._entries) - 1, -1, -1):
            begin, end, used = self._entries[index]
            taken = min(left, used)
            self._entries[index] = begin, end, used - taken
            left -= taken
            if left <= 0:
                return

    @property
    def empty(self) -> bool:
        return not self._entries

    def to_bytes(self) -> bytes:
        """A record for the journal, about 3 kB at most; rounded so that it never allows more."""
        if not self._entries:
            return _RECORD.pack(_RECORD_VERSION, 0.0, 0)
        base = min(begin for begin, _, _ in self._entries)
        packed = (
            _ENTRY.pack(ceil((end - base) * 1e3), min(ceil(airtime * 1e6), 0xFFFFFFFF))
            for _, end, airtime in self._entries
        )
        return _RECORD.pack(_RECORD_VERSION, base, len(self._entries)) + b"".join(packed)

    @classmethod
    def from_bytes(cls, data: bytes, duty_cycle: float) -> Self:
        """The ledger of a record; the duty cycle is the region's of today. ValueError when it is no such record."""
        if len(data) < _RECORD.size:
            raise ValueError(f"a duty cycle record must be at least {_RECORD.size} bytes, not {len(data)}")
        version, base, count = _RECORD.unpack_from(data)
        if version != _RECORD_VERSION:
            raise ValueError(f"a duty cycle record of version {version} is not known")
        if len(data) != _RECORD.size + count * _ENTRY.size:
            raise ValueError(f"a duty cycle record of {count} entries is not {len(data)} bytes")
        ledger = cls(duty_cycle)
        for end_ms, airtime_us in _ENTRY.iter_unpack(data[_RECORD.size :]):
            end = base + end_ms / 1e3
            ledger._entries.append((end, end, airtime_us / 1e6))
        ledger._entries.sort(key=lambda entry: entry[1])
        return ledger

    def counting(self, now: float) -> list[tuple[float, float]]:
        """(end, airtime) of what is in the window, oldest first; an end from a clock since set back is taken as now."""
        return sorted(
            (now if end > now + _AHEAD_S else end, airtime) for _, end, airtime in self._entries if end + WINDOW_S > now
        )
