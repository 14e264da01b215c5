"""What a transfer would cost before it starts, cohort by cohort: air, time, and energy at a node. PURE."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil

from radios.errors import Unsupported
from radios.lorawan.air import MulticastAir
from radios.lorawan.airtime import downlink_airtime, uplink_airtime
from radios.lorawan.fragment_size import check_fits
from radios.lorawan.packages.fragmentation import FRAGMENT_OVERHEAD
from radios.lorawan.placement import Candidate, Place, assign, pass_air_s, place_fragment
from radios.lorawan.regions import Region
from radios.lorawan.unicast_air import UnicastAir
from radios.radio import ImageRef, NodeId, PlanPart

CODED_SHARE = 0.15  # of M, before any loss is known
RECEIVING_W = 3.3 * 0.011  # a LoRa transceiver listening, at 3.3 V
SENDING_W = 3.3 * 0.044  # at 14 dBm
ASSUMPTIONS = (
    f"{CODED_SHARE:.0%} coded fragments; radio at 3.3 V, 11 mA listening and 44 mA sending; class C listens from the first fragment "
    "to the last, class A sends an empty uplink for each; set-up, flash and restart are left out"
)


@dataclass(frozen=True, slots=True)
class Planned:
    parts: tuple[PlanPart, ...]
    skipped: Mapping[NodeId, str] = field(default_factory=dict)  # for whom this image is too much, with the reason


def planned(
    image: ImageRef,
    candidates: Sequence[Candidate],
    gateways: Sequence[str],
    plan: Region,
    air: UnicastAir,
    pace_of: Callable[[Place], MulticastAir],
    uplink_s: Callable[[str], float],
) -> Planned:
    """A part for each cohort. Groups of one set of gateways take their turns, so a later one is done later.

    `uplink_s`: between two uplinks of a node, by DevEUI; 0 where its queue is served at once.
    """
    parts: list[PlanPart] = []
    skipped: dict[NodeId, str] = {}
    multicast_s = 0.0
    for place, members in assign(candidates, {}, gateways, lambda place: pass_air_s(plan, place, image.size)):
        node_ids = tuple(NodeId(f"lorawan:{dev_eui}") for dev_eui in members)
        try:
            frag_size = place_fragment(plan, place, image.size)
            nb_frag = check_fits(image.size, frag_size)
        except Unsupported as error:
            skipped |= dict.fromkeys(node_ids, f"DR{place.data_rate}: {error}")
            continue
        size = FRAGMENT_OVERHEAD + frag_size
        count = ceil(nb_frag * (1 + CODED_SHARE))
        if place.unicast:
            one = air.airtime_s(place.data_rate, size)
            between_s = uplink_s(members[0])
            airtime_s, eta_s = count * one, count * max(one, between_s)
            energy_j = count * (one * RECEIVING_W + _uplink_airtime_s(plan, place.data_rate) * SENDING_W)
        else:
            pace = pace_of(place)
            airtime_s = count * max(1, len(place.gateways)) * pace.airtime_s(size)
            lasts_s = pace.duration_s(count, size)
            multicast_s += lasts_s
            eta_s, energy_j = multicast_s, lasts_s * RECEIVING_W
        always_on = not any(uplink_s(dev_eui) for dev_eui in members)
        parts.append(
            PlanPart(
                name=_name(place),
                nodes=len(members),
                frames=count,
                airtime_s=airtime_s,
                eta_s=eta_s,
                node_energy_j=0.0 if always_on else energy_j,  # one that listens all the time uses no more
                members=node_ids,
                multicast=not place.unicast,
            )
        )
    return Planned(tuple(parts), skipped)


def _uplink_airtime_s(plan: Region, data_rate: int) -> float:
    """Of an empty uplink of a node that is answered at this data rate; the downlink's where they differ."""
    modulation = plan.uplinks.get(data_rate)
    return (
        downlink_airtime(plan.downlink(data_rate).modulation, 0)
        if modulation is None
        else uplink_airtime(modulation, 0)
    )


def _name(place: Place) -> str:
    way = "unicast" if place.unicast else f"multicast by {', '.join(place.gateways)}"
    return f"DR{place.data_rate} {way}, TS004 version {place.frag_version}"
