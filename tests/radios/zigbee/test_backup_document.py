"""Coordinator backups are checked before anything is done with them; faults say what and where, and repeat no key."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radios.errors import FrameError
from radios.zigbee.backup_document import parse_backup
from radios.zigbee.network import counter_gap, read_backup
from tests.support import zigbee_backups as backups

KEYS = (backups.NETWORK_KEY, backups.LINK_KEY, backups.HASHED_KEY)
MADE_AT = 1795162530.0  # 2026-11-20T08:15:30Z


@pytest.mark.parametrize("raw", [backups.zigbee2mqtt(), backups.zha()])
def test_both_flavours_are_read_and_shown_without_their_keys(raw: dict[str, Any]) -> None:
    document = parse_backup(raw)
    summary = document.summary()
    assert summary | {"source": None, "made_at": None} == {
        "source": None,
        "made_at": None,
        "channel": 20,
        "pan_id": "5d2e",
        "extended_pan_id": "1122334455667788",
        "coordinator": backups.COORDINATOR,
        "frame_counter": backups.COUNTER,
        "devices": 3,
        "without_address": 1,
        "with_link_key": 1,
        "notes": [],
    }
    assert str(summary["made_at"]).startswith("2026-11-20T08:15:30")
    assert ("00124b0000000001", "0abc") in document.devices
    assert not any(key in json.dumps(summary) for key in KEYS)


def test_zigpys_own_form_is_read_too() -> None:
    import zigpy.backups

    own = zigpy.backups.NetworkBackup.from_open_coordinator_json(backups.zha()).as_dict()
    assert read_backup(json.loads(json.dumps(own))).summary()["pan_id"] == "5d2e"
    del own["network_info"]["network_key"]
    with pytest.raises(FrameError, match="zigpy's own"):
        read_backup(own)


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        (("metadata", "format"), "other", "$.metadata.format: must be"),
        (("metadata", "version"), 2, "$.metadata.version: must be 1"),
        (("channel",), 27, "$.channel: must be a number from 11 to 26"),
        (("channel",), "20", "$.channel: must be a number"),
        (("channel_mask",), [10], "$.channel_mask: must be"),
        (("pan_id",), "ffff", "$.pan_id: ffff is not possible"),
        (("extended_pan_id",), "0" * 16, "$.extended_pan_id: 0000000000000000 is not possible"),
        (("coordinator_ieee",), None, "$.coordinator_ieee: must be 16 hex digits"),
        (("network_key", "key"), "a1b2", "$.network_key.key: must be 32 hex digits"),
        (("network_key", "key"), "f" * 32, "$.network_key.key: is no key"),
        (("network_key", "frame_counter"), 2**32, "$.network_key.frame_counter: must be"),
        (("network_key", "frame_counter"), True, "$.network_key.frame_counter: must be"),
        (("stack_specific",), [], "$.stack_specific: must be"),
        (("devices",), {}, "$.devices: must be a list"),
        (("devices", 0), "x", "$.devices[0]: must be an object"),
        (("devices", 0, "ieee_address"), "00124B0000000002", "$.devices[1].ieee_address: is in the list twice"),
        (("devices", 1, "link_key", "key"), "z" * 32, "$.devices[1].link_key.key: must be 32 hex digits"),
        (("metadata", "internal", "date"), "yesterday", "$.metadata.internal.date: must be a time"),
    ],
)
def test_every_fault_is_named_with_its_place(path: tuple[Any, ...], value: Any, fault: str) -> None:
    raw = backups.zigbee2mqtt()
    place = raw
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    with pytest.raises(FrameError) as refused:
        parse_backup(raw)
    assert fault in str(refused.value)
    assert not any(key in str(refused.value) for key in KEYS)


def test_all_faults_are_named_at_once_and_missing_ones_too() -> None:
    with pytest.raises(FrameError) as refused:
        parse_backup({})
    for name in ("metadata", "channel", "pan_id", "network_key", "devices", "coordinator_ieee"):
        assert f"$.{name}: " in str(refused.value)


def test_two_devices_with_one_short_address_lose_it() -> None:
    raw = backups.zigbee2mqtt()
    raw["devices"][1]["nwk_address"] = "0abc"
    document = parse_backup(raw)
    assert dict(document.devices)["00124b0000000002"] is None
    assert document.notes


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(data=st.data())
def test_nothing_but_a_fault_comes_of_any_document(data: st.DataObject) -> None:
    raw: Any = copy.deepcopy(data.draw(st.sampled_from([backups.zigbee2mqtt(), backups.zha()])))
    place, parent = raw, None
    while isinstance(place, dict | list) and place and (parent is None or data.draw(st.booleans())):
        parent = place, data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        place = place[parent[1]]
    assert parent is not None
    parent[0][parent[1]] = data.draw(any_json)
    try:
        read_backup(raw)
    except FrameError:
        return
    # What is taken can be given to zigpy.
    import zigpy.backups

    zigpy.backups.NetworkBackup.from_open_coordinator_json(read_backup(raw).document)


def test_the_counters_gap_grows_with_the_backups_age_within_bounds() -> None:
    document = parse_backup(backups.zigbee2mqtt())
    assert counter_gap(document, MADE_AT + 60) == 10_000
    assert counter_gap(document, MADE_AT + 86_400) == pytest.approx(86_400 * 60, abs=60)
    assert counter_gap(document, MADE_AT + 20 * 365 * 86_400) == 100_000_000
    assert counter_gap(document, MADE_AT - 60) == 1_000_000, "a clock that is wrong"
    raw = backups.zigbee2mqtt()
    del raw["metadata"]["internal"]["date"]
    assert counter_gap(parse_backup(raw), MADE_AT) == 1_000_000
