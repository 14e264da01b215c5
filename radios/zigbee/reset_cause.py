"""Why a node was reset, where its manufacturer has an attribute for it: the standard has none. SHELL.

Where it is, and what its values mean, is the operator's to say, for each hardware.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import zigpy.zcl.foundation as zcl

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ResetCauseAttribute:
    """An attribute that holds why the node was last reset. `manufacturer` None: it is read as a standard one is."""

    cluster: int
    attribute: int
    manufacturer: int | None
    values: Mapping[int, str]  # its values in words: power_on, watchdog, soft, ...


async def read_reset_cause(device: Any, where: ResetCauseAttribute) -> str | None:
    """In words; the number where it has none. None when the node does not say."""
    for endpoint in device.non_zdo_endpoints:
        cluster = endpoint.in_clusters.get(where.cluster)
        if cluster is None:
            continue
        try:
            answer = await cluster.read_attributes_raw([where.attribute], manufacturer=where.manufacturer)
        except Exception as error:  # noqa: BLE001  # zigpy and its libraries raise what they like for "no answer"
            _LOG.debug("%s: reset cause not read: %r", device.ieee, error)
            return None
        return None if isinstance(answer, zcl.DefaultResponse) else _said(answer.status_records, where)
    return None


def _said(records: Any, where: ResetCauseAttribute) -> str | None:
    for record in records:
        if record.attrid == where.attribute and record.status == zcl.Status.SUCCESS:
            value = record.value.value
            return where.values.get(int(value), f"{int(value)}") if isinstance(value, int) else None
    return None
