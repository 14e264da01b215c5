"""What bringing an image to nodes takes, by arithmetic alone: for who plans where no radio can be asked. PURE.

Every figure is an estimate between two ends. A radio's own `plan` knows its nodes and is to be believed more.
"""

from dataclasses import dataclass
from math import ceil
from typing import Final

from radios.lorawan.air import AirLimits, MulticastAir, Turn
from radios.lorawan.airtime import DutyCycleLedger
from radios.lorawan.fragment_size import best, check_fits
from radios.lorawan.packages.fragmentation import FRAGMENT_OVERHEAD
from radios.lorawan.regions import region
from radios.lorawan.transfer_plan import CODED_SHARE
from radios.zigbee.air import BLOCK_AIR_S, ShareLimits
from radios.zigbee.pacing import PacingLimits
from radios.zigbee.session_state import MAX_BLOCK_BYTES

_FAR_HOPS: Final = 3.0  # of a node that is far from the coordinator
ZIGBEE_ASSUMPTIONS: Final = (
    f"blocks of {MAX_BLOCK_BYTES} bytes; fastest: one hop, the channel free; slowest: {_FAR_HOPS:g} hops, the site's own traffic at its "
    "height; nodes that sleep come when they wake; verification and restart are left out"
)
LORAWAN_ASSUMPTIONS: Final = (
    f"one multicast by one gateway to class C nodes, {CODED_SHARE:.0%} coded fragments; fastest: in bursts, slowest: spread over the hours; "
    "nodes that are served alone or repaired later, set-up and restart are left out"
)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes and frames are those towards the nodes, without what the radio protocol puts around them."""

    bytes_on_air: int
    frames: int
    airtime_s: float
    fastest_s: float
    slowest_s: float
    assumptions: str


def zigbee(size: int, nodes: int, air_share: float = 1.0) -> Estimate:
    """An image of `size` bytes to each of the nodes, one by one or several at a time. 0 < air_share <= 1."""
    blocks = ceil(size / MAX_BLOCK_BYTES)
    airtime_s = nodes * blocks * BLOCK_AIR_S
    alone_s = blocks / PacingLimits().unspaced_blocks_per_s if nodes else 0.0
    fastest_s = max(airtime_s / air_share, alone_s)
    slow_share = air_share * ShareLimits().foreground_share
    return Estimate(
        bytes_on_air=nodes * size,
        frames=nodes * blocks,
        airtime_s=airtime_s,
        fastest_s=fastest_s,
        slowest_s=max(fastest_s, airtime_s * _FAR_HOPS / slow_share),
        assumptions=ZIGBEE_ASSUMPTIONS,
    )


def lorawan(size: int, region_name: str = "EU868", data_rate: int | None = None, air_share: float = 1.0) -> Estimate:
    """An image of `size` bytes, once to all nodes. `data_rate` None: the region's RX2. Unsupported when it cannot be sent so."""
    plan = region(region_name)
    rate = plan.rx2_dr if data_rate is None else data_rate
    frag_size = best(size, plan.max_payload(rate), plan.downlink(rate).modulation)
    frames = ceil(check_fits(size, frag_size) * (1 + CODED_SHARE))
    length = FRAGMENT_OVERHEAD + frag_size
    duty = plan.sub_band(plan.rx2_frequency_hz).duty_cycle

    def pace(burst: bool) -> MulticastAir:
        ledgers = {"": DutyCycleLedger(duty)}
        modulation = plan.downlink(rate).modulation
        return MulticastAir(
            ledgers, modulation, Turn(), share=air_share, gateway_gap_s=0.0, limits=AirLimits(burst=burst)
        )

    ends = [pace(burst).duration_s(frames, length) for burst in (True, False)]
    return Estimate(
        bytes_on_air=frames * length,
        frames=frames,
        airtime_s=frames * pace(burst=True).airtime_s(length),
        fastest_s=min(ends),
        slowest_s=max(ends),
        assumptions=LORAWAN_ASSUMPTIONS,
    )
