"""Class B ping slots: when a group or a device listens within a beacon period. Times are GPS seconds; no drift, no lost beacon."""

from radios.simulated.lorawan.crypto import aes_encrypt

BEACON_PERIOD_S = 128
_BEACON_RESERVED_S = 2.12
_SLOT_S = 0.03
_SLOTS = 4096  # of a beacon period


def beacon_start(gps_s: float) -> int:
    return int(gps_s) // BEACON_PERIOD_S * BEACON_PERIOD_S


def next_ping_slot(after_gps_s: float, dev_addr: int, periodicity: int) -> float:
    """Start of the first slot after this moment; there is one about every 2^`periodicity` s."""
    beacon = beacon_start(after_gps_s)
    while True:
        found = [slot for slot in _slots(beacon, dev_addr, periodicity) if slot > after_gps_s]
        if found:
            return found[0]
        beacon += BEACON_PERIOD_S


def is_ping_slot(gps_s: float, dev_addr: int, periodicity: int, tolerance_s: float = 0.005) -> bool:
    """Whether a frame that starts now starts with a slot."""
    return abs(next_ping_slot(gps_s - tolerance_s, dev_addr, periodicity) - gps_s) <= tolerance_s


def _slots(beacon: int, dev_addr: int, periodicity: int) -> list[float]:
    count = 1 << (7 - periodicity)
    period = _SLOTS // count
    seed = (beacon % 2**32).to_bytes(4, "little") + dev_addr.to_bytes(4, "little") + bytes(8)
    offset = int.from_bytes(aes_encrypt(bytes(16), seed)[:2], "little") % period
    return [beacon + _BEACON_RESERVED_S + (offset + n * period) * _SLOT_S for n in range(count)]
