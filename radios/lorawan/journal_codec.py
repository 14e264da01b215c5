"""Records of the journal <-> state of cohorts and nodes. PURE. JSON, because an operator may have to read it.

Scopes and keys: group `<cohort>` and group `<cohort>/key` (secret); node `<cohort>/<dev_eui>` and node
`known/<dev_eui>` (what outlives a transfer: versions, SessionCnt); network `air/<gateway>/<sub-band>`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from radios.lorawan.block_status import BlockStatus, StatusStyle
from radios.lorawan.cohort import Cohort
from radios.lorawan.keys import Key
from radios.lorawan.session_node import NodeProfile, Ports, SessionNode, Step
from radios.radio import Record, Want

VERSION = 1
_T = TypeVar("_T")


class BadRecord(ValueError):
    """A record that this version cannot read: says which one."""


@dataclass(slots=True)
class Known:
    """What is known of a node beyond one transfer. 0 in a package version: the node answered that it has none."""

    dev_eui: str
    packages: dict[int, int] = field(default_factory=dict)  # package id -> version, by PackageVersionAns
    fw_version: int | None = None
    hw_version: int | None = None
    session_cnt: int = 0  # last one used
    attempts: dict[str, int] = field(default_factory=dict)  # transfer -> deliberate sessions made


@dataclass(slots=True)
class Records:
    """The journal's records, sorted by what they belong to."""

    known: list[Record] = field(default_factory=list)
    air: list[Record] = field(default_factory=list)
    cohorts: dict[str, Record] = field(default_factory=dict)
    keys: dict[str, Record] = field(default_factory=dict)
    nodes: dict[str, list[Record]] = field(default_factory=dict)

    @classmethod
    def sorted(cls, records: Sequence[Record]) -> "Records":
        found = cls()
        for record in records:
            if record.scope == "network" and record.key.startswith("air/"):
                found.air.append(record)
            elif record.scope == "group":
                name, slash, _ = record.key.partition("/")
                (found.keys if slash else found.cohorts)[name] = record
            elif record.scope == "node":
                name, _, _ = record.key.partition("/")
                if name == "known":
                    found.known.append(record)
                else:
                    found.nodes.setdefault(name, []).append(record)
        return found


def cohort_record(cohort: Cohort) -> Record:
    return _record("group", cohort.cohort, asdict(cohort))


def key_record(cohort: str, mc_key: Key) -> Record:
    return Record("group", f"{cohort}/key", VERSION, mc_key.reveal(), secret=True)


def node_record(cohort: str, node: SessionNode) -> Record:
    value = {
        "profile": asdict(node.profile),
        "generation": node.generation,
        "want": node.want,
        "step": node.step,
        "install_at": node.install_at,
        "session_cnt": node.session_cnt,
        "attempt": node.attempt,
        "reboots": node.reboots,
        "reboots_heard": node.reboots_heard,
        "version": node.version,
        "code": node.code,
        "block": asdict(node.block),
    }
    return _record("node", f"{cohort}/{node.dev_eui}", value)


def known_record(known: Known) -> Record:
    value = asdict(known)
    value["packages"] = {str(key): version for key, version in known.packages.items()}
    return _record("node", f"known/{known.dev_eui}", value)


def deleted(record: Record) -> Record:
    """The record that deletes this one."""
    return Record(record.scope, record.key, VERSION, b"", record.secret)


def read_cohort(record: Record) -> Cohort:
    value = _value(record)
    value["gateways"] = tuple(value.get("gateways", ()))
    return _made(Cohort, value, record)


def read_key(record: Record) -> Key:
    try:
        return Key(record.value)
    except ValueError as error:
        raise BadRecord(f"{record.key}: {error}") from None


def read_node(record: Record) -> SessionNode:
    value = _value(record)
    try:
        profile, block = dict(value.pop("profile")), dict(value.pop("block"))
        profile["ports"] = Ports(**profile["ports"])
        profile["mac_version"] = tuple(profile["mac_version"])
        block["style"] = StatusStyle(block["style"]) if block["style"] else None
        value["profile"], value["block"] = NodeProfile(**profile), BlockStatus(**block)
        value["want"], value["step"] = Want(value["want"]), Step(value["step"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadRecord(f"{record.key}: {type(error).__name__} {error}") from None
    return _made(SessionNode, value, record)


def read_known(record: Record) -> Known:
    value = _value(record)
    try:
        value["packages"] = {int(key): int(version) for key, version in value.get("packages", {}).items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise BadRecord(f"{record.key}: {type(error).__name__} {error}") from None
    return _made(Known, value, record)


def _record(scope: Any, key: str, value: Mapping[str, object]) -> Record:
    return Record(scope, key, VERSION, json.dumps(value, separators=(",", ":"), sort_keys=True).encode())


def _value(record: Record) -> dict[str, Any]:
    if record.version != VERSION:
        raise BadRecord(f"{record.key}: encoding {record.version} is not known, only {VERSION}")
    try:
        value = json.loads(record.value)
    except ValueError as error:
        raise BadRecord(f"{record.key}: {error}") from None
    if not isinstance(value, dict):
        raise BadRecord(f"{record.key}: not an object")
    return value


def _made(kind: type[_T], value: Mapping[str, Any], record: Record) -> _T:
    names = {item.name for item in fields(kind)}  # type: ignore[arg-type]  # only dataclasses are given
    try:
        return kind(**{name: item for name, item in value.items() if name in names})
    except TypeError as error:
        raise BadRecord(f"{record.key}: {error}") from None
