"""The gateway ends at every commit, sync, rename and chunk of a whole campaign, before it and after it, or its power is cut
there: each time it ends in the same state, and nothing is lost.

Two stories. Lamps (Zigbee): metadata and release are fetched, envelopes adopted, a payload that nobody needs makes room, the
new ones come in chunks; one node is updated and one rolls back, both behind a hold and resume by the operator in
mid-transfer; one is cancelled half-way by a second revision; one takes a delta, one refuses it and falls back to the full
image. Meters (LoRaWAN): one multicast transfer with the operator's hold and, later, a node whose battery is low for a while;
one node is updated, one rolls back. Reports are stored by the cloud, acknowledged and forgotten; the gateway ends.
`tests/README.md` says how.
"""

import itertools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.crash import interpose
from tests.crash.cloud import (
    CANCELLED,
    CHUNK_BYTES,
    FALLEN_BACK,
    LAMPS,
    METER,
    METER_ROLLED_BACK,
    METERS,
    PATCHED,
    PATCHES,
    ROLLED_BACK,
    SPARE,
    STORIES,
    UPDATED,
    ZIGBEE,
    Published,
    Story,
    publish,
)
from tests.crash.interpose import SYNCS, How
from tests.crash.result import Result
from tests.crash.runners import runner
from tests.crash.strace import counted_by_strace

pytestmark = [pytest.mark.services, pytest.mark.timeout(1200)]

BUNDLE = "trust/trusted.json"
KILL_EVERY = 80  # of the points: tried with a real kill or cut too
OUTCOMES = {
    "zigbee": [
        [LAMPS, UPDATED, "updated", ""],
        [LAMPS, ROLLED_BACK, "rolled_back", ""],
        [PATCHES, PATCHED, "updated", ""],
        [PATCHES, FALLEN_BACK, "failed", "invalid_image"],
        [PATCHES, FALLEN_BACK, "updated", ""],
        [SPARE, CANCELLED, "cancelled", ""],
    ],
    "lorawan": [[METERS, METER, "updated", ""], [METERS, METER_ROLLED_BACK, "rolled_back", ""]],
}


@dataclass(frozen=True)
class Crashes:
    """A campaign that nothing happened to, and the rest of one from every point of it; the same by kills, at a few."""

    published: Published
    library: Path
    undisturbed: Result
    again: Result
    crashed: list[Result]
    killed: list[Result]

    @property
    def story(self) -> Story:
        return self.published.story

    def payloads(self) -> dict[str, int]:
        """Digest and size of all that is fetched."""
        return {str(digest): stop for digest, start, stop in self.undisturbed.asked[0] if start == 0}

    def at(self, kind: str, path: str) -> int:
        """The number of the last such call."""
        calls = self.undisturbed.calls
        return max(number for number, call in enumerate(calls, 1) if call == [kind, path])

    def of(self, how: How) -> list[Result]:
        return [result for result in self.crashed if result.how == how]


