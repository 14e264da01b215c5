"""What travels between the site's nodes and programs that use them: documents and topics of the bridge. PURE.

All topics lie below the gateway's own prefix, so that the broker's rule "a gateway its own id" covers them.
"""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, Field, JsonValue, StringConstraints, model_validator

from gatewayd.cloud.messages import Document, NodeName, gateway_topic, utc
from radios.radio import GreenPowerMessage, NodeMessage, radio_of

REQUEST_MAX_BYTES = 16 * 1024
DEADLINE_DEFAULT_S = 120.0
DEADLINE_MAX_S = 3600.0

REQUESTS = "nodes/requests"
RESPONSES = "nodes/responses"
GROUPS_RADIO = "zigbee"  # the only one that knows groups

RequestId = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class NodeTraffic(Document):
    """What a node has sent of its own accord. `data` by kind, with the names of zigpy:

    `attribute_report`: attributes (values by name, or by number in hexadecimal digits), side, sequence, perhaps manufacturer.
    `command` and `response` (to one of ours): command, command_id, arguments or payload, side, sequence, perhaps manufacturer.
    `raw`: frame in hexadecimal digits, profile.
    """

    node: NodeName
    endpoint: Annotated[int, Field(ge=0, le=255)]
    cluster: str
    cluster_id: Annotated[int, Field(ge=0, le=0xFFFF)]
    kind: Literal["attribute_report", "command", "response", "raw"]
    at: AwareDatetime  # of the gateway's radio
    data: dict[str, JsonValue]
    lqi: int | None = None
    rssi_dbm: float | None = None


class GreenPowerTraffic(Document):
    """What a Green Power device has sent: a switch or sensor that harvests its energy, is no node and cannot be asked.

    `command`: command, command_id, arguments or payload (hexadecimal digits). `raw`: payload, still encrypted. `security` says
    what is proven of the frame: `none`: anybody in reach may have sent it.
    """

    source: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{8}|[0-9a-f]{16})$")]
    endpoint: Annotated[int, Field(ge=0, le=255)] | None = None
    kind: Literal["command", "raw"]
    security: Literal["none", "proven", "unchecked"]
    commissioned: bool  # by this gateway
    sequence: int | None = None
    at: AwareDatetime  # of the gateway's radio
    data: dict[str, JsonValue]
    lqi: int | None = None
    rssi_dbm: float | None = None


class NodeRequest(Document):
    """Asked of a node, or a `command` to a group of Zigbee nodes, which none of them answers. `id` is the asker's, and new for
    each request; the same one again within ten minutes is a repetition.
    """

    id: RequestId
    node: NodeName | None = None
    group: Annotated[int, Field(ge=1, le=0xFFF7)] | None = None
    name: Literal["read", "write", "command", "bind", "unbind", "bindings", "configure_reporting", "reporting"]
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    timeout_s: Annotated[float, Field(gt=0, le=DEADLINE_MAX_S)] = DEADLINE_DEFAULT_S

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if (self.node is None) == (self.group is None):
            raise ValueError("give node or group, one of them")
        if self.group is not None and (self.name != "command" or "group" in self.arguments):
            raise ValueError("a group takes the request command alone, and is not among its arguments")
        return self

    @property
    def target(self) -> str:
        """In words; also what counts as one asked at a time."""
        return self.node if self.node is not None else f"group {self.group}"

    @property
    def radio(self) -> str:
        return GROUPS_RADIO if self.node is None else radio_of(self.node)


class NodeResponse(Document):
    """The answer to a request. `code` is stable: failed, timeout, forbidden, busy, unknown_radio, bad_document, too_large, retained."""

    id: str  # empty when the request's could not be read
    ok: bool
    at: AwareDatetime
    code: str = ""
    detail: Annotated[str, StringConstraints(max_length=2000)] = ""
    value: JsonValue = None


def traffic_topic(gateway: str, node: str, endpoint: int | str) -> str:
    """One topic per node and endpoint."""
    return gateway_topic(gateway, f"nodes/{node}/{endpoint}")


def green_power_topic(gateway: str, source: str) -> str:
    """One topic per device. It has the form of a node's, so that brokers which let those pass let these pass too."""
    return gateway_topic(gateway, f"nodes/green-power/{source}")


def green_power_payload(message: GreenPowerMessage) -> bytes:
    """The `GreenPowerTraffic` document of a message."""
    return _encoded(
        {
            "source": message.source,
            "endpoint": message.endpoint,
            "kind": message.kind.value,
            "security": message.security.value,
            "commissioned": message.commissioned,
            "sequence": message.sequence,
            "at": _moment(message.at),
            "data": dict(message.data),
            "lqi": message.lqi,
            "rssi_dbm": message.rssi_dbm,
        }
    )


def traffic_payload(message: NodeMessage) -> bytes:
    """The `NodeTraffic` document of a message; made without the model, for it is our own and there may be many."""
    return _encoded(
        {
            "node": message.node,
            "endpoint": message.endpoint,
            "cluster": message.cluster_name,
            "cluster_id": message.cluster,
            "kind": message.kind.value,
            "at": _moment(message.at),
            "data": dict(message.data),
            "lqi": message.lqi,
            "rssi_dbm": message.rssi_dbm,
        }
    )


def id_of(raw: bytes) -> str:
    """The id in a request that is otherwise refused, so that its asker hears of it; empty when there is none."""
    try:
        found = json.loads(raw)["id"]
        found.encode()  # half a surrogate is JSON, and cannot be sent
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""
    return str(found[:64])


def _moment(at: float) -> str:
    return utc(at).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _encoded(document: dict[str, Any]) -> bytes:
    plain = {key: value for key, value in document.items() if value is not None}
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
