"""What zigpy knows of a node, in the contract's words, and what is asked of the node itself.

Only what the node said now becomes an observation of battery, version or hardware: zigpy's cache may be weeks old.
"""

import functools
import logging
from dataclasses import dataclass
from typing import Any, Final

import zigpy.types
import zigpy.zcl.foundation as zcl

from radios.radio import NodeId, NodeObservation, Power, parse_node_id
from radios.zigbee.ota_commands import OTA_CLUSTER_ID, WILDCARD_VERSION
from radios.zigbee.poll_control import POLL_CONTROL_CLUSTER_ID
from radios.zigbee.reconcile import ClientAttributes

BASIC_CLUSTER_ID: Final = 0x0000
POWER_CLUSTER_ID: Final = 0x0001

_HARDWARE_VERSION = 0x0003  # Basic
_BATTERY_PERCENTAGE_REMAINING = 0x0021  # PowerConfiguration, half percent
_BATTERY_UNKNOWN = 0xFF
_FRAME_TYPE, _MANUFACTURER_SPECIFIC, _TO_CLIENT = 0x03, 0x04, 0x08  # bits of a ZCL frame's first byte
_READ_ANSWER, _REPORT = 0x01, 0x0A
DIAGNOSTICS_CLUSTER_ID: Final = 0x0B05
_NUMBER_OF_RESETS = 0x0000  # Diagnostics: how often, not why
_FAST_POLL_TIMEOUT_MAX = 0x0006  # Poll Control, quarter seconds

# OTA Upgrade, on the client.
_FILE_OFFSET = 0x0001
_CURRENT_FILE_VERSION = 0x0002
_DOWNLOADED_FILE_VERSION = 0x0004
_IMAGE_UPGRADE_STATUS = 0x0006
_MANUFACTURER_ID = 0x0007
_IMAGE_TYPE_ID = 0x0008
_MINIMUM_BLOCK_PERIOD = 0x0009
_CLUSTER_REVISION = 0xFFFD
_OTA_ATTRIBUTES = [
    _FILE_OFFSET,
    _CURRENT_FILE_VERSION,
    _DOWNLOADED_FILE_VERSION,
    _IMAGE_UPGRADE_STATUS,
    _MANUFACTURER_ID,
    _IMAGE_TYPE_ID,
    _MINIMUM_BLOCK_PERIOD,
    _CLUSTER_REVISION,
]
_QUESTIONS = (
    ("in_clusters", BASIC_CLUSTER_ID, [_HARDWARE_VERSION]),
    ("out_clusters", OTA_CLUSTER_ID, _OTA_ATTRIBUTES),
    ("in_clusters", POWER_CLUSTER_ID, [_BATTERY_PERCENTAGE_REMAINING]),
    ("in_clusters", DIAGNOSTICS_CLUSTER_ID, [_NUMBER_OF_RESETS]),
    ("in_clusters", POLL_CONTROL_CLUSTER_ID, [_FAST_POLL_TIMEOUT_MAX]),
)

_LOG = logging.getLogger(__name__)


def node_id(ieee: Any) -> NodeId:
    """zigpy's EUI64 as a node id."""
    return parse_node_id("zigbee:" + str(ieee).replace(":", "").lower())


class _Eui64(zigpy.types.EUI64):  # type: ignore[misc]  # zigpy's types are not checked
    """An EUI64 that knows its hash: zigpy makes a text of it at every look into a dict, for every frame."""

    def __init__(self, octets: Any) -> None:
        super().__init__(octets)
        self._hash: int = super().__hash__()

    def __hash__(self) -> int:
        return self._hash


@functools.lru_cache(maxsize=4096)
def eui64(node: NodeId) -> Any:
    """A node id as zigpy's EUI64; to be looked up with, not to be changed."""
    return _Eui64(zigpy.types.EUI64.convert(node.partition(":")[2]))


def device_of(app: Any, node: NodeId) -> Any:
    """zigpy's device as it is now; None when it knows none, or there is no application."""
    return None if app is None else app.devices.get(eui64(node))


@functools.lru_cache(maxsize=4096)
def nwk_address(nwk: int) -> Any:
    """A short address as packets carry it; shared between packets, not to be changed."""
    return zigpy.types.AddrModeAddress(addr_mode=zigpy.types.AddrMode.NWK, address=nwk)


def hardware_name(manufacturer: int, image_type: int) -> str:
    """What releases are matched by."""
    return f"zigbee:{manufacturer:04x}-{image_type:04x}"


def is_sleepy(device: Any) -> bool:
    """Whether the node does not listen when idle; unknown counts as not."""
    return device.node_desc is not None and not device.node_desc.is_receiver_on_when_idle


def ota_endpoint(device: Any) -> int | None:
    """The endpoint with the node's OTA client, if it said that it has one."""
    for endpoint in device.non_zdo_endpoints:
        if OTA_CLUSTER_ID in endpoint.out_clusters:
            return int(endpoint.endpoint_id)
    return None


