"""What a session gives to its shell: frames to send, and what must be durable before. Data only, no behaviour."""

from dataclasses import dataclass
from enum import Enum

from radios.radio import TransferEvent
from radios.zigbee.session_state import SessionState


class Purpose(Enum):
    ANSWER = "answer"
    BLOCK = "block"
    NOTIFY = "notify"
    INSTALL = "install"
    PAGE = "page"  # a block that was not asked for by itself


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A frame for the node's endpoint. Tell the session with `delivered` what became of it."""

    frame: bytes
    endpoint: int
    purpose: Purpose
    acknowledged: bool = True  # at the APS layer


@dataclass(frozen=True, slots=True)
class Commit:
    """What must be durable before anything is sent."""

    state: SessionState
    events: tuple[TransferEvent, ...]
    sequence: int
