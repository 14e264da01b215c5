"""Bindings and reporting asked of a node and set on it, in the words of `node_config`.

No answer raises as zigpy does; an answer that refuses is a status.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

import zigpy.exceptions
import zigpy.types as t
import zigpy.zcl.foundation as zcl
import zigpy.zdo.types as zdo

from radios.errors import Unsupported
from radios.radio import NodeId
from radios.zigbee.node_config import Binding, NodeConfig, ReportedAttribute, ReportTerms
from radios.zigbee.nodes import eui64, is_sleepy, node_id, poll_control_endpoint
from radios.zigbee.poll_control import POLL_CONTROL_CLUSTER_ID
from radios.zigbee.values import is_analog, plain

SUCCESS: Final = "SUCCESS"
COORDINATOR: Final = "coordinator"

_GROUP_ADDRESS, _EXTENDED_ADDRESS = 0x01, 0x03
_GROUP_PREFIX = "group:"
_PAGES_MOST = 64  # of a binding table: three entries each
_PER_FRAME = 4  # reporting configurations whose answer fits into a frame that is not fragmented


def status_name(status: Any) -> str:
    """As zigpy calls it, or its number."""
    name = getattr(status, "name", None)
    return name if isinstance(name, str) else f"0x{int(status):02x}"


def target_of_group(group: int) -> str:
    return f"{_GROUP_PREFIX}{group}"


def target_of_node(ieee: Any) -> str:
    return node_id(ieee).partition(":")[2]


async def set_binding(device: Any, binding: Binding, *, unbind: bool = False) -> str:
    """Bind_req or Unbind_req; the node's status."""
    address = zdo.MultiAddress()
    if binding.target.startswith(_GROUP_PREFIX):
        address.addrmode, address.nwk = _GROUP_ADDRESS, t.uint16_t(int(binding.target.removeprefix(_GROUP_PREFIX)))
    else:
        address.addrmode = _EXTENDED_ADDRESS
        address.ieee = eui64(NodeId(f"zigbee:{binding.target}"))
        address.endpoint = t.uint8_t(binding.target_endpoint)
    ask = device.zdo.Unbind_req if unbind else device.zdo.Bind_req
    answer = await ask(device.ieee, t.uint8_t(binding.endpoint), t.uint16_t(binding.cluster), address)
    return status_name(answer[0])


def check_in_binding(app: Any, device: Any) -> Binding | None:
    """What a sleepy node's check-ins need to come to us; None: it does not sleep, or has no Poll Control cluster."""
    endpoint = poll_control_endpoint(device) if is_sleepy(device) else None
    if endpoint is None:
        return None
    own = app.get_dst_address(device.endpoints[endpoint].in_clusters[POLL_CONTROL_CLUSTER_ID])
    return Binding(endpoint, POLL_CONTROL_CLUSTER_ID, target_of_node(own.ieee), int(own.endpoint))


async def read_bindings(device: Any) -> list[Binding] | None:
    """The node's binding table; None when it does not show one."""
    found: list[Binding] = []
    for _ in range(_PAGES_MOST):
        try:
            status, entries, _start, page = await device.zdo.Mgmt_Bind_req(len(found))
        except zigpy.exceptions.ParsingError:
            return None  # a refusal is shorter than zigpy expects
        if status != zdo.Status.SUCCESS:
            return None
        found += [_binding(entry) for entry in page]
        if not page or len(found) >= entries:
            return found
    return found


async def read_reporting(
    device: Any, wanted: Iterable[ReportedAttribute]
) -> dict[ReportedAttribute, ReportTerms | None]:
    """What is configured of these attributes; None: nothing. Attributes that the node does not have are left out."""
    found: dict[ReportedAttribute, ReportTerms | None] = {}
    for attributes in _frames(wanted):
        first = attributes[0]
        cluster = server_cluster(device, first.endpoint, first.cluster)
        if cluster is None:
            continue
        records = [
            zcl.ReadReportingConfigRecord(direction=zcl.ReportingDirection.SendReports, attrid=t.uint16_t(a.attribute))
            for a in attributes
        ]
        ask = zcl.GeneralCommand.Read_Reporting_Configuration
        answer = await cluster.general_command(ask, records, manufacturer=first.manufacturer)
        if isinstance(answer, zcl.DefaultResponse):  # it cannot say: as if nothing were configured
            found |= dict.fromkeys(attributes)
            continue
        found |= {
            a: _said(a, answer.attribute_configs) for a in attributes if not _unknown(a, answer.attribute_configs)
        }
    return found


