"""The documents that travel between cloud and gateway, and the topics they travel on. PURE.

Responsible for the shape and the ranges of documents; not for who signed them (trust/) nor for what follows (campaign/).
Documents are JSON of at most 64 kB, strict: an unknown key, a wrong type or a value out of range refuses the whole
document with the place named.
"""

import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Literal, Self, TypeVar

from pydantic import AwareDatetime, Field, StringConstraints, ValidationError, model_validator

from gatewayd.cloud.campaign_policy import GateEvidence as GateEvidence
from gatewayd.cloud.campaign_policy import Policy as Policy
from gatewayd.cloud.campaign_policy import Retry as Retry
from gatewayd.cloud.commands import Command as Command
from gatewayd.cloud.commands import CommandKind as CommandKind
from gatewayd.cloud.commands import GatewayIdentity as GatewayIdentity
from gatewayd.cloud.commands import RadioIdentity as RadioIdentity
from gatewayd.cloud.document import Audience as Audience
from gatewayd.cloud.document import Digest as Digest
from gatewayd.cloud.document import Document as Document
from gatewayd.cloud.document import Hardware as Hardware
from gatewayd.cloud.document import Name as Name
from gatewayd.cloud.document import NodeName as NodeName
from gatewayd.cloud.document import Ratio as Ratio
from gatewayd.cloud.document import ReleasePath as ReleasePath
from gatewayd.cloud.inventory import InventoryNode as InventoryNode
from gatewayd.cloud.inventory import InventoryPage as InventoryPage
from gatewayd.cloud.inventory import InventorySite as InventorySite
from gatewayd.cloud.plan import PLANS_MOST
from gatewayd.cloud.plan import PlannedTransfer as PlannedTransfer
from gatewayd.errors import Refused

DOCUMENT_MAX_BYTES = 64 * 1024
RELEASE_MAX_BYTES = 512 * 1024  # a release lists the hash of every chunk
TOPIC_ROOT = "ota/v1"

D = TypeVar("D", bound=Document)


# -- campaigns ---------------------------------------------------------------------------------------------------------


class Desired(StrEnum):
    RUNNING = "running"
    PAUSED = "paused"
    CANCELLED = "cancelled"


class StageBy(StrEnum):
    """What the tiers of a rollout hold back."""

    TRANSFER = "transfer"
    INSTALL = "install"


class Tier(Document):
    """One step of a rollout: nodes by name, by tags or by their gateway's region, or all whose place is below a percentage."""

    name: Name
    percent: Annotated[float, Field(gt=0, le=100)] | None = None
    nodes: tuple[NodeName, ...] | None = None
    tags: Annotated[dict[str, str], Field(min_length=1, max_length=16)] | None = None  # a node that has all of them
    regions: Annotated[tuple[Name, ...], Field(min_length=1, max_length=64)] | None = None

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if sum(value is not None for value in (self.percent, self.nodes, self.tags, self.regions)) != 1:
            raise ValueError("a tier has one of `percent`, `nodes`, `tags` and `regions`")
        return self


class Gate(Document):
    """The rule that opens the next tier. It counts only nodes whose outcome is confirmed."""

    kind: Literal["local", "cloud"] = "local"
    minimum_executed: Annotated[int, Field(ge=1)] = 1
    success_ratio: Ratio = 1.0  # at least this share of the executed nodes is updated
    failure_ratio: Ratio = 0.0  # more than this share failed or rolled back: the campaign pauses
    soak_s: Annotated[int, Field(ge=0, le=30 * 86400)] = 0  # between the last outcome and the opening


class Rollout(Document):
    tiers: Annotated[tuple[Tier, ...], Field(min_length=1, max_length=16)] = (Tier(name="all", percent=100.0),)
    stage_by: StageBy | None = None  # None: transfer on unicast radios, install on multicast
    gate: Gate = Gate()
    open_tiers: Annotated[int, Field(ge=1)] = 1  # cloud gates: how many tiers are open in this revision

    @model_validator(mode="after")
    def _rising(self) -> Self:
        names = [tier.name for tier in self.tiers]
        if len(set(names)) != len(names):
            raise ValueError("tier names repeat")
        percents = [tier.percent for tier in self.tiers if tier.percent is not None]
        if percents != sorted(set(percents)):
            raise ValueError("the percentages of the tiers must rise")
        return self


class Selection(Document):
    """Which of the gateway's nodes a campaign means; the release's hardware narrows it further."""

    nodes: Annotated[tuple[NodeName, ...], Field(min_length=1, max_length=1500)] | None = None  # None: all


class Campaign(Document):
    """What a signed campaign envelope holds."""

    format: Literal[1] = 1
    id: Name
    audience: Audience
    revision: Annotated[int, Field(ge=1, lt=2**53)]
    issued: AwareDatetime
    expires: AwareDatetime
    desired: Desired
    release: ReleasePath
    selection: Selection = Selection()
    rollout: Rollout = Rollout()
    policy: Policy = Policy()
    retry: Retry | None = None

    @model_validator(mode="after")
    def _lifetime(self) -> Self:
        if not 0 < (self.expires - self.issued).total_seconds() <= 30 * 86400:
            raise ValueError("`expires` must be after `issued`, by 30 days at the most")
        return self


