"""What a node is made from, and the words for what becomes of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from radios.simulated.zigbee.bootloader import ResetCause
from radios.simulated.zigbee.loss import Bursts
from radios.simulated.zigbee.ota_terms import OtaHabits, OtaTiming


def accept_any(image: bytes) -> bool:
    """The check of a node whose manufacturer does not sign."""
    del image
    return True


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """What a node is. Times in seconds of the site's clock, probabilities 0..1."""

    eui64: int
    nwk: int | None = None  # None: made from the EUI64
    manufacturer_code: int = 0x1049
    image_type: int = 0x0001
    hardware_version: int | None = 1
    version: int = 0x0001_0000
    image: bytes | None = None  # what runs at first; None: a small synthetic file of `version`
    manufacturer: str = "Synthetic"
    model: str = "SIM-1"
    battery_percent: float | None = None  # None: mains
    battery_drain_percent_per_kb: float = 0.01  # of frames sent and received
    sleepy: bool = False
    poll_s: float = 5.0
    fast_poll_s: float = 0.25
    check_in_s: float | None = None  # Poll Control: how often it checks in; None: it has no such cluster
    checks_in_unbound: bool = True  # as if somebody had bound it before; False: as nodes come from the factory
    hops: int = 1
    loss: float = 0.0  # of whole frames, after all MAC retries, either way
    mac_loss: float = 0.0  # of one MAC attempt, either way; three retries follow
    bursts: Bursts | None = None  # correlated loss of MAC attempts on top
    lqi: int = 200
    rssi_dbm: int = -58
    joined: bool = True
    seed: int = 0
    verify: Callable[[bytes], bool] = accept_any
    forgets_configuration: bool = False  # a new image comes up without bindings and reporting
    self_test_fails: bool = False  # of every image that comes over the air
    tells_reset_cause: bool = False  # in an attribute of its manufacturer
    reboot_s: float = 2.0
    self_test_s: float = 1.0
    watchdog_s: float = 2.0
    block_size: int = 50
    delta_formats: tuple[str, ...] = ()  # of patches that the node can apply: "detools", "vcdiff"
    slot_size: int = 512 * 1024
    apply_without_answer: bool = False
    query_after_giving_up: bool = False
    habits: OtaHabits = field(default_factory=OtaHabits)
    timing: OtaTiming = field(default_factory=OtaTiming)

    @property
    def id(self) -> str:
        return f"zigbee:{self.eui64:016x}"


class Life(StrEnum):
    DOWN = "down"  # no power, or in the bootloader
    TESTING = "testing"  # a new image on trial
    UP = "up"
    HUNG = "hung"  # the self-test failed: deaf until the watchdog bites
    LEFT = "left"


class NodeEvent(StrEnum):
    """What the mesh has to know beside frames."""

    REJOINED = "rejoined"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class VersionChange:
    """One boot with another version, or the first."""

    at: float
    version: int
    cause: ResetCause
