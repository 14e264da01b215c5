"""Words of the OTA client: its states, how it times itself, what it counts."""

from dataclasses import dataclass
from enum import IntEnum, StrEnum


class Status(IntEnum):
    SUCCESS = 0x00
    MALFORMED_COMMAND = 0x80
    UNSUP_CLUSTER_COMMAND = 0x81
    INSUFFICIENT_SPACE = 0x89
    ABORT = 0x95
    INVALID_IMAGE = 0x96
    WAIT_FOR_DATA = 0x97
    NO_IMAGE_AVAILABLE = 0x98


class OtaState(StrEnum):
    IDLE = "idle"
    QUERYING = "querying"
    DOWNLOADING = "downloading"
    WAITING = "waiting"  # told WAIT_FOR_DATA
    PAUSED = "paused"  # gave up on a silent server; goes on at its offset later
    VERIFYING = "verifying"
    ENDING = "ending"  # UpgradeEndRequest sent
    HOLDING = "holding"  # told to wait, or nobody answered: asks again, or acts on an unsolicited 07
    COUNTDOWN = "countdown"


@dataclass(frozen=True, slots=True)
class OtaTiming:
    """How a client times itself, in seconds."""

    think_s: float = 0.02  # between a block and the next request
    response_timeout_s: tuple[float, float] = (2.0, 3.0)
    max_errors: int = 10  # unanswered requests in a row before it gives up
    retry_later_s: float = 60.0  # after giving up
    boot_query_delay_s: tuple[float, float] = (4.0, 8.0)
    query_interval_s: float = 24 * 3600.0
    verify_s: float = 1.0
    end_attempts: int = 3
    end_retry_s: float = 5.0
    hold_interval_s: float = 3600.0
    page_slack_s: float = 0.5  # after the last block of a page should have come


@dataclass(frozen=True, slots=True)
class OtaHabits:
    """What clients of different makers do differently."""

    page_size: int | None = None  # bytes that it asks for at once; None: block by block
    page_spacing_ms: int = 50
    minimum_block_period: int | None = None  # offered in block requests, with this value at first; None: not offered
    cluster_revision: int | None = (
        3  # attribute 0xFFFD; in revision 2 MinimumBlockPeriod counts seconds, else milliseconds
    )
    tells_eui64: bool = False  # in block and page requests
    short_end_on_error: bool = False  # UpgradeEndRequest of one byte when the status is not SUCCESS
    wait_without_period_only: bool = False  # WAIT_FOR_DATA with a block period is malformed to it
    apply_without_answer: bool = False  # UpgradeTimeoutPolicy 0
    query_after_giving_up: bool = False  # forgetful clients: a new query, so they start again at 0
    absent_attributes: frozenset[int] = frozenset()  # of the OTA cluster


@dataclass(frozen=True, slots=True)
class Target:
    """The image that is being downloaded."""

    version: int
    size: int


@dataclass(slots=True)
class OtaCounters:
    """What happened since the node was made; resets do not clear it."""

    blocks_received: int = 0
    bytes_received: int = 0
    bytes_received_twice: int = 0  # below what was already held of the same version once
    requests_sent: int = 0
    responses_ignored: int = 0  # other offset, other version, not asked for
    timeouts: int = 0
    gave_up: int = 0
    told_to_wait: int = 0
    block_periods_taken: int = 0  # another MinimumBlockPeriod than before
    downloads_started_at_zero: int = 0
    downloads_resumed: int = 0
    downloads_thrown_away: int = 0  # ABORT, NO_IMAGE_AVAILABLE on a block
    images_refused: int = 0  # whole, but INVALID_IMAGE
