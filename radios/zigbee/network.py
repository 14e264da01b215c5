"""The network itself: who may join, who leaves, its backup, and bringing a backup back into a dongle.

Keys and install codes pass through here and reach no log, result or record. Not responsible for opening the radio
(`link.py`), nor for keeping backups, which is the business of whoever asks for one.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import zigpy.backups
import zigpy.exceptions
import zigpy.state
import zigpy.types
import zigpy.util

from radios.errors import FrameError, Unsupported
from radios.radio import Json, NodeCommand, parse_node_id
from radios.zigbee.backup_document import BackupDocument, parse_backup
from radios.zigbee.install_code import parse_install_code
from radios.zigbee.nodes import eui64, is_sleepy, node_id

MAX_PERMIT_JOIN_S: Final = 254

# How far the frame counters are raised on a restore: nodes drop what is not above the last one they have seen, and a
# coordinator that serves updates sends some dozens of frames a second since the backup was made. Of 2^32.
COUNTER_GAP_LEAST: Final = 10_000
COUNTER_GAP_MOST: Final = 100_000_000
COUNTER_GAP_UNKNOWN_AGE: Final = 1_000_000
FRAMES_PER_S: Final = 60

_COUNTER_MOST = 2**32 - 1
_LEAVE_TIMEOUT_S = 7.0
_LEAVE_TIMEOUT_SLEEPY_S = 30.0
_BURN_ONCE = "i_understand_i_can_update_eui64_only_once_and_i_still_want_to_do_it"

_LOG = logging.getLogger(__name__)


# -- joining and leaving ---------------------------------------------------------------------------------------------


async def permit_join(app: Any, command: NodeCommand) -> Json:
    """`seconds`; `node`: through this router only. With `install_code` the node is the one that may join with it."""
    seconds = command.arguments.get("seconds", 60)
    if not isinstance(seconds, int) or isinstance(seconds, bool) or not 0 <= seconds <= MAX_PERMIT_JOIN_S:
        raise Unsupported(f"permit_join: seconds must be 0 to {MAX_PERMIT_JOIN_S}, not {seconds!r}")
    code = command.arguments.get("install_code")
    if code is not None:
        if command.node is None:
            raise Unsupported("permit_join: an install code needs the node that it belongs to")
        if not isinstance(code, str):
            raise Unsupported("permit_join: the install code must be a text of hex digits")
        try:
            key = zigpy.util.convert_install_code(parse_install_code(code))
        except FrameError as error:
            raise Unsupported(f"permit_join: {error}") from None
        await app.permit_with_link_key(_own(eui64(command.node)), key, seconds)
        return {"seconds": seconds, "node": command.node}
    through = None if command.node is None else _device(app, command).ieee
    await app.permit(seconds, through)
    return {"seconds": seconds}


async def remove(app: Any, command: NodeCommand) -> Json:
    """Ask the node to leave; one that does not answer is removed here all the same, and `left` is false."""
    device = _device(app, command)
    if not hasattr(device, "zdo"):  # Green Power: there is nobody to ask
        await app.remove(device.ieee)
        return {"left": True}
    device.cancel_initialization()
    try:
        async with asyncio.timeout(_LEAVE_TIMEOUT_SLEEPY_S if is_sleepy(device) else _LEAVE_TIMEOUT_S):
            (status, *_) = await device.zdo.leave(remove_children=False)
        refused = "" if int(status) == 0 else f"the node refused (status {int(status):#04x})"
    except (TimeoutError, zigpy.exceptions.ZigbeeException) as error:
        _LOG.info("%s did not answer to leave: %r", command.node, error)
        refused = "the node did not answer"
    if refused:
        await app.remove(device.ieee)  # tries again in the background, through its parents too
        return {"left": False, "why": f"{refused}: removed here; should it still have the key, it may be heard again"}
    app.devices.pop(device.ieee, None)
    app.listener_event("device_removed", device)
    return {"left": True}


# -- backup ----------------------------------------------------------------------------------------------------------


async def back_up(app: Any, command: NodeCommand) -> Json:
    """open-coordinator-backup JSON. It holds the network key: whoever asked for it has to keep it."""
    del command
    backup = await app.backups.create_backup(load_devices=True)
    value: dict[str, Json] = backup.as_open_coordinator_json()
    listed = value["devices"]
    devices = listed if isinstance(listed, list) else []
    by_address = {d["ieee_address"]: d for d in devices if isinstance(d, dict)}
    for device in app.devices.values():  # a dongle knows its children only
        ieee = node_id(device.ieee).partition(":")[2]
        if ieee == value["coordinator_ieee"] or not hasattr(device, "zdo"):
            continue
        entry = by_address.setdefault(ieee, {"ieee_address": ieee, "is_child": False})
        entry["nwk_address"] = f"{int(device.nwk):04x}"
    value["devices"] = [by_address[ieee] for ieee in sorted(by_address, key=str)]
    plain: Json = json.loads(json.dumps(value, default=_plain))
    return plain


# -- restore ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """What an operator has to say explicitly."""

    apply: bool = False  # False: only look, write nothing
    overwrite: bool = False  # another network, or the same one, that the dongle holds is lost
    burn_address: bool = False  # the coordinator's address may be written once in the dongle's life, and this is it
    keep_address: bool = False  # the dongle keeps its own address: nodes that know the old one may have to join again
    counter_gap: int | None = None

    @classmethod
    def of(cls, arguments: Mapping[str, Json]) -> "RestoreOptions":
        """From a command's arguments. Unsupported names the one that is wrong."""
        flags = {}
        for name in ("apply", "overwrite", "burn_address", "keep_address"):
            value = arguments.get(name, False)
            if not isinstance(value, bool):
                raise Unsupported(f"restore: {name} must be true or false")
            flags[name] = value
        if flags["burn_address"] and flags["keep_address"]:
            raise Unsupported("restore: either burn_address or keep_address")
        gap = arguments.get("counter_gap")
        if gap is not None and (not isinstance(gap, int) or isinstance(gap, bool) or not 0 <= gap <= _COUNTER_MOST):
            raise Unsupported(f"restore: counter_gap must be 0 to {_COUNTER_MOST}")
        return cls(**flags, counter_gap=gap)


