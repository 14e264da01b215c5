"""Frames of ours as zigpy packets, with low priority: to one node, or to all that listen."""

import logging
from typing import Any, Final

import zigpy.profiles.zha
import zigpy.types

from radios.zigbee import nodes
from radios.zigbee.ota_commands import OTA_CLUSTER_ID
from radios.zigbee.tap import Peer

_LOG = logging.getLogger(__name__)
_ALL_ENDPOINTS: Final = 0xFF
_ACKNOWLEDGED: Final = zigpy.types.TransmitOptions.ACK
_UNACKNOWLEDGED: Final = zigpy.types.TransmitOptions.NONE


async def unicast(
    app: Any, device: Any, peer: Peer, frame: bytes, cluster: int, *, acknowledged: bool, source_routing: bool
) -> bool:
    """A ZCL frame to the node's `peer.endpoint`; whether its radio acknowledged it."""
    sleepy = nodes.is_sleepy(device)
    packet = zigpy.types.ZigbeePacket(
        src=nodes.nwk_address(app.state.node_info.nwk),
        src_ep=peer.local_endpoint,
        dst=nodes.nwk_address(device.nwk),
        dst_ep=peer.endpoint,
        tsn=frame[1],
        profile_id=peer.profile,
        cluster_id=cluster,
        data=zigpy.types.SerializableBytes(frame),
        extended_timeout=sleepy,
        source_route=app.build_source_route_to(device) if source_routing else None,
        # What a sleeper's parent lets expire, nobody would know of.
        tx_options=_ACKNOWLEDGED if acknowledged or sleepy else _UNACKNOWLEDGED,
        priority=zigpy.types.PacketPriority.LOW,
    )
    try:
        await app.send_packet(packet)
    except Exception as error:  # noqa: BLE001  # libraries raise what they like for a frame that did not arrive
        _LOG.debug("%s: frame %s not delivered: %r", device.ieee, frame.hex(), error)
        return False
    return True


async def broadcast(app: Any, frame: bytes) -> bool:
    """To every node whose receiver is on while it is idle (0xFFFD); whether the radio took it."""
    listening = zigpy.types.BroadcastAddress.RX_ON_WHEN_IDLE
    own = zigpy.types.AddrModeAddress(addr_mode=zigpy.types.AddrMode.NWK, address=app.state.node_info.nwk)
    packet = zigpy.types.ZigbeePacket(
        src=own,
        src_ep=1,
        dst=zigpy.types.AddrModeAddress(addr_mode=zigpy.types.AddrMode.Broadcast, address=listening),
        dst_ep=_ALL_ENDPOINTS,
        tsn=frame[1],
        profile_id=zigpy.profiles.zha.PROFILE_ID,
        cluster_id=OTA_CLUSTER_ID,
        data=zigpy.types.SerializableBytes(frame),
        radius=0,  # as far as the network goes
        priority=zigpy.types.PacketPriority.LOW,
    )
    try:
        await app.send_packet(packet)
    except Exception as error:  # noqa: BLE001  # libraries raise what they like
        _LOG.warning("broadcast of an image notification failed: %r", error)
        return False
    return True
