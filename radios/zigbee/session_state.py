"""What is remembered of one node's download, and the limits that a download is held to. Data only, no behaviour."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from radios.radio import ImageRef, NodeId, TransferOrder, Want
from radios.zigbee.ota_commands import (
    FileId,
)

MAX_BLOCK_BYTES: Final = 50  # what every deployed client takes; `quirks` knows the others


class Stage(StrEnum):
    """Where a node is in its transfer. Stored: the strings are stable."""

    OFFERED = "offered"  # to be told, or told; no block proven yet
    DOWNLOADING = "downloading"
    READY = "ready"  # the node ended with SUCCESS and waits
    INSTALLING = "installing"  # the node may have been told to start the image
    RUNNING = "running"  # the node said which version it runs after that
    FAILED = "failed"
    DROPPING = "dropping"  # the next block request is answered with ABORT
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class OtaImage:
    """A file of the image store and what its header says it is for."""

    ref: ImageRef
    file: FileId
    min_hardware: int | None = None
    max_hardware: int | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """What the order says of how to deliver; may change during the transfer."""

    priority: int = 0
    air_share: float = 1.0
    expires_at: float = float("inf")  # Unix seconds


def terms_of(order: TransferOrder) -> Terms:
    return Terms(order.priority, order.air_share, order.expires.timestamp())


@dataclass(frozen=True, slots=True)
class SessionState:
    """All of a session that must survive a restart."""

    node: NodeId
    transfer: str
    generation: int
    want: Want
    install_at: float | None  # Unix seconds
    image: OtaImage
    stage: Stage
    confirmed: int = 0
    failures: int = 0
    code: str = ""
    endpoint: int = 1
    running_version: int | None = None
    rebooted: bool = False


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Times in seconds of the node's own behaviour; what fits most deployed nodes. `quirks` changes it by model."""

    max_block_bytes: int = MAX_BLOCK_BYTES
    notify_payload: int = 0  # ImageNotify payload type
    wait_short_form: bool = False  # WAIT_FOR_DATA without a block period, always
    page_requests: bool = True  # answered, if the operator wants them at all
    minimum_block_period: bool = True  # set, if the node offers it

    unreconciled_wait_s: int = 5
    max_unreconciled_wait_s: int = 120
    hold_wait_s: int = 30
    image_unavailable_wait_s: int = 30
    max_failures: int = 3
    stall_after_s: float = 60.0
    renotify_stalled_after_s: float = 600.0  # by then the client has given up, so a query destroys nothing
    notify_interval_s: float = 5.0
    max_notify_interval_s: float = 900.0
    notify_heard_interval_s: float = 15.0
    silent_after_notifies: int = 4
    prepare_s: float = 30.0  # what is to be read of the node before its firmware changes delays the install so long
    hand_out_s: float = 300.0  # before its time, an install is told to a node that sleeps; no hold comes between then
    install_retry_s: float = 5.0
    max_install_retry_s: float = 300.0
    refused_s: float = 10_800.0  # until an installation is begun again whose commit the daemon did not take
    reply_stale_after_s: float = 5.0
    # After the order to start, without a proven reboot: a second MCU verifies for up to half an hour, in which the node
    # says the old version. To believe it too early would be a rollback that never was, too late is only late.
    verify_s: float = 1800.0
    probe_installing_after_s: float = 120.0
    probe_interval_s: float = 30.0  # at least, between two questions for the version
    lost_after_s: float = 3600.0  # twice verify_s
    # So long a sleepy node that no install frame has reached is not lost: three of the usual check-ins. Not longer, for it
    # would be told in the middle of the day what was to begin in the night.
    untold_s: float = 10_800.0
    drop_after_s: float = 90.0
    progress_interval_s: float = 1.0  # between two words on progress: when it moved by progress_step
    progress_step: float = 0.005  # of the image
    max_progress_interval_s: float = 30.0  # when it moved by less
