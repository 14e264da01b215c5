"""What a virtual node counts of its link."""

from collections import Counter
from dataclasses import dataclass


@dataclass(slots=True)
class LinkCounters:
    uplinks: int = 0
    joins: int = 0
    unicast_received: int = 0
    multicast_received: int = 0
    bad_mic: int = 0
    not_listening: int = 0
    f_cnt_dropped: int = 0
    disturbed: int = 0  # frames to a group, see `NodeSpec.group_frames_most`
    reboots: int = 0  # as it was told to, whether an image was begun or not


class Downlinks(Counter[str]):
    """What it was sent and heard, "unicast 201:08" or "class C DR3 201:08": the way, the port and the first command."""

    def heard(self, way: str, f_port: int | None, payload: bytes) -> None:
        if f_port is not None and payload:
            self[f"{way} {f_port}:{payload[0]:02x}"] += 1
