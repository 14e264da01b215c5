"""What a journal that was restored from a backup must become before the radio reads it. PURE.

The hardware that made the backup may have gone on for long. Downloads follow from what nodes say, so little is to be done:
no notification may reach a node that has begun to download since. The network itself is in the dongle: its newest backup
waits in the journal for a dongle that has none, and goes as soon as a dongle with this network is there.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from radios.errors import FrameError
from radios.radio import Json, Record
from radios.zigbee.journal_codec import session_record, session_state
from radios.zigbee.session_state import Stage

REPLACEMENT_SCOPE: Final = "network"
REPLACEMENT_KEY: Final = "replacement"
REPLACEMENT_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Replacement:
    """The network for a dongle that has none. `backup` is a coordinator's backup, with its keys."""

    backup: Json
    burn_address: bool = (
        False  # the coordinator's address may be written, though the dongle takes that once in its life
    )
    keep_address: bool = False  # the dongle keeps its own

    def __repr__(self) -> str:
        return "Replacement(...)"  # the backup holds keys


def after_restore(records: Sequence[Record], replacement: Replacement | None) -> list[Record]:
    """The records that replace those of the same scope and key. A record that cannot be read is left as it is."""
    changed = [replacement_record(replacement)]
    for record in records:
        if record.scope != "node" or "/" in record.key:
            continue
        try:
            state = session_state(record)
        except FrameError:
            continue
        if state.stage is Stage.OFFERED:
            # It may be in mid-download, where a notification makes a client start at 0. One that downloads nothing says
            # so, or is offered it again once it counts as stalled.
            changed.append(session_record(replace(state, stage=Stage.DOWNLOADING)))
    return changed


def replacement_record(replacement: Replacement | None) -> Record:
    """None: the record that deletes it."""
    value = b""
    if replacement is not None:
        value = json.dumps(
            {
                "backup": replacement.backup,
                "burn_address": replacement.burn_address,
                "keep_address": replacement.keep_address,
            },
            separators=(",", ":"),
        ).encode()
    return Record(REPLACEMENT_SCOPE, REPLACEMENT_KEY, REPLACEMENT_VERSION, value, secret=True)


def read_replacement(record: Record) -> Replacement:
    """FrameError when it is none; its text holds nothing of the record."""
    try:
        value = json.loads(record.value)
        if record.version != REPLACEMENT_VERSION or not isinstance(value, dict):
            raise FrameError("the record of the network that waits for a dongle is of another version")
        return Replacement(value["backup"], value["burn_address"] is True, value["keep_address"] is True)
    except (ValueError, KeyError):
        raise FrameError("the record of the network that waits for a dongle cannot be read") from None
