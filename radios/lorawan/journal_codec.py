"""Records of the journal <-> state of cohorts and nodes. PURE. JSON, because an operator may have to read it.

Scopes and keys: group `<cohort>` and group `<cohort>/key` (secret); node `<cohort>/<dev_eui>` and node
`known/<dev_eui>` (what outlives a transfer: versions, SessionCnt); network `air/<gateway>/<sub-band>`.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Literal, TypeVar

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
    """What is known of a node beyond one transfer. 0 in a package version: the node has none."""

    dev_eui: str
    packages: dict[int, int] = field(default_factory=dict)  # package id -> version, as the node told
    ports: dict[int, int] = field(default_factory=dict)  # package id -> FPort, where the node told
    fw_version: int | None = None
    hw_version: int | None = None
    session_cnt: int = 0  # last one used
    attempts: dict[str, int] = field(default_factory=dict)  # transfer -> deliberate sessions made
    mc_groups: tuple[tuple[int, int], ...] | None = None  # McGroupID and McAddr of every group on the node
    mc_own: tuple[int, ...] = ()  # McAddr of groups that were ours
    no_multicast: bool = False  # it refused a group or a window
    redundancy_limit: int | None = None  # observed: more lost fragments it could not make up
    slower: dict[str, int] = field(default_factory=dict)  # transfer -> highest data rate that is worth trying
    snr_db: dict[str, float] = field(default_factory=dict)  # gateway -> of its uplinks there
    uplink_dr: int | None = None  # last one

    def forget(self) -> None:
        """Other firmware runs: what the one before told is void."""
        self.packages.clear()
        self.ports.clear()
        self.mc_groups, self.no_multicast, self.redundancy_limit = None, False, None


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
        "told_at": node.told_at,
        "session_cnt": node.session_cnt,
        "attempt": node.attempt,
        "reboots": node.reboots,
        "reboots_heard": node.reboots_heard,
        "rebooted_by": node.rebooted_by,
        "image_waits": node.image_waits,
        "version": node.version,
        "code": node.code,
        "unicast": node.unicast,
        "grouped": node.grouped,
        "holds_image": node.holds_image,
        "installing_since": node.installing_since,
        "unsure": node.unsure,
        "block": {name: item for name, item in asdict(node.block).items() if name != "unsent"},  # the cohort's
    }
    return _record("node", f"{cohort}/{node.dev_eui}", value)


def known_record(known: Known) -> Record:
    value = asdict(known)
    for name in ("packages", "ports"):
        value[name] = {str(key): number for key, number in value[name].items()}
    return _record("node", f"known/{known.dev_eui}", value)


def deleted(record: Record) -> Record:
    """The record that deletes this one."""
    return Record(record.scope, record.key, VERSION, b"", record.secret)


def read_cohort(record: Record) -> Cohort:
    value = _value(record)
    value["gateways"] = tuple(_list(value.get("gateways", []), record))
    value["unsent"] = _list(value.get("unsent", []), record)
    value["old_groups"] = _list(value.get("old_groups", []), record)
    return _made(Cohort, _names(Cohort), value, record)


def read_key(record: Record) -> Key:
    try:
        return Key(record.value)
    except ValueError as error:
        raise BadRecord(f"{record.key}: {error}") from None


def read_node(record: Record) -> SessionNode:
    value = _value(record)
    try:
        profile, block = _object(value.pop("profile"), record), _object(value.pop("block"), record)
        profile["ports"] = _made(Ports, _names(Ports), _object(profile["ports"], record), record)
        profile["mac_version"] = tuple(_list(profile["mac_version"], record))
        block["style"] = StatusStyle(str(block["style"])) if block["style"] else None
        value["profile"] = _made(NodeProfile, _names(NodeProfile), profile, record)
        value["block"] = _made(BlockStatus, _names(BlockStatus), block, record)
        value["want"], value["step"] = Want(str(value["want"])), Step(str(value["step"]))
    except (KeyError, ValueError) as error:
        raise BadRecord(f"{record.key}: {type(error).__name__} {error}") from None
    return _made(SessionNode, _names(SessionNode), value, record)


def read_known(record: Record) -> Known:
    value = _value(record)
    try:
        for name in ("packages", "ports"):
            numbers = _object(value.get(name, {}), record)
            value[name] = {int(key): int(str(number)) for key, number in numbers.items()}
        groups = value.get("mc_groups")
        if groups is not None:
            pairs = [_list(pair, record) for pair in _list(groups, record)]
            value["mc_groups"] = tuple((int(str(group)), int(str(addr))) for group, addr in pairs)
        value["mc_own"] = tuple(int(str(addr)) for addr in _list(value.get("mc_own", []), record))
    except ValueError as error:
        raise BadRecord(f"{record.key}: {type(error).__name__} {error}") from None
    return _made(Known, _names(Known), value, record)


def _record(scope: Literal["node", "group", "network"], key: str, value: Mapping[str, object]) -> Record:
    return Record(scope, key, VERSION, json.dumps(value, separators=(",", ":"), sort_keys=True).encode())


def _value(record: Record) -> dict[str, object]:
    if record.version != VERSION:
        raise BadRecord(f"{record.key}: encoding {record.version} is not known, only {VERSION}")
    try:
        value: object = json.loads(record.value)
    except ValueError as error:
        raise BadRecord(f"{record.key}: {error}") from None
    return _object(value, record)


def _object(value: object, record: Record) -> dict[str, object]:
    if not isinstance(value, dict):
        raise BadRecord(f"{record.key}: not an object")
    return value


def _list(value: object, record: Record) -> list[object]:
    if not isinstance(value, list):
        raise BadRecord(f"{record.key}: not a list")
    return value


def _names(kind: type) -> frozenset[str]:
    return frozenset(item.name for item in fields(kind) if item.init)


def _made(kind: Callable[..., _T], names: Collection[str], value: Mapping[str, object], record: Record) -> _T:
    """What another version wrote beside is left out."""
    try:
        return kind(**{name: item for name, item in value.items() if name in names})
    except TypeError as error:
        raise BadRecord(f"{record.key}: {error}") from None
