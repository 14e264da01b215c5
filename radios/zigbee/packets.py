"""Frames of the OTA cluster as zigpy packets that go to more than one node."""

import logging
from typing import Any, Final

import zigpy.profiles.zha
import zigpy.types

from radios.zigbee.ota_commands import OTA_CLUSTER_ID

_LOG = logging.getLogger(__name__)
_ALL_ENDPOINTS: Final = 0xFF


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
