"""Commands on the network and its nodes that are no transfer: permit_join, remove, list, backup, read, write.

A wrong name, argument or node is a result, never an exception.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from radios.errors import Unsupported
from radios.radio import CommandResult, Json, NodeCommand
from radios.zigbee.nodes import eui64, is_sleepy, node_id

MAX_PERMIT_JOIN_S: Final = 254


async def manage(app: Any, command: NodeCommand) -> CommandResult:
    """Run one command on zigpy's application."""
    action = _COMMANDS.get(command.name)
    if action is None:
        return CommandResult(False, f"unknown command {command.name!r}; known: {', '.join(sorted(_COMMANDS))}")
    try:
        return CommandResult(True, value=await action(app, command))
    except Unsupported as error:
        return CommandResult(False, str(error))
    except Exception as error:  # noqa: BLE001  # zigpy and its libraries raise what they like; the operator reads it
        return CommandResult(False, f"{command.name}: {type(error).__name__}: {error}")


async def _permit_join(app: Any, command: NodeCommand) -> Json:
    seconds = command.arguments.get("seconds", 60)
    if not isinstance(seconds, int) or isinstance(seconds, bool) or not 0 <= seconds <= MAX_PERMIT_JOIN_S:
        raise Unsupported(f"permit_join: seconds must be 0 to {MAX_PERMIT_JOIN_S}, not {seconds!r}")
    through = None if command.node is None else _device(app, command).ieee
    await app.permit(seconds, through)
    return {"seconds": seconds}


async def _remove(app: Any, command: NodeCommand) -> Json:
    await app.remove(_device(app, command).ieee)
    return None


async def _list(app: Any, command: NodeCommand) -> Json:
    coordinator = app.state.node_info.ieee
    return [
        {
            "node": node_id(device.ieee),
            "nwk": int(device.nwk),
            "manufacturer": device.manufacturer,
            "model": device.model,
            "sleepy": is_sleepy(device),
            "interviewed": bool(device.is_initialized),
            "last_seen": device.last_seen,
        }
        for device in app.devices.values()
        if device.ieee != coordinator and hasattr(device, "node_desc")
    ]


async def _backup(app: Any, command: NodeCommand) -> Json:
    """open-coordinator-backup JSON. It holds the network key: whoever asked for it has to keep it."""
    backup = await app.backups.create_backup(load_devices=True)
    value: Json = backup.as_open_coordinator_json()
    return value


async def _read(app: Any, command: NodeCommand) -> Json:
    cluster = _cluster(app, command)
    names = command.arguments.get("attributes")
    if not isinstance(names, list) or not names:
        raise Unsupported("read: attributes must be a list of names or numbers")
    success, failure = await cluster.read_attributes(names)
    return {
        "values": {str(name): _plain(value) for name, value in success.items()},
        "failed": {str(name): int(status) for name, status in failure.items()},
    }


async def _write(app: Any, command: NodeCommand) -> Json:
    cluster = _cluster(app, command)
    values = command.arguments.get("attributes")
    if not isinstance(values, dict) or not values:
        raise Unsupported("write: attributes must be an object of names and values")
    (records,) = await cluster.write_attributes(values)
    failed = {str(record.attrid): int(record.status) for record in records if int(record.status) != 0}
    if failed:
        raise Unsupported(f"write: the node refused {failed}")
    return None


_COMMANDS: Final[dict[str, Callable[[Any, NodeCommand], Awaitable[Json]]]] = {
    "permit_join": _permit_join,
    "remove": _remove,
    "list": _list,
    "backup": _backup,
    "read": _read,
    "write": _write,
}


def _device(app: Any, command: NodeCommand) -> Any:
    if command.node is None:
        raise Unsupported(f"{command.name}: needs a node")
    device = app.devices.get(eui64(command.node))
    if device is None:
        raise Unsupported(f"{command.name}: {command.node} is not in this network")
    return device


def _cluster(app: Any, command: NodeCommand) -> Any:
    device = _device(app, command)
    endpoint, cluster = command.arguments.get("endpoint", 1), command.arguments.get("cluster")
    side = "out_clusters" if command.arguments.get("side") == "client" else "in_clusters"
    if not isinstance(endpoint, int) or not isinstance(cluster, int) or endpoint == 0:
        raise Unsupported(f"{command.name}: endpoint and cluster must be numbers")
    found = device.endpoints.get(endpoint)
    found = getattr(found, side, {}).get(cluster)
    if found is None:
        raise Unsupported(f"{command.name}: {command.node} has no cluster {cluster:#06x} on endpoint {endpoint}")
    return found


def _plain(value: Any) -> Json:
    if isinstance(value, bool | float | str) or value is None:
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, bytes):
        return value.hex()
    return str(value)
