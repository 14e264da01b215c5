"""Which nodes share a cohort: gateways, data rate, version of TS004, class of its windows; and which have none to share. PURE.

Each gateway sends every frame of a group that it is in, so nodes are gathered under the fewest gateways that reach them all.
Nodes of a lower data rate are apart, so that they slow no others, unless a single node would cost a whole pass of its own
where a slower cohort passes anyway.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Place:
    """What a cohort's nodes have in common. A unicast place is for one node."""

    frag_version: int
    data_rate: int
    gateways: tuple[str, ...]
    port: int
    unicast: bool = False
    class_b: bool = False


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
    alone = [(Place(c.frag_version, c.data_rate, (), c.port, unicast=True), [c.dev_eui]) for c in single]
    return [*found.items(), *alone]


def _fits(candidate: Candidate, place: Place, gateways: Sequence[str]) -> bool:
    same = _kind(candidate) == _kind(place)
    reached = bool(candidate.gateways & set(place.gateways)) if candidate.gateways else _all(place, gateways)
    return same and not place.unicast and reached


def _kind(where: Candidate | Place) -> tuple[int, int, int, bool]:
    """What nodes of one cohort have in common, apart from the gateways."""
    return where.frag_version, where.data_rate, where.port, where.class_b


def _all(place: Place, gateways: Sequence[str]) -> bool:
    return set(place.gateways) >= set(gateways)


def _cover(left: Iterable[Candidate], gateways: Sequence[str]) -> list[tuple[Place, list[str]]]:
    """New places: of each version and data rate, gateway by gateway, the one that reaches most first."""
    groups: dict[tuple[int, int, int, bool], list[Candidate]] = {}
    for candidate in left:
        groups.setdefault(_kind(candidate), []).append(candidate)
    places: list[tuple[Place, list[str]]] = []
    for (version, rate, port, class_b), members in groups.items():
        unheard = [c for c in members if not c.gateways]
        if unheard:  # all gateways are needed for these: then the others are reached too
            places.append((Place(version, rate, tuple(gateways), port, class_b=class_b), [c.dev_eui for c in members]))
            continue
        while members:
            reach = {gateway: sum(gateway in c.gateways for c in members) for gateway in gateways}
            best = max(reach, key=lambda gateway: (reach[gateway], gateway), default="")
            here = [c for c in members if best in c.gateways]
            if not here:
                places.append(
                    (Place(version, rate, tuple(gateways), port, class_b=class_b), [c.dev_eui for c in members])
                )
                break
            places.append((Place(version, rate, (best,), port, class_b=class_b), [c.dev_eui for c in here]))
            members = [c for c in members if best not in c.gateways]
    return places


def _merge_single(found: dict[Place, list[str]], by_name: dict[str, Candidate], opened: frozenset[Place]) -> None:
    """A new cohort of one joins a slower one with several nodes under a gateway that reaches it: that pass goes out anyway."""
    for place, members in sorted(found.items(), key=lambda item: -item[0].data_rate):
        if len(members) != 1 or place in opened:
            continue
        reached = by_name[members[0]].gateways or frozenset(place.gateways)
        slower = [
            other
            for other, others in found.items()
            if (other.frag_version, other.port, other.class_b) == (place.frag_version, place.port, place.class_b)
            and other.data_rate < place.data_rate
            and len(others) >= _WORTH_JOINING
            and reached & set(other.gateways)
        ]
        if slower:
            target = max(slower, key=lambda other: other.data_rate)
            found[target] += members
            del found[place]
