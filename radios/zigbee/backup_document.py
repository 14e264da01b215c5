"""A coordinator backup (open-coordinator-backup, version 1), checked before anything is done with it. Pure.

zigbee2mqtt, ZHA and we ourselves write it. Every fault is named with its place in the document; faults, and what is shown
of a backup, never hold a key.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from radios.errors import FrameError
from radios.radio import Json

FORMAT: Final = "zigpy/open-coordinator-backup"
VERSION: Final = 1
MOST_FAULTS: Final = 20
MOST_DEVICES: Final = 2000
CHANNELS: Final = range(11, 27)

_NO_ADDRESSES = frozenset({"0000", "fffe", "ffff", "fffd", "fffc"})
_U32 = 2**32 - 1
_MISSING: Final = object()

Object = dict[str, Json]


@dataclass(frozen=True, slots=True)
class BackupDocument:
    """One that is sound. `document` is in the shape that zigpy reads, lower case, with defaults filled in."""

    document: Object
    notes: tuple[str, ...]  # what was put right in reading

    @property
    def pan_id(self) -> str:
        return str(self.document["pan_id"])

    @property
    def extended_pan_id(self) -> str:
        return str(self.document["extended_pan_id"])

    @property
    def coordinator(self) -> str:
        return str(self.document["coordinator_ieee"])

    @property
    def channel(self) -> int:
        return _number_in(self.document, "channel")

    @property
    def network(self) -> Object:
        """Which network it is."""
        return {"channel": self.channel, "pan_id": self.pan_id, "extended_pan_id": self.extended_pan_id}

    @property
    def frame_counter(self) -> int:
        key = self.document["network_key"]
        return _number_in(key, "frame_counter") if isinstance(key, dict) else 0

    @property
    def devices(self) -> list[tuple[str, str | None]]:
        """EUI64 and short address, 16 and 4 hex digits; without the coordinator."""
        found = self.document["devices"]
        return [
            (str(d["ieee_address"]), None if d["nwk_address"] is None else str(d["nwk_address"]))
            for d in (found if isinstance(found, list) else [])
            if isinstance(d, dict) and d["ieee_address"] != self.coordinator
        ]

    @property
    def made_at(self) -> str:
        """ISO 8601, empty when the document does not say."""
        metadata = self.document["metadata"]
        internal = metadata.get("internal") if isinstance(metadata, dict) else None
        if not isinstance(internal, dict):
            return ""
        return str(internal.get("date") or internal.get("creation_time") or "")

    def summary(self) -> Object:
        """For people: everything but the keys."""
        metadata, devices = self.document["metadata"], self.document["devices"]
        all_devices = devices if isinstance(devices, list) else []
        return {
            "source": metadata.get("source") if isinstance(metadata, dict) else None,
            "made_at": self.made_at or None,
            "channel": self.channel,
            "pan_id": self.pan_id,
            "extended_pan_id": self.extended_pan_id,
            "coordinator": self.coordinator,
            "frame_counter": self.frame_counter,
            "devices": len(self.devices),
            "without_address": sum(1 for _, nwk in self.devices if nwk is None),
            "with_link_key": sum(1 for d in all_devices if isinstance(d, dict) and "link_key" in d),
            "notes": list(self.notes),
        }


def parse_backup(raw: Json) -> BackupDocument:
    """FrameError lists every fault with its JSON path."""
    reading = _Reading()
    document = reading.document(raw)
    if reading.faults:
        more = len(reading.faults) - MOST_FAULTS
        faults = reading.faults[:MOST_FAULTS] + ([f"and {more} more"] if more > 0 else [])
        raise FrameError("the backup is not sound: " + "; ".join(faults))
    return BackupDocument(document, tuple(reading.notes))


class _Reading:
    """Collects faults; what cannot be read is replaced by something harmless, and never used."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.notes: list[str] = []

    def document(self, raw: Json) -> Object:
        if not isinstance(raw, dict):
            self.faults.append("$: must be an object")
            return {}
        metadata = self._object(raw, "$", "metadata")
        if metadata.get("format") != FORMAT:
            self.faults.append(f"$.metadata.format: must be {FORMAT!r}")
        if metadata.get("version") != VERSION or isinstance(metadata.get("version"), bool):
            self.faults.append(f"$.metadata.version: must be {VERSION}")
        internal = metadata.get("internal") or {}
        if not isinstance(internal, dict):
            self.faults.append("$.metadata.internal: must be an object")
            internal = {}
        channel = self._number(raw, "$", "channel", CHANNELS.start, CHANNELS.stop - 1)
        key = self._object(raw, "$", "network_key")
        out: Object = {
            "metadata": {
                "format": FORMAT,
                "version": VERSION,
                "source": self._text(metadata, "$.metadata", "source", "unknown"),
                "internal": self._internal(internal),
            },
            "stack_specific": self._stack_specific(raw),
            "coordinator_ieee": self._hex(raw, "$", "coordinator_ieee", 16, _is_address),
            "pan_id": self._hex(raw, "$", "pan_id", 4, lambda text: text not in ("ffff", "0000"), pad=True),
            "extended_pan_id": self._hex(raw, "$", "extended_pan_id", 16, _is_address),
            "nwk_update_id": self._number(raw, "$", "nwk_update_id", 0, 255, default=0),
            "security_level": self._number(raw, "$", "security_level", 0, 7, default=5),
            "channel": channel,
            "channel_mask": self._channels(raw, channel),
            "network_key": {
                "key": self._key(key, "$.network_key"),
                "sequence_number": self._number(key, "$.network_key", "sequence_number", 0, 255, default=0),
                "frame_counter": self._number(key, "$.network_key", "frame_counter", 0, _U32),
            },
            "devices": self._devices(raw),
        }
        return out

    def _internal(self, internal: Object) -> Object:
        """What zigpy reads of it, checked; the rest is dropped, as it means nothing to another stick."""
        path = "$.metadata.internal"
        out: Object = {}
        for name in ("date", "creation_time"):
            if (when := internal.get(name)) is not None:
                if isinstance(when, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]{5,15}(Z|[+-]\d\d:\d\d)", when):
                    out[name] = when
                else:
                    self.faults.append(f"{path}.{name}: must be a time like 2026-01-31T12:00:00Z")
        network = internal.get("network")
        if isinstance(network, dict) and isinstance(network.get("tc_link_key"), dict):
            center = self._object(network, f"{path}.network", "tc_link_key")
            out["network"] = {
                "tc_link_key": {
                    "key": self._key(center, f"{path}.network.tc_link_key"),
                    "frame_counter": self._number(
                        center, f"{path}.network.tc_link_key", "frame_counter", 0, _U32, default=0
                    ),
                },
                "tc_address": self._hex(network, f"{path}.network", "tc_address", 16, _is_address),
            }
        sequences = internal.get("link_key_seqs")
        if isinstance(sequences, dict):
            out["link_key_seqs"] = {
                str(name).lower(): self._number(sequences, f"{path}.link_key_seqs", str(name), 0, 255, default=0)
                for name in sequences
            }
        else:
            out["link_key_seqs"] = {}
        if internal.get("tx_power") is not None:
            out["tx_power"] = self._number(internal, path, "tx_power", -40, 30)
        return out

    def _stack_specific(self, raw: Object) -> Object:
        stack = raw.get("stack_specific")
        if stack is None:
            return {}
        if not isinstance(stack, dict) or not all(isinstance(part, dict) for part in stack.values()):
            self.faults.append("$.stack_specific: must be an object of objects")
            return {}
        out: Object = {}
        for library, name in (("ezsp", "hashed_tclk"), ("zstack", "tclk_seed")):
            part = stack.get(library)
            if isinstance(part, dict) and part.get(name) is not None:
                out[library] = {name: self._hex(part, f"$.stack_specific.{library}", name, 32)}
        return out

    def _channels(self, raw: Object, channel: int) -> list[Json]:
        mask = raw.get("channel_mask")
        if mask is None:
            return [channel]
        if not isinstance(mask, list) or not all(
            isinstance(c, int) and not isinstance(c, bool) and c in CHANNELS for c in mask
        ):
            self.faults.append("$.channel_mask: must be a list of channels 11 to 26")
            return [channel]
        return mask or [channel]

    def _devices(self, raw: Object) -> list[Json]:
        devices = raw.get("devices", _MISSING)
        if not isinstance(devices, list) or len(devices) > MOST_DEVICES:
            self.faults.append(f"$.devices: must be a list of at most {MOST_DEVICES}")
            return []
        out: list[Json] = []
        seen: set[str] = set()
        addresses: set[str] = set()
        for index, device in enumerate(devices):
            path = f"$.devices[{index}]"
            if not isinstance(device, dict):
                self.faults.append(f"{path}: must be an object")
                continue
            ieee = self._hex(device, path, "ieee_address", 16, _is_address)
            if ieee in seen:
                self.faults.append(f"{path}.ieee_address: is in the list twice")
            seen.add(ieee)
            nwk = None
            if device.get("nwk_address") is not None:
                nwk = self._hex(device, path, "nwk_address", 4, pad=True)  # zigbee2mqtt leaves leading zeros out
                if nwk in _NO_ADDRESSES or nwk in addresses:
                    self.notes.append(f"{ieee}: short address {nwk} is no one's or another's; found when it is heard")
                    nwk = None
                else:
                    addresses.add(nwk)
            is_child = device.get("is_child", False)
            if not isinstance(is_child, bool):
                self.faults.append(f"{path}.is_child: must be true or false")
            entry: Object = {"ieee_address": ieee, "nwk_address": nwk, "is_child": bool(is_child)}
            if device.get("link_key") is not None:
                link = self._object(device, path, "link_key")
                entry["link_key"] = {
                    "key": self._key(link, f"{path}.link_key"),
                    "tx_counter": self._number(link, f"{path}.link_key", "tx_counter", 0, _U32, default=0),
                    "rx_counter": self._number(link, f"{path}.link_key", "rx_counter", 0, _U32, default=0),
                }
            out.append(entry)
        return out

    # -- fields

    def _object(self, parent: Mapping[str, Json], path: str, name: str) -> Object:
        value = parent.get(name)
        if isinstance(value, dict):
            return value
        self.faults.append(f"{path}.{name}: {'is missing' if name not in parent else 'must be an object'}")
        return {}

    def _text(self, parent: Object, path: str, name: str, default: str) -> str:
        value = parent.get(name, default)
        if isinstance(value, str) and len(value) <= 200 and value.isprintable():
            return value
        self.faults.append(f"{path}.{name}: must be a short text")
        return default

    def _number(
        self, parent: Object, path: str, name: str, least: int, most: int, *, default: int | None = None
    ) -> int:
        value = parent.get(name, default)
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        what = "is missing" if name not in parent else f"must be a number from {least} to {most}"
        self.faults.append(f"{path}.{name}: {what}")
        return least

    def _hex(
        self,
        parent: Object,
        path: str,
        name: str,
        digits: int,
        good: Callable[[str], bool] = bool,
        *,
        pad: bool = False,
    ) -> str:
        value = parent.get(name)
        text = value.lower() if isinstance(value, str) else ""
        text = text.zfill(digits) if pad and text else text
        if not re.fullmatch(rf"[0-9a-f]{{{digits}}}", text):
            what = "is missing" if name not in parent else f"must be {digits} hex digits"
            self.faults.append(f"{path}.{name}: {what}")
        elif not good(text):
            self.faults.append(f"{path}.{name}: {text} is not possible")
        return text

    def _key(self, parent: Object, path: str) -> str:
        key = self._hex(parent, path, "key", 32)
        if set(key) in ({"0"}, {"f"}):
            self.faults.append(f"{path}.key: is no key: all its digits are the same")
        return key


def _is_address(text: str) -> bool:
    return set(text) not in ({"0"}, {"f"})


def _number_in(value: Mapping[str, Json], name: str) -> int:
    number = value[name]
    return number if isinstance(number, int) else 0
