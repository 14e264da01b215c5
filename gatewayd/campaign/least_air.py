"""Which payloads nodes that share the air are sent, so that all of it takes the least air. PURE.

A multicast costs the same for one node as for a hundred: five nodes with five deltas may take more air than one full image
for all of them. Cohorts do not share anything with each other, so each is decided by itself. Its nodes either all get the
full image, or deltas that together serve everybody.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Final

from gatewayd.campaign.node_update import NodeUpdate, State
from gatewayd.campaign.payloads import payload_of, payloads_for
from gatewayd.campaign.policy import may_touch
from gatewayd.campaign.selection import choose
from gatewayd.campaign.situation import Situation
from gatewayd.cloud.messages import Payload, StageBy
from radios.radio import radio_of

EXACT_MOST: Final = 8
"""So many deltas of one cohort are tried in all combinations; more are taken one by one, the best first."""

_STARTING = frozenset({State.PENDING, State.PREPARING})


def least_air(
    usable: Mapping[str, Sequence[Payload]], air_s: Callable[[Payload], float], free: Collection[str] = ()
) -> dict[str, Payload]:
    """The payload for each node of one cohort. `usable`: what each can take; `free`: digests that are sent there anyway.

    Of what is sent, a node gets the smallest that it can take.
    """
    kinds = {frozenset(p.sha256 for p in payloads) for payloads in usable.values()}
    by_digest = {p.sha256: p for payloads in usable.values() for p in payloads}
    left = {kind for kind in kinds if not kind & set(free)}
    sent = {digest for digest in by_digest if digest in free}

    def cost(digests: Iterable[str]) -> tuple[float, int, list[str]]:
        chosen = sorted(digests)
        return sum(air_s(by_digest[digest]) for digest in chosen), len(chosen), chosen

    for_all = frozenset.intersection(*left) if left else frozenset()  # the full image, above all
    covers = [{digest} for digest in for_all] + _covers([kind - for_all for kind in left], cost)
    sent |= min(covers, key=cost, default=set())
    return {
        node: min((p for p in payloads if p.sha256 in sent), key=lambda p: (p.size, p.sha256))
        for node, payloads in usable.items()
    }


def _covers(
    kinds: Collection[frozenset[str]], cost: Callable[[Iterable[str]], tuple[float, int, list[str]]]
) -> list[set[str]]:
    """Sets of payloads that have one for every kind of node: all there are, or a good one when those are too many."""
    if not all(kinds):
        return []
    useful = sorted({digest for kind in kinds for digest in kind})
    if len(useful) <= EXACT_MOST:
        some = (set(chosen) for count in range(1, len(useful) + 1) for chosen in combinations(useful, count))
        return [chosen for chosen in some if all(kind & chosen for kind in kinds)]
    left, taken = set(kinds), set[str]()
    while left:  # the most kinds for the air
        reach = {digest: sum(digest in kind for kind in left) for digest in useful}
        best = min((d for d in useful if reach[d]), key=lambda d: (cost([d])[0] / reach[d], d))
        taken.add(best)
        left = {kind for kind in left if best not in kind}
    return [taken]


def shared_choices(it: Situation, updates: Mapping[str, NodeUpdate], open_tiers: int) -> dict[str, Payload]:
    """Of the nodes that share the air and may begin now: the payload of each. Who has begun keeps what it began with."""
    if it.release is None or not it.cohorts:
        return {}
    usable: dict[tuple[str, int], dict[str, list[Payload]]] = {}
    free: dict[tuple[str, int], set[str]] = {}
    for node_id, update in sorted(updates.items()):
        node, cohort = it.nodes.get(node_id), it.cohorts.get(node_id)
        if node is None or cohort is None or update.effective not in _STARTING:
            continue
        gated = it.campaign.rollout.stage_by is StageBy.TRANSFER
        place = cohort, update.tier if gated else 0  # tiers that start one after the other share nothing
        if update.want:
            if (payload := payload_of(update.transfer, it.release)) is not None:
                free.setdefault(place, set()).add(payload.sha256)
        elif update.effective is State.PENDING and (update.tier < open_tiers or not gated):
            now = it.radio_now.get(radio_of(node_id), it.now)
            choice = choose(node, it.release, it.manufacturers, update.attempt, it.unusable, it.versions)
            if isinstance(choice, Payload) and may_touch(node, it.campaign.policy, now) is None:
                found = payloads_for(node, it.release, update.attempt, it.unusable)
                usable.setdefault(place, {})[node_id] = found
    chosen: dict[str, Payload] = {}
    for place, members in usable.items():
        chosen |= least_air(members, lambda payload: payload.size, free.get(place, set()))  # to within a fragment
    return chosen
