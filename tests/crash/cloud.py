"""What the cloud publishes and orders in these tests: made once, as files that every run reads."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

from gatewayd.cloud.messages import Desired, Gate, Policy, Rollout, Selection, Tier, campaign_topic
from gatewayd.demo import scenario
from gatewayd.publisher.campaigns import new_campaign, revise, sign_campaign
from gatewayd.publisher.firmware import FirmwareFile, ReleaseSpec
from gatewayd.publisher.keys import KeyKind, Role, campaign_key, generate_all
from gatewayd.publisher.repository import Repository

AUDIENCE = "gateway:gw-1"
CHUNK_BYTES = 4096
IMAGE_BYTES = 4500
YEAR_S = 365 * 86400.0

EUI64 = 0x00124B00_00000300
UPDATED, ROLLED_BACK, CANCELLED = NODES = tuple(f"zigbee:{EUI64 + n:016x}" for n in range(1, 4))
LAMPS, SPARE = "lamps", "spare"

RELEASE = ReleaseSpec(
    name="lamp",
    version="2.0.0",
    sequence=200,
    security_version=2,
    node_version=scenario.ZIGBEE_NEW,
    hardware=(scenario.ZIGBEE_HARDWARE,),
    container="zigbee-ota",
    self_test_s=10,
    chunk_bytes=CHUNK_BYTES,
)


@dataclass(frozen=True, slots=True)
class Order:
    """A signed envelope and the topic on which it is retained."""

    topic: str
    envelope: bytes


@dataclass(frozen=True, slots=True)
class Published:
    """The folder of the publisher; `start` is when it was made, in Unix seconds."""

    folder: Path

    @property
    def repository(self) -> Path:
        return self.folder / "repository"

    @property
    def root(self) -> Path:
        return self.repository / "metadata" / "1.root.json"

    @property
    def image(self) -> bytes:
        return (self.folder / "image.bin").read_bytes()

    @property
    def start(self) -> float:
        return float((self.folder / "start").read_text())

    def order(self, name: str, revision: int) -> Order:
        stored = json.loads((self.folder / f"{name}-{revision}.json").read_text())
        return Order(stored["topic"], stored["envelope"].encode())


def publish(folder: Path) -> Published:
    """A repository with one release, and the envelopes of two campaigns: `lamps`, and `spare`, which revision 2 cancels."""
    now = time.time()
    keys = generate_all(folder / "keys", manufacturer=KeyKind.ECDSA_P256)
    repository = Repository.create(folder / "repository", keys)
    signer = keys.manufacturer()
    repository.set_campaign_keys([campaign_key(keys.signer(Role.CAMPAIGN), [AUDIENCE])])
    repository.set_manufacturers([signer.manufacturer("ACME", RELEASE.hardware, now - YEAR_S, now + YEAR_S)])
    image = folder / "image.bin"
    image.write_bytes(scenario.zigbee_image(RELEASE.node_version, size=IMAGE_BYTES))
    repository.add_release(RELEASE, FirmwareFile(image, signer))
    everyone = Rollout(tiers=(Tier(name="all", percent=100.0),), gate=Gate(failure_ratio=1.0))
    once = Policy(max_attempts=1, retry_after_s=1)
    for name, nodes in ((LAMPS, (UPDATED, ROLLED_BACK)), (SPARE, (CANCELLED,))):
        document = new_campaign(
            name, RELEASE.path, AUDIENCE, now, selection=Selection(nodes=nodes), rollout=everyone, policy=once
        )
        revisions = [document]
        if name == SPARE:
            revisions.append(revise(document, now, desired=Desired.CANCELLED))
        for one in revisions:
            envelope = sign_campaign(one, keys.signer(Role.CAMPAIGN)).decode()
            order = {"topic": campaign_topic(AUDIENCE, name), "envelope": envelope}
            (folder / f"{name}-{one.revision}.json").write_text(json.dumps(order))
    (folder / "start").write_text(repr(float(int(now) + 1)))
    return Published(folder)