async def set_reporting(device: Any, wanted: Mapping[ReportedAttribute, ReportTerms]) -> dict[ReportedAttribute, str]:
    """Configure Reporting; the node's status of each. An endpoint or cluster that is gone is UNSUPPORTED_CLUSTER."""
    statuses: dict[ReportedAttribute, str] = {}
    for attributes in _frames(wanted):
        first = attributes[0]
        cluster = server_cluster(device, first.endpoint, first.cluster)
        if cluster is None:
            statuses |= dict.fromkeys(attributes, "UNSUPPORTED_CLUSTER")
            continue
        records = [_record(a, wanted[a]) for a in attributes]
        command = zcl.GeneralCommand.Configure_Reporting
        answer = await cluster.general_command(command, records, manufacturer=first.manufacturer)
        if isinstance(answer, zcl.DefaultResponse):
            statuses |= dict.fromkeys(attributes, status_name(answer.status))
            continue
        refused = {r.attrid: r.status for r in answer.status_records if r.attrid is not None}
        statuses |= {a: status_name(refused[a.attribute]) if a.attribute in refused else SUCCESS for a in attributes}
    return statuses


async def restore(device: Any, missing: NodeConfig) -> dict[str, list[str]]:
    """Set what a node has lost; what was set and what the node refused, in words."""
    done: dict[str, list[str]] = {"bindings": [], "reporting": [], "refused": []}
    for binding in missing.bindings:
        status = await set_binding(device, binding)
        text = f"binding of cluster {binding.cluster:#06x} on endpoint {binding.endpoint} to {binding.target}"
        done["bindings" if status == SUCCESS else "refused"].append(text if status == SUCCESS else f"{text}: {status}")
    statuses = await set_reporting(device, missing.reporting)
    for a, status in statuses.items():
        text = f"reporting of attribute {a.attribute:#06x} of cluster {a.cluster:#06x} on endpoint {a.endpoint}"
        done["reporting" if status == SUCCESS else "refused"].append(text if status == SUCCESS else f"{text}: {status}")
    return done


def server_cluster(device: Any, endpoint: int, cluster: int) -> Any:
    """zigpy's object; None when the node has no such server cluster."""
    return getattr(device.endpoints.get(endpoint), "in_clusters", {}).get(cluster)


def _frames(wanted: Iterable[ReportedAttribute]) -> Iterator[Sequence[ReportedAttribute]]:
    """Attributes that can be asked together."""

    def together(a: ReportedAttribute) -> tuple[int, int, int]:
        return a.endpoint, a.cluster, -1 if a.manufacturer is None else a.manufacturer

    for _, group in groupby(sorted(wanted, key=together), key=together):
        attributes = list(group)
        for at in range(0, len(attributes), _PER_FRAME):
            yield attributes[at : at + _PER_FRAME]


def _record(attribute: ReportedAttribute, terms: ReportTerms) -> Any:
    record = zcl.AttributeReportingConfig()
    record.direction = zcl.ReportingDirection.SendReports
    record.attrid = t.uint16_t(attribute.attribute)
    record.datatype = t.uint8_t(terms.type)
    record.min_interval = t.uint16_t(terms.min_s)
    record.max_interval = t.uint16_t(terms.max_s)
    record.reportable_change = terms.change  # None as well: zigpy's repr, which its request makes, wants the attribute
    try:
        record.serialize()
    except (ValueError, AttributeError, TypeError) as error:
        raise Unsupported(f"reporting of attribute {attribute.attribute:#06x}: {error}") from None
    return record


def _said(attribute: ReportedAttribute, configs: Any) -> ReportTerms | None:
    for entry in configs:
        config = entry.config
        if (
            entry.status != zcl.Status.SUCCESS
            or config.attrid != attribute.attribute
            or not hasattr(config, "datatype")
        ):
            continue
        change = plain(getattr(config, "reportable_change", None)) if _has_amount(int(config.datatype)) else None
        amount = change if isinstance(change, int | float) else None
        return ReportTerms(int(config.datatype), int(config.min_interval), int(config.max_interval), amount)
    return None


def _unknown(attribute: ReportedAttribute, configs: Any) -> bool:
    return any(
        entry.status == zcl.Status.UNSUPPORTED_ATTRIBUTE and entry.config.attrid == attribute.attribute
        for entry in configs
    )


def _has_amount(number: int) -> bool:
    try:
        return is_analog(zcl.DataType.from_type_id(number))
    except (ValueError, KeyError):
        return False


def _binding(entry: Any) -> Binding:
    address = entry.DstAddress
    if address.addrmode == _GROUP_ADDRESS:
        return Binding(int(entry.SrcEndpoint), int(entry.ClusterId), target_of_group(int(address.nwk)))
    target = target_of_node(address.ieee)
    return Binding(int(entry.SrcEndpoint), int(entry.ClusterId), target, int(address.endpoint))
