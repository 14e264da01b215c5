"""Which nodes share a cohort: gateways, data rate, version of TS004, class of its windows; and which have none to share. PURE.

Each gateway sends every frame of a group that it is in, so nodes are gathered under the fewest gateways that reach them all.
Nodes of a lower data rate are apart, so that they slow no others, as long as that is worth a plain pass of its own: the pass
delays everybody else on its gateways by its air. What counts is when the nodes have the image, on the mean.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite

from radios.errors import Unsupported
from radios.lorawan.airtime import downlink_airtime
from radios.lorawan.fragment_size import FRAGMENT_MOST_BYTES, best, check_fits
from radios.lorawan.packages.fragmentation import FRAGMENT_OVERHEAD
from radios.lorawan.regions import Region


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


def pass_air_s(plan: Region, place: Place, image_bytes: int) -> float:
    """What the plain fragments of the image take at each of the place's gateways; infinite when it cannot be sent so."""
    try:
        size = place_fragment(plan, place, image_bytes)
    except Unsupported:
        return inf
    return check_fits(image_bytes, size) * downlink_airtime(
        plan.downlink(place.data_rate).modulation, FRAGMENT_OVERHEAD + size
    )


def assign(
    candidates: Sequence[Candidate],
    open_places: Mapping[Place, int],
    gateways: Sequence[str],
    air_s: Callable[[Place], float],
) -> list[tuple[Place, list[str]]]:
    """Places and the DevEUIs in each; an open place is named as it was given.

    `open_places`: with the nodes that are in each already; `gateways`: all that there are; `air_s`: see `pass_air_s`.
    """
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
    by_name = {c.dev_eui: c for c in candidates}
    placing = _Placing(found, open_places, by_name, gateways, air_s)
    placing.cover(left)
    placing.join_what_is_not_worth_a_pass()
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
    """What nodes of one cohort have in common, apart from the gateways; the data rate first."""
    return where.data_rate, where.frag_version, where.port, where.class_b, where.frag_most


def _all(place: Place, gateways: Sequence[str]) -> bool:
    return set(place.gateways) >= set(gateways)


class _Placing:
    """Places as they are being made, and what they would come to."""

    def __init__(
        self,
        found: dict[Place, list[str]],
        opened: Mapping[Place, int],
        by_name: Mapping[str, Candidate],
        gateways: Sequence[str],
        air_s: Callable[[Place], float],
    ) -> None:
        self.found = found
        self.gateways = gateways
        self._opened = opened
        self._by_name = by_name
        self._air_s = air_s
        self._airs: dict[Place, float] = {}

    def cover(self, left: Iterable[Candidate]) -> None:
        """New places: of each kind, gateway by gateway, the one that reaches most first; of equals the one with less to send."""
        groups: dict[Kind, list[Candidate]] = {}
        for candidate in left:
            groups.setdefault(_kind(candidate), []).append(candidate)
        for kind, members in groups.items():
            while members:
                reach = {gateway: sum(gateway in c.gateways for c in members) for gateway in self.gateways}
                load = {gateway: self._load_s(gateway) for gateway in reach}
                first = max(reach, key=lambda gateway: (reach[gateway], -load[gateway], gateway), default="")
                here = [c for c in members if first in c.gateways]
                place = _place(kind, (first,))
                if not here or not all(c.gateways for c in members):
                    # All gateways are needed for those of whom nobody knows: then the others are reached too.
                    place, here = _place(kind, self.gateways), members
                self.found.setdefault(place, []).extend(c.dev_eui for c in here)
                served = {c.dev_eui for c in here}
                members = [c for c in members if c.dev_eui not in served]

    def _load_s(self, gateway: str) -> float:
        """Air of what the gateway is to send so far."""
        places = {*self.found, *self._opened}
        return sum(air for p in places if gateway in p.gateways and isfinite(air := self._air(p)))

    def join_what_is_not_worth_a_pass(self) -> None:
        """Give up new places, the smallest first, as long as all nodes taken together have the image sooner by that."""
        improving = True
        while improving:
            improving = False
            for place in sorted(self.found, key=lambda place: (len(self.found[place]), place.gateways, _kind(place))):
                counts = self._counts()
                choices = [(self._waiting_s(_moved(counts, place, to)), to) for to in self._targets(place)]
                sooner_s, targets = min(choices, key=lambda choice: choice[0], default=(inf, []))
                if sooner_s < self._waiting_s(counts):
                    improving = True
                    for name, target in zip(self.found.pop(place), targets, strict=True):
                        self.found.setdefault(target, []).append(name)

    def _targets(self, place: Place) -> list[list[Place]]:
        """Where each node of a new place could go without it: to the fastest slower one that reaches it, or all to the same one."""
        if place in self._opened:
            return []
        slower = [
            other
            for other in sorted({*self.found, *self._opened}, key=lambda other: (-other.data_rate, other.gateways))
            if other.data_rate < place.data_rate
            and not other.unicast
            and _kind(other)[1:] == _kind(place)[1:]
            and isfinite(self._air(other))
        ]
        members = self.found[place]
        fitting = [next((other for other in slower if self._reaches(other, name)), None) for name in members]
        found = [other for other in fitting if other is not None]
        if len(found) < len(members):
            return []
        return [found, *([other] * len(members) for other in slower if all(self._reaches(other, m) for m in members))]

    def _counts(self) -> dict[Place, int]:
        places = {*self.found, *self._opened}
        return {place: len(self.found.get(place, ())) + self._opened.get(place, 0) for place in places}

    def _air(self, place: Place) -> float:
        if place not in self._airs:
            self._airs[place] = self._air_s(place)
        return self._airs[place]

    def _reaches(self, place: Place, dev_eui: str) -> bool:
        candidate = self._by_name[dev_eui]
        return bool(candidate.gateways & set(place.gateways)) if candidate.gateways else _all(place, self.gateways)

    def _waiting_s(self, counts: Mapping[Place, int]) -> float:
        """Sum over the nodes of the air that their gateways send until they have it, the shortest pass first."""
        sent = [place for place in counts if isfinite(self._air(place))]
        busy: dict[str, float] = {}
        total = 0.0
        for place in sorted(sent, key=lambda place: (self._air(place), place.gateways, _kind(place))):
            for gateway in place.gateways:
                busy[gateway] = busy.get(gateway, 0.0) + self._air(place)
            total += counts[place] * max((busy[gateway] for gateway in place.gateways), default=self._air(place))
        return total


def _moved(counts: Mapping[Place, int], place: Place, targets: Sequence[Place]) -> dict[Place, int]:
    after = {other: count for other, count in counts.items() if other != place}
    for target in targets:
        after[target] += 1
    return after


def _place(kind: Kind, gateways: Iterable[str]) -> Place:
    rate, version, port, class_b, frag_most = kind
    return Place(version, rate, tuple(gateways), port, class_b=class_b, frag_most=frag_most)
