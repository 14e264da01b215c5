"""Regional parameters: data rates, downlink sizes, RX2 defaults, and sub-bands with their duty cycle.

Sizes are the largest FRMPayload of a downlink without FOpts, of the regional parameters that ChirpStack calls latest.
What a gateway really may send can differ by country: `Region` is data, and a configuration may replace parts of it. LoRa
only: FSK and LR-FHSS data rates are left out. What is used of a duty cycle is in `radios.lorawan.airtime`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from radios.errors import Unsupported

NO_LIMIT = 1.0
"""Duty cycle of a band without one."""


@dataclass(frozen=True, slots=True)
class Modulation:
    """LoRa modulation of a data rate."""

    spreading_factor: int
    bandwidth_hz: int


@dataclass(frozen=True, slots=True)
class DownlinkRate:
    """A data rate that downlinks may use, with its largest FRMPayload in bytes; 0: nothing may be sent."""

    modulation: Modulation
    max_payload: int
    max_payload_repeater: int
    max_payload_dwell: int  # with the 400 ms downlink dwell time on; equal to max_payload where there is none


@dataclass(frozen=True, slots=True)
class SubBand:
    """A frequency range [low, high) whose transmissions share one duty cycle."""

    name: str
    low_hz: int
    high_hz: int
    duty_cycle: float  # share of any 3600 s that one gateway may send; NO_LIMIT: all of it


@dataclass(frozen=True, slots=True)
class Region:
    """A channel plan, named as in ChirpStack."""

    name: str
    downlinks: Mapping[int, DownlinkRate]
    uplinks: Mapping[int, Modulation]
    rx2_frequency_hz: int
    rx2_dr: int
    sub_bands: tuple[SubBand, ...]

    def downlink(self, dr: int) -> DownlinkRate:
        """Unsupported when no LoRa downlink can use the data rate."""
        try:
            return self.downlinks[dr]
        except KeyError:
            raise Unsupported(
                f"{self.name} has no LoRa downlink data rate {dr}, only {sorted(self.downlinks)}"
            ) from None

    def uplink(self, dr: int) -> Modulation:
        """Unsupported when no LoRa uplink can use the data rate."""
        try:
            return self.uplinks[dr]
        except KeyError:
            raise Unsupported(f"{self.name} has no LoRa uplink data rate {dr}, only {sorted(self.uplinks)}") from None

    def max_payload(self, dr: int, *, repeater: bool = False, dwell_time: bool = False) -> int:
        """Largest FRMPayload in bytes of a downlink; 0 where dwell time forbids the data rate."""
        rate = self.downlink(dr)
        most = rate.max_payload_repeater if repeater else rate.max_payload
        return min(most, rate.max_payload_dwell) if dwell_time else most

    def held_to(self, *, repeater: bool, dwell_time: bool) -> "Region":
        """The same plan with no more room in a downlink than is left, so that nobody has to be told of it again."""
        return replace(
            self,
            downlinks=MappingProxyType(
                {
                    dr: replace(rate, max_payload=most, max_payload_repeater=most, max_payload_dwell=most)
                    for dr, rate in self.downlinks.items()
                    for most in (self.max_payload(dr, repeater=repeater, dwell_time=dwell_time),)
                }
            ),
        )

    def sub_band(self, frequency_hz: int) -> SubBand:
        """The sub-band of a frequency; Unsupported when gateways may not send there."""
        for band in self.sub_bands:
            if band.low_hz <= frequency_hz < band.high_hz:
                return band
        raise Unsupported(f"{self.name} has no sub-band at {frequency_hz} Hz")


def region(name: str) -> Region:
    """The region of that name, as ChirpStack spells it (EU868, AS923_2, ...); Unsupported when it is not known here."""
    try:
        return REGIONS[name.upper().replace("-", "_")]
    except KeyError:
        raise Unsupported(f"region {name!r} is not known, only {', '.join(REGIONS)}") from None


def _rates(
    modulations: Mapping[int, tuple[int, int]],
    plain: tuple[int, ...],
    repeater: tuple[int, ...],
    dwell: tuple[int, ...],
) -> Mapping[int, DownlinkRate]:
    rows = zip(modulations.items(), plain, repeater, dwell, strict=True)
    return MappingProxyType({dr: DownlinkRate(Modulation(*m), p, r, d) for (dr, m), p, r, d in rows})


def _uplinks(modulations: Mapping[int, tuple[int, int]]) -> Mapping[int, Modulation]:
    return MappingProxyType({dr: Modulation(*m) for dr, m in modulations.items()})


_SF12_TO_SF7 = {dr: (12 - dr, 125_000) for dr in range(6)}
_SF12_TO_SF7_250 = {**_SF12_TO_SF7, 6: (7, 250_000)}
_AMERICAN_DOWN = {dr: (20 - dr, 500_000) for dr in range(8, 14)}

_EU868_SIZES = (51, 51, 51, 115, 242, 242, 242)
_EU868_SIZES_REPEATER = (51, 51, 51, 115, 222, 222, 222)
_AMERICAN_SIZES = (53, 129, 242, 242, 242, 242)
_AMERICAN_SIZES_REPEATER = (33, 109, 222, 222, 222, 222)

EU868 = Region(
    name="EU868",
    downlinks=_rates(_SF12_TO_SF7_250, _EU868_SIZES, _EU868_SIZES_REPEATER, _EU868_SIZES),
    uplinks=_uplinks(_SF12_TO_SF7_250),
    rx2_frequency_hz=869_525_000,
    rx2_dr=0,
    # ETSI EN 300 220; what lies between may not be used by LoRaWAN gateways.
    sub_bands=(
        SubBand("863.0-865.0", 863_000_000, 865_000_000, 0.001),
        SubBand("865.0-868.0", 865_000_000, 868_000_000, 0.01),
        SubBand("868.0-868.6", 868_000_000, 868_600_000, 0.01),
        SubBand("868.7-869.2", 868_700_000, 869_200_000, 0.001),
        SubBand("869.4-869.65", 869_400_000, 869_650_000, 0.1),
        SubBand("869.7-870.0", 869_700_000, 870_000_000, 0.01),
    ),
)

US915 = Region(
    name="US915",
    downlinks=_rates(_AMERICAN_DOWN, _AMERICAN_SIZES, _AMERICAN_SIZES_REPEATER, _AMERICAN_SIZES),
    uplinks=_uplinks({**{dr: (10 - dr, 125_000) for dr in range(4)}, 4: (8, 500_000)}),
    rx2_frequency_hz=923_300_000,
    rx2_dr=8,
    sub_bands=(SubBand("902-928", 902_000_000, 928_000_000, NO_LIMIT),),
)

AU915 = Region(
    name="AU915",
    # Dwell time binds uplinks only: downlinks at 500 kHz stay below it by their sizes.
    downlinks=_rates(_AMERICAN_DOWN, _AMERICAN_SIZES, _AMERICAN_SIZES_REPEATER, _AMERICAN_SIZES),
    uplinks=_uplinks({**_SF12_TO_SF7, 6: (8, 500_000)}),
    rx2_frequency_hz=923_300_000,
    rx2_dr=8,
    sub_bands=(SubBand("915-928", 915_000_000, 928_000_000, NO_LIMIT),),
)

AS923 = Region(
    name="AS923",
    downlinks=_rates(_SF12_TO_SF7_250, _EU868_SIZES, _EU868_SIZES_REPEATER, (0, 0, 11, 53, 125, 242, 242)),
    uplinks=_uplinks(_SF12_TO_SF7_250),
    rx2_frequency_hz=923_200_000,
    rx2_dr=2,
    # The regional parameters ask for less than 1 %; some countries allow more, by listening before talking.
    sub_bands=(SubBand("915-928", 915_000_000, 928_000_000, 0.01),),
)

IN865 = Region(
    name="IN865",
    downlinks=_rates(_SF12_TO_SF7, _EU868_SIZES[:6], _EU868_SIZES_REPEATER[:6], _EU868_SIZES[:6]),
    uplinks=_uplinks(_SF12_TO_SF7),
    rx2_frequency_hz=866_550_000,
    rx2_dr=2,
    sub_bands=(SubBand("865-867", 865_000_000, 867_000_000, NO_LIMIT),),
)

REGIONS: Mapping[str, Region] = MappingProxyType(
    {
        plan.name: plan
        for plan in (
            EU868,
            US915,
            AU915,
            AS923,
            # The other AS923 groups are the same plan, moved (RP002 2.10).
            replace(AS923, name="AS923_2", rx2_frequency_hz=921_400_000),
            replace(AS923, name="AS923_3", rx2_frequency_hz=916_600_000),
            replace(AS923, name="AS923_4", rx2_frequency_hz=917_300_000),
            IN865,
        )
    }
)