@pytest.fixture(scope="module", params=STORIES)
def crashes(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Crashes:
    folder = tmp_path_factory.mktemp("crash")
    library = interpose.build(folder)
    published = publish(folder, STORIES[request.param])
    with runner(published, library) as campaigns:
        again = campaigns.campaign(0, How.AFTER)
        assert not again.error, again.error
        undisturbed, crashed = campaigns.every_point()
        killed = [campaigns.campaign(result.at, How(result.how)) for result in crashed[::KILL_EVERY]]
    return Crashes(published, library, undisturbed, again, crashed, killed)


def points(undisturbed: Result) -> set[tuple[int, How]]:
    """Every call, in each way that leaves something else on the disk than the others.

    A killed process leaves all that it wrote, so before and after a sync are the same to it. After a power cut there is what
    was synced, so a cut is worth a try behind every sync, and before the first.
    """
    kinds = ["fsync"] + [kind for kind, _ in undisturbed.calls]
    found = {(number, How.BEFORE) for number in range(1, len(kinds))}
    found |= {(number, How.AFTER) for number in range(1, len(kinds)) if kinds[number] not in SYNCS}
    return found | {(number, How.CUT) for number in range(1, len(kinds)) if kinds[number - 1] in SYNCS}


def test_the_campaign_is_whole(crashes: Crashes) -> None:
    end, story = crashes.undisturbed.final, crashes.story
    assert {row[0]: row[6:8] for row in end["tables"]["campaign"]} == {
        planned.name: ["cancelled" if planned.cancelled else "completed", ""] for planned in story.campaigns
    }
    assert end["outcomes"] == sorted(OUTCOMES[story.name])
    updated = {node for _, node, state, _ in OUTCOMES[story.name] if state == "updated"}
    full, *_ = crashes.payloads()
    assert {name for name, node in end["nodes"].items() if node["image"] == full} == updated
    assert end["payloads"] == {digest: digest for digest in crashes.payloads()}
    assert len(crashes.payloads()) == (2 if story is ZIGBEE else 1)  # the full image, and the delta
    assert end["tables"]["outbox"] == []
    assert end["guarded"]["floors"] == dict.fromkeys(updated, story.new.spec.security_version)
    assert end["troubles"] == end["faults"] == []


def test_it_was_held_in_mid_transfer(crashes: Crashes) -> None:
    """By the operator; and a meter by its battery, told again when it completes meanwhile by what is sent to the other one."""
    told = [tuple(said) for said in crashes.undisturbed.told]
    assert told.count((crashes.story.held, None, "held", "")) == 1
    low = {said for said in told if said[3] == "battery_low"}
    assert low == (set() if crashes.story is ZIGBEE else {(METERS, METER, "deferred", "battery_low")})
    assert not [said for said in told if said[2:] == ("deferred", "")]


def test_every_point_was_there(crashes: Crashes) -> None:
    assert crashes.undisturbed == crashes.again
    assert {(result.at, result.how) for result in crashes.crashed} == points(crashes.undisturbed)
    assert len(crashes.crashed) == len(points(crashes.undisturbed))
    for result in crashes.crashed:
        assert not result.error, (result.at, result.how, result.error)
        assert result.calls == crashes.undisturbed.calls[: result.at], (result.at, result.how)


def test_a_kill_leaves_what_was_copied(crashes: Crashes) -> None:
    """The files, what becomes of them, and what is asked for: with another process, which was really killed there."""
    assert len(crashes.killed) > 5
    for result in crashes.killed:
        copied = next(other for other in crashes.crashed if (other.at, other.how) == (result.at, result.how))
        assert result == copied, (result.at, result.how)


def test_what_is_counted(crashes: Crashes) -> None:
    """All kinds; and every commit is followed by the sync that makes it durable, before anything else happens."""
    calls = crashes.undisturbed.calls
    assert {kind for kind, _ in calls} == {"commit", "fdatasync", "fsync", "rename", "chunk"}
    chunks = Counter(path for kind, path in calls if kind == "chunk")
    assert chunks == {f"payloads/{digest}.part": -(-size // CHUNK_BYTES) for digest, size in crashes.payloads().items()}
    for call, following in itertools.pairwise(calls):
        if call[0] == "commit":
            assert following == ["fdatasync", "gatewayd.db-wal"]


def test_strace_sees_the_same_calls(crashes: Crashes, tmp_path: Path) -> None:
    seen = counted_by_strace(crashes.published, crashes.library, tmp_path)
    assert seen == Counter((kind, path) for kind, path in crashes.undisturbed.calls)


@pytest.mark.parametrize("how", How)
def test_the_end_is_the_same(crashes: Crashes, how: How) -> None:
    """States, codes, versions, attempts, floors, records, files, images, and each outcome told exactly once.

    In it: no node begins again, nothing is delivered to a node that is held, no frame counter is used twice under one key.
    """
    for result in crashes.of(how):
        assert result.final == crashes.undisturbed.final, (result.at, how, crashes.undisturbed.calls[result.at - 1])


def test_no_node_is_told_to_install_before_that_is_stored(crashes: Crashes) -> None:
    for result in (crashes.undisturbed, *crashes.crashed):
        assert result.early == [], (result.at, result.how)


def test_no_lamp_begins_again(crashes: Crashes) -> None:
    """One that throws its bytes away is the one that is cancelled; one that refuses a patch begins with the next."""
    for result in (crashes.undisturbed, *crashes.crashed):
        for name, node in result.final["nodes"].items():
            assert node.get("begun_again", 0) == 0, (result.at, result.how, name)
            assert node.get("downloads_thrown_away", 0) == (name == CANCELLED), (result.at, result.how, name)


def test_no_chunk_is_fetched_twice(crashes: Crashes) -> None:
    """What a killed process has written is there; after a cut, what was not synced may have to come again."""
    for result, (digest, size) in itertools.product(crashes.crashed, crashes.payloads().items()):
        whole, where = f"payloads/{digest}", (result.at, result.how, digest)
        done = result.calls if result.how == How.AFTER else result.calls[:-1]
        part = result.found.get(f"{whole}.part", 0) // CHUNK_BYTES * CHUNK_BYTES
        held = result.found.get(whole, part)
        asked = [(start, stop) for of, start, stop in result.asked[1] if of == digest]
        if result.how != How.CUT:
            assert held >= CHUNK_BYTES * min(done.count(["chunk", f"{whole}.part"]), size // CHUNK_BYTES), where
        assert all(start >= held for start, _ in asked), where
        assert sum(stop - start for start, stop in asked) <= size - held, where


def test_what_was_made_durable_is_there_after_a_power_cut(crashes: Crashes) -> None:
    bundle, renamed = crashes.at("fsync", "trust"), [f"payloads/{digest}" for digest in crashes.payloads()]
    durable = {
        path: crashes.undisturbed.calls.index(["fsync", "payloads"], crashes.at("rename", path)) for path in renamed
    }
    for result in crashes.crashed:
        where = (result.at, result.how)
        assert BUNDLE in result.found or result.at <= bundle, where
        for path, size in zip(renamed, crashes.payloads().values(), strict=True):
            if result.at > durable[path] + 1:
                assert result.found[path] == size, where
                assert path.removeprefix("payloads/") not in [of for of, *_ in result.asked[1]], where
