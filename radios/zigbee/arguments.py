"""Arguments of requests to nodes: clusters, attributes and commands by zigpy's names or by number. Faults are Unsupported."""

from collections.abc import Mapping
from typing import Any, Final

import zigpy.types as t
import zigpy.zcl.foundation as zcl
from zigpy.typing import UNDEFINED

from radios.errors import Unsupported
from radios.radio import Json, NodeCommand
from radios.zigbee.nodes import eui64
from radios.zigbee.ota_commands import OTA_CLUSTER_ID
from radios.zigbee.traffic import cluster_name
from radios.zigbee.values import typed

_MANUFACTURERS_OWN_CLUSTERS: Final = 0xFC00
_NAMES_SHOWN: Final = 40


def check_known(command: NodeCommand, *known: str) -> None:
    """No arguments but these: one that is misspelt would have no effect."""
    if unknown := sorted(set(command.arguments) - set(known)):
        raise Unsupported(f"{command.name}: unknown argument {', '.join(unknown)}; known: {', '.join(known)}")


def device_of(app: Any, command: NodeCommand) -> Any:
    if command.node is None:
        raise Unsupported(f"{command.name}: needs a node")
    device = app.devices.get(eui64(command.node))
    if device is None:
        raise Unsupported(f"{command.name}: {command.node} is not in this network")
    return device


def number(command: NodeCommand, name: str, low: int, high: int, default: int | None = None) -> int:
    """A whole number among the arguments."""
    return whole(command.arguments.get(name, default), f"{command.name}: {name}", low, high)


