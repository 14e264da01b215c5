"""Cluster commands to groups of nodes: one frame for all of them, which none of them answers. SHELL.

A group command is a broadcast that every router repeats, and routers have room for few at a time: more than that are
refused, as they would be lost without anybody hearing of it. Membership is not kept here: nodes are told by the commands
of their Groups cluster.
"""

import asyncio
from collections import deque
from typing import Any, Final

import zigpy.profiles.zha
import zigpy.types as t
from zigpy.zcl import Cluster
from zigpy.zcl.clusters import CLUSTERS_BY_ID

from radios.errors import Unsupported
from radios.radio import NodeCommand
from radios.zigbee import arguments
from radios.zigbee.traffic import cluster_name

GROUPS: Final = (1, 0xFFF7)  # the least and the greatest of group ids
MOST_AT_ONCE: Final = 8  # broadcasts that a router remembers (nwkMaxBroadcastTransactions is 9 in common stacks)
WITHIN_S: Final = 9.0  # for so long (nwkBroadcastDeliveryTime)

_CLUSTER_COMMAND: Final = 0x01
_MANUFACTURER_SPECIFIC: Final = 0x04
_NO_DEFAULT_RESPONSE: Final = 0x10
_ENDPOINT: Final = 1
_FOR_ALL_THE_NETWORK: Final = 0  # hops
_BEYOND_MEMBERS: Final = 7  # hops: as far as the network goes, for not every router is a member


class GroupCommands:
    """At most `MOST_AT_ONCE` within `WITHIN_S`."""

    def __init__(self) -> None:
        self._sent: deque[float] = deque(maxlen=MOST_AT_ONCE)

    async def send(self, app: Any, command: NodeCommand) -> None:
        """group, cluster, command, arguments or payload, manufacturer. Unsupported says what is wrong."""
        arguments.check_known(command, "group", "cluster", "command", "arguments", "payload", "manufacturer")
        if "group" not in command.arguments:
            raise Unsupported(f"{command.name}: needs a node or a group")
        group = arguments.number(command, "group", *GROUPS)
        cluster = arguments.no_firmware(_cluster(command), command)
        name = command.arguments.get("command")
        identifier, definition = arguments.command_among(
            cluster.server_commands, int(cluster.cluster_id), name, "command"
        )
        manufacturer = arguments.manufacturer_of(command)
        if manufacturer is None and definition is not None and definition.is_manufacturer_specific:
            raise Unsupported("command: a group has no manufacturer of its own: give its code")
        definition, values = arguments.payload_of(command, identifier, definition)
        body = definition.schema(**values).serialize()
        now = asyncio.get_running_loop().time()
        if len(self._sent) == MOST_AT_ONCE and now - self._sent[0] < WITHIN_S:
            raise Unsupported(f"command: busy: {MOST_AT_ONCE} commands to groups within {WITHIN_S:g} s")
        self._sent.append(now)
        sequence = app.get_sequence()
        await app.send_packet(_packet(app, group, cluster, sequence, _head(sequence, identifier, manufacturer) + body))


def _cluster(command: NodeCommand) -> type[Cluster]:
    """zigpy's class; one that it does not know has no commands."""
    wanted = arguments.by_number(command.arguments.get("cluster"))
    if isinstance(wanted, str):
        for number, known in CLUSTERS_BY_ID.items():
            if cluster_name(number) == wanted:
                return known  # type: ignore[no-any-return]  # zigpy's types are not checked
        raise Unsupported(f"{command.name}: cluster {wanted!r} is unknown; its number will do")
    number = arguments.whole(wanted, f"{command.name}: cluster", 0, 0xFFFF)
    known = CLUSTERS_BY_ID.get(number)
    return known or type("Unknown", (Cluster,), {"cluster_id": t.uint16_t(number), "_skip_registry": True})


def _head(sequence: int, identifier: int, manufacturer: int | None) -> bytes:
    control = _CLUSTER_COMMAND | _NO_DEFAULT_RESPONSE
    if manufacturer is None:
        return bytes((control, sequence, identifier))
    return bytes((control | _MANUFACTURER_SPECIFIC, *manufacturer.to_bytes(2, "little"), sequence, identifier))


def _packet(app: Any, group: int, cluster: type[Cluster], sequence: int, frame: bytes) -> t.ZigbeePacket:
    return t.ZigbeePacket(
        src=t.AddrModeAddress(addr_mode=t.AddrMode.NWK, address=app.state.node_info.nwk),
        src_ep=_ENDPOINT,
        dst=t.AddrModeAddress(addr_mode=t.AddrMode.Group, address=t.Group(group)),
        tsn=sequence,
        profile_id=zigpy.profiles.zha.PROFILE_ID,
        cluster_id=cluster.cluster_id,
        data=t.SerializableBytes(frame),
        tx_options=t.TransmitOptions.NONE,
        radius=_FOR_ALL_THE_NETWORK,
        non_member_radius=_BEYOND_MEMBERS,
        priority=t.PacketPriority.NORMAL,
    )
