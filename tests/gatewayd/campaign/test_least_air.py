"""Payloads of nodes that share the air: all of it is to take the least, and nobody changes what it has begun."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.campaign.least_air import EXACT_MOST, least_air
from gatewayd.campaign.node_update import Input, State, advance
from gatewayd.campaign.payloads import full_image
from gatewayd.cloud.messages import Gate, Payload, Policy, Rollout, StageBy, Tier
from radios.radio import Want
from tests.gatewayd.campaign.test_deltas import able, delta, started_with, with_deltas
from tests.gatewayd.campaign.test_planner import Site
from tests.support.documents import OLD, campaign, node, release

FULL = full_image(release())  # 5000 bytes


def air(payload: Payload) -> float:
    return float(payload.size)


def chosen(*usable: Sequence[Payload], free: Sequence[Payload] = ()) -> list[int]:
    found = least_air({str(n): kinds for n, kinds in enumerate(usable)}, air, [p.sha256 for p in free])
    return [found[str(n)].size for n in range(len(usable))]


D1, D2, D3, D4, D5 = (delta(1100 + n, base) for n, base in enumerate(range(1, 6)))


@pytest.mark.parametrize(
    ("usable", "sizes"),
    [
        ([], []),
        ([[D1, FULL]], [1100]),
        ([[FULL]], [5000]),
        ([[D1, FULL], [D1, FULL]], [1100, 1100]),
        ([[D1, FULL], [D2, FULL]], [1100, 1101]),
        # One full image beats five deltas, not four.
        ([[d, FULL] for d in (D1, D2, D3, D4)], [1100, 1101, 1102, 1103]),
        ([[d, FULL] for d in (D1, D2, D3, D4, D5)], [5000] * 5),
        # Who needs the full image anyway brings it to all.
        ([[D1, FULL], [FULL]], [5000, 5000]),
        # One delta that two bases take (two formats of it, say) beats two smaller ones.
        ([[D1, D3, FULL], [D2, D3, FULL]], [1102, 1102]),
    ],
)
def test_the_least_air(usable: list[list[Payload]], sizes: list[int]) -> None:
    assert chosen(*usable) == sizes


def test_what_is_sent_there_anyway_costs_nothing() -> None:
    assert chosen([D1, FULL], free=[FULL]) == [5000]
    assert chosen([D1, FULL], [D2, FULL], free=[D1]) == [1100, 1101]
    assert chosen([D1, FULL], [FULL], free=[D1]) == [1100, 5000]
    assert chosen([D1, FULL], [D1, FULL], free=[D1, FULL]) == [1100, 1100]  # the smaller one


def least(usable: Sequence[Sequence[Payload]]) -> float:
    """By trying all."""
    return min(sum(air(p) for p in {p.sha256: p for p in picked}.values()) for picked in product(*usable))


POOL = [delta(size, base) for base, size in enumerate((200, 700, 1100, 1900, 2600, 4900), 1)]


@given(st.lists(st.sets(st.sampled_from(range(6))), min_size=1, max_size=5))
def test_no_other_choice_takes_less_air(drawn: list[set[int]]) -> None:
    usable = [[*(POOL[n] for n in sorted(kinds)), FULL] for kinds in drawn]
    found = least_air({str(n): kinds for n, kinds in enumerate(usable)}, air)
    assert sum(air(p) for p in {p.sha256: p for p in found.values()}.values()) == least(usable)
    for n, kinds in enumerate(usable):
        assert found[str(n)] in kinds


@given(st.lists(st.integers(1, 3 * EXACT_MOST), min_size=EXACT_MOST + 1, max_size=60))
def test_of_many_deltas_the_choice_is_never_worse_than_the_full_image_or_all_the_smallest(bases: list[int]) -> None:
    pool = {base: delta(100 + base, base) for base in set(bases)}
    found = least_air({str(n): [pool[base], FULL] for n, base in enumerate(bases)}, air)
    took = sum(air(p) for p in {p.sha256: p for p in found.values()}.values())
    assert took == min(5000, sum(air(p) for p in pool.values()))


# In the planner.

CANARY = Tier(name="canary", nodes=(node(1).id,))
REST = Tier(name="rest", percent=100.0)


def site_of(count: int, stage_by: StageBy | None = None, **policy: object) -> Site:
    """Nodes of one cohort, each with a delta of its own base, of 1100 bytes and more."""
    deltas = (D1, D2, D3, D4, D5)[:count]
    made = []
    for n in range(1, count + 1):
        one = able(n, version=n)
        made.append(replace(one, id=one.id.replace("zigbee", "lorawan"), radio="lorawan"))
    tiers = (Tier(name="canary", nodes=(made[0].id,)), REST)
    rollout = Rollout(tiers=tiers, stage_by=stage_by, gate=Gate(failure_ratio=1.0))
    site = Site(campaign(rollout=rollout, policy=Policy(retry_after_s=1, **policy)), *made, image=with_deltas(*deltas))  # type: ignore[arg-type]
    site.cohorts = {one.id: "DR5" for one in made}
    return site


def sizes(site: Site) -> list[int]:
    return [site.updates[key].size for key in sorted(site.updates)]


def begun(site: Site) -> list[int]:
    return [site.updates[key].size for key in sorted(site.updates) if site.updates[key].want]


def test_a_cohort_of_five_bases_gets_the_full_image_and_one_of_four_its_deltas() -> None:
    assert OLD > 5
    for count, expected in ((5, [5000] * 5), (4, [1100, 1101, 1102, 1103])):
        site = site_of(count)
        site.step()
        assert begun(site) == expected


def test_without_a_cohort_each_gets_the_smallest() -> None:
    site = site_of(5)
    site.cohorts = {}
    site.step()
    assert begun(site) == [1100, 1101, 1102, 1103, 1104]


def test_cohorts_share_nothing() -> None:
    site = site_of(5)
    site.cohorts |= {sorted(site.nodes)[0]: "DR0"}
    site.step()
    assert begun(site) == [1100, 1101, 1102, 1103, 1104]


def test_who_has_begun_keeps_its_payload_when_others_appear() -> None:
    site = site_of(5)
    first, *others = sorted(site.nodes)
    later = {key: site.nodes.pop(key) for key in others}
    site.step()
    assert begun(site) == [1100]
    site.nodes |= later
    for _ in range(3):
        site.step()
    # The four others: 1101 + 1102 + 1103 + 1104 bytes are less than the full image.
    assert begun(site) == [1100, 1101, 1102, 1103, 1104]
    assert site.updates[first].generation == 1


def test_who_joins_what_is_being_prepared_takes_no_more_air() -> None:
    site = site_of(5)
    last = sorted(site.nodes)[-1]
    late = site.nodes.pop(last)
    able_too = replace(late, version=1)
    site.step()
    assert begun(site) == [1100, 1101, 1102, 1103]
    site.nodes[last] = able_too
    site.step()
    assert site.updates[last].size == 1100


def test_after_a_failed_delta_the_full_image_follows_in_a_cohort_too() -> None:
    site = site_of(2)
    site.step()
    key = sorted(site.updates)[0]
    site.updates[key] = advance(site.updates[key], Input.FAIL, now=site.now, radio_now=site.now)
    site.step()
    site.updates[key] = replace(site.updates[key], want="")
    site.step()
    site.step()
    assert (site.updates[key].state, site.updates[key].want) == (State.PENDING, Want.DELIVER)
    assert begun(site) == [5000, 1101]


def test_tiers_that_start_one_after_the_other_share_nothing() -> None:
    site = site_of(5, StageBy.TRANSFER)
    site.step()
    assert begun(site) == [1100]
    both = site_of(5, StageBy.INSTALL)
    both.step()
    assert begun(both) == [5000] * 5


def test_a_node_that_may_not_be_touched_now_forces_no_full_image_on_others() -> None:
    site = site_of(3)
    last = sorted(site.nodes)[-1]
    site.nodes[last] = replace(site.nodes[last], version=100, joined=False)  # no delta for it
    site.step()
    assert begun(site) == [1100, 1101]


def test_the_choice_for_who_waits_is_stable() -> None:
    site = site_of(5, concurrency=2)
    site.step()
    before = {key: (u.transfer, u.want) for key, u in site.updates.items()}
    assert list(begun(site)) == [5000, 5000]
    for _ in range(5):
        assert site.step().updates == ()
    assert {key: (u.transfer, u.want) for key, u in site.updates.items()} == before


def test_unicast_is_as_before() -> None:
    site = Site(campaign(), able(1, version=1), able(2, version=2), node(3), image=with_deltas(D1, D2))
    site.step()
    assert started_with(site, 1) == D1.sha256[:12]
    assert started_with(site, 3) == FULL.sha256[:12]
