"""What a node is to have (bindings, reporting), as a journal record, and what it has lost of that. PURE.

Wishes come from us, or were found on the node: those of a network that moved in, which nobody else will set again.

Keys of the records are `config/<eui64>`, scope "node"; the encoding is compact JSON, versioned.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from radios.errors import FrameError
from radios.radio import NodeId, Record, parse_node_id

CONFIG_VERSION: Final = 1
MAX_BINDINGS: Final = 64
MAX_REPORTING: Final = 128
MAX_FOUND: Final = 48  # of each: there is always room for wishes of ours

_KEY_PREFIX: Final = "config/"
_encoded = json.JSONEncoder(separators=(",", ":"), sort_keys=True).encode


@dataclass(frozen=True, slots=True, order=True)
class Binding:
    """Where a cluster of a node's endpoint sends its reports and commands: a node's endpoint, or a group."""

    endpoint: int
    cluster: int
    target: str  # 16 hex digits of an EUI64, or "group:<number>"
    target_endpoint: int = 0  # 0 with a group


@dataclass(frozen=True, slots=True)
class ReportedAttribute:
    """Which attribute of a server cluster."""

    endpoint: int
    cluster: int
    attribute: int
    manufacturer: int | None = None


@dataclass(frozen=True, slots=True)
class ReportTerms:
    """When it is reported: at the earliest and latest after the last time, and by which amount of change."""

    type: int  # ZCL data type
    min_s: int
    max_s: int
    change: int | float | None = None  # None: the type knows no amounts


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """What one node is to have. `due`: to be compared with what the node says, as soon as it can be asked."""

    bindings: tuple[Binding, ...] = ()
    reporting: Mapping[ReportedAttribute, ReportTerms] = field(default_factory=dict)
    due: bool = False
    version: int | None = None  # that the node ran when this was last compared
    found: frozenset[Binding | ReportedAttribute] = (
        frozenset()
    )  # those of both that were on the node, and not set by us
    surveyed: bool = False  # the node was asked what it has

    @property
    def empty(self) -> bool:
        """Nothing to be remembered."""
        return not self.wishes and not self.surveyed

    @property
    def wishes(self) -> bool:
        return bool(self.bindings or self.reporting)

    def with_binding(self, binding: Binding) -> "NodeConfig":
        return replace(self, bindings=tuple(sorted({*self.bindings, binding})), found=self.found - {binding})

    def without_binding(self, binding: Binding) -> "NodeConfig":
        bindings = tuple(b for b in self.bindings if b != binding)
        return replace(self, bindings=bindings, found=self.found - {binding})

    def with_reporting(self, wanted: Mapping[ReportedAttribute, ReportTerms]) -> "NodeConfig":
        return replace(self, reporting={**self.reporting, **wanted}, found=self.found - set(wanted))

    def without_reporting(self, attributes: Iterable[ReportedAttribute]) -> "NodeConfig":
        gone = set(attributes)
        reporting = {a: terms for a, terms in self.reporting.items() if a not in gone}
        return replace(self, reporting=reporting, found=self.found - gone)

    def adopting(
        self, bindings: Iterable[Binding], reporting: Mapping[ReportedAttribute, ReportTerms], *, surveyed: bool = True
    ) -> "NodeConfig":
        """With what the node says that it has. Wishes of ours stand, and what was found earlier and is not there now is
        kept: who unbinds does it through us. What is beyond `MAX_FOUND` is left out."""
        ours = {b for b in self.bindings if b not in self.found}
        earlier = [b for b in self.bindings if b in self.found]
        there = [*earlier, *sorted({b for b in bindings if b not in ours and b not in self.found})][:MAX_FOUND]
        kept = {a: terms for a, terms in self.reporting.items() if a not in self.found}
        read = {a: terms for a, terms in self.reporting.items() if a in self.found}
        read |= {a: terms for a, terms in reporting.items() if a not in kept}
        read = dict(list(read.items())[:MAX_FOUND])
        return replace(
            self,
            bindings=tuple(sorted((*ours, *there))),
            reporting={**kept, **read},
            found=frozenset((*there, *read)),
            surveyed=self.surveyed or surveyed,
        )


Reported = Mapping[ReportedAttribute, ReportTerms | None]
"""What a node says of its reporting: None is "not configured", absent is "not supported by this firmware"."""


def lost(wanted: NodeConfig, bindings: Sequence[Binding] | None, reporting: Reported) -> NodeConfig:
    """What has to be set again. `bindings` None: the node shows no table, so all of them, which is harmless.

    Reporting of an attribute that the firmware does not support any more cannot be set, and is not among it.
    """
    table = frozenset(bindings or ())
    return NodeConfig(
        tuple(binding for binding in wanted.bindings if binding not in table),
        {a: terms for a, terms in wanted.reporting.items() if a in reporting and not _same(terms, reporting[a])},
    )


def _same(wanted: ReportTerms, found: ReportTerms | None) -> bool:
    if found is None or (wanted.min_s, wanted.max_s) != (found.min_s, found.max_s):
        return False
    return wanted.change is None or found.change is None or wanted.change == found.change


def config_record(node: NodeId, config: NodeConfig) -> Record:
    """The record that keeps it; that of an empty configuration deletes itself."""
    value = b""
    if not config.empty:
        fields = {
            "bindings": [[b.endpoint, b.cluster, b.target, b.target_endpoint] for b in config.bindings],
            "reporting": [
                [a.endpoint, a.cluster, a.attribute, a.manufacturer, t.type, t.min_s, t.max_s, t.change]
                for a, t in sorted(config.reporting.items(), key=_order)
            ],
            "due": config.due,
            "version": config.version,
            "surveyed": config.surveyed,
            "found_bindings": [n for n, b in enumerate(config.bindings) if b in config.found],
            "found_reporting": [
                n for n, (a, _) in enumerate(sorted(config.reporting.items(), key=_order)) if a in config.found
            ],
        }
        value = _encoded(fields).encode()
    return Record("node", _KEY_PREFIX + node.partition(":")[2], CONFIG_VERSION, value)


def is_config(record: Record) -> bool:
    return record.scope == "node" and record.key.startswith(_KEY_PREFIX)


def node_config(record: Record) -> tuple[NodeId, NodeConfig]:
    """The configuration in a record. FrameError names the record when it cannot be read."""
    if record.version != CONFIG_VERSION:
        raise FrameError(f"record {record.key!r}: version {record.version} is unknown")
    try:
        node = parse_node_id("zigbee:" + record.key.removeprefix(_KEY_PREFIX))
        fields = json.loads(record.value)
        bindings = tuple(
            Binding(_number(endpoint), _number(cluster), _text(target), _number(target_endpoint))
            for endpoint, cluster, target, target_endpoint in fields["bindings"]
        )
        reporting = {
            ReportedAttribute(_number(row[0]), _number(row[1]), _number(row[2]), _optional(row[3])): ReportTerms(
                _number(row[4]), _number(row[5]), _number(row[6]), _amount(row[7])
            )
            for row in fields["reporting"]
        }
        found = {bindings[_number(n)] for n in fields.get("found_bindings", ())}
        attributes = list(reporting)
        found_reporting = {attributes[_number(n)] for n in fields.get("found_reporting", ())}
        return node, NodeConfig(
            bindings,
            reporting,
            fields["due"] is True,
            _optional(fields["version"]),
            frozenset((*found, *found_reporting)),
            fields.get("surveyed") is True,
        )
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise FrameError(f"record {record.key!r}: {error}") from error


def _order(item: tuple[ReportedAttribute, ReportTerms]) -> tuple[int, int, int, int]:
    attribute = item[0]
    manufacturer = -1 if attribute.manufacturer is None else attribute.manufacturer
    return attribute.endpoint, attribute.cluster, attribute.attribute, manufacturer


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no number")
    return value


def _optional(value: object) -> int | None:
    return None if value is None else _number(value)


def _amount(value: object) -> int | float | None:
    return value if isinstance(value, float) else _optional(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