def whole(value: Json, where: str, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise Unsupported(f"{where} must be a number from {low} to {high}, not {value!r}")
    return value


def manufacturer_of(command: NodeCommand) -> int | None:
    """The manufacturer code that was given; None: what zigpy's definitions say."""
    return None if command.arguments.get("manufacturer") is None else number(command, "manufacturer", 0, 0xFFFF)


def endpoint_of(device: Any, command: NodeCommand) -> Any:
    endpoint = number(command, "endpoint", 1, 254, 1)
    if endpoint not in device.endpoints:
        known = ", ".join(str(e) for e in sorted(device.endpoints) if e) or "none yet: it is not interviewed"
        raise Unsupported(f"{command.name}: {command.node} has no endpoint {endpoint}; known: {known}")
    return device.endpoints[endpoint]


def cluster_of(device: Any, command: NodeCommand) -> Any:
    """zigpy's cluster that `endpoint`, `cluster` and `side` (server, client) name."""
    endpoint = endpoint_of(device, command)
    side = command.arguments.get("side", "server")
    if side not in ("server", "client"):
        raise Unsupported(f"{command.name}: side must be server or client, not {side!r}")
    clusters = endpoint.in_clusters if side == "server" else endpoint.out_clusters
    wanted = by_number(command.arguments.get("cluster"))
    for cluster_id, cluster in clusters.items():
        if wanted in (cluster_id, cluster_name(cluster_id)):
            return cluster
    known = ", ".join(cluster_name(c) for c in sorted(clusters)[:_NAMES_SHOWN]) or "none"
    raise Unsupported(
        f"{command.name}: {command.node} has no {side} cluster {command.arguments.get('cluster')!r}"
        f" on endpoint {endpoint.endpoint_id}; known: {known}"
    )


def attribute_of(cluster: Any, name: Json, manufacturer: int | None, where: str) -> tuple[int, Any]:
    """Number and zigpy's definition of an attribute; the definition is None when only the number is known."""
    wanted = by_number(name)
    if isinstance(wanted, str):
        found = cluster.attributes_by_name.get(wanted)
        if found is None:
            known = ", ".join(sorted(cluster.attributes_by_name)[:_NAMES_SHOWN])
            raise Unsupported(f"{where}: {cluster_name(cluster.cluster_id)} has no attribute {name!r}; known: {known}")
        return int(found.id), found
    identifier = whole(wanted, f"{where}: an attribute's number", 0, 0xFFFF)
    try:
        candidates = cluster.find_attributes(identifier, manufacturer_code=manufacturer)
    except KeyError:
        candidates = []
    return identifier, candidates[0] if candidates else None


def command_of(cluster: Any, name: Json, where: str) -> tuple[int, Any]:
    """Number and zigpy's definition of a command that goes to this side of a cluster."""
    commands: Mapping[int, Any] = cluster.client_commands if cluster.is_client else cluster.server_commands
    return command_among(commands, int(cluster.cluster_id), name, where)


def command_among(commands: Mapping[int, Any], cluster: int, name: Json, where: str) -> tuple[int, Any]:
    """The same among the commands of one side."""
    wanted = by_number(name)
    if isinstance(wanted, str):
        found = next((c for c in commands.values() if c.name == wanted), None)
        if found is None:
            known = ", ".join(sorted(c.name for c in commands.values())[:_NAMES_SHOWN]) or "none"
            raise Unsupported(f"{where}: {cluster_name(cluster)} takes no command {name!r}; known: {known}")
        return int(found.id), found
    identifier = whole(wanted, f"{where}: a command's number", 0, 0xFF)
    return identifier, commands.get(identifier)


def effective_manufacturer(cluster: Any, definition: Any, given: int | None) -> int | None:
    """The code that goes with an attribute or command: the one given, else as its definition says."""
    if given is not None or definition is None:
        return given
    if definition.manufacturer_code is not UNDEFINED:
        return None if definition.manufacturer_code is None else int(definition.manufacturer_code)
    own = definition.is_manufacturer_specific
    if own or (own is None and cluster.cluster_id >= _MANUFACTURERS_OWN_CLUSTERS):
        code = cluster.endpoint.device.manufacturer_id
        return None if code is None else int(code)
    return None


def no_firmware(cluster: Any, command: NodeCommand) -> Any:
    """The cluster, unless it is the OTA cluster: that is refused."""
    if cluster.cluster_id == OTA_CLUSTER_ID:
        raise Unsupported(f"{command.name}: the OTA cluster is for signed campaigns alone")
    return cluster


def payload_of(command: NodeCommand, identifier: int, definition: Any) -> tuple[Any, dict[str, Any]]:
    """Definition and values of the command to send, from `arguments` or `payload`; a definition is made of the latter."""
    given = command.arguments.get("arguments", {})
    if not isinstance(given, dict):
        raise Unsupported("command: arguments must be an object of names and values")
    if "payload" in command.arguments or definition is None:
        if given:
            raise Unsupported("command: give arguments or payload; a command unknown to zigpy takes payload alone")
        definition = _made_of_bytes(identifier)
        given = {"payload": command.arguments.get("payload", "")}
    return definition, _arguments(definition.schema, given, f"command {definition.name}")


def _made_of_bytes(identifier: int) -> Any:
    return zcl.ZCLCommandDef(
        id=t.uint8_t(identifier),
        name=f"command_{identifier:02x}",
        schema={"payload": t.Bytes},
        direction=zcl.Direction.Client_to_Server,
    ).with_compiled_schema()


def _arguments(schema: Any, given: Mapping[str, Json], where: str) -> dict[str, Any]:
    fields = {field.name: field for field in schema.fields}
    if unknown := sorted(set(given) - set(fields)):
        raise Unsupported(f"{where}: unknown argument {', '.join(unknown)}; known: {', '.join(fields) or 'none'}")
    if missing := [name for name, field in fields.items() if name not in given and not field.optional]:
        raise Unsupported(f"{where}: needs {', '.join(missing)}")
    return {name: typed(value, fields[name].type, f"{where}: {name}") for name, value in given.items()}


def by_number(name: Json) -> Json:
    """A number that a name is: `0x0006` and `"6"` are numbers too: JSON's objects have no others."""
    if isinstance(name, str):
        try:
            return int(name, 0)
        except ValueError:
            return name
    return name
