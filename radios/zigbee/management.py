"""Commands on the network and its nodes that are no transfer: permit_join, remove, list, backup.

A wrong name, argument or node is a result, never an exception.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from radios.errors import Unsupported
from radios.radio import CommandResult, Json, NodeCommand
from radios.zigbee import network
from radios.zigbee.nodes import is_sleepy, node_id


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


_COMMANDS: Final[dict[str, Callable[[Any, NodeCommand], Awaitable[Json]]]] = {
    "permit_join": network.permit_join,
    "remove": network.remove,
    "list": _list,
    "backup": network.back_up,
}
