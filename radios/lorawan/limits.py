"""How much a node can make up, and that a node which lost more gets no coded fragment. PURE.

One coded fragment more, and its decoder would give up, or take a wrong image for a whole one (protocol notes 1.6).
"""

from collections.abc import Iterable

from radios.lorawan.messages import Release
from radios.lorawan.outgoing import Outgoing
from radios.lorawan.session_node import SessionNode


def beyond(out: Outgoing, node: SessionNode, next_counter: int) -> bool:
    """Before the first coded fragment: whether the node lost more than it makes up, and so has left for a lower data rate."""
    limit = node.profile.redundancy_limit
    if limit is None or next_counter > out.cohort.nb_frag + 1:
        return False
    missing = node.block.missing or 0
    if node.sounded and not node.poll_alone:  # it does not say: by what it lost before
        missing += round(_untold(node) * node.block.loss.mean)
    if missing <= limit:
        return False
    detail = f"{missing} fragments lost, of which it makes up {limit}"
    out.leave(node, Release(node.dev_eui, again=True, reason="redundancy", detail=detail))
    return True


def sound(demand: Iterable[SessionNode]) -> bool:
    """After the plain fragments: ask those that may be beyond their limit and did not say; True while one is being asked."""
    asking = False
    for node in demand:
        limit = node.profile.redundancy_limit
        if limit is not None and not node.sounded and (node.block.missing or 0) + _untold(node) > limit:
            node.sounded = True
            if _untold(node):
                node.ask_afresh()
                node.poll_alone = True
        asking |= node.sounded and node.poll_alone
    return asking


def _untold(node: SessionNode) -> int:
    """Plain fragments sent since its last answer."""
    return max(0, node.block.nb_frag - node.block.at_counter)
