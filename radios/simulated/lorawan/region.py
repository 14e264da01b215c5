"""EU868 as the simulation needs it: data rates, payload limits, time on air, RX2, sub-bands and their duty cycle."""

import math
from dataclasses import dataclass

RX1_DELAY_S = 1.0
RX2_DELAY_S = 2.0
RX2_FREQUENCY_HZ = 869_525_000
RX2_DATA_RATE = 0
UPLINK_FREQUENCIES_HZ = (868_100_000, 868_300_000, 868_500_000)
LOWEST_HZ, HIGHEST_HZ = 863_000_000, 870_000_000
_BANDWIDTH_HZ = 125_000
_MAX_FRM_PAYLOAD_BYTES = (51, 51, 51, 115, 242, 242)
_MAX_FRM_PAYLOAD_REPEATER_BYTES = (51, 51, 51, 115, 222, 222)
DATA_RATES = range(6)


@dataclass(frozen=True, slots=True)
class SubBand:
    name: str
    low_hz: int
    high_hz: int
    duty_cycle: float


_SUB_BANDS = (
    SubBand("863-865", 863_000_000, 865_000_000, 0.001),
    SubBand("865-868", 865_000_000, 868_000_000, 0.01),
    SubBand("868.0-868.6", 868_000_000, 868_600_000, 0.01),
    SubBand("868.7-869.2", 868_700_000, 869_200_000, 0.001),
    SubBand("869.4-869.65", 869_400_000, 869_650_000, 0.1),
    SubBand("869.7-870", 869_700_000, 870_000_000, 0.01),
)
_GUARD = SubBand("guard", 0, 0, 0.001)


def spreading_factor(data_rate: int) -> int:
    return 12 - data_rate


def bandwidth_hz(data_rate: int) -> int:
    del data_rate  # EU868 DR0..5 are all 125 kHz
    return _BANDWIDTH_HZ


def max_frm_payload_bytes(data_rate: int, *, repeater: bool = False) -> int:
    return (_MAX_FRM_PAYLOAD_REPEATER_BYTES if repeater else _MAX_FRM_PAYLOAD_BYTES)[data_rate]


def time_on_air_s(phy_bytes: int, data_rate: int, *, crc: bool) -> float:
    """Seconds of a LoRa frame with explicit header and coding rate 4/5; downlinks have no CRC."""
    factor = spreading_factor(data_rate)
    symbol_s = (1 << factor) / bandwidth_hz(data_rate)
    low_rate = 2 if symbol_s > 0.016 else 0
    bits = 8 * phy_bytes - 4 * factor + 28 + (16 if crc else 0)
    symbols = 8 + 4.25 + 8 + max(math.ceil(bits / (4 * (factor - low_rate))) * 5, 0)
    return symbols * symbol_s


def sub_band(frequency_hz: int) -> SubBand:
    for band in _SUB_BANDS:
        if band.low_hz <= frequency_hz < band.high_hz:
            return band
    return _GUARD
