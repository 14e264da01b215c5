"""A zigpy radio library without a radio, whose nodes answer as a test says."""

import asyncio
from collections.abc import Callable
from typing import Any

import zigpy.types as t

from tests.support.zigpy_library import FakeRadio

Answer = Callable[[int, bytes], tuple[int, bytes] | None]


class AnsweringRadio(FakeRadio):
    """Nodes that answer: `answer` makes command and payload of a frame's cluster and bytes, None of silence."""

    answer: Answer

    async def send_packet(self, packet: Any) -> None:
        await super().send_packet(packet)
        frame = packet.data.serialize()
        said = type(self).answer(int(packet.cluster_id), frame)
        if said is None:
            return
        if packet.profile_id == 0:
            cluster, data = packet.cluster_id | 0x8000, frame[:1] + said[1]
        else:
            cluster = packet.cluster_id
            general = said[0] in (0x01, 0x04, 0x07, 0x09, 0x0B) and not (frame[0] & 1 and said[0] != 0x0B)
            control = (0x10 if general else 0x11) | (0 if frame[0] & 0x08 else 0x08)
            data = bytes((control, frame[1], said[0])) + said[1]
        asyncio.get_running_loop().call_soon(
            self.packet_received,
            t.ZigbeePacket(
                src=t.AddrModeAddress(addr_mode=t.AddrMode.NWK, address=packet.dst.address),
                src_ep=packet.dst_ep,
                dst=t.AddrModeAddress(addr_mode=t.AddrMode.NWK, address=t.NWK(0)),
                dst_ep=packet.src_ep,
                tsn=frame[0],
                profile_id=packet.profile_id,
                cluster_id=cluster,
                data=t.SerializableBytes(data),
            ),
        )
