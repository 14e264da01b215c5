"""The gateway is killed at every commit, sync, rename and chunk of a whole campaign, before it and after it, or its power is
cut there: each time it ends in the same state, and nothing is lost.

The campaign: metadata and release are fetched, two envelopes adopted, a payload that nobody needs makes room, the new one
comes in chunks; one node is updated, one rolls back, one is cancelled half-way by a second revision; reports are stored by
the cloud, acknowledged and forgotten; the gateway ends. `tests/README.md` says how.
"""

import itertools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from gatewayd.campaign.node_update import State
from tests.crash import interpose, runners
from tests.crash.cloud import CANCELLED, CHUNK_BYTES, LAMPS, ROLLED_BACK, SPARE, UPDATED, Published, publish
from tests.crash.interpose import SYNCS, How
from tests.crash.lives import Result
from tests.crash.strace import counted_by_strace

pytestmark = [pytest.mark.services, pytest.mark.timeout(1200)]

BUNDLE = "trust/trusted.json"


@dataclass(frozen=True)
class Crashes:
    """A campaign that nothing happened to, twice, and one for every point."""

    published: Published
    library: Path
    undisturbed: Result
    again: Result
    crashed: list[Result]

    @property
    def digest(self) -> str:
        return str(self.undisturbed.asked[0][0][0])

    def at(self, kind: str, path: str) -> int:
        """The number of the last such call."""
        calls = self.undisturbed.calls
        return max(number for number, call in enumerate(calls, 1) if call == [kind, path])

    def of(self, how: How) -> list[Result]:
        return [result for result in self.crashed if result.how == how]


@pytest.fixture(scope="module")
def crashes(tmp_path_factory: pytest.TempPathFactory) -> Crashes:
    folder = tmp_path_factory.mktemp("crash")
    library = interpose.build(folder)
    published = publish(folder)
    undisturbed, again = runners.run_all(published, library, [(0, How.AFTER), (0, How.AFTER)])
    assert not undisturbed.error, undisturbed.error
    return Crashes(published, library, undisturbed, again, runners.run_all(published, library, points(undisturbed)))


def points(undisturbed: Result) -> list[tuple[int, How]]:
    """Every call, in each way that leaves something else on the disk than the others.

    A killed process leaves all that it wrote, so before and after a sync are the same to it. After a power cut there is what
    was synced, so a cut is worth a try behind every sync, and before the first.
    """
    kinds = ["fsync"] + [kind for kind, _ in undisturbed.calls]
    found = [(number, How.BEFORE) for number in range(1, len(kinds))]
    found += [(number, How.AFTER) for number in range(1, len(kinds)) if kinds[number] not in SYNCS]
    return found + [(number, How.CUT) for number in range(1, len(kinds)) if kinds[number - 1] in SYNCS]


def test_the_campaign_is_whole(crashes: Crashes) -> None:
    end = crashes.undisturbed.final
    assert [row[6:8] for row in end["tables"]["campaign"]] == [["completed", ""], ["cancelled", ""]]
    assert end["outcomes"] == sorted(
        [[LAMPS, UPDATED, "updated", ""], [LAMPS, ROLLED_BACK, "rolled_back", ""], [SPARE, CANCELLED, "cancelled", ""]]
    )
    assert {State(row[6]) for row in end["tables"]["node_update"]} == {
        State.UPDATED,
        State.ROLLED_BACK,
        State.CANCELLED,
    }
    assert end["payloads"] == {crashes.digest: crashes.digest}
    assert end["nodes"][UPDATED]["image"] == crashes.digest
    assert end["tables"]["outbox"] == []
    assert end["guarded"]["floors"] == {UPDATED: 2}
    assert end["troubles"] == []


def test_every_run_makes_the_same_calls(crashes: Crashes) -> None:
    assert crashes.undisturbed == crashes.again
    for result in crashes.crashed:
        assert not result.error, (result.at, result.how, result.error)
        assert result.killed, (result.at, result.how)
        assert result.calls == crashes.undisturbed.calls[: result.at], (result.at, result.how)


def test_what_is_counted(crashes: Crashes) -> None:
    """All kinds; and every commit is followed by the sync that makes it durable, before anything else happens."""
    calls = crashes.undisturbed.calls
    assert {kind for kind, _ in calls} == {"commit", "fdatasync", "fsync", "rename", "chunk"}
    assert [path for kind, path in calls if kind == "chunk"] == [f"payloads/{crashes.digest}.part"] * 2
    for call, following in itertools.pairwise(calls):
        if call[0] == "commit":
            assert following == ["fdatasync", "gatewayd.db-wal"]


def test_strace_sees_the_same_calls(crashes: Crashes, tmp_path: Path) -> None:
    seen = counted_by_strace(crashes.published, crashes.library, tmp_path)
    assert seen == Counter((kind, path) for kind, path in crashes.undisturbed.calls)


@pytest.mark.parametrize("how", How)
def test_the_end_is_the_same(crashes: Crashes, how: How) -> None:
    """States, codes, versions, attempts, floors, records, files, images, and each outcome told exactly once."""
    for result in crashes.of(how):
        assert result.final == crashes.undisturbed.final, (result.at, how, crashes.undisturbed.calls[result.at - 1])


def test_no_node_is_told_to_install_before_that_is_stored(crashes: Crashes) -> None:
    for result in (crashes.undisturbed, *crashes.crashed):
        assert result.early == [], (result.at, result.how)


def test_no_node_begins_again(crashes: Crashes) -> None:
    for result in (crashes.undisturbed, *crashes.crashed):
        for name, node in result.final["nodes"].items():
            where = (result.at, result.how, name)
            assert node["downloads_started_at_zero"] == 1, where
            assert node["downloads_thrown_away"] == (name == CANCELLED), where


def test_no_chunk_is_fetched_twice(crashes: Crashes) -> None:
    """What a killed process has written is there; after a cut, what was not synced may have to come again."""
    whole = f"payloads/{crashes.digest}"
    size = len(crashes.published.image)
    for result in crashes.crashed:
        where = (result.at, result.how)
        done = result.calls if result.how == How.AFTER else result.calls[:-1]
        held = result.found.get(whole, result.found.get(f"{whole}.part", 0) // CHUNK_BYTES * CHUNK_BYTES)
        if result.how != How.CUT:
            assert held >= CHUNK_BYTES * min(done.count(["chunk", f"{whole}.part"]), size // CHUNK_BYTES), where
        assert all(start >= held for _, start, _ in result.asked[1]), where
        assert sum(stop - start for _, start, stop in result.asked[1]) <= size - held, where


def test_what_was_made_durable_is_there_after_a_power_cut(crashes: Crashes) -> None:
    payload, bundle = crashes.at("fsync", "payloads"), crashes.at("fsync", "trust")
    for result in crashes.crashed:
        where = (result.at, result.how)
        assert BUNDLE in result.found or result.at <= bundle, where
        if result.at > payload:
            assert result.found[f"payloads/{crashes.digest}"] == len(crashes.published.image), where
            assert result.asked[1] == [], where
