"""What the attributes of a node's OTA client say of its transfer, beside what the journal remembers.

Responsible for the judgement alone; `session_truth` acts on it. Stacks fill the attributes differently: FileOffset may run
ahead of flash or count something else, many keep ImageUpgradeStatus at its default for ever, some have neither. So

- progress is taken from FileOffset only while ImageUpgradeStatus says that a download is under way **and**
  DownloadedFileVersion names our file; a request proves more than any attribute, and came first if in doubt;
- "holds it all" needs status complete, waiting or count down (by the specification the client has then checked the
  image) and our version;
- "holds nothing of it" needs a status, and neither our version nor an offset that could be one;
- what contradicts itself, or is not said, changes nothing.
"""

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final

from radios.zigbee.ota_commands import WILDCARD_VERSION, FileId
from radios.zigbee.session_state import SessionState, Stage

NO_OFFSET: Final = 0xFFFFFFFF  # FileOffset of a client that downloads nothing


class UpgradeStatus(IntEnum):
    """Attribute ImageUpgradeStatus (ZCL8 11.10.7)."""

    NORMAL = 0
    DOWNLOADING = 1
    COMPLETE = 2  # and checked
    WAITING = 3  # told to wait until another word
    COUNT_DOWN = 4
    WAIT_FOR_MORE = 5
    EXTERNAL_EVENT = 6


@dataclass(frozen=True, slots=True)
class ClientAttributes:
    """What the OTA client answered of its attributes; None: not there, or not answered."""

    file_offset: int | None = None
    current_version: int | None = None
    downloaded_version: int | None = None
    upgrade_status: int | None = None
    manufacturer: int | None = None
    image_type: int | None = None
    minimum_block_period: int | None = None
    cluster_revision: int | None = None


class Verdict(Enum):
    NOTHING = 0  # nothing that changes anything
    GOES_ON = 1  # it downloads; with an offset: ours, and holds so much
    HOLDS = 2  # it has the whole image, checked, and waits
    STARTS = 3  # as HOLDS, and counts down to its start
    FORGOTTEN = 4  # it holds nothing of the image


@dataclass(frozen=True, slots=True)
class Finding:
    verdict: Verdict
    offset: int | None = None


NOTHING: Final = Finding(Verdict.NOTHING)


def reconcile(state: SessionState, said: ClientAttributes) -> Finding:
    """What follows for a session from what its node says. See the module for the rules."""
    file, status = state.image.file, said.upgrade_status
    if state.stage not in (Stage.OFFERED, Stage.DOWNLOADING, Stage.READY, Stage.INSTALLING) or status is None:
        return NOTHING
    if not concerns(file, said) or said.current_version == file.version:
        return NOTHING  # another image of this node; or ours runs, which the version says
    ours = said.downloaded_version == file.version
    unnamed = said.downloaded_version in (None, WILDCARD_VERSION)
    offset = said.file_offset
    match status:
        case UpgradeStatus.COMPLETE | UpgradeStatus.WAITING | UpgradeStatus.COUNT_DOWN:
            if ours:
                return Finding(Verdict.STARTS if status == UpgradeStatus.COUNT_DOWN else Verdict.HOLDS)
            return NOTHING if unnamed else Finding(Verdict.FORGOTTEN)
        case UpgradeStatus.DOWNLOADING:
            if ours and offset is not None and 0 <= offset <= state.image.ref.size:
                return Finding(Verdict.GOES_ON, offset)
            return Finding(Verdict.GOES_ON if ours or unnamed else Verdict.FORGOTTEN)
        case UpgradeStatus.NORMAL if not ours and offset in (None, 0, NO_OFFSET):
            # A whole image is not given up for a status alone, which may stand still.
            if state.stage is Stage.DOWNLOADING or said.downloaded_version is not None:
                return Finding(Verdict.FORGOTTEN)
    return NOTHING


def concerns(file: FileId, said: ClientAttributes) -> bool:
    """Whether the attributes are of the image that `file` is for: a node may hold several."""
    return file.covers(
        file.manufacturer if said.manufacturer is None else said.manufacturer,
        file.image_type if said.image_type is None else said.image_type,
    )
