"""What a transfer would cost on the air before it starts, cohort by cohort. PURE."""

from collections.abc import Callable, Sequence
from math import ceil

from radios.lorawan.air import MulticastAir
from radios.lorawan.cohort import check_fits, fragment_size
from radios.lorawan.packages.fragmentation import FRAGMENT_OVERHEAD
from radios.lorawan.placement import Candidate, Place, assign
from radios.lorawan.regions import Region
from radios.lorawan.unicast_air import UnicastAir
from radios.radio import ImageRef

CODED_SHARE = 0.15  # of M, before any loss is known


def planned(
    image: ImageRef,
    candidates: Sequence[Candidate],
    gateways: Sequence[str],
    plan: Region,
    air: UnicastAir,
    pace_of: Callable[[Place], MulticastAir],
    uplink_s: Callable[[str], float],
    *,
    repeater: bool,
) -> tuple[int, float, float]:
    """Frames, seconds on air and seconds until the last node holds the image; groups of one gateway set wait for each other.

    `uplink_s`: between two uplinks of a node, by DevEUI; 0 where its queue is served at once.
    """
    frames, airtime_s, multicast_s, unicast_s = 0, 0.0, 0.0, 0.0
    for place, members in assign(candidates, (), gateways):
        frag_size = fragment_size(plan.max_payload(place.data_rate, repeater=repeater))
        size = FRAGMENT_OVERHEAD + frag_size
        count = ceil(check_fits(image, frag_size) * (1 + CODED_SHARE))
        frames += count
        if place.unicast:
            one = air.airtime_s(place.data_rate, size)
            airtime_s += count * one
            unicast_s = max(unicast_s, count * max(one, uplink_s(members[0])))
        else:
            pace = pace_of(place)
            airtime_s += count * max(1, len(place.gateways)) * pace.airtime_s(size)
            multicast_s += count * pace.spacing_s(size)
    return frames, airtime_s, max(multicast_s, unicast_s)
