"""What can be said of one node at a glance, for a session that counts its nodes by it. PURE.

Everything here follows from the node alone: not from the time, not from its cohort, not from other nodes.
"""

from enum import Enum, auto

from radios.lorawan.block_status import StatusStyle
from radios.lorawan.session_node import NEEDS_DATA, SessionNode, Step
from radios.radio import Want


class Trait(Enum):
    ACTIVE = auto()  # delivery is wanted: neither held nor dropped
    SET_UP = auto()  # active, and may depart
    UNREADY = auto()  # active, and is being set up
    LISTENS_LATER = auto()  # active, set up, and hears a request at its next uplink only
    NEEDS_DATA = auto()
    NEEDS_GROUP = auto()  # ... through the group
    KEYLESS = auto()  # its root key is needed and not here
    FED = auto()
    DEMAND = auto()
    TOLD = auto()  # in demand, and has said what it misses
    TELLS = auto()  # in demand, and its answers tell what coded fragments repair, as far as is known
    ASKED_ALONE = auto()  # in demand, and a unicast status is wanted
    SUSPECT = auto()  # in demand, and may be complete
    BEYOND = auto()  # in demand, and lost more than it makes up
    UNSOUNDED = auto()  # in demand, and may have lost more than it makes up
    SOUNDED = auto()  # in demand, and is being asked whether it has


Mark = Step | Trait

_SET_UP = frozenset({Step.SET_UP, Step.WINDOW, Step.RECEIVING})
_UNREADY = frozenset({Step.GROUP, Step.BLOCK})


def active(node: SessionNode) -> bool:
    return node.want is Want.DELIVER or node.want is Want.INSTALL


def untold(node: SessionNode) -> int:
    """Plain fragments sent since its last answer, once all are."""
    return max(0, node.block.nb_frag - node.block.at_counter)


def lost(node: SessionNode) -> int:
    """Fragments that its decoder has to make up, for all that is known."""
    missing = node.block.missing or 0
    if node.sounded and not node.poll_alone:  # it does not say: by what it lost before
        missing += round(untold(node) * node.block.loss.mean)
    return missing


def marks(node: SessionNode) -> frozenset[Mark]:
    found: set[Mark] = {node.step}
    if active(node):
        found.add(Trait.ACTIVE)
        if node.step in _SET_UP:
            found.add(Trait.SET_UP)
        elif node.step in _UNREADY:
            found.add(Trait.UNREADY)
        if node.step is Step.SET_UP and not node.profile.always_on:
            found.add(Trait.LISTENS_LATER)
    if node.step in NEEDS_DATA:
        found.add(Trait.NEEDS_DATA)
        if not node.unicast:
            found.add(Trait.NEEDS_GROUP)
        if node.root_key is None:
            found.add(Trait.KEYLESS)
    if node.fed:
        found.add(Trait.FED)
    elif node.in_demand:
        found |= _of_demand(node)
    return frozenset(found)


def _of_demand(node: SessionNode) -> set[Mark]:
    found: set[Mark] = {Trait.DEMAND}
    block, limit = node.block, node.profile.redundancy_limit
    if block.missing is not None:
        found.add(Trait.TOLD)
    if block.style is not StatusStyle.LAST:
        found.add(Trait.TELLS)
    if node.poll_alone:
        found.add(Trait.ASKED_ALONE)
    if node.suspect:
        found.add(Trait.SUSPECT)
    if limit is not None:
        if lost(node) > limit:
            found.add(Trait.BEYOND)
        if not node.sounded and (block.missing or 0) + untold(node) > limit:
            found.add(Trait.UNSOUNDED)
        if node.sounded and node.poll_alone:
            found.add(Trait.SOUNDED)
    return found
