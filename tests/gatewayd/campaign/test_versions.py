"""Versions: ordered by the releases' sequence, shown as semantic versions, compared component by component."""

import pytest

from gatewayd.campaign.policy import Deferral
from gatewayd.campaign.selection import Skip, choose
from gatewayd.campaign.versions import Versions, semantic_key
from gatewayd.cloud.messages import Manufacturers, Release
from tests.support.documents import HARDWARE, node, release


def known(version: str, sequence: int, node_version: int) -> Release:
    return release(version=version, node_version=node_version).document.model_copy(update={"sequence": sequence})


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("1.9.0", "1.10.0"),
        ("1.2.9", "1.2.10"),
        ("9.0.0", "10.0.0"),
        ("1.2.3", "1.2.3.1"),
        ("1.0.0-alpha", "1.0.0-alpha.1"),
        ("1.0.0-alpha.1", "1.0.0-alpha.beta"),
        ("1.0.0-beta.2", "1.0.0-beta.11"),
        ("1.0.0-rc.1", "1.0.0"),
    ],
)
def test_semantic_versions_are_compared_component_by_component(older: str, newer: str) -> None:
    assert semantic_key(older) < semantic_key(newer)


def test_build_metadata_says_nothing_of_the_order() -> None:
    assert semantic_key("1.0.0+7") == semantic_key("1.0.0+12")


def test_the_sequence_orders_what_nodes_report() -> None:
    # A vendor whose numbers went down when the scheme changed: 1.9.0 said 0x900, 1.10.0 says 0x110.
    versions = Versions([known("1.9.0", 9, 0x900), known("1.10.0", 10, 0x110)])
    assert versions.newer(HARDWARE, 0x110, 0x900)
    assert not versions.newer(HARDWARE, 0x900, 0x110)
    assert not versions.newer(HARDWARE, 0x900, 0x900)


def test_numbers_decide_where_no_release_is_known() -> None:
    versions = Versions([known("1.10.0", 10, 0x110)])
    assert versions.newer(HARDWARE, 0x900, 0x110)
    assert versions.newer("zigbee:0000-0001", 2, 1)
    assert versions.newer(None, 2, 1)


def test_one_sequence_is_ordered_by_the_version() -> None:
    versions = Versions([known("1.10.0", 5, 1), known("1.9.0", 5, 2)])
    assert versions.newer(HARDWARE, 1, 2)


def test_people_see_the_version_of_a_known_release() -> None:
    versions = Versions([known("1.10.0", 10, 0x110)])
    assert versions.shown(HARDWARE, 0x110) == "1.10.0"
    assert versions.shown(HARDWARE, 0x111) == "0x00000111"
    assert versions.shown("zigbee:0000-0001", 0x110) == "0x00000110"


def test_a_node_with_a_higher_number_of_an_older_release_is_updated() -> None:
    target = release(version="1.10.0", node_version=0x110)
    versions = Versions([known("1.9.0", 9, 0x900), known("1.10.0", 10, 0x110)])
    nobody = Manufacturers(keys=())
    assert not isinstance(choose(node(1, version=0x900), target, nobody, versions=versions), Skip)
    newer = choose(node(1, version=0x900), target, nobody)
    assert isinstance(newer, Skip)
    assert newer.code == "newer"


def test_a_version_of_no_known_release_is_ordered_by_its_number_and_the_floors_hold() -> None:
    target = release(version="1.10.0", node_version=0x110)  # of security version 2
    versions, nobody = Versions([known("1.9.0", 9, 0x109), known("1.10.0", 10, 0x110)]), Manufacturers(keys=())
    assert not isinstance(choose(node(1, version=0x105), target, nobody, versions=versions), Skip | Deferral)
    newer = choose(node(1, version=0x111), target, nobody, versions=versions)
    assert isinstance(newer, Skip)
    assert newer.code == "newer"
    below = choose(node(1, version=0x105, security_version=3), target, nobody, versions=versions)
    assert isinstance(below, Skip)
    assert below.code == "downgrade"


@pytest.mark.parametrize("version", [0x105, 0x850, 0xA00])
def test_where_numbers_went_down_once_an_unknown_version_is_neither_older_nor_newer(version: int) -> None:
    """1.9.0 said 0x900, 1.10.0 says 0x110: 0x850 may be 1.8.0, or 1.50.0."""
    target, nobody = release(version="1.10.0", node_version=0x110), Manufacturers(keys=())
    unruly = [known("1.9.0", 9, 0x900), known("1.10.0", 10, 0x110)]
    why = choose(node(1, version=version), target, nobody, versions=Versions(unruly))
    assert isinstance(why, Deferral)
    assert why.code == "version_unordered"
    newer = choose(node(1, version=version), target, nobody, versions=Versions([*unruly, known("1.11.0", 11, version)]))
    assert isinstance(newer, Skip)
    older = choose(node(1, version=version), target, nobody, versions=Versions([*unruly, known("1.8.0", 8, version)]))
    assert not isinstance(older, Skip | Deferral)


def test_other_hardware_has_numbers_of_its_own() -> None:
    other = known("1.9.0", 9, 0x900).model_copy(update={"hardware": ("zigbee:0000-0001",)})
    versions = Versions([other, known("1.10.0", 10, 0x110)])
    assert versions.ordered(HARDWARE, 0x850, 0x110)
    assert versions.ordered("zigbee:0000-0001", 0x850, 0x900)


def test_who_runs_something_newer_is_told_in_versions() -> None:
    target = release(version="1.9.0", node_version=0x900)
    versions = Versions([known("1.9.0", 9, 0x900), known("1.10.0", 10, 0x110)])
    found = choose(node(1, version=0x110), target, Manufacturers(keys=()), versions=versions)
    assert isinstance(found, Skip)
    assert (found.code, found.detail) == ("newer", "the node runs 1.10.0, newer than 1.9.0")
