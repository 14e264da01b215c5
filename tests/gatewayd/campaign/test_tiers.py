"""Places of nodes (published vectors) and the verdicts of the gate."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.campaign.node_update import State
from gatewayd.campaign.tiers import Verdict, judge, place, tier_of
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
