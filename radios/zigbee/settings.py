"""What an operator can set of the Zigbee radio, and how zigpy is told."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from radios.radio import Json
from radios.zigbee.pacing import PacingLimits
from radios.zigbee.session_state import SessionLimits

RadioLibrary = Literal["bellows", "znp", "deconz", "xbee", "zboss"]

# Module of each zigpy radio library that has its ControllerApplication; all but bellows are extras of this package.
RADIO_LIBRARY_MODULES: Final[dict[str, str]] = {
    "bellows": "bellows.zigbee.application",
    "znp": "zigpy_znp.zigbee.application",
    "deconz": "zigpy_deconz.zigbee.application",
    "xbee": "zigpy_xbee.zigbee.application",
    "zboss": "zigpy_zboss.zigbee.application",
}


@dataclass(frozen=True, slots=True)
class ZigbeeSettings:
    """One Zigbee network. `device` is `/dev/serial/by-id/...`, another serial path or `socket://host:port`."""

    device: str
    radio_library: RadioLibrary = "bellows"
    baudrate: int = 115200
    flow_control: Literal["hardware", "software"] | None = None
    database: Path | None = None  # zigpy's own table of devices (SQLite); None: forgotten at every start
    form_network: bool = True  # when the dongle has none
    channel: int | None = None  # 11..26, only for a network that is formed; None: the quietest
    source_routing: bool = False
    topology_scan: bool = False  # asks every router for its neighbours from time to time
    max_concurrent_requests: int = 8  # frames on their way within the dongle
    interview_timeout_s: float = 60.0
    concurrent_interviews: int = 4
    max_reconnect_wait_s: float = 60.0
    pacing: PacingLimits = field(default_factory=PacingLimits)
    limits: SessionLimits = field(default_factory=SessionLimits)


def zigpy_config(settings: ZigbeeSettings) -> dict[str, Json]:
    """zigpy's configuration. Its own OTA, which would answer ABORT to downloads that it does not know, stays off."""
    network: dict[str, Json] = {} if settings.channel is None else {"channel": settings.channel}
    return {
        "database_path": str(settings.database) if settings.database else None,
        "device": {
            "path": settings.device,
            "baudrate": settings.baudrate,
            "flow_control": settings.flow_control,
        },
        "network": network,
        "ota": {"enabled": False, "broadcast_enabled": False, "providers": [], "extra_providers": []},
        "source_routing": settings.source_routing,
        "topology_scan_enabled": settings.topology_scan,
        "max_concurrent_requests": settings.max_concurrent_requests,
        # Blocks go out with low priority; half of the slots keeps one sleepy node from stopping the others.
        "experimental": {"concurrency": {"high": 0.25, "normal": 0.25, "low": 0.5}},
        "use_thread": False,  # bellows: its serial thread costs two hops between threads for every frame
    }
