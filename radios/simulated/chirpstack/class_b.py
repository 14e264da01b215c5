"""Ping slots of class B: where in a beacon period an address is served (LoRaWAN 1.0.3, chapter 13)."""

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from radios.simulated.lorawan.node_clock import gps_of_unix

BEACON_PERIOD_S = 128
BEACON_RESERVED_S = 2.12
SLOT_S = 0.03
_SLOTS = 4096


def next_ping_slot(address: int, periodicity: int, after: float) -> float:
    """Start (Unix seconds) of the first ping slot at or after `after`; periodicity 0..7: one every 2^periodicity s."""
    gps = gps_of_unix(after)
    beacon = int(gps // BEACON_PERIOD_S) * BEACON_PERIOD_S
    while True:
        for slot in ping_slots(address, periodicity, beacon):
            start = beacon + BEACON_RESERVED_S + slot * SLOT_S
            if start >= gps:
                return after + (start - gps)
        beacon += BEACON_PERIOD_S


def ping_slots(address: int, periodicity: int, beacon: int) -> range:
    """Numbers of the slots in the period of the beacon at this GPS time."""
    period = 2 ** (5 + periodicity)
    block = (beacon % 2**32).to_bytes(4, "little") + address.to_bytes(4, "little") + bytes(8)
    cipher = Cipher(algorithms.AES(bytes(16)), modes.ECB()).encryptor()  # noqa: S305 - as the specification has it
    drawn = cipher.update(block) + cipher.finalize()
    return range((drawn[0] + drawn[1] * 256) % period, _SLOTS, period)
