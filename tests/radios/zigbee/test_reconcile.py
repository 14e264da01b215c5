"""What follows from the attributes of an OTA client: the judgement, and what a session makes of it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radios.radio import Fact, ImageRef, NodeDirective, NodeId, Want
from radios.zigbee.ota_commands import FileId, ImageBlock, ImageBlockRequest, ImageNotify, UpgradeEndResponse
from radios.zigbee.ota_frames import decode_command, decode_header, request
from radios.zigbee.ota_session import OtaSession
from radios.zigbee.pacing import Pacer, PacingLimits
from radios.zigbee.reconcile import NO_OFFSET, ClientAttributes, Finding, UpgradeStatus, Verdict, reconcile
from radios.zigbee.session_state import OtaImage, SessionLimits, SessionState, Stage

NODE = NodeId("zigbee:00124b0000000001")
OLD, NEW, SIZE = 1, 2, 1000
FILE = FileId(0x1049, 1, NEW)
NONE = 0xFFFFFFFF
LIMITS = SessionLimits(verify_s=600)
NORMAL = ClientAttributes(NO_OFFSET, OLD, NONE, UpgradeStatus.NORMAL, 0x1049, 1)
LOADS = ClientAttributes(400, OLD, NEW, UpgradeStatus.DOWNLOADING, 0x1049, 1)
WAITS = ClientAttributes(SIZE, OLD, NEW, UpgradeStatus.WAITING, 0x1049, 1)
NOTHING, FORGOTTEN = Finding(Verdict.NOTHING), Finding(Verdict.FORGOTTEN)


def state(stage: Stage, want: Want = Want.DELIVER, confirmed: int = 0) -> SessionState:
    image = OtaImage(ImageRef("d" * 64, SIZE, NEW), FILE)
    return SessionState(NODE, "t", 1, want, None, image, stage, confirmed)


@pytest.mark.parametrize(
    ("stage", "said", "finding"),
    [
        (Stage.DOWNLOADING, NORMAL, FORGOTTEN),
        (Stage.DOWNLOADING, replace(NORMAL, file_offset=None, downloaded_version=None), FORGOTTEN),
        (Stage.DOWNLOADING, replace(NORMAL, file_offset=0), FORGOTTEN),
        (Stage.DOWNLOADING, replace(NORMAL, file_offset=400), NOTHING),  # contradicts itself
        (Stage.DOWNLOADING, replace(NORMAL, downloaded_version=NEW), NOTHING),
        (Stage.READY, NORMAL, FORGOTTEN),
        (Stage.READY, replace(NORMAL, downloaded_version=None), NOTHING),  # a status alone may stand still
        (Stage.INSTALLING, replace(NORMAL, downloaded_version=None), NOTHING),
        (Stage.DOWNLOADING, LOADS, Finding(Verdict.GOES_ON, 400)),
        (Stage.DOWNLOADING, replace(LOADS, file_offset=SIZE + 1), Finding(Verdict.GOES_ON)),
        (Stage.DOWNLOADING, replace(LOADS, file_offset=NO_OFFSET), Finding(Verdict.GOES_ON)),
        (Stage.DOWNLOADING, replace(LOADS, file_offset=None), Finding(Verdict.GOES_ON)),
        (Stage.DOWNLOADING, replace(LOADS, downloaded_version=None), Finding(Verdict.GOES_ON)),
        (Stage.DOWNLOADING, replace(LOADS, downloaded_version=NONE), Finding(Verdict.GOES_ON)),
        (Stage.DOWNLOADING, replace(LOADS, downloaded_version=7), FORGOTTEN),
        (Stage.DOWNLOADING, WAITS, Finding(Verdict.HOLDS)),
        (Stage.OFFERED, replace(WAITS, upgrade_status=UpgradeStatus.COMPLETE), Finding(Verdict.HOLDS)),
        (Stage.INSTALLING, replace(WAITS, upgrade_status=UpgradeStatus.COUNT_DOWN), Finding(Verdict.STARTS)),
        (Stage.DOWNLOADING, replace(WAITS, downloaded_version=None), NOTHING),
        (Stage.DOWNLOADING, replace(WAITS, downloaded_version=7), FORGOTTEN),
        (Stage.DOWNLOADING, replace(WAITS, upgrade_status=UpgradeStatus.WAIT_FOR_MORE), NOTHING),
        (Stage.DOWNLOADING, replace(WAITS, upgrade_status=99), NOTHING),
        (Stage.DOWNLOADING, replace(NORMAL, upgrade_status=None), NOTHING),
        (Stage.DOWNLOADING, replace(NORMAL, current_version=NEW), NOTHING),
        (Stage.DOWNLOADING, replace(NORMAL, image_type=2), NOTHING),
        (Stage.DOWNLOADING, replace(NORMAL, manufacturer=2), NOTHING),
        (Stage.RUNNING, NORMAL, NOTHING),
        (Stage.FAILED, WAITS, NOTHING),
        (Stage.DROPPING, WAITS, NOTHING),
    ],
)
def test_judgement(stage: Stage, said: ClientAttributes, finding: Finding) -> None:
    assert reconcile(state(stage), said) == finding


NUMBERS = st.none() | st.sampled_from([0, 1, 2, 400, SIZE, SIZE + 1, NONE]) | st.integers(0, NONE)
SAID = st.builds(ClientAttributes, NUMBERS, NUMBERS, NUMBERS, st.none() | st.integers(0, 255), NUMBERS, NUMBERS)


@given(st.sampled_from(Stage), SAID)
def test_a_read_never_invents_progress(stage: Stage, said: ClientAttributes) -> None:
    finding = reconcile(state(stage), said)
    if finding.offset is not None:
        assert said.upgrade_status == UpgradeStatus.DOWNLOADING
        assert said.downloaded_version == NEW
        assert finding.offset == said.file_offset <= SIZE
    if finding.verdict in (Verdict.HOLDS, Verdict.STARTS):
        assert said.downloaded_version == NEW


@given(st.sampled_from(Stage), st.sampled_from(Want), SAID)
def test_no_attributes_trip_a_session(stage: Stage, want: Want, said: ClientAttributes) -> None:
    bench = Bench(state(stage, want, 300))
    bench.describe(said)
    assert 0 <= bench.session.confirmed <= SIZE
    bench.wait(120)


class Bench:
    """A session restored from the journal, told by the daemon what is wanted, on a shell that commits and sends."""

    def __init__(self, start: SessionState) -> None:
        self.now = 5000.0
        self.facts: list[Fact] = []
        self.versions: list[int | None] = []
        self.codes: list[str] = []
        self.session = OtaSession(
            start, lambda at, n: bytes(n), Pacer(PacingLimits()), LIMITS, self.now, reconciled=False
        )
        self.session.direct(NodeDirective("t", NODE, 1, start.want), self.now)

    def sent(self) -> list[object]:
        while (commit := self.session.pending_commit()) is not None:
            self.facts += [event.fact for event in commit.events]
            self.versions += [event.version for event in commit.events]
            self.session.committed(commit)
        frames = self.session.to_send(self.now)
        event = self.session.progress()
        if event is not None:
            self.facts.append(event.fact)
            self.codes.append(event.code)
        return [decode_command(*decode_header(outgoing.frame)) for outgoing in frames]

    def describe(self, said: ClientAttributes, asked_at: float | None = None) -> list[object]:
        self.session.heard(self.now)
        self.session.client_described(said, self.now if asked_at is None else asked_at, self.now)
        return self.sent()

    def block(self, offset: int) -> list[object]:
        self.session.receive(request(ImageBlockRequest(FILE, offset, 50), 9), 1, self.now)
        return self.sent()

    def wait(self, seconds: float) -> list[object]:
        end = self.now + seconds
        sent = self.sent()
        while (deadline := self.session.next_deadline()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.session.handle_timeout(self.now)
            sent += self.sent()
        self.now = end
        return sent


def test_a_download_that_the_node_forgot_is_offered_again_at_once() -> None:
    bench = Bench(state(Stage.DOWNLOADING, confirmed=500))
    bench.describe(NORMAL)
    assert bench.session.stage is Stage.OFFERED
    assert bench.session.confirmed == 0
    assert bench.codes == ["forgotten"]
    assert bench.wait(11) == [ImageNotify(100)]


def test_a_client_whose_attributes_are_wrong_is_not_disturbed() -> None:
    bench = Bench(state(Stage.DOWNLOADING, confirmed=500))
    bench.describe(NORMAL)
    bench.now += 3
    assert bench.block(500) == [ImageBlock(FILE, 500, bytes(50))]
    assert (bench.session.stage, bench.session.confirmed) == (Stage.DOWNLOADING, 500)
    assert ImageNotify(100) not in bench.wait(60)


def test_a_node_that_just_booted_has_time_to_go_on() -> None:
    bench = Bench(state(Stage.DOWNLOADING, confirmed=500))
    bench.session.rebooted(bench.now)
    bench.describe(NORMAL)
    assert ImageNotify(100) not in bench.wait(55)
    assert ImageNotify(100) in bench.wait(10)


def test_an_answer_that_is_older_than_a_request_says_nothing_of_the_download() -> None:
    bench = Bench(state(Stage.DOWNLOADING, confirmed=500))
    asked_at = bench.now
    bench.now += 1
    bench.block(550)
    bench.describe(NORMAL, asked_at)
    assert (bench.session.stage, bench.session.confirmed) == (Stage.DOWNLOADING, 550)


@pytest.mark.parametrize("stage", [Stage.OFFERED, Stage.DOWNLOADING])
def test_progress_that_status_and_version_agree_on_is_taken_and_no_notification_sent(stage: Stage) -> None:
    bench = Bench(state(stage, confirmed=100))
    bench.describe(LOADS)
    assert (bench.session.stage, bench.session.confirmed) == (Stage.DOWNLOADING, 400)
    assert Fact.PROGRESS in bench.facts
    assert ImageNotify(100) not in bench.wait(50)


def test_a_node_that_holds_the_image_is_ready_and_an_order_to_start_goes_on() -> None:
    bench = Bench(state(Stage.DOWNLOADING, Want.INSTALL, 500))
    assert bench.describe(WAITS) == [UpgradeEndResponse(FILE, 0, 0)]
    assert bench.facts == [Fact.COMPLETE, Fact.READY, Fact.INSTALLING]
    assert bench.session.confirmed == SIZE


def test_a_held_node_that_holds_the_image_is_ready_and_stays_so() -> None:
    bench = Bench(state(Stage.DOWNLOADING, Want.DELIVER, 500))
    assert bench.describe(WAITS) == []
    assert bench.facts == [Fact.COMPLETE, Fact.READY]


def test_an_install_that_did_not_arrive_is_told_again_when_the_node_says_that_it_waits() -> None:
    bench = Bench(state(Stage.INSTALLING, Want.INSTALL, SIZE))
    bench.session.rebooted(bench.now)
    assert UpgradeEndResponse(FILE, 0, 0) in bench.describe(WAITS)
    assert Fact.RUNNING not in bench.facts  # the old version is no rollback: it did not start yet
    bench.now += 5
    assert bench.describe(WAITS) == []  # told a moment ago
    bench.now += 60
    assert bench.describe(WAITS) == [UpgradeEndResponse(FILE, 0, 0)]
    bench.now += 60
    assert bench.describe(replace(WAITS, upgrade_status=UpgradeStatus.COUNT_DOWN)) == []


def test_old_version_without_the_image_after_a_restart_is_a_rollback() -> None:
    bench = Bench(state(Stage.INSTALLING, Want.INSTALL, SIZE))
    bench.describe(NORMAL)
    assert (bench.facts[-1], bench.versions[-1]) == (Fact.RUNNING, OLD)


def test_old_version_without_the_image_right_after_the_order_is_none() -> None:
    bench = Bench(state(Stage.READY, Want.INSTALL, SIZE))
    assert UpgradeEndResponse(FILE, 0, 0) in bench.sent()
    bench.now += 300
    bench.describe(NORMAL)  # a second MCU checks it still
    assert bench.facts[-1] is Fact.INSTALLING
    bench.now += 301
    bench.describe(NORMAL)
    assert (bench.facts[-1], bench.versions[-1]) == (Fact.RUNNING, OLD)


def test_an_answer_to_a_question_from_before_the_order_is_no_rollback() -> None:
    """Asked at the start, when the image was held and its time had come: perhaps its attributes never move."""
    bench = Bench(state(Stage.READY, Want.INSTALL, SIZE))
    asked_at = bench.now
    bench.now += 1
    assert UpgradeEndResponse(FILE, 0, 0) in bench.sent()
    bench.describe(NORMAL, asked_at)
    assert bench.facts[-1] is Fact.INSTALLING
    bench.describe(replace(NORMAL, current_version=NEW))
    assert (bench.facts[-1], bench.versions[-1]) == (Fact.RUNNING, NEW)


def test_a_node_that_no_frame_reached_yet_has_taken_nothing_back() -> None:
    bench = Bench(state(Stage.READY, Want.INSTALL, SIZE))
    while (commit := bench.session.pending_commit()) is not None:
        bench.session.committed(commit)
    (outgoing,) = bench.session.to_send(bench.now)
    bench.session.delivered(outgoing, False, bench.now)
    bench.now += 1
    bench.describe(NORMAL)
    assert Fact.RUNNING not in bench.facts


def test_the_new_version_is_running_whatever_else_is_said() -> None:
    bench = Bench(state(Stage.DOWNLOADING, Want.INSTALL, 500))
    bench.describe(replace(LOADS, current_version=NEW))
    assert (bench.facts[-1], bench.versions[-1]) == (Fact.RUNNING, NEW)


def test_versions_of_another_image_of_the_node_are_not_this_ones() -> None:
    bench = Bench(state(Stage.INSTALLING, Want.INSTALL, SIZE))
    bench.session.rebooted(bench.now)
    bench.describe(replace(NORMAL, image_type=2))
    bench.describe(replace(NORMAL, image_type=2, current_version=NEW))
    assert Fact.RUNNING not in bench.facts
