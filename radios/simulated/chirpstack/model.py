"""What the simulated ChirpStack keeps: devices, queues, groups, profiles; and the errors of its API."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from radios.simulated.lorawan.phy import Activation
from radios.simulated.lorawan.spec import NodeSpec


class ApiCode(StrEnum):
    """Names of the gRPC status codes used."""

    NOT_FOUND = "NOT_FOUND"
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    INTERNAL = "INTERNAL"
    UNAUTHENTICATED = "UNAUTHENTICATED"


class ApiError(Exception):
    def __init__(self, code: ApiCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class GroupType(StrEnum):
    CLASS_C = "CLASS_C"
    CLASS_B = "CLASS_B"


class Scheduling(StrEnum):
    DELAY = "DELAY"
    GPS_TIME = "GPS_TIME"


@dataclass(frozen=True, slots=True)
class DeviceProfile:
    id: str
    name: str
    supports_class_c: bool
    mac_1_1: bool
    uplink_interval_s: int
    supports_class_b: bool = False
    ts003_version: int = 0  # 0: not set
    ts004_version: int = 0
    ts005_version: int = 0


@dataclass(slots=True)
class QueueItem:
    """One unicast downlink waiting."""

    id: str
    f_port: int
    data: bytes
    confirmed: bool
    expires_at: float | None
    is_pending: bool = False
    f_cnt_down: int = 0


@dataclass(slots=True)
class Device:
    spec: NodeSpec
    profile: DeviceProfile
    activation: Activation
    f_cnt_up: int = 0
    f_cnt_down: int = 0
    queue: deque[QueueItem] = field(default_factory=deque)
    last_seen_at: float | None = None
    last_gateways: tuple[str, ...] = ()
    status_at: float | None = None  # last DevStatusAns
    class_c_busy_until: float = 0.0

    @property
    def dev_eui(self) -> str:
        return self.spec.dev_eui

    @property
    def class_c(self) -> bool:
        return self.profile.supports_class_c

    @property
    def class_enabled(self) -> str:
        """Name of the API's DeviceClass."""
        return "CLASS_C" if self.class_c else "CLASS_B" if self.profile.supports_class_b else "CLASS_A"


@dataclass(slots=True)
class GroupSettings:
    """What Create and Update carry."""

    name: str
    application_id: str
    region: int
    mc_addr: int
    mc_nwk_s_key: bytes
    mc_app_s_key: bytes
    f_cnt: int
    group_type: GroupType
    data_rate: int
    frequency_hz: int
    scheduling: Scheduling = Scheduling.DELAY
    class_b_ping_slot_periodicity: int = 0


@dataclass(frozen=True, slots=True)
class GroupQueueItem:
    """One multicast downlink waiting for one gateway."""

    f_cnt: int
    f_port: int
    data: bytes
    expires_at: float | None
    gateway_id: str
    run_after: float
    emit_at: float | None = None  # class B: Unix seconds


@dataclass(slots=True)
class Group:
    id: str
    settings: GroupSettings
    created_at: float
    updated_at: float
    devices: set[str] = field(default_factory=set)
    gateways: set[str] = field(default_factory=set)
    queue: list[GroupQueueItem] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Event:
    """One message for the MQTT integration."""

    dev_eui: str
    kind: str  # up, join, ack, txack, log, status
    body: Mapping[str, object]