def describe(device: Any, at: float) -> NodeObservation:
    """What does not change by itself: names, power source, sleep, and the link as last heard."""
    descriptor = device.node_desc
    power = sleepy = None
    if descriptor is not None:
        power = Power.MAINS if descriptor.is_mains_powered else Power.BATTERY
        sleepy = is_sleepy(device)
    return NodeObservation(
        node_id(device.ieee),
        at,
        manufacturer=device.manufacturer,
        model=device.model,
        power=power,
        sleepy=sleepy,
        lqi=_whole(device.lqi),
        rssi_dbm=None if device.rssi is None else float(device.rssi),
        joined=True,
    )


def link_quality(node: NodeId, device: Any, at: float) -> NodeObservation:
    """As a frame of the node was heard: so it is in the network."""
    rssi = None if device.rssi is None else float(device.rssi)
    return NodeObservation(node, at, lqi=_whole(device.lqi), rssi_dbm=rssi, joined=True)


def said_battery(node: NodeId, frame: bytes, at: float) -> NodeObservation | None:
    """The battery in a frame of a node's PowerConfiguration cluster: a report or the answer to a read that says the percentage.

    None for all other frames: a voltage or an alarm says nothing of it, and what zigpy remembers may be weeks old.
    """
    if len(frame) < 3 or frame[0] & (_FRAME_TYPE | _MANUFACTURER_SPECIFIC | _TO_CLIENT) != _TO_CLIENT:
        return None
    record = {_REPORT: zcl.Attribute, _READ_ANSWER: zcl.ReadAttributeRecord}.get(frame[2])
    body, percent = frame[3:], None
    try:
        while record is not None and body:
            said, body = record.deserialize(body)
            if said.attrid == _BATTERY_PERCENTAGE_REMAINING and said.value is not None:
                percent = _percent(said.value.value)
    except Exception as error:  # noqa: BLE001  # zigpy's types raise what they like; what came before it is good
        _LOG.debug("%s: battery not understood in %s: %r", node, frame.hex(), error)
    return None if percent is None else NodeObservation(node, at, battery_percent=percent)


@dataclass(frozen=True, slots=True)
class Interview:
    """What a node answered. `resets`: how often it was reset, of the few that count it; none tells why. `silent`: nothing."""

    observation: NodeObservation
    client: ClientAttributes
    resets: int | None
    fast_poll_timeout_max: int | None  # quarter seconds
    silent: bool


async def interview(device: Any, at: float) -> Interview:
    """Ask the node for versions, hardware, battery and its OTA client's state. What it does not answer stays None."""
    said = [await _read(device, *question) for question in _QUESTIONS]
    silent = any(found for found, _ in said) and not any(answer is not None for found, answer in said if found)
    basic, ota, power, diagnostics, poll = (answer or {} for _, answer in said)
    version = ota.get(_CURRENT_FILE_VERSION)
    manufacturer, image_type = ota.get(_MANUFACTURER_ID), ota.get(_IMAGE_TYPE_ID)
    known = manufacturer is not None and image_type is not None
    observation = NodeObservation(
        node_id(device.ieee),
        at,
        hardware=hardware_name(manufacturer, image_type) if known else None,  # type: ignore[arg-type]  # known says so
        hardware_version=basic.get(_HARDWARE_VERSION),
        version=None if version == WILDCARD_VERSION else version,
        battery_percent=_percent(power.get(_BATTERY_PERCENTAGE_REMAINING)),
    )
    client = ClientAttributes(
        file_offset=ota.get(_FILE_OFFSET),
        current_version=observation.version,
        downloaded_version=ota.get(_DOWNLOADED_FILE_VERSION),
        upgrade_status=ota.get(_IMAGE_UPGRADE_STATUS),
        manufacturer=manufacturer,
        image_type=image_type,
        minimum_block_period=ota.get(_MINIMUM_BLOCK_PERIOD),
        cluster_revision=ota.get(_CLUSTER_REVISION),
    )
    resets, fast_poll = diagnostics.get(_NUMBER_OF_RESETS), poll.get(_FAST_POLL_TIMEOUT_MAX)
    return Interview(observation, client, resets, fast_poll, silent)


def poll_control_endpoint(device: Any) -> int | None:
    """The endpoint with the node's Poll Control cluster."""
    return next(
        (int(e.endpoint_id) for e in device.non_zdo_endpoints if POLL_CONTROL_CLUSTER_ID in e.in_clusters), None
    )


async def _read(device: Any, side: str, cluster_id: int, attributes: list[int]) -> tuple[bool, dict[int, int] | None]:
    """Whether the node has the cluster, and the numbers that it answered, without those it does not have; None: no answer."""
    for endpoint in device.non_zdo_endpoints:
        cluster = getattr(endpoint, side).get(cluster_id)
        if cluster is None:
            continue
        try:
            # In one request, so that the values belong together; what does not fit, zigpy asks again by itself.
            success, _ = await cluster.read_attributes(attributes, split_requests=False)
        except Exception as error:  # noqa: BLE001  # zigpy and its libraries raise what they like for "no answer"
            _LOG.debug("%s: cluster %#06x not read: %r", device.ieee, cluster_id, error)
            return True, None
        return True, {int(name): int(value) for name, value in success.items() if isinstance(value, int)}
    return False, None


def _percent(half_percent: Any) -> float | None:
    if half_percent is None or half_percent == _BATTERY_UNKNOWN:
        return None
    return min(100.0, int(half_percent) / 2)


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)
