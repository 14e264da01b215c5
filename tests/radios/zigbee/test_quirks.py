"""The table of models: which entries a node gets, who wins, and which faults are named."""

from dataclasses import replace
from importlib import resources

import pytest

from radios.zigbee.quirks import Quirk, QuirkTable, parse_quirks, quirks_from
from radios.zigbee.session_state import SessionLimits
from radios.zigbee.settings import quirk_table

BASE = SessionLimits()


# Manufacturer code and image type of a node, and what the packaged table changes for it.
PACKAGED: dict[tuple[int, int], dict[str, object]] = {
    (4474, 1): {"max_block_bytes": 40},
    (4405, 1): {"max_block_bytes": 40},
    (4398, 1): {"max_block_bytes": 40},
    (4129, 1): {"max_block_bytes": 255, "stall_after_s": 1800},
    (4617, 1): {"stall_after_s": 3600},
    (4742, 8199): {"stall_after_s": 3600},
    (4742, 8198): {},
    (0x1049, 1): {},
}


@pytest.mark.parametrize(("manufacturer", "image_type"), PACKAGED)
def test_every_row_of_the_packaged_table_is_applied_to_its_nodes_alone(manufacturer: int, image_type: int) -> None:
    found = quirk_table().limits(BASE, manufacturer, image_type, "any model")
    assert found == replace(BASE, **PACKAGED[manufacturer, image_type])  # type: ignore[arg-type]  # by name


def test_no_row_of_the_packaged_table_is_left_out_above() -> None:
    rows = parse_quirks(resources.files("radios.zigbee").joinpath("quirks.toml").read_text("utf-8"))
    assert len(rows) == sum(map(bool, PACKAGED.values()))
    for row in rows:
        assert any(row.fits(*node, None) for node, changes in PACKAGED.items() if changes)


def test_the_operators_entries_win_over_the_packaged_ones() -> None:
    table = quirk_table(quirks_from([{"manufacturer": 4474, "max_block_bytes": 32}]))
    assert table.limits(BASE, 4474, 1, None).max_block_bytes == 32
    assert table.limits(BASE, 4405, 1, None).max_block_bytes == 40


@pytest.mark.parametrize(
    ("entry", "manufacturer", "image_type", "model", "fits"),
    [
        ({"manufacturer": 7}, 7, 1, None, True),
        ({"manufacturer": 7}, 8, 1, None, False),
        ({"image_type": 3}, 8, 3, None, True),
        ({"manufacturer": 7, "image_type": 3}, 7, 4, None, False),
        ({"model": "SIM-*"}, 7, 1, "SIM-1", True),
        ({"model": "SIM-*"}, 7, 1, "XSIM-1", False),
        ({"model": "SIM-*"}, 7, 1, None, False),
        ({"model": "*"}, 7, 1, "", True),
        ({"model": "sim-1"}, 7, 1, "SIM-1", False),
        ({"model": "a[b]?"}, 7, 1, "a[b]?", True),
        ({"model": "a[b]?"}, 7, 1, "abc", False),
    ],
)
def test_whom_an_entry_is_for(
    entry: dict[str, object], manufacturer: int, image_type: int, model: str | None, fits: bool
) -> None:
    (quirk,) = quirks_from([{**entry, "max_block_bytes": 1}])
    assert quirk.fits(manufacturer, image_type, model) is fits
    found = QuirkTable([quirk]).limits(BASE, manufacturer, image_type, model)
    assert (found.max_block_bytes == 1) is fits


def test_entries_add_up_and_the_later_replaces() -> None:
    table = QuirkTable(
        [Quirk(manufacturer=7, stall_after_s=90, max_block_bytes=40), Quirk(model="A", max_block_bytes=30)]
    )
    found = table.limits(BASE, 7, 1, "A")
    assert (found.stall_after_s, found.max_block_bytes) == (90, 30)
    assert table.limits(BASE, 8, 1, None) == BASE
    assert table.limits(BASE, 7, 1, "A") is found


def test_a_node_is_not_lost_while_it_may_still_verify() -> None:
    assert QuirkTable([Quirk(model="A", verify_s=7200)]).limits(BASE, 7, 1, "A").lost_after_s == 14400
    assert QuirkTable([Quirk(model="A", verify_s=60)]).limits(BASE, 7, 1, "A").lost_after_s == BASE.lost_after_s


def test_every_key_changes_its_limit() -> None:
    changes: dict[str, object] = {
        "max_block_bytes": 33,
        "stall_after_s": 99.0,
        "verify_s": 44.0,
        "notify_payload": 2,
        "wait_short_form": True,
        "page_requests": False,
        "minimum_block_period": False,
    }
    found = QuirkTable(quirks_from([{"model": "A", **changes}])).limits(BASE, 7, 1, "A")
    for name, value in changes.items():
        assert getattr(found, name) == value != getattr(BASE, name)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[[quirk]]\nmodel = 'A'\nstall_s = 3", "quirk 1: stall_s is no known key"),
        ("[[quirk]]\nmodel = 'A'\nverify_s = 0", "quirk 1: verify_s must be 1 to 86400"),
        (
            "[[quirk]]\nmodel = 'A'\nverify_s = 9\n[[quirk]]\nmodel = ''\nverify_s = 9",
            "quirk 2: model must not be empty",
        ),
        ("[[quirk]]\nmodel = 'A'\nmax_block_bytes = 256", "quirk 1: max_block_bytes must be 1 to 255"),
        ("[[quirk]]\nmodel = 'A'\nmax_block_bytes = true", "quirk 1: max_block_bytes cannot be True"),
        ("[[quirk]]\nmodel = 'A'\npage_requests = 1", "quirk 1: page_requests cannot be 1"),
        ("[[quirk]]\nmanufacturer = 65535\nverify_s = 9", "quirk 1: manufacturer must be 0 to 65534"),
        ("[[quirk]]\nmodel = 'A'", "quirk 1: changes nothing"),
        ("[[quirk]]\nverify_s = 9", "quirk 1: needs one of manufacturer, model, image_type"),
        ("[[quirks]]\nverify_s = 9", "not quirks"),
        ("quirk = 3", "quirk"),
    ],
)
def test_faults_are_named(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        parse_quirks(text)
