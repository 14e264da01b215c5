"""Parts of a campaign's document and of the reports about it: when nodes may be touched, how often, and what a gate saw. PURE.

The whole documents are in messages.py, which names these too; what is done by them is campaign/'s business.
"""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from gatewayd.cloud.document import Document, Hardware, NodeName, Ratio

TimeOfDay = Annotated[str, StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class Weekday(StrEnum):
    """In the order of the week."""

    MON = "mon"
    TUE = "tue"
    WED = "wed"
    THU = "thu"
    FRI = "fri"
    SAT = "sat"
    SUN = "sun"


class Window(Document):
    """Hours [start, end) on the clock on the site's wall; over midnight, or a whole day, when `end` is not after `start`."""

    start: TimeOfDay
    end: TimeOfDay
    days: Annotated[tuple[Weekday, ...], Field(min_length=1, max_length=7)] | None = (
        None  # in which it starts; None: all
    )


class ModelLimits(Document):
    """Other limits for the nodes that all of `hardware` and `model` fit; what is absent is the policy's own."""

    hardware: Hardware | None = None
    model: Text | None = None  # as the node says it; * stands for any text
    max_attempts: Annotated[int, Field(ge=1, le=20)] | None = None
    retry_after_s: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _of_somebody(self) -> Self:
        if self.hardware is None and self.model is None:
            raise ValueError("limits of a model name its `hardware`, its `model`, or both")
        return self


Windows = Annotated[tuple[Window, ...], Field(max_length=16)]


class Policy(Document):
    """When a node may be touched, how often, and how much air it may take. Hours are in the site's time zone."""

    battery_percent: Annotated[float, Field(ge=0, le=100)] = 35.0
    battery_max_age_s: Annotated[int, Field(ge=60)] = 7 * 86400
    install_windows: Windows = ()  # nodes are told to start the image only then; none: at any time
    quiet_hours: Windows = ()  # nothing is sent and nothing is installed then
    minimum_lqi: Annotated[int, Field(ge=1, le=255)] | None = None  # of Zigbee nodes, to start with them
    minimum_rssi_dbm: Annotated[float, Field(ge=-200, le=0)] | None = None  # of all nodes
    minimum_snr_db: Annotated[float, Field(ge=-50, le=50)] | None = None  # of LoRaWAN nodes
    max_attempts: Annotated[int, Field(ge=1, le=20)] = 3
    retry_after_s: Annotated[int, Field(ge=1)] = 3600  # after the first attempt; each further pause is twice the last
    retry_most_s: Annotated[int, Field(ge=1)] = 86400  # no pause is longer
    models: Annotated[tuple[ModelLimits, ...], Field(max_length=64)] = ()  # the first that fits a node is its
    concurrency: Annotated[int, Field(ge=1)] | None = None  # nodes at once per radio; None: what the radio can take
    priority: Annotated[int, Field(ge=0, le=9)] = 5
    air_share: Annotated[float, Field(gt=0, le=1)] = 1.0


class Retriable(StrEnum):
    """Outcomes that a revision can ask to be tried anew."""

    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    MOVED = "moved"  # left out because other hands had brought the node to another firmware


class Retry(Document):
    """Nodes that had these outcomes when `revision` came are tried anew, once.

    Later revisions carry it on, for gateways that were away when it was asked.
    """

    revision: Annotated[int, Field(ge=1, lt=2**53)] | None = None  # that asked; None: the one that this is in
    outcomes: Annotated[tuple[Retriable, ...], Field(min_length=1, max_length=3)] = (Retriable.FAILED,)
    nodes: Annotated[tuple[NodeName, ...], Field(min_length=1, max_length=1500)] | None = None  # None: all of them


class FailedNode(Document):
    node: str
    state: str
    code: str = ""
    version: int | None = None
    reset_cause: str = ""


class GateEvidence(Document):
    """What made a gate pause the campaign on this gateway: the counts it judged, its limit, and the nodes that failed."""

    open_tiers: int
    executed: int
    updated: int
    failed: int
    rolled_back: int
    failure_ratio: Ratio  # of those executed
    failure_ratio_limit: Ratio
    minimum_executed: int
    nodes: Annotated[tuple[FailedNode, ...], Field(max_length=20)] = ()  # the first of them, by name
