"""What an operator can set of the Zigbee radio, and how zigpy is told."""

import importlib.resources
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Final, Literal

from radios.radio import Json
from radios.zigbee.pacing import PacingLimits
from radios.zigbee.quirks import Quirk, QuirkTable, parse_quirks
from radios.zigbee.reset_cause import ResetCauseAttribute
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
    # Only for a network that is formed; one that exists keeps its own, and a difference is said in the status.
    channel: int | None = None  # 11..26; None: the quietest
    pan_id: int | None = None  # 1..FFFE; None: drawn
    extended_pan_id: str | None = None  # 16 lower-case hex digits; None: drawn
    network_key: bytes | None = field(default=None, repr=False)  # 16 bytes; None: drawn
    source_routing: bool = False
    topology_scan: bool = False  # asks every router for its neighbours from time to time
    max_concurrent_requests: int = 8  # frames on their way within the dongle
    interview_timeout_s: float = 60.0
    concurrent_interviews: int = 4
    concurrent_sleepy_interviews: int = 16  # a question that waits at a sleeper's parent takes no air
    max_reconnect_wait_s: float = 60.0
    traffic_queue: int = 2000  # frames of nodes that wait for the reader; the oldest goes
    request_timeout_s: float = 15.0  # for a whole request to a node, with zigpy's repetitions
    sleepy_request_timeout_s: float = 60.0  # the same for a node that sleeps
    concurrent_requests: int = 16  # to nodes at the same time; more are refused
    page_requests: bool = True  # False: refused, nodes fall back to block requests
    broadcast_notify: int = 8  # so many nodes of an image that answer no notification are told by broadcast; 0: never
    timezone: tzinfo = UTC  # of the quiet hours in `pacing`
    pacing: PacingLimits = field(default_factory=PacingLimits)
    limits: SessionLimits = field(default_factory=SessionLimits)
    reset_causes: Mapping[str, ResetCauseAttribute] = field(default_factory=dict)  # by hardware
    quirks: tuple[Quirk, ...] = ()  # the operator's own, after those of `quirks.toml`

    @property
    def session_limits(self) -> SessionLimits:
        return self.limits if self.page_requests else replace(self.limits, page_requests=False)

    def minute_of_day(self, now: float) -> int:
        """Minutes since midnight where the site is."""
        local = datetime.fromtimestamp(now, self.timezone)
        return 60 * local.hour + local.minute


def quirk_table(own: Sequence[Quirk] = ()) -> QuirkTable:
    """The table that comes with this package, and the operator's entries after it."""
    packaged = importlib.resources.files("radios.zigbee").joinpath("quirks.toml").read_text("utf-8")
    return QuirkTable((*parse_quirks(packaged), *own))


def zigpy_config(settings: ZigbeeSettings) -> dict[str, Json]:
    """zigpy's configuration. Its own OTA, which would answer ABORT to downloads that it does not know, stays off."""
    return {
        "database_path": str(settings.database) if settings.database else None,
        "device": {
            "path": settings.device,
            "baudrate": settings.baudrate,
            "flow_control": settings.flow_control,
        },
        "backup_enabled": False,  # whoever keeps backups asks for them
        "ota": {"enabled": False, "broadcast_enabled": False, "providers": [], "extra_providers": []},
        "source_routing": settings.source_routing,
        "topology_scan_enabled": settings.topology_scan,
        "max_concurrent_requests": settings.max_concurrent_requests,
        # Blocks go out with low priority; half of the slots keeps one sleepy node from stopping the others.
        "experimental": {"concurrency": {"high": 0.25, "normal": 0.25, "low": 0.5}},
        "use_thread": False,  # bellows: its serial thread costs two hops between threads for every frame
    }


def forming_config(settings: ZigbeeSettings) -> dict[str, Json]:
    """zigpy's configuration of a network that is formed. It may hold the network key."""
    extended, key = settings.extended_pan_id, settings.network_key
    found: dict[str, Json] = {
        "channel": settings.channel,
        "pan_id": settings.pan_id,
        "extended_pan_id": None if extended is None else ":".join(extended[i : i + 2] for i in range(0, 16, 2)),
        "key": None if key is None else list(key),
    }
    return {name: value for name, value in found.items() if value is not None}
