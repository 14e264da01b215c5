"""Sessions as journal records (scope "node", key = EUI64) and back. The encoding is compact JSON, versioned."""

import json
from dataclasses import dataclass
from typing import Final

from radios.errors import FrameError
from radios.radio import ImageRef, Record, Want, parse_node_id
from radios.zigbee.ota_commands import (
    FileId,
)
from radios.zigbee.session_state import OtaImage, SessionState, Stage

RECORD_VERSION: Final = 1

_encoded = json.JSONEncoder(separators=(",", ":"), sort_keys=True).encode


def session_record(state: SessionState) -> Record:
    """The record that keeps this state; a dropped session's record deletes itself."""
    image = state.image
    value: bytes = b""
    if state.stage is not Stage.DROPPED:
        fields = {
            "transfer": state.transfer,
            "generation": state.generation,
            "want": state.want.value,
            "install_at": state.install_at,
            "digest": image.ref.digest,
            "size": image.ref.size,
            "version": image.ref.version,
            "file": [image.file.manufacturer, image.file.image_type, image.file.version],
            "hardware": [image.min_hardware, image.max_hardware],
            "stage": state.stage.value,
            "confirmed": state.confirmed,
            "failures": state.failures,
            "code": state.code,
            "endpoint": state.endpoint,
            "running": state.running_version,
            "rebooted": state.rebooted,
        }
        value = _encoded(fields).encode()
    return Record("node", state.node.partition(":")[2], RECORD_VERSION, value)


def session_state(record: Record) -> SessionState:
    """The state in a record. FrameError names the record when it cannot be read."""
    if record.version != RECORD_VERSION:
        raise FrameError(f"record {record.key!r}: version {record.version} is unknown")
    try:
        fields = _Fields(json.loads(record.value))
        minimum, maximum = fields.pair("hardware")
        manufacturer, image_type, file_version = fields.numbers("file")
        return SessionState(
            node=parse_node_id(f"zigbee:{record.key}"),
            transfer=fields.text("transfer"),
            generation=fields.number("generation"),
            want=Want(fields.text("want")),
            install_at=fields.time("install_at"),
            image=OtaImage(
                ImageRef(fields.text("digest"), fields.number("size"), fields.number("version")),
                FileId(manufacturer, image_type, file_version),
                minimum,
                maximum,
            ),
            stage=Stage(fields.text("stage")),
            confirmed=fields.number("confirmed"),
            failures=fields.number("failures"),
            code=fields.text("code"),
            endpoint=fields.number("endpoint"),
            running_version=fields.optional("running"),
            rebooted=fields.values["rebooted"] is True,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise FrameError(f"record {record.key!r}: {error}") from error


@dataclass(frozen=True, slots=True)
class _Fields:
    """Typed access to a decoded JSON object; TypeError or KeyError when a field is not what it must be."""

    values: dict[str, object]

    def text(self, name: str) -> str:
        value = self.values[name]
        if not isinstance(value, str):
            raise TypeError(f"{name} is no text")
        return value

    def number(self, name: str) -> int:
        return _number(name, self.values[name])

    def optional(self, name: str) -> int | None:
        value = self.values[name]
        return None if value is None else _number(name, value)

    def time(self, name: str) -> float | None:
        value = self.values[name]
        if value is None:
            return None
        if not isinstance(value, int | float):
            raise TypeError(f"{name} is no time")
        return float(value)

    def numbers(self, name: str) -> list[int]:
        value = self.values[name]
        if not isinstance(value, list):
            raise TypeError(f"{name} is no list")
        return [_number(name, item) for item in value]

    def pair(self, name: str) -> tuple[int | None, int | None]:
        value = self.values[name]
        if not isinstance(value, list) or len(value) != 2:
            raise TypeError(f"{name} is no pair")
        first, second = (None if item is None else _number(name, item) for item in value)
        return first, second


def _number(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is no number")
    return value
