"""Which tier a node belongs to, and when the next tier opens. PURE.

A node's place depends on the campaign's and the node's names alone, so every gateway of a fleet names the same canaries
without talking: the first 8 bytes of SHA-256(campaign id, 0x00, node id), big endian, over 2^64.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from gatewayd.campaign.node_update import ENDED, EXECUTED, State
from gatewayd.cloud.messages import Rollout


def place(campaign: str, node: str) -> int:
    """0 <= place < 2^64."""
    return int.from_bytes(hashlib.sha256(campaign.encode() + b"\x00" + node.encode()).digest()[:8], "big")


class Tiers:
    """The tiers of one campaign, made for one look at its nodes: what it said of a node it says again. `region` is the gateway's."""

    def __init__(self, campaign: str, rollout: Rollout, region: str = "") -> None:
        self._known: dict[str, int | None] = {}
        self._prefix = hashlib.sha256(campaign.encode() + b"\x00")
        # Decimal, not float: 0.1 % must cut at the same place in every language.
        self._cuts = [
            (
                frozenset(tier.nodes or ()),
                0 if tier.percent is None else int(Decimal(str(tier.percent)) * 2**64 / 100),
                None if tier.tags is None else tier.tags.items(),
                region in (tier.regions or ()),
            )
            for tier in rollout.tiers
        ]

    def of(self, node: str, tags: Mapping[str, str] | None = None) -> int | None:
        """The index of the first tier that means the node, which has these tags; None when no tier does."""
        if node not in self._known:
            self._known[node] = self._find(node, tags)
        return self._known[node]

    def _find(self, node: str, tags: Mapping[str, str] | None) -> int | None:
        seen = self._prefix.copy()
        seen.update(node.encode())
        where = int.from_bytes(seen.digest()[:8], "big")
        has = (tags or {}).items()
        for index, (named, cut, asked, here) in enumerate(self._cuts):
            if here or where < cut or node in named or (asked is not None and asked <= has):
                return index
        return None


def tier_of(campaign: str, node: str, rollout: Rollout) -> int | None:
    """`Tiers.of` for one node."""
    return Tiers(campaign, rollout).of(node)


class Verdict(StrEnum):
    OPEN = "open"  # the next tier may start
    WAIT = "wait"  # not enough has happened yet
    SOAK = "soak"  # enough has happened, but it has not stood long enough
    NEEDS_CLOUD = "needs_cloud"  # this gateway alone can never fill the minimum, or the cloud decides
    BREACH = "breach"  # too many failed: the campaign pauses
    LAST = "last"  # every tier is open


@dataclass(frozen=True, slots=True)
class GateResult:
    verdict: Verdict
    executed: int
    updated: int
    detail: str


def judge(
    rollout: Rollout, open_tiers: int, states: Sequence[Mapping[State, int]], last_outcome_at: float, now: float
) -> GateResult:
    """What the gate after the tiers that are open says.

    `states`: for every tier of the rollout, how many nodes are in which state. `last_outcome_at`: when the newest
    outcome of an open tier became known (Unix seconds, 0 = none yet).
    """
    gate = rollout.gate
    counted = states[:open_tiers]
    executed = sum(_executed(tier) for tier in counted)
    updated = sum(tier.get(State.UPDATED, 0) for tier in counted)
    unfinished = sum(n for tier in counted for state, n in tier.items() if state not in ENDED)
    numbers = f"{updated} of {executed} updated, {unfinished} unfinished in {open_tiers} open tiers"

    def result(verdict: Verdict, why: str) -> GateResult:
        return GateResult(verdict, executed, updated, f"{why} ({numbers})")

    if executed >= gate.minimum_executed and executed - updated > _share(gate.failure_ratio, executed):
        share = (executed - updated) / executed
        return result(Verdict.BREACH, f"{share:.1%} failed or rolled back, at most {gate.failure_ratio:.1%} may")
    if open_tiers >= len(rollout.tiers):
        return result(Verdict.LAST, "every tier is open")
    if gate.kind == "cloud":
        return result(Verdict.NEEDS_CLOUD, "the cloud opens the next tier: `campaign advance`")
    if executed < gate.minimum_executed:
        if unfinished == 0:
            return result(
                Verdict.NEEDS_CLOUD,
                f"fewer than {gate.minimum_executed} nodes to execute here, the cloud has to `campaign advance`",
            )
        return result(Verdict.WAIT, f"{gate.minimum_executed} must be executed")
    if updated < _share(gate.success_ratio, executed):
        if unfinished == 0:
            return result(
                Verdict.NEEDS_CLOUD,
                f"less than {gate.success_ratio:.1%} are updated here and nobody is left, "
                "the cloud has to `campaign advance`",
            )
        return result(Verdict.WAIT, f"at least {gate.success_ratio:.1%} must be updated")
    # What the tiers before it have shown has opened the newest one: it has to show something itself, as far as it has nodes.
    newest = states[open_tiers - 1]
    if any(state not in ENDED for state in newest) and _executed(newest) < gate.minimum_executed:
        return result(
            Verdict.WAIT, f"{gate.minimum_executed} must be executed in tier {rollout.tiers[open_tiers - 1].name}"
        )
    if now - last_outcome_at < gate.soak_s:
        return result(Verdict.SOAK, f"soaking {gate.soak_s} s")
    return result(Verdict.OPEN, "the gate is open")


def _executed(tier: Mapping[State, int]) -> int:
    return sum(n for state, n in tier.items() if state in EXECUTED)


def _share(ratio: float, of: int) -> Decimal:
    # Decimal, not float: 29 of 100 are not more than 29 %, and 58 of 100 not less than 58 %.
    return Decimal(str(ratio)) * of
