"""Versions: ordered by the releases' sequence, shown as semantic versions, compared component by component."""

import pytest

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


def test_who_runs_something_newer_is_told_in_versions() -> None:
    target = release(version="1.9.0", node_version=0x900)
    versions = Versions([known("1.9.0", 9, 0x900), known("1.10.0", 10, 0x110)])
    found = choose(node(1, version=0x110), target, Manufacturers(keys=()), versions=versions)
    assert isinstance(found, Skip)
    assert (found.code, found.detail) == ("newer", "the node runs 1.10.0, newer than 1.9.0")
