"""Who lives on the demo's site, what runs on them, and what should have become of them in the end. PURE."""

from dataclasses import dataclass

from radios.simulated.lorawan import firmware as lorawan_firmware
from radios.simulated.zigbee.firmware import build_ota_file

MANUFACTURER_CODE = 0x1A2B
LAMP_TYPE = 0x0101
PLUG_TYPE = 0x0202
ZIGBEE_HARDWARE = f"zigbee:{MANUFACTURER_CODE:04x}-{LAMP_TYPE:04x}"
ZIGBEE_OLD, ZIGBEE_NEW = 0x0001_0004, 0x0002_0000
ZIGBEE_IMAGE_BYTES = 30_000
ZIGBEE_AIR_SHARE = 0.7  # in the hours in which the demo runs, whenever that is

LORAWAN_HW = 0x0000_00F4
LORAWAN_HARDWARE = f"lorawan:{LORAWAN_HW:08x}"
LORAWAN_OLD, LORAWAN_NEW, LORAWAN_NEWER = 0x0102_0000, 0x0103_0000, 0x0104_0000
LORAWAN_IMAGE_BYTES = 4_096  # more would wait for the next hour of its duty cycle: half of the air is for questions
OWNER_TAG = "gatewayd"  # of a device in the network server: the gateway whose daemon may set it up

SELF_TEST_S = 20
TAKES_PART = ("updated", "rolled_back")  # ends of nodes that were sent an image


@dataclass(frozen=True, slots=True)
class ZigbeeNode:
    """One simulated Zigbee node, and the state and code its node update should end in."""

    name: str
    eui64: int
    expected: str = "updated"
    code: str = ""
    image_type: int = LAMP_TYPE
    sleepy: bool = False
    battery_percent: float | None = None
    loss: float = 0.0  # of whole frames, after all MAC retries
    mac_loss: float = 0.0  # of one transmission on the air
    hops: int = 1
    self_test_fails: bool = False
    tells_reset_cause: bool = False
    delta_formats: tuple[str, ...] = ()
    pages: bool = False  # asks for whole pages of blocks
    check_in_s: float | None = None  # of a sleepy one with Poll Control
    offers_block_period: bool = False  # the server may tell it how long to wait between two blocks
    joins: bool = False  # while the demo runs, with its install code
    forgets_configuration: bool = False  # its new firmware comes up without bindings and reporting
    sends_cut_frames: bool = False  # of an OTA client, from the first image block on
    leaves: bool = False  # told by the operator, when every node has its outcome

    @property
    def id(self) -> str:
        return f"zigbee:{self.eui64:016x}"


@dataclass(frozen=True, slots=True)
class LorawanNode:
    """One simulated LoRaWAN node, and the state and code its node update should end in."""

    name: str
    dev_eui: int
    expected: str = "updated"
    code: str = ""
    loss: float = 0.0
    version: int = LORAWAN_OLD
    battery_percent: float | None = None
    package_version: int = 1
    self_test_fails: bool = False
    tells_reset_cause: bool = False
    delta_formats: tuple[str, ...] = ()
    tags: tuple[tuple[str, str], ...] = ()  # of the device in the network server, beside its owner
    device_class: str = "C"
    multicast: bool = True  # False: a class A node without TS005, served by its own queue
    firmware_management: bool = True  # False: without TS006 it cannot tell its version
    multi_package: bool = False  # tells all its packages at once (TS007)
    uplink_interval_s: float = 300.0
    snr_db: float = 8.0  # of its uplinks
    data_rate: int = 5  # of its uplinks, and so of what is sent to it alone in answer
    status_style: str = "lbm"  # of its FragSessionStatusAns: "lbm", "loramac" or "spec"
    group_frames_most: int | None = None  # that it hears of multicast, until something disturbs that for good
    app_layer: tuple[int, int, int] = (0, 0, 0)  # TS003, TS004, TS005 as its device profile has ChirpStack speak them

    @property
    def sees_group(self) -> bool:
        """Whether fragments come to it by multicast, at least at first."""
        return self.multicast and self.expected in TAKES_PART

    @property
    def id(self) -> str:
        return f"lorawan:{self.dev_eui:016x}"


