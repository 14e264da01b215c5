"""How a node can be reached: by which group it may be served, or by unicast alone. PURE."""

from collections.abc import Sequence

from radios.lorawan.cohort import Cohort
from radios.lorawan.inventory import Node
from radios.lorawan.lessons import ALONE
from radios.lorawan.link import usable
from radios.lorawan.network_server import DeviceClass
from radios.lorawan.packages import fragmentation
from radios.lorawan.placement import Candidate, Place
from radios.lorawan.regions import Region
from radios.lorawan.unicast_air import UnicastAir


def candidate(
    node: Node, transfer: str, plan: Region, ceiling: int, gateways: Sequence[str], air: UnicastAir
) -> Candidate | None:
    """For placing the node; None: not known yet. `ceiling`: the highest multicast data rate; `gateways`: all there are."""
    known, dev_eui, port = node.known, node.device.dev_eui, node.ports.fragmentation
    version = known.packages.get(fragmentation.PACKAGE_ID) or 1
    if node.unicast_only or known.slower.get(transfer) == ALONE:
        rate = unicast_rate(node, air)
        if rate is None:
            return None  # its next uplink says
        return Candidate(dev_eui, version, rate, frozenset(), port, unicast=True, frag_most=node.fragment_most)
    ceiling = min(ceiling, known.slower.get(transfer, ceiling))
    rate, reaching = usable(plan, ceiling, known.snr_db, known.uplink_dr, gateways)
    class_b = node.device.device_class is DeviceClass.B
    return Candidate(dev_eui, version, rate, reaching, port, class_b=class_b, frag_most=node.fragment_most)


def unicast_rate(node: Node, air: UnicastAir) -> int | None:
    """Data rate of downlinks to the node alone, as it was heard last."""
    return air.data_rate(node.known.uplink_dr, always_on=node.device.device_class is DeviceClass.C)


def place_of(cohort: Cohort) -> Place:
    class_b = cohort.ping_periodicity is not None
    shared = cohort.frag_version, cohort.data_rate, cohort.gateways, cohort.port, cohort.unicast
    return Place(*shared, class_b, cohort.frag_most)


def coded(reason: str) -> tuple[str, str]:
    """Stable code and text of a reason that may begin with its code; else it is `refused`."""
    code, _, detail = reason.partition(": ")
    return (code, detail) if detail and code.isidentifier() else ("refused", reason)
