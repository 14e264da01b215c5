"""Records there and back, and records that somebody else wrote."""

import json
from dataclasses import replace

import pytest

from radios.lorawan.block_status import BlockStatus, StatusStyle
from radios.lorawan.cohort import Cohort
from radios.lorawan.journal_codec import (
    BadRecord,
    Known,
    cohort_record,
    known_record,
    node_record,
    read_cohort,
    read_known,
    read_node,
)
from radios.lorawan.session_node import NodeProfile, Ports, SessionNode, Step
from radios.radio import Want

EUI = "70b3d54990000001"


def cohort(**changes):
    values = {
        "cohort": "c0ffee00",
        "transfer": "t1",
        "digest": "00" * 32,
        "size": 1000,
        "version": 2,
        "frag_size": 48,
        "frag_version": 1,
        "region": "EU868",
        "data_rate": 0,
        "frequency_hz": 869_525_000,
        "gateways": ("a", "b"),
        "mc_addr": 1,
    }
    return Cohort(**(values | changes))


def node(**changes):
    profile = NodeProfile(EUI, 2, 1, None, (1, 1), 450.0, Ports(fragmentation=11), unicast_dr=3, mc_group_id=2)
    block = BlockStatus(21, style=StatusStyle.LAST, received=9, missing=3)
    values = {"unicast": True, "holds_image": True, "installing_since": 5.0, "step": Step.READY}
    return SessionNode(profile, 7, Want.HOLD, block, **(values | changes))


def test_what_is_written_is_read():
    assert read_cohort(cohort_record(cohort(unicast=True, port=11))) == cohort(unicast=True, port=11)
    read = read_node(node_record("c", node()))
    assert (read.profile, read.block, read.step, read.unicast) == (node().profile, node().block, Step.READY, True)
    assert (read.holds_image, read.installing_since, read.unicast_dr) == (True, 5.0, 3)
    known = Known(
        EUI,
        packages={3: 2, 4: 0},
        ports={3: 11},
        mc_groups=((0, 0xDEADBEEF),),
        mc_own=(1, 2),
        slower={"t1": 3},
        snr_db={"gw": -4.5},
        redundancy_limit=40,
    )
    assert read_known(known_record(known)) == known
    assert read_known(known_record(Known(EUI))) == Known(EUI)


def test_a_record_of_an_older_version_gets_the_defaults():
    record = known_record(Known(EUI, packages={3: 1}))
    value = json.loads(record.value)
    for name in ("ports", "mc_groups", "mc_own", "no_multicast", "slower", "snr_db", "uplink_dr", "redundancy_limit"):
        del value[name]
    assert read_known(replace(record, value=json.dumps(value).encode())) == Known(EUI, packages={3: 1})


def test_what_a_newer_version_wrote_beside_is_left_out():
    record = cohort_record(cohort())
    value = json.loads(record.value) | {"colour": "blue"}
    assert read_cohort(replace(record, value=json.dumps(value).encode())) == cohort()


@pytest.mark.parametrize(
    "value", [b"", b"[]", b"{", b"null", b"{}", b'{"gateways": 3}', b'{"profile": 1, "block": {}}']
)
def test_no_record_at_all_is_named(value):
    record = replace(cohort_record(cohort()), value=value)
    for read in (read_cohort, read_node):
        with pytest.raises(BadRecord, match="c0ffee00"):
            read(record)


@pytest.mark.parametrize(
    "value", [{"packages": 1}, {"packages": {"x": 1}}, {"mc_groups": [1]}, {"mc_groups": [[1]]}, {"mc_own": "1"}]
)
def test_known_with_nonsense_is_named(value):
    record = known_record(Known(EUI))
    with pytest.raises(BadRecord, match=EUI):
        read_known(replace(record, value=json.dumps({"dev_eui": EUI} | value).encode()))


def test_another_encoding_is_refused():
    with pytest.raises(BadRecord, match="encoding 9"):
        read_cohort(replace(cohort_record(cohort()), version=9))


def test_a_window_of_another_clocks_time_was_never_agreed():
    found = read_cohort(cohort_record(cohort(window_start=1e9, window_end=1e9 + 256)))
    found.found_at(1e9 - 86400)
    assert (found.window_start, found.window_end) == (1e9, 1e9 + 256)
    found.found_at(1e8)
    assert (found.window_start, found.window_end) == (0.0, 0.0)
