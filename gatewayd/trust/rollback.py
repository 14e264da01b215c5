"""No way back to firmware with known holes: the fleet's floor and the node's own. PURE."""

from gatewayd.cloud import messages
from gatewayd.errors import Refused


def fleet_floor(hardware: str, manufacturers: messages.Manufacturers) -> int:
    """The lowest security version that may be delivered to this hardware; 0 when no floor is set."""
    return max((f.minimum_security_version for f in manufacturers.floors if f.hardware == hardware), default=0)


def check_rollback(
    release: messages.Release, hardware: str, manufacturers: messages.Manufacturers, node_floor: int
) -> None:
    """Refused("below_floor") below the fleet's floor for the hardware, Refused("downgrade") below the node's own.

    `node_floor` is the highest security version that this system delivered and the node confirmed; 0 when none.
    """
    what = f"{release.name} {release.version} has security version {release.security_version}"
    if release.security_version < (floor := fleet_floor(hardware, manufacturers)):
        raise Refused("below_floor", f"{what}; the fleet's minimum for {hardware} is {floor}")
    if release.security_version < node_floor:
        raise Refused("downgrade", f"{what}; the node has confirmed {node_floor}")