def read_backup(raw: Json) -> BackupDocument:
    """An open-coordinator-backup, or zigpy's own form of it. FrameError with every fault and its place."""
    if isinstance(raw, dict) and "network_info" in raw and "metadata" not in raw:
        try:
            raw = json.loads(json.dumps(zigpy.backups.NetworkBackup.from_dict(raw).as_open_coordinator_json()))
        except (KeyError, ValueError, TypeError, AttributeError, AssertionError) as error:
            # Not the text of the error: it may repeat a key.
            raise FrameError(f"the backup looks like zigpy's own, but cannot be read: {type(error).__name__}") from None
    return parse_backup(raw)


async def look_at_network(app: Any) -> Any:
    """zigpy's NetworkBackup of what a connected dongle holds; None when it holds no network."""
    try:
        await app.load_network_info(load_devices=False)
    except zigpy.exceptions.NetworkNotFormed:
        return None
    return app.backups.from_network_state()


async def survey(app: Any, document: BackupDocument, options: RestoreOptions, now: float) -> dict[str, Json]:
    """What a restore would do with a connected dongle. `refused` lists what stands against it. Writes nothing."""
    current = await look_at_network(app)
    backup = _zigpy_backup(document, options, current, now)
    refused: list[str] = []
    notes: list[str] = list(document.notes)
    if current is not None and not options.overwrite:
        same = _identity(current.network_info) == (document.extended_pan_id, document.pan_id)
        which = "this network already" if same else f"another network ({describe_network(current.network_info)})"
        refused.append(f"the dongle holds {which}: overwrite it only if you mean it")
    address = "kept"
    if options.keep_address:
        notes.append("the dongle keeps its own address: nodes that know the old one may have to join again")
    else:
        try:
            await app.can_write_network_settings(network_info=backup.network_info, node_info=backup.node_info)
            address = "as in the backup"
        except zigpy.exceptions.DestructiveWriteNetworkSettings:
            address = "can be written once"
            refused.append(
                "the dongle's address has to become the backup's, and this dongle takes that once in its life: "
                "burn the address, or keep the dongle's own"
            )
        except zigpy.exceptions.CannotWriteNetworkSettings:
            address = "cannot be written"
            refused.append("the dongle cannot take the backup's address: newer firmware, or keep the dongle's own")
    if backup.network_info.network_key.tx_counter > _COUNTER_MOST:
        refused.append("the frame counter would exceed 2^32: the network needs a new key, or a smaller counter_gap")
    answer: dict[str, Json] = {
        "backup": document.summary(),
        "dongle": None if current is None else network_view(current),
        "address": address,
        "frame_counter_after": int(backup.network_info.network_key.tx_counter),
        "new_devices": sum(1 for ieee, nwk in document.devices if nwk and _ieee(ieee) not in app.devices),
        "refused": list(refused),
        "notes": list(notes),
    }
    return answer