ZIGBEE_NODES = (
    ZigbeeNode("lamp-canary", 0x00124B00_00000001, forgets_configuration=True),
    ZigbeeNode("lamp-hall", 0x00124B00_00000002, pages=True),
    ZigbeeNode("lamp-lossy", 0x00124B00_00000003, mac_loss=0.10, loss=0.003),
    ZigbeeNode("sensor-sleepy", 0x00124B00_00000004, sleepy=True, battery_percent=88.0, check_in_s=20.0),
    ZigbeeNode("sensor-weak", 0x00124B00_00000005, "deferred", "battery_low", battery_percent=20.0),
    ZigbeeNode("lamp-bad", 0x00124B00_00000006, "rolled_back", self_test_fails=True),
    ZigbeeNode("lamp-far", 0x00124B00_00000007, hops=2, offers_block_period=True),
    ZigbeeNode(
        *("plug", 0x00124B00_00000008, "skipped", "wrong_hardware"),
        image_type=PLUG_TYPE,
        sends_cut_frames=True,
        leaves=True,
    ),
    ZigbeeNode("lamp-new", 0x00124B00_00000009, joins=True),
)

# Those of class A and B with DR3 stay with multicast when they are late: at DR5 a node by itself takes less air by unicast.
LORAWAN_NODES = (
    LorawanNode("meter-canary", 0x70B3D57E_D0000001, loss=0.01),
    LorawanNode(
        *("meter-2", 0x70B3D57E_D0000002),
        loss=0.03,
        device_class="A",
        multi_package=True,
        uplink_interval_s=30.0,
        data_rate=3,
        group_frames_most=20,
    ),
    LorawanNode(
        *("meter-bad", 0x70B3D57E_D0000003, "rolled_back"),
        loss=0.06,
        device_class="A",
        uplink_interval_s=30.0,
        data_rate=3,
        self_test_fails=True,
    ),
    LorawanNode("meter-4", 0x70B3D57E_D0000004, loss=0.12, package_version=2),
    LorawanNode("meter-far", 0x70B3D57E_D0000005, loss=0.15, snr_db=-11.0),
    LorawanNode("meter-beacon", 0x70B3D57E_D0000006, loss=0.02, device_class="B", uplink_interval_s=60.0, data_rate=3),
    LorawanNode(
        *("meter-quiet", 0x70B3D57E_D0000007),
        loss=0.02,
        battery_percent=90.0,
        device_class="A",
        multicast=False,
        uplink_interval_s=30.0,
    ),
    LorawanNode("meter-8", 0x70B3D57E_D0000008, loss=0.20, status_style="loramac"),
    LorawanNode(
        *("meter-mute", 0x70B3D57E_D0000009, "deferred", "version_unknown"),
        firmware_management=False,
        device_class="A",
        uplink_interval_s=30.0,
        tags=(("gatewayd-hardware", f"{LORAWAN_HW:08x}"),),
    ),
    LorawanNode(
        *("meter-ahead", 0x70B3D57E_D000000A, "skipped", "newer"),
        version=LORAWAN_NEWER,
        device_class="A",
        uplink_interval_s=60.0,
    ),
    LorawanNode(
        *("meter-other", 0x70B3D57E_D000000B, "deferred", "version_unknown"),
        tags=((OWNER_TAG, "another-gateway"),),
    ),
    LorawanNode(
        *("meter-served", 0x70B3D57E_D000000C, "deferred", "version_unknown"),
        device_class="A",
        uplink_interval_s=60.0,
        app_layer=(0, 1, 1),
    ),
)


def zigbee_image(version: int, image_type: int = LAMP_TYPE, size: int = ZIGBEE_IMAGE_BYTES) -> bytes:
    """A well-formed OTA file; the same arguments give the same bytes."""
    return build_ota_file(
        manufacturer=MANUFACTURER_CODE, image_type=image_type, version=version, size=size, seed="demo"
    )


def lorawan_image(version: int, size: int = LORAWAN_IMAGE_BYTES) -> bytes:
    """A well-formed image for the simulated meters; the same arguments give the same bytes."""
    return lorawan_firmware.build(version=version, hardware=LORAWAN_HW, size=size, seed=1)
