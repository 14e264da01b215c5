"""How many bytes a fragment carries: what takes the least air for the whole image. PURE.

LoRa sends whole symbols, five at a time, so the last bytes of the largest fragment may cost as much as several more would;
and an image that just does not fill its last fragment is sent with padding. So it pays to look at every size.
"""

from functools import cache
from math import ceil

from radios.errors import Unsupported
from radios.lorawan.airtime import downlink_airtime
from radios.lorawan.packages.fragmentation import FRAGMENT_OVERHEAD, N_MAX
from radios.lorawan.regions import Modulation

FRAGMENT_MOST_BYTES = 255  # FragSize is a byte
FRAGMENT_LEAST_BYTES = 8
NB_FRAG_MOST = N_MAX // 2  # room for as many coded ones


def largest(max_payload: int, most: int = FRAGMENT_MOST_BYTES) -> int:
    """Bytes of data in the largest fragment for this largest FRMPayload; Unsupported when too few are left.

    `most`: that the node's firmware was built for.
    """
    size = min(most, FRAGMENT_MOST_BYTES, max_payload - FRAGMENT_OVERHEAD)
    if size < FRAGMENT_LEAST_BYTES:
        raise Unsupported(f"a payload of at most {max_payload} bytes leaves no room for a fragment")
    return size


def check_fits(image_bytes: int, frag_size: int) -> int:
    """M of the image; Unsupported when the counters would not suffice for it and its coded fragments."""
    nb_frag = ceil(image_bytes / frag_size)
    if not 1 <= nb_frag <= NB_FRAG_MOST:
        raise Unsupported(f"{image_bytes} bytes in fragments of {frag_size} are {nb_frag}, not 1..{NB_FRAG_MOST}")
    return nb_frag


@cache
def best(
    image_bytes: int,
    max_payload: int,
    modulation: Modulation,
    most: int = FRAGMENT_MOST_BYTES,
    *,
    fewest: bool = False,
) -> int:
    """The fragment with the least air for all plain fragments; Unsupported when the image cannot be sent so.

    Of equals the one with fewer fragments, then with less padding. `fewest`: first the fewest fragments, for a node that
    gives an uplink for each.
    """
    limit = largest(max_payload, most)
    check_fits(image_bytes, limit)

    def cost(size: int) -> tuple[float, float, int]:
        nb_frag = ceil(image_bytes / size)
        air_s = nb_frag * downlink_airtime(modulation, FRAGMENT_OVERHEAD + size)
        first, second = (nb_frag, air_s) if fewest else (air_s, nb_frag)
        return round(first, 6), round(second, 6), size

    sizes = range(FRAGMENT_LEAST_BYTES, limit + 1)
    return min((size for size in sizes if ceil(image_bytes / size) <= NB_FRAG_MOST), key=cost)