async def restore(
    app: Any, document: BackupDocument, options: RestoreOptions, now: float, *, before: Callable[[], Awaitable[None]]
) -> dict[str, Json]:
    """Write the network into a connected dongle and its nodes into zigpy's table. Unsupported, with nothing written, when
    `survey` finds something against it. `before` is done right before the first write."""
    found = await survey(app, document, options, now)
    if found["refused"]:
        raise Unsupported("; ".join(map(str, found["refused"])) if isinstance(found["refused"], list) else "refused")
    current = await look_at_network(app)
    backup = _zigpy_backup(document, options, current, now)
    await before()
    await app.backups.restore_backup(backup, counter_increment=0, allow_incomplete=options.keep_address)
    for ieee, nwk in document.devices:
        if nwk is not None:
            _enter(app, _ieee(ieee), zigpy.types.NWK(int(nwk, 16)))
    return found


def network_view(backup: Any) -> dict[str, Json]:
    """What may be shown of a network."""
    info = backup.network_info
    extended, pan = _identity(info)
    return {
        "channel": int(info.channel),
        "pan_id": pan,
        "extended_pan_id": extended,
        "coordinator": node_id(backup.node_info.ieee).partition(":")[2],
        "frame_counter": int(info.network_key.tx_counter or 0),
    }


def describe_network(info: Any) -> str:
    """For people."""
    extended, pan = _identity(info)
    return f"PAN {pan}, extended {extended}, channel {int(info.channel)}"


def counter_gap(document: BackupDocument, now: float) -> int:
    """By the backup's age."""
    try:
        made_at = datetime.fromisoformat(document.made_at)
    except ValueError:
        return COUNTER_GAP_UNKNOWN_AGE
    age_s = now - (made_at if made_at.tzinfo else made_at.replace(tzinfo=UTC)).timestamp()
    if age_s < 0:  # one of the clocks is wrong
        return COUNTER_GAP_UNKNOWN_AGE
    return min(max(int(age_s * FRAMES_PER_S), COUNTER_GAP_LEAST), COUNTER_GAP_MOST)


# -- within ----------------------------------------------------------------------------------------------------------


def _zigpy_backup(document: BackupDocument, options: RestoreOptions, current: Any, now: float) -> Any:
    backup = zigpy.backups.NetworkBackup.from_open_coordinator_json(document.document)
    info = backup.network_info
    gap = counter_gap(document, now) if options.counter_gap is None else options.counter_gap
    least = 0
    if current is not None and current.network_info.network_key.key == info.network_key.key:
        least = int(current.network_info.network_key.tx_counter or 0)
    info.network_key.tx_counter = max(int(info.network_key.tx_counter), least) + gap
    for key in (info.tc_link_key, *info.key_table):
        key.tx_counter = min(int(key.tx_counter or 0) + gap, _COUNTER_MOST)
    if options.burn_address:
        info.stack_specific.setdefault("ezsp", {})[_BURN_ONCE] = True
    if options.keep_address:
        backup.node_info.ieee = zigpy.types.EUI64.UNKNOWN
    return backup


def _enter(app: Any, ieee: Any, nwk: Any) -> None:
    """A node that zigpy is to know; it is interviewed when it is heard."""
    known = app.devices.get(ieee)
    if known is not None:
        known.nwk = nwk
        app.listener_event("device_joined", known)  # stores the short address
        return
    app.listener_event("raw_device_initialized", app.add_device(ieee, nwk))  # stores the row


def _identity(info: Any) -> tuple[str, str]:
    return str(info.extended_pan_id).replace(":", "").lower(), f"{int(info.pan_id):04x}"


def _ieee(text: str) -> Any:
    return _own(eui64(parse_node_id(f"zigbee:{text}")))


def _own(address: Any) -> Any:
    """A plain EUI64 that zigpy may keep."""
    return zigpy.types.EUI64(bytes(address))


def _device(app: Any, command: NodeCommand) -> Any:
    if command.node is None:
        raise Unsupported(f"{command.name}: needs a node")
    device = app.devices.get(eui64(command.node))
    if device is None:
        raise Unsupported(f"{command.name}: {command.node} is not in this network")
    return device


def _plain(value: object) -> str:
    """Some libraries' metadata hold enumerations and versions."""
    return str(value)