# -- releases and trust documents (TUF targets) ------------------------------------------------------------------------


class SignatureScheme(StrEnum):
    RSA_PKCS1V15_SHA256 = "rsa-pkcs1v15-sha256"
    RSA_PSS_SHA256 = "rsa-pss-sha256"
    ECDSA_P256_SHA256 = "ecdsa-p256-sha256"


class ManufacturerSignature(Document):
    """The manufacturer's signature over the full image, as the node's bootloader verifies it too."""

    scheme: SignatureScheme
    keyid: Digest  # SHA-256 of the key's DER SubjectPublicKeyInfo
    value: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]+={0,2}$", max_length=1024)]  # base64


class DeltaFormat(StrEnum):
    """How a patch is written; a node states which of them it can apply."""

    DETOOLS = "detools"  # sequential, heatshrink
    VCDIFF = "vcdiff"  # RFC 3284, as xdelta3 writes it


class Payload(Document):
    """The bytes of one firmware file. `chunks` are the SHA-256 of each `chunk_size` bytes, the last one shorter."""

    kind: Literal["full", "delta"] = "full"
    size: Annotated[int, Field(ge=1, le=64 * 2**20)]
    sha256: Digest
    chunk_size: Annotated[int, Field(ge=4096, le=2**20)] = 65536
    chunks: Annotated[tuple[Digest, ...], Field(min_length=1)]
    path: Annotated[str, StringConstraints(pattern=r"^payloads/[0-9a-f]{64}$")]  # below the payload base URLs
    signature: ManufacturerSignature
    base_sha256: Digest | None = None  # with delta: the published file it applies to
    base_version: Annotated[int, Field(ge=0, lt=2**32)] | None = (
        None  # with delta: what a node that runs the base reports
    )
    image_sha256: Digest | None = None  # with delta: the full image's file, which it makes
    delta_format: DeltaFormat | None = None
    needs_ram: Annotated[int, Field(ge=0, lt=2**32)] | None = (
        None  # with delta: bytes that applying it takes on the node
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.chunks) != -(-self.size // self.chunk_size):
            raise ValueError(f"{len(self.chunks)} chunk hashes for {self.size} bytes in chunks of {self.chunk_size}")
        of_delta = (self.base_sha256, self.base_version, self.image_sha256, self.delta_format)
        if any((self.kind == "delta") != (value is not None) for value in of_delta):
            raise ValueError(
                "base_sha256, base_version, image_sha256 and delta_format belong to a delta, and to nothing else"
            )
        if self.kind != "delta" and self.needs_ram is not None:
            raise ValueError("needs_ram belongs to a delta")
        return self


class Release(Document):
    """One firmware for one or more hardwares. Signed as a TUF target below `releases/`."""

    format: Literal[1] = 1
    name: Name
    version: Annotated[
        str, StringConstraints(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+([.+-][0-9A-Za-z.+-]+)?$", max_length=64)
    ]
    sequence: Annotated[int, Field(ge=1, lt=2**53)]  # orders versions
    security_version: Annotated[int, Field(ge=0, lt=2**32)]
    node_version: Annotated[int, Field(ge=0, lt=2**32)]  # what a node that runs it reports
    hardware: Annotated[tuple[Hardware, ...], Field(min_length=1)]
    container: Literal["zigbee-ota", "mcuboot", "opaque"]
    self_test_s: Annotated[int, Field(ge=0, le=86400)] = 60  # the node must still run it after this long
    payloads: Annotated[tuple[Payload, ...], Field(min_length=1)]
    notes: Annotated[str, StringConstraints(max_length=2000)] = ""

    @model_validator(mode="after")
    def _one_full(self) -> Self:
        if sum(payload.kind == "full" for payload in self.payloads) != 1:
            raise ValueError("a release has exactly one full image")
        return self


class CampaignKey(Document):
    """A key that may sign campaigns. `public` is PEM SubjectPublicKeyInfo; the key id is securesystemslib's."""

    keyid: Digest
    public: str
    audiences: Annotated[tuple[str, ...], Field(min_length=1)]  # "gateway:x", "fleet:y", "gateway:*", "fleet:*"


class CampaignKeys(Document):
    """The target `trust/campaign-keys.json`."""

    format: Literal[1] = 1
    keys: tuple[CampaignKey, ...]


class Manufacturer(Document):
    """A manufacturer's key: `public` is base64 DER SubjectPublicKeyInfo, `keyid` its SHA-256."""

    keyid: Digest
    name: str
    public: str
    hardware: Annotated[tuple[Hardware, ...], Field(min_length=1)]
    valid_from: AwareDatetime
    valid_until: AwareDatetime
    revoked: bool = False


class Floor(Document):
    """The fleet's floor for one hardware: nothing with a lower security version is delivered."""

    hardware: Hardware
    minimum_security_version: Annotated[int, Field(ge=0, lt=2**32)]


class Manufacturers(Document):
    """The target `trust/manufacturers.json`: keys per hardware, and the fleet's rollback floors."""

    format: Literal[1] = 1
    keys: tuple[Manufacturer, ...]
    floors: tuple[Floor, ...] = ()


# -- from the gateway --------------------------------------------------------------------------------------------------


class ReportKind(StrEnum):
    CAMPAIGN = "campaign"  # a campaign's state changed, or one was refused
    NODE = "node"  # a node update's state changed
    PROGRESS = "progress"  # bytes confirmed on a node: the only kind that may be dropped
    GATEWAY = "gateway"  # storage, clock, radio and trust troubles, answers to commands


class Report(Document):
    """One thing that happened. Fields that do not belong to the kind are absent."""

    kind: ReportKind
    at: AwareDatetime
    state: str
    code: str = ""
    detail: Annotated[str, StringConstraints(max_length=500)] = ""
    campaign: str | None = None
    revision: int | None = None
    node: str | None = None
    version: int | None = None
    attempt: int | None = None
    confirmed: int | None = None
    size: int | None = None
    reset_cause: str | None = None  # of a node that rolled back, where it tells: watchdog, soft, ...
    evidence: GateEvidence | None = None  # of a campaign that a gate has paused
    command: str | None = None  # id of the command that this answers, or because of which it is told again
    identity: GatewayIdentity | None = None  # answer to `identify`


class NumberedReport(Document):
    seq: Annotated[int, Field(ge=1)]
    report: Report


class ReportBatch(Document):
    """What is published on `reports`: at least once, in order of `seq` within an `epoch`.

    Between `after` and the first report here the gateway holds none (0: this one is its oldest), and none that are missing
    among these. So whoever has stored all up to `after` has all up to the last one here.
    """

    epoch: Annotated[int, Field(ge=1)]
    after: Annotated[int, Field(ge=0)]
    reports: Annotated[tuple[NumberedReport, ...], Field(min_length=1, max_length=200)]


class Acks(Document):
    """From the cloud, retained: everything up to and including `seq` of `epoch` is safely stored."""

    epoch: Annotated[int, Field(ge=1)]
    seq: Annotated[int, Field(ge=0)]


class GatewayState(Document):
    """Retained on `state`; `offline` is the last will."""

    state: Literal["online", "offline"]
    connection: str
    gateway: str
    version: str = ""
    fleets: tuple[str, ...] = ()  # whose campaigns it takes
    health: dict[str, str] = Field(default_factory=dict)


class CampaignSummary(Document):
    """Retained on `summary/{campaign}`."""

    campaign: str
    revision: int
    state: str
    code: str = ""
    detail: str = ""
    open_tiers: int
    gate: str
    nodes: dict[str, int]  # state -> count
    left_out: int = 0  # of those `cancelled`: a later revision does not mean them any more
    tiers: dict[str, dict[str, int]]
    plan: Annotated[tuple[PlannedTransfer, ...], Field(max_length=PLANS_MOST)] = ()  # the first of them, tier by tier
    updated: AwareDatetime


# -- reading and writing -----------------------------------------------------------------------------------------------


def parse(kind: type[D], raw: bytes, what: str, max_bytes: int = DOCUMENT_MAX_BYTES) -> D:
    """The document, or `Refused` with code too_large or bad_document and every fault with its place."""
    if len(raw) > max_bytes:
        raise Refused("too_large", f"{what}: {len(raw)} bytes, at most {max_bytes}")
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'document'}: {e['msg']}" for e in error.errors()[:10])
        raise Refused("bad_document", f"{what}: {faults}") from None


def dump(document: Document) -> bytes:
    """Compact JSON with sorted keys: the same document gives the same bytes."""
    plain = document.model_dump(mode="json", exclude_none=True)
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


# -- topics ------------------------------------------------------------------------------------------------------------


def campaign_filters(gateway: str, fleets: tuple[str, ...]) -> list[str]:
    """What a gateway subscribes to for campaigns."""
    return [f"{TOPIC_ROOT}/gateways/{gateway}/campaigns/+", *(f"{TOPIC_ROOT}/fleets/{f}/campaigns/+" for f in fleets)]


def campaign_topic(audience: str, campaign: str) -> str:
    """Where the cloud publishes a campaign for an audience `gateway:<id>` or `fleet:<id>`."""
    scope, _, name = audience.partition(":")
    return f"{TOPIC_ROOT}/{scope}s/{name}/campaigns/{campaign}"


def gateway_topic(gateway: str, leaf: str) -> str:
    """A topic of the gateway's own: commands, acks, state, inventory/{page}, reports, summary/{campaign}."""
    return f"{TOPIC_ROOT}/gateways/{gateway}/{leaf}"


def utc(when: float) -> datetime:
    """Unix seconds as an aware datetime."""
    return datetime.fromtimestamp(when, UTC)
