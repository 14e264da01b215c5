"""What the cloud publishes and orders in these tests: made once, as files that every run reads."""

import json
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from gatewayd.cloud.messages import DeltaFormat, Desired, Gate, Policy, Rollout, Selection, Tier, campaign_topic
from gatewayd.demo.cloud_side import GATEWAY, CloudSide, Firmware
from gatewayd.publisher.campaigns import new_campaign, revise, sign_campaign
from gatewayd.publisher.firmware import DeltaPlan
from gatewayd.publisher.keys import KeyKind, Role
from tests.support.rig import lamp_firmware, meter_firmware

AUDIENCE = f"gateway:{GATEWAY}"
CHUNK_BYTES = 4096
IMAGE_BYTES = 4500
METER_IMAGE_BYTES = 4500
_CHANGED_BYTES = 200  # header and a little behind it

LAMP_EUI64, METER_EUI = 0x00124B00_00000300, 0x70B3D57E_D0000300
UPDATED, ROLLED_BACK, CANCELLED, PATCHED, FALLEN_BACK = (f"zigbee:{LAMP_EUI64 + n:016x}" for n in range(1, 6))
METER, METER_ROLLED_BACK = (f"lorawan:{METER_EUI + n:016x}" for n in range(1, 3))


@dataclass(frozen=True, slots=True)
class Planned:
    """A campaign to all its nodes at once; `cancelled`: by its second revision."""

    name: str
    release: str  # path
    nodes: tuple[str, ...]
    attempts: int = 1
    cancelled: bool = False


@dataclass(frozen=True)
class Story:
    """What is published and ordered. The operator holds the first campaign in mid-transfer, and resumes it."""

    name: str
    firmware: tuple[Firmware, ...]
    campaigns: tuple[Planned, ...]

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(node for planned in self.campaigns for node in planned.nodes)

    @property
    def held(self) -> str:
        return self.campaigns[0].name

    @property
    def new(self) -> Firmware:
        """What all nodes are to run."""
        return self.firmware[-1]


def _lamps() -> tuple[Firmware, Firmware]:
    """What two lamps can be patched from, and what all are to run."""
    base = lamp_firmware("1.0.4", size=IMAGE_BYTES, security=1)
    new = lamp_firmware("2.0.0", size=IMAGE_BYTES)
    image = new.image[:_CHANGED_BYTES] + base.image[_CHANGED_BYTES:]
    spec = replace(new.spec, self_test_s=10, chunk_bytes=CHUNK_BYTES)
    plan = DeltaPlan((base.spec.path,), (DeltaFormat.DETOOLS,), needs_ram=4096)
    return base, replace(new, spec=spec, image=image, deltas=plan)


def _meters() -> tuple[Firmware]:
    new = meter_firmware(METER_IMAGE_BYTES)
    return (replace(new, spec=replace(new.spec, chunk_bytes=CHUNK_BYTES)),)


LAMPS, SPARE, PATCHES, METERS = "lamps", "spare", "patches", "meters"
_LAMP, _METER = _lamps(), _meters()
ZIGBEE = Story(
    "zigbee",
    _LAMP,
    (
        Planned(LAMPS, _LAMP[1].spec.path, (UPDATED, ROLLED_BACK)),
        Planned(SPARE, _LAMP[1].spec.path, (CANCELLED,), cancelled=True),
        Planned(PATCHES, _LAMP[1].spec.path, (PATCHED, FALLEN_BACK), attempts=2),
    ),
)
LORAWAN = Story("lorawan", _METER, (Planned(METERS, _METER[0].spec.path, (METER, METER_ROLLED_BACK)),))
STORIES = {story.name: story for story in (ZIGBEE, LORAWAN)}


@dataclass(frozen=True, slots=True)
class Order:
    """A signed envelope and the topic on which it is retained."""

    topic: str
    envelope: bytes


@dataclass(frozen=True)
class Published:
    """The folder of the publisher; `start` is when it was made, in Unix seconds."""

    folder: Path

    @cached_property
    def story(self) -> Story:
        return STORIES[(self.folder / "story").read_text()]

    @property
    def repository(self) -> Path:
        return self.folder / "repository"

    @property
    def root(self) -> Path:
        return self.repository / "metadata" / "1.root.json"

    @cached_property
    def start(self) -> float:
        return float((self.folder / "start").read_text())

    def order(self, name: str, revision: int = 1) -> Order:
        stored = json.loads((self.folder / f"{name}-{revision}.json").read_text())
        return Order(stored["topic"], stored["envelope"].encode())


def publish(folder: Path, story: Story) -> Published:
    """A repository with the story's releases, and the envelopes of its campaigns."""
    cloud = CloudSide(folder, manufacturer=KeyKind.ECDSA_P256)
    cloud.publish(story.firmware)
    now = time.time()
    everyone = Rollout(tiers=(Tier(name="all", percent=100.0),), gate=Gate(failure_ratio=1.0))
    for planned in story.campaigns:
        document = new_campaign(
            planned.name,
            planned.release,
            AUDIENCE,
            now,
            selection=Selection(nodes=planned.nodes),
            rollout=everyone,
            policy=Policy(max_attempts=planned.attempts, retry_after_s=1),
        )
        revisions = [document]
        if planned.cancelled:
            revisions.append(revise(document, now, desired=Desired.CANCELLED))
        for one in revisions:
            envelope = sign_campaign(one, cloud.keys.signer(Role.CAMPAIGN)).decode()
            order = {"topic": campaign_topic(AUDIENCE, planned.name), "envelope": envelope}
            (folder / f"{planned.name}-{one.revision}.json").write_text(json.dumps(order))
    (folder / "story").write_text(story.name)
    (folder / "start").write_text(repr(float(int(now) + 1)))
    return Published(folder)
