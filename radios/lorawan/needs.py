"""What the nodes in demand need, of those that answered the last poll and of those that did not. PURE.

A look costs as much as nodes were touched since the last one. Only what all needs depend on, as the counter that was
sent, has them all worked out afresh.
"""

from radios.lorawan.counters import Counters
from radios.lorawan.greatest import Greatest
from radios.lorawan.roster import Roster
from radios.lorawan.session_node import SessionNode, Step
from radios.lorawan.traits import Trait

_GOAL = 0.3  # deviations beyond the mean that a round aims at: a poll costs less than a fragment
_STALE_GOAL = -0.5  # for nodes that did not answer
_MAY_NEED = 2.0  # ... at the most
UNPROVEN_GOALS = (1.0, 2.0)
"""For nodes that may be complete, and do not say whether they are; one round each."""
_UNTOLD = float("inf")


class Needs:
    """`told` and `suspect` say in fragments what is to be sent; `silent`: what its nodes may need at the most."""

    def __init__(self, roster: Roster, counters: Counters) -> None:
        self.told = Greatest()  # answered, and not suspect
        self.suspect = Greatest()  # may be complete; empty while no round is for them
        self.silent = Greatest()  # did not answer, suspect or not
        self._stale = Greatest()  # ... not suspect: what to send all the same
        self._heard = Greatest()
        self._roster = roster
        self._counters = counters
        self._touched = roster.watch()
        self._base: tuple[int, ...] | None = None

    def look(self, polls: int, unproven_round: int) -> None:
        """`polls`: the number of the last one. `unproven_round`: 0 when those that may be complete are being asked."""
        base = self._counters.next, self._counters.revision, polls, unproven_round
        if base != self._base:
            for kept in (self.told, self.suspect, self.silent, self._stale, self._heard):
                kept.clear()
            for node in self._roster.of(Trait.DEMAND):
                self._put(node, polls, unproven_round)
            self._base = base
        else:
            for dev_eui in self._touched:
                for kept in (self.told, self.suspect, self.silent, self._stale, self._heard):
                    kept.drop(dev_eui)
                touched = self._roster.nodes.get(dev_eui)
                if touched is not None and touched.in_demand:
                    self._put(touched, polls, unproven_round)
        self._touched.clear()

    def of_all(self) -> float:
        return max(self.told.most(0.0), self.suspect.most(0.0), self._stale.most(0.0))

    def heard(self, node: SessionNode) -> None:
        """An uplink came that need not change anything else."""
        if node.step is Step.RECEIVING and node.dev_eui in self._heard:
            self._heard.put(node.dev_eui, node.last_heard)

    def of(self, dev_eui: str) -> float:
        """Of one that answered."""
        return max(self.told.get(dev_eui, 0.0), self.suspect.get(dev_eui, 0.0))

    def heard_at(self) -> float:
        """The last uplink of any of them."""
        return self._heard.most(0.0)

    def _put(self, node: SessionNode, polls: int, unproven_round: int) -> None:
        name, silent = node.dev_eui, node.answered_poll < polls
        self._heard.put(name, node.last_heard)
        found = node.block.demand(self._counters.next - 1)
        if silent:
            self.silent.put(name, _UNTOLD if found is None else found.at(_MAY_NEED))
        if node.suspect:
            if unproven_round:
                self.suspect.put(name, 0.0 if found is None else found.at(UNPROVEN_GOALS[unproven_round - 1]))
        elif silent:
            self._stale.put(name, 0.0 if found is None else found.at(_STALE_GOAL))
        else:
            self.told.put(name, 0.0 if found is None else found.at(_GOAL))
