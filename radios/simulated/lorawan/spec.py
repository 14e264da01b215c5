"""What one virtual node is: identity, keys, firmware, link, battery and habits."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from radios.simulated.lorawan.packages.fragmentation import StatusStyle


@dataclass(frozen=True, slots=True)
class NodeSpec:
    dev_eui: str  # 16 lower-case hex digits
    gen_app_key: bytes  # 16 bytes; root of the multicast and data block keys on LoRaWAN 1.0.x
    image: bytes  # what runs at the start
    version: int
    hardware: int
    name: str = ""
    app_key: bytes = bytes(16)
    mac_1_1: bool = False  # LoRaWAN 1.1: keys derive from AppKey instead
    # "A": class C only inside multicast sessions; "B": beacon-locked, class B sessions and no class C; "C": also always on
    # RX2 for unicast
    device_class: str = "A"
    package_versions: Mapping[int, int] = field(
        default_factory=dict
    )  # id -> version, 0: not there; absent: 1, TS007: 0
    ports: Mapping[int, int] = field(default_factory=dict)  # package id -> FPort; absent: the default
    status_style: StatusStyle = StatusStyle.LBM
    redundancy_limit: int = 100  # lost plain fragments that the decoder can make up
    flash_bytes: int = 256 * 1024
    fragment_bytes_most: int = 255  # that the firmware was built for
    delta_formats: tuple[str, ...] = ()  # of patches that it can apply: "detools", "vcdiff"
    downlink_loss: float = 0.0  # 0..1, of every frame towards the node
    uplink_loss: float = 0.0
    loss_burst_frames: float = 1.0  # lost one after the other, on the mean; 1: each frame by itself
    data_rate: int = 5  # of uplinks, and so of RX1
    group_frames_most: int | None = None  # that it hears of multicast; then something disturbs that for good
    uplink_interval_s: float = 300.0
    app_time_period_s: float | None = None  # TS003 AppTimeReq of its own accord
    clock_error_s: float = 0.0  # at the start
    clock_drift_ppm: float = 0.0
    mains: bool = True
    battery_percent: float | None = None  # None: cannot measure
    margin_db: int = 10
    rssi_dbm: int = -80
    snr_db: float = 8.0
    boot_s: float = 10.0
    watchdog_s: float = 60.0
    tells_reset_cause: bool = False  # with every reading
    self_test_fails: bool = False  # of any image but the first: the watchdog rolls it back
    gateways: tuple[str, ...] = ()  # ids of those in reach; none named: all
    tags: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0

    def package_version(self, package: int) -> int:
        return self.package_versions.get(package, 1)
