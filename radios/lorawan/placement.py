"""Which nodes share a cohort: gateways, data rate, version of TS004, class of its windows; and which have none to share. PURE.

Each gateway sends every frame of a group that it is in, so nodes are gathered under the fewest gateways that reach them all.
Nodes of a lower data rate are apart, so that they slow no others, unless a single node would cost a whole pass of its own
where a slower cohort passes anyway.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from radios.lorawan.fragment_size import FRAGMENT_MOST_BYTES, best
from radios.lorawan.regions import Region

_WORTH_JOINING = 2  # nodes of a slower cohort that a single faster one joins


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node that is to be placed. `gateways` reach it at `data_rate`; none: not known, all of them may be needed."""

    dev_eui: str
    frag_version: int
    data_rate: int
    gateways: frozenset[str]
    port: int  # of fragments, on the node
    unicast: bool = False
    class_b: bool = False  # it opens class B windows, and no class C ones
    frag_most: int = FRAGMENT_MOST_BYTES  # FragSize that its firmware was built for


@dataclass(frozen=True, slots=True)
class Place:
    """What a cohort's nodes have in common. A unicast place is for one node."""

    frag_version: int
    data_rate: int
    gateways: tuple[str, ...]
    port: int
    unicast: bool = False
    class_b: bool = False
    frag_most: int = FRAGMENT_MOST_BYTES


Kind = tuple[int, int, int, bool, int]


def place_fragment(plan: Region, place: Place, image_bytes: int) -> int:
    """Bytes of a fragment there; Unsupported when the image cannot be sent so."""
    rate = plan.downlink(place.data_rate)
    return best(image_bytes, rate.max_payload, rate.modulation, place.frag_most, fewest=place.unicast)


def assign(
    candidates: Sequence[Candidate], open_places: Collection[Place], gateways: Sequence[str]
) -> list[tuple[Place, list[str]]]:
    """Places and the DevEUIs in each; an open place is named as it was given. `gateways`: all that there are."""
    found: dict[Place, list[str]] = {}
    single = [candidate for candidate in candidates if candidate.unicast]
    left: list[Candidate] = []
    for candidate in candidates:
        if candidate.unicast:
            continue
        place = next((place for place in open_places if _fits(candidate, place, gateways)), None)
        if place is None:
            left.append(candidate)
        else:
            found.setdefault(place, []).append(candidate.dev_eui)
    for place, members in _cover(left, gateways):
        found.setdefault(place, []).extend(members)
    _merge_single(found, {c.dev_eui: c for c in candidates}, frozenset(open_places))
    alone = [
        (Place(c.frag_version, c.data_rate, (), c.port, unicast=True, frag_most=c.frag_most), [c.dev_eui])
        for c in single
    ]
    return [*found.items(), *alone]


def _fits(candidate: Candidate, place: Place, gateways: Sequence[str]) -> bool:
    same = _kind(candidate) == _kind(place)
    reached = bool(candidate.gateways & set(place.gateways)) if candidate.gateways else _all(place, gateways)
    return same and not place.unicast and reached


def _kind(where: Candidate | Place) -> Kind:
    """What nodes of one cohort have in common, apart from the gateways."""
    return where.frag_version, where.data_rate, where.port, where.class_b, where.frag_most


def _all(place: Place, gateways: Sequence[str]) -> bool:
    return set(place.gateways) >= set(gateways)


def _cover(left: Iterable[Candidate], gateways: Sequence[str]) -> list[tuple[Place, list[str]]]:
    """New places: of each version and data rate, gateway by gateway, the one that reaches most first."""
    groups: dict[Kind, list[Candidate]] = {}
    for candidate in left:
        groups.setdefault(_kind(candidate), []).append(candidate)
    places: list[tuple[Place, list[str]]] = []
    for kind, members in groups.items():
        unheard = [c for c in members if not c.gateways]
        if unheard:  # all gateways are needed for these: then the others are reached too
            places.append((_place(kind, gateways), [c.dev_eui for c in members]))
            continue
        while members:
            reach = {gateway: sum(gateway in c.gateways for c in members) for gateway in gateways}
            best_one = max(reach, key=lambda gateway: (reach[gateway], gateway), default="")
            here = [c for c in members if best_one in c.gateways]
            if not here:
                places.append((_place(kind, gateways), [c.dev_eui for c in members]))
                break
            places.append((_place(kind, (best_one,)), [c.dev_eui for c in here]))
            members = [c for c in members if best_one not in c.gateways]
    return places


def _place(kind: Kind, gateways: Iterable[str]) -> Place:
    version, rate, port, class_b, frag_most = kind
    return Place(version, rate, tuple(gateways), port, class_b=class_b, frag_most=frag_most)


def _merge_single(found: dict[Place, list[str]], by_name: dict[str, Candidate], opened: frozenset[Place]) -> None:
    """A new cohort of one joins a slower one with several nodes under a gateway that reaches it: that pass goes out anyway."""
    for place, members in sorted(found.items(), key=lambda item: -item[0].data_rate):
        if len(members) != 1 or place in opened:
            continue
        reached = by_name[members[0]].gateways or frozenset(place.gateways)
        slower = [
            other
            for other, others in found.items()
            if _kind(replace(other, data_rate=place.data_rate)) == _kind(place)
            and other.data_rate < place.data_rate
            and len(others) >= _WORTH_JOINING
            and reached & set(other.gateways)
        ]
        if slower:
            target = max(slower, key=lambda other: other.data_rate)
            found[target] += members
            del found[place]
