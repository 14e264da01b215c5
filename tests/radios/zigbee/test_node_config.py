"""What a node has lost: only that is set again; and what is kept survives its encoding."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radios.errors import FrameError
from radios.radio import NodeId, Record
from radios.zigbee.node_config import (
    MAX_FOUND,
    Binding,
    NodeConfig,
    ReportedAttribute,
    ReportTerms,
    config_record,
    is_config,
    lost,
    node_config,
)

NODE = NodeId("zigbee:00124b0000000001")
TO_US = Binding(1, 0x0402, "00124b00000000ff", 1)
TO_GROUP = Binding(1, 0x0006, "group:3")
MEASURED = ReportedAttribute(1, 0x0402, 0x0000)
SMOKE = ReportedAttribute(1, 0x0500, 0x0002)
BATTERY = ReportedAttribute(1, 0x0001, 0x0021)
TERMS = ReportTerms(0x29, 10, 300, 50)
WANTED = NodeConfig((TO_GROUP, TO_US), {MEASURED: TERMS, BATTERY: ReportTerms(0x20, 60, 3600, 2)})


def test_nothing_is_lost_when_all_is_there() -> None:
    more = Binding(1, 0x0001, "00124b0000000099", 1)
    assert lost(WANTED, [TO_US, more, TO_GROUP], WANTED.reporting).empty


def test_what_is_missing_or_different_is_lost() -> None:
    said = {MEASURED: replace(TERMS, max_s=301), BATTERY: None}
    assert lost(WANTED, [TO_US], said) == NodeConfig((TO_GROUP,), dict(WANTED.reporting))
    assert lost(WANTED, [], {MEASURED: replace(TERMS, change=51), BATTERY: WANTED.reporting[BATTERY]}) == NodeConfig(
        (TO_GROUP, TO_US), {MEASURED: TERMS}
    )


def test_without_a_table_every_binding_is_set() -> None:
    assert lost(WANTED, None, WANTED.reporting) == NodeConfig((TO_GROUP, TO_US))


def test_an_attribute_that_is_no_more_is_not_asked_for() -> None:
    assert lost(WANTED, WANTED.bindings, {BATTERY: WANTED.reporting[BATTERY]}).empty


def test_a_node_that_does_not_tell_the_change_is_believed() -> None:
    said = {**WANTED.reporting, MEASURED: replace(TERMS, change=None)}
    assert lost(WANTED, WANTED.bindings, said).empty


bindings = st.builds(
    Binding,
    st.integers(1, 254),
    st.integers(0, 0xFFFF),
    st.one_of(st.from_regex(r"[0-9a-f]{16}", fullmatch=True), st.from_regex(r"group:[1-9]", fullmatch=True)),
    st.integers(0, 254),
)
attributes = st.builds(
    ReportedAttribute,
    st.integers(1, 254),
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFF),
    st.none() | st.integers(0, 0xFFFF),
)
terms = st.builds(
    ReportTerms,
    st.integers(0, 255),
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFF),
    st.none() | st.integers(0, 2**48) | st.floats(allow_nan=False, allow_infinity=False),
)
configs = st.builds(
    lambda b, r, due, version, found, surveyed: NodeConfig(
        tuple(sorted(set(b))), r, due, version, frozenset((*b, *r) if found == 2 else b[:found]), surveyed
    ),
    st.lists(bindings, max_size=4),
    st.dictionaries(attributes, terms, max_size=4),
    st.booleans(),
    st.none() | st.integers(0, 2**32 - 1),
    st.integers(0, 2),
    st.booleans(),
)


@given(configs)
def test_a_record_is_read_as_it_was_written(config: NodeConfig) -> None:
    record = config_record(NODE, config)
    assert is_config(record)
    assert bool(record.value) is not config.empty
    if record.value:
        assert node_config(record) == (NODE, config)


@given(st.binary(max_size=80))
def test_no_record_raises_anything_else(value: bytes) -> None:
    with pytest.raises(FrameError):
        node_config(Record("node", "config/00124b0000000001", 1, value))


def test_a_record_of_before_surveys_is_read() -> None:
    record = config_record(NODE, WANTED)
    fields = json.loads(record.value)
    for name in ("surveyed", "found_bindings", "found_reporting"):
        del fields[name]
    assert node_config(replace(record, value=json.dumps(fields).encode())) == (NODE, WANTED)


def test_what_is_found_is_kept_apart_from_what_is_ours() -> None:
    theirs = Binding(1, 0x0001, "00124b0000000099", 1)
    found = WANTED.adopting([TO_US, theirs], {MEASURED: replace(TERMS, max_s=9), SMOKE: TERMS})
    assert found.bindings == tuple(sorted((TO_US, TO_GROUP, theirs)))
    assert found.reporting == {**WANTED.reporting, SMOKE: TERMS}, "ours stands"
    assert found.found == {theirs, SMOKE}
    again = found.adopting([], {SMOKE: replace(TERMS, max_s=9)})
    assert theirs in again.bindings, "who unbinds does it through us"
    assert again.reporting[SMOKE].max_s == 9
    ours = again.with_binding(theirs).with_reporting({SMOKE: TERMS})
    assert not ours.found
    gone = again.without_binding(theirs).without_reporting([SMOKE])
    assert gone == replace(WANTED, surveyed=True)


def test_what_is_found_leaves_room_for_ours() -> None:
    many = [Binding(1, number, "00124b0000000099", 1) for number in range(200)]
    reported = {ReportedAttribute(1, 1, number): TERMS for number in range(200)}
    found = WANTED.adopting(many, reported)
    assert len(found.bindings) == len(WANTED.bindings) + MAX_FOUND
    assert len(found.reporting) == len(WANTED.reporting) + MAX_FOUND


def test_a_node_without_anything_is_remembered_as_asked() -> None:
    record = config_record(NODE, NodeConfig(surveyed=True))
    assert node_config(record) == (NODE, NodeConfig(surveyed=True))


def test_a_record_of_another_encoding_is_named() -> None:
    with pytest.raises(FrameError, match=r"config/00124b0000000001.*version 9"):
        node_config(replace(config_record(NODE, WANTED), version=9))
