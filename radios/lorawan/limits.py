"""How much a node can make up, and that a node which lost more gets no coded fragment. PURE.

One coded fragment more, and its decoder would give up, or take a wrong image for a whole one (protocol notes 1.6).
"""

from radios.lorawan.messages import Release
from radios.lorawan.outgoing import Outgoing
from radios.lorawan.session_node import SessionNode
from radios.lorawan.traits import Trait, lost, untold


def beyond(out: Outgoing, node: SessionNode, next_counter: int) -> bool:
    """Before the first coded fragment: whether the node lost more than it makes up, and so has left for a lower data rate."""
    limit = node.profile.redundancy_limit
    if limit is None or next_counter > out.cohort.nb_frag + 1:
        return False
    missing = lost(node)
    if missing <= limit:
        return False
    detail = f"{missing} fragments lost, of which it makes up {limit}"
    out.leave(node, Release(node.dev_eui, again=True, reason="redundancy", detail=detail))
    return True


def sound(out: Outgoing) -> bool:
    """After the plain fragments: ask those that may be beyond their limit and did not say; True while one is being asked."""
    for node in out.roster.of(Trait.UNSOUNDED):
        node.sounded = True
        if untold(node):
            out.ask_alone(node)
        out.roster.touch(node)
    return out.roster.count(Trait.SOUNDED) > 0
