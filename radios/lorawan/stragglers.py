"""Which nodes go on alone because that takes less air, or because they hear nothing of the group. PURE."""

from radios.lorawan.counters import Counters
from radios.lorawan.feeds import Feeds
from radios.lorawan.limits import beyond
from radios.lorawan.needs import Needs
from radios.lorawan.outgoing import Outgoing
from radios.lorawan.session_node import SessionNode, Step

FEW = 2
"""Silent nodes that are asked one by one rather than all again, and stragglers that may be fed one by one."""

_DEAF_MOST = 64
"""Fragments to the group that a node heard none of which cannot be served alone: it begins again rather than hold up the group."""


class Stragglers:
    def __init__(self, out: Outgoing, counters: Counters, feeds: Feeds) -> None:
        self._out = out
        self._counters = counters
        self._feeds = feeds

    def all_repairable(self, needs: Needs, *, over: bool) -> bool:
        """Whether single repairs may be all that is left: then it is worth hearing the others before the group is sent more.

        `over`: the time for answers is.
        """
        if not needs.silent or not self._counters.coding or not 0 < len(needs.told) <= FEW:
            return False
        if over and len(needs.silent) > FEW:
            return False
        told = {name: self._out.nodes[name].block.need(self._counters.next - 1) for name in needs.told.names()}
        return self._feeds.worth(told, windows=0)

    def part(self, answered: list[SessionNode], left: int, spacing_s: float, now: float) -> list[SessionNode]:
        """Who goes on with the group: a few nodes may cost less one by one, and one that hears nothing of it has to.

        `left`: nodes in demand that are not complete for all that is known. `spacing_s`: between two fragments.
        """
        out, counters = self._out, self._counters
        answered = [node for node in answered if not beyond(out, node, counters.next)]
        if not counters.coding or not answered:
            return answered
        needs = {node.dev_eui: node.block.need(counters.next - 1) for node in answered if not node.suspect}
        if not needs:
            return answered
        windows = len(needs) if now + max(needs.values()) * spacing_s > out.cohort.window_end else 0
        few = left == len(needs) <= FEW and self._feeds.worth(needs, windows)
        for node in answered:
            if node.suspect:
                continue  # it may be complete: its image says
            unheard = counters.highest - node.block.same_since
            deaf = node.block.tail + unheard >= out.settings.deaf_fragments
            if few or (deaf and self._feeds.cost_s(node, needs[node.dev_eui]) < float("inf")):
                node.unicast = True
                out.changed(node)
            elif unheard >= _DEAF_MOST and node.block.received < out.cohort.nb_frag:  # else it may be complete
                out.again(node, now, "deaf", f"it has heard none of the last {unheard} fragments to the group")
        return [node for node in answered if not node.unicast and node.step is Step.RECEIVING]
