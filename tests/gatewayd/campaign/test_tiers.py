"""Places of nodes (published vectors) and the verdicts of the gate."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.campaign.node_update import State
from gatewayd.campaign.tiers import Tiers, Verdict, judge, place, tier_of
from gatewayd.cloud.messages import Gate, Rollout, Tier

LAMP = "zigbee:00124b0001020304"
TWO = Rollout(tiers=(Tier(name="canary", percent=10.0), Tier(name="all", percent=100.0)))


@pytest.mark.parametrize(
    ("campaign", "node", "expected"),
    [
        # Published in gatewayd/campaign/README.md; computed with sha256sum.
        ("2026-11-lamps", "zigbee:00124b0001020304", 0x14CDA615FB0DB40B),
        ("2026-11-lamps", "lorawan:70b3d57ed0000001", 0x062D68B358CFA718),
        ("a", "zigbee:0000000000000000", 0x218B69F58BF42F4A),
    ],
)
def test_place_vectors(campaign: str, node: str, expected: int) -> None:
    assert place(campaign, node) == expected


def test_named_nodes_come_before_percentages() -> None:
    rollout = Rollout(tiers=(Tier(name="lab", nodes=(LAMP,)), Tier(name="all", percent=100.0)))
    assert tier_of("c", LAMP, rollout) == 0
    assert tier_of("c", "zigbee:00124b0001020305", rollout) == 1


def test_a_node_that_no_tier_means_is_left_out() -> None:
    assert tier_of("c", LAMP, Rollout(tiers=(Tier(name="lab", nodes=("zigbee:00124b00ffffffff",)),))) is None


@given(st.text(alphabet="abc-0123456789", min_size=1, max_size=20), st.integers(0, 2**64 - 1))
def test_a_node_in_a_small_tier_is_in_every_larger_one(campaign: str, eui: int) -> None:
    node = f"zigbee:{eui:016x}"
    own = int(hashlib.sha256(f"{campaign}\x00{node}".encode()).hexdigest()[:16], 16) / 2**64 * 100
    tiers = tuple(Tier(name=f"t{p}", percent=float(p)) for p in (1, 10, 50, 100))
    index = tier_of(campaign, node, Rollout(tiers=tiers))
    assert index == next(i for i, p in enumerate((1, 10, 50, 100)) if own < p)


def test_a_tenth_of_many_nodes_are_canaries() -> None:
    share = sum(tier_of("c", f"lorawan:{n:016x}", TWO) == 0 for n in range(5000)) / 5000
    assert 0.08 < share < 0.12


def gate(**values: object) -> Rollout:
    return TWO.model_copy(update={"gate": Gate.model_validate(values)})


def test_the_gate_waits_for_its_minimum_then_opens() -> None:
    rollout = gate(minimum_executed=2)
    assert judge(rollout, 1, [{State.UPDATED: 1, State.PENDING: 1}, {}], 0.0, 10.0).verdict is Verdict.WAIT
    assert judge(rollout, 1, [{State.UPDATED: 2}, {}], 0.0, 10.0).verdict is Verdict.OPEN


def test_a_local_gate_that_can_never_fill_its_minimum_needs_the_cloud() -> None:
    assert judge(gate(minimum_executed=3), 1, [{State.UPDATED: 2}, {}], 0.0, 10.0).verdict is Verdict.NEEDS_CLOUD


def test_a_cloud_gate_never_opens_here() -> None:
    assert judge(gate(kind="cloud"), 1, [{State.UPDATED: 9}, {}], 0.0, 10.0).verdict is Verdict.NEEDS_CLOUD


def test_soak_time_counts_from_the_last_outcome() -> None:
    rollout = gate(soak_s=100)
    assert judge(rollout, 1, [{State.UPDATED: 1}, {}], 50.0, 149.0).verdict is Verdict.SOAK
    assert judge(rollout, 1, [{State.UPDATED: 1}, {}], 50.0, 150.0).verdict is Verdict.OPEN


def test_a_tier_that_was_just_opened_has_to_show_something_before_the_next_one_opens() -> None:
    three = Rollout(
        tiers=tuple(Tier(name=n, percent=p) for n, p in (("canary", 1.0), ("some", 10.0), ("all", 100.0))),
        gate=Gate(minimum_executed=2),
    )

    def verdict(**newest: int) -> Verdict:
        return judge(three, 2, [{State.UPDATED: 5}, {State[k]: n for k, n in newest.items()}, {}], 0.0, 10.0).verdict

    assert verdict(PENDING=3) is Verdict.WAIT
    assert verdict(UPDATED=1, CONFIRMING=2) is Verdict.WAIT
    assert verdict(UPDATED=2, CONFIRMING=1) is Verdict.OPEN
    # A tier with fewer nodes than the minimum, or none on this gateway, closes nothing for ever.
    assert verdict(UPDATED=1, SKIPPED=2) is Verdict.OPEN
    assert verdict() is Verdict.OPEN


def test_more_failures_than_allowed_breach_and_the_last_tier_is_judged_too() -> None:
    rollout = gate(failure_ratio=0.5, minimum_executed=2)
    states = [{State.UPDATED: 1, State.ROLLED_BACK: 1}, {}]
    assert (
        judge(
            rollout.model_copy(update={"gate": Gate(failure_ratio=0.5, success_ratio=0.5, minimum_executed=2)}),
            1,
            states,
            0.0,
            0.0,
        ).verdict
        is Verdict.OPEN
    )
    assert judge(rollout, 2, [{State.UPDATED: 1}, {State.FAILED: 2}], 0.0, 0.0).verdict is Verdict.BREACH
    assert judge(rollout, 2, [{State.UPDATED: 1}, {State.FAILED: 1}], 0.0, 0.0).verdict is Verdict.LAST


def test_skipped_and_deferred_nodes_are_no_outcome() -> None:
    states = [{State.SKIPPED: 5, State.DEFERRED: 1}, {}]
    assert judge(gate(), 1, states, 0.0, 0.0).verdict is Verdict.WAIT


def test_tiers_by_tag_mean_nodes_that_have_all_of_them() -> None:
    tagged = Tier(name="pilot", tags={"site": "plant-3", "floor": "2"})
    tiers = Tiers("c", Rollout(tiers=(tagged, Tier(name="all", percent=100.0))))
    assert tiers.of("zigbee:0000000000000001", {"site": "plant-3", "floor": "2", "owner": "x"}) == 0
    assert tiers.of("zigbee:0000000000000002", {"site": "plant-3"}) == 1
    assert tiers.of("zigbee:0000000000000003", {"site": "plant-3", "floor": "3"}) == 1
    assert tiers.of("zigbee:0000000000000004") == 1


def test_tiers_by_region_mean_all_nodes_of_its_gateways() -> None:
    rollout = Rollout(tiers=(Tier(name="near", regions=("north", "west")), Tier(name="all", percent=100.0)))
    assert Tiers("c", rollout, "north").of(LAMP) == 0
    assert Tiers("c", rollout, "south").of(LAMP) == 1
    assert Tiers("c", rollout).of(LAMP) == 1


@pytest.mark.parametrize(
    "values", [{}, {"percent": 1.0, "regions": ["n"]}, {"nodes": [], "tags": {"a": "b"}}, {"tags": {}}]
)
def test_a_tier_means_nodes_in_one_way(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"percent|tags"):
        Tier.model_validate_json(json.dumps({"name": "t", **values}))


def test_a_local_gate_that_nobody_can_bring_to_its_success_ratio_any_more_needs_the_cloud() -> None:
    rollout = gate(success_ratio=0.9, failure_ratio=0.5)
    states = [{State.UPDATED: 8, State.FAILED: 2, State.PENDING: 1}, {}]
    assert judge(rollout, 1, states, 0.0, 0.0).verdict is Verdict.WAIT
    states = [{State.UPDATED: 8, State.FAILED: 2}, {}]
    assert judge(rollout, 1, states, 0.0, 0.0).verdict is Verdict.NEEDS_CLOUD


@pytest.mark.parametrize(("percent", "of"), [(29, 100), (57, 100), (58, 100), (7, 100), (55, 1000), (113, 1000)])
def test_ratios_are_decimal_fractions(percent: int, of: int) -> None:
    """Floats would call 29 failures of 100 more than 29 %, and 58 updated of 100 less than 58 %."""
    exact = [{State.UPDATED: of - percent, State.FAILED: percent}, {}]
    more = [{State.UPDATED: of - percent - 1, State.FAILED: percent + 1}, {}]
    allowed = gate(failure_ratio=percent / of, success_ratio=(of - percent) / of)
    assert judge(allowed, 1, exact, 0.0, 0.0).verdict is Verdict.OPEN
    assert judge(allowed, 1, more, 0.0, 0.0).verdict is Verdict.BREACH
