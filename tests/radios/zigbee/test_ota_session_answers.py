"""Answers to what is seldom: wildcards, other images of a node, every status of an end, models that differ, hostile frames."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radios.radio import Fact, ImageRef, NodeDirective, NodeId, Want
from radios.zigbee.ota_commands import (
    WAIT_FOREVER,
    WILDCARD_VERSION,
    Command,
    DefaultResponse,
    FileId,
    ImageBlock,
    ImageBlockRefused,
    ImageBlockRequest,
    ImageNotify,
    ImagePageRequest,
    QueryNextImageRequest,
    QueryNextImageResponse,
    QuerySpecificFileRequest,
    QuerySpecificFileResponse,
    Status,
    UpgradeEndRequest,
    UpgradeEndResponse,
    WaitForData,
)
from radios.zigbee.ota_frames import decode_command, decode_header, request
from radios.zigbee.ota_session import OtaSession
from radios.zigbee.pacing import Pacer, PacingLimits
from radios.zigbee.session_output import Outgoing
from radios.zigbee.session_state import OtaImage, SessionLimits, SessionState, Stage

NODE = NodeId("zigbee:00124b0000000001")
OLD, NEW = 1, 2
FILE = FileId(0x1049, 1, NEW)
DATA = bytes(range(250)) * 4
QUERY = QueryNextImageRequest(0x1049, 1, OLD, 2)
NO_IMAGE = QueryNextImageResponse(Status.NO_IMAGE_AVAILABLE)
END = UpgradeEndRequest(Status.SUCCESS, FILE)
LATER = UpgradeEndResponse(FILE, 0, WAIT_FOREVER)


def state(want: Want = Want.DELIVER, stage: Stage = Stage.OFFERED, file: FileId = FILE) -> SessionState:
    image = OtaImage(ImageRef("d" * 64, len(DATA), NEW), file, 1, 3)
    return SessionState(NODE, "t", 1, want, None, image, stage)


class Bench:
    def __init__(self, start: SessionState | None = None, **limits: object) -> None:
        self.now = 1000.0
        self.facts: list[Fact] = []
        self.codes: list[str] = []
        self.tsn = 0
        settings = replace(SessionLimits(), **limits)  # type: ignore[arg-type]  # names of its fields
        pacer = Pacer(PacingLimits())
        self.session = OtaSession(
            start or state(), lambda at, n: DATA[at : at + n], pacer, settings, self.now, reconciled=True
        )

    def frames(self) -> list[Outgoing]:
        while (commit := self.session.pending_commit()) is not None:
            self.facts += [event.fact for event in commit.events]
            self.codes += [event.code for event in commit.events if event.code]
            self.session.committed(commit)
        frames = self.session.to_send(self.now)
        event = self.session.progress()
        if event is not None and event.code:
            self.codes.append(event.code)
        return frames

    def sent(self) -> list[Command]:
        return [decode_command(*decode_header(outgoing.frame)) for outgoing in self.frames()]

    def ask(self, command: Command, endpoint: int = 1) -> list[Command]:
        self.tsn = (self.tsn + 1) % 256
        self.session.receive(request(command, self.tsn), endpoint, self.now)  # type: ignore[arg-type]  # client commands
        return self.sent()

    def wait(self, seconds: float) -> list[Command]:
        end = self.now + seconds
        sent = self.sent()
        while (deadline := self.session.next_deadline()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.session.handle_timeout(self.now)
            sent += self.sent()
        self.now = end
        return sent


def block(offset: int, file: FileId = FILE, most: int = 50) -> ImageBlockRequest:
    return ImageBlockRequest(file, offset, most)


# -- which image ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [FileId(0xFFFF, 1, NEW), FileId(0x1049, 0xFFFF, NEW), FileId(0xFFFF, 0xFFFF, NEW)])
def test_a_file_for_any_is_answered_in_the_nodes_own_names(header: FileId) -> None:
    bench = Bench(state(Want.INSTALL, file=header))
    assert bench.ask(QUERY) == [QueryNextImageResponse(Status.SUCCESS, FILE, len(DATA))]
    assert bench.ask(block(0)) == [ImageBlock(FILE, 0, DATA[:50])]
    assert bench.ask(END) == [UpgradeEndResponse(FILE, 0, 0)]


def test_a_file_for_any_goes_on_after_a_restart_without_a_query() -> None:
    bench = Bench(state(stage=Stage.DOWNLOADING, file=FileId(0xFFFF, 0xFFFF, NEW)))
    assert bench.ask(block(500)) == [ImageBlock(FILE, 500, DATA[500:550])]
    other = replace(FILE, version=7)
    assert bench.ask(block(0, other)) == [ImageBlockRefused(Status.NO_IMAGE_AVAILABLE)]


@pytest.mark.parametrize(("hardware", "offered"), [(None, True), (0, False), (1, True), (3, True), (4, False)])
def test_hardware_versions(hardware: int | None, offered: bool) -> None:
    bench = Bench()
    (answer,) = bench.ask(replace(QUERY, hardware_version=hardware))
    assert isinstance(answer, QueryNextImageResponse)
    assert (answer.status == Status.SUCCESS) is offered
    assert (bench.session.stage is Stage.FAILED) is not offered
    assert ("wrong_hardware" in bench.codes) is not offered


def test_queries_of_another_image_of_the_node_disturb_nothing() -> None:
    bench = Bench(state(Want.INSTALL))
    bench.ask(QUERY)
    bench.ask(block(0))
    bench.ask(block(500))
    assert bench.ask(replace(QUERY, image_type=9, version=NEW), endpoint=3) == [NO_IMAGE]
    assert bench.ask(replace(QUERY, image_type=9, version=0), endpoint=3) == [NO_IMAGE]
    assert bench.ask(UpgradeEndRequest(Status.INVALID_IMAGE, replace(FILE, image_type=9)), 3) == [
        DefaultResponse(6, Status.SUCCESS)
    ]
    assert (bench.session.stage, bench.session.confirmed) == (Stage.DOWNLOADING, 500)
    assert bench.session.endpoint == 1
    assert bench.codes == []
    assert bench.ask(block(550)) == [ImageBlock(FILE, 550, DATA[550:600])]
    bench.ask(END)
    bench.session.rebooted(bench.now)
    bench.ask(replace(QUERY, image_type=9, version=OLD), endpoint=3)
    assert bench.facts[-1] is Fact.INSTALLING


def test_blocks_of_another_image_take_no_answer_of_this_one_and_provoke_nothing() -> None:
    bench = Bench()
    bench.wait(0.1)
    other = block(0, replace(FILE, image_type=9))
    bench.session.receive(request(block(0), 200), 1, bench.now)
    assert set(map(type, bench.ask(other, endpoint=3))) == {ImageBlock, ImageBlockRefused}
    assert bench.session.stage is Stage.DOWNLOADING
    assert ImageNotify(100) not in bench.wait(30)


def test_answers_go_to_the_endpoint_that_asked_and_notifications_to_the_client_of_the_image() -> None:
    bench = Bench()
    bench.session.receive(request(replace(QUERY, image_type=9), 7), 3, bench.now)
    assert {outgoing.endpoint for outgoing in bench.frames() if outgoing.frame[2] == 2} == {3}
    bench.ask(QUERY, endpoint=5)
    assert bench.session.endpoint == 5


def test_an_unknown_version_is_no_version() -> None:
    bench = Bench(state(Want.INSTALL))
    bench.ask(END)
    bench.session.rebooted(bench.now)
    assert bench.ask(replace(QUERY, version=WILDCARD_VERSION)) == [NO_IMAGE]
    assert bench.facts[-1] is Fact.INSTALLING


def test_a_node_that_holds_the_whole_file_already_ends_at_once() -> None:
    bench = Bench()
    assert bench.ask(QUERY) == [QueryNextImageResponse(Status.SUCCESS, FILE, len(DATA))]
    assert bench.ask(END) == [LATER]
    assert bench.facts[-2:] == [Fact.COMPLETE, Fact.READY]
    assert bench.ask(QUERY) == [QueryNextImageResponse(Status.SUCCESS, FILE, len(DATA))]  # after its reboot
    assert bench.ask(END) == [LATER]
    assert bench.session.stage is Stage.READY


def test_the_same_version_asked_again_is_answered_the_same() -> None:
    bench = Bench()
    for _ in range(3):
        assert bench.ask(replace(QUERY, version=NEW)) == [NO_IMAGE]
    assert bench.facts.count(Fact.RUNNING) == 1


def test_specific_files_are_not_there_and_take_no_blocks_place() -> None:
    bench = Bench()
    bench.ask(block(0))
    asked = QuerySpecificFileRequest(bytes(8), FILE, 2)
    assert bench.ask(asked) == [QuerySpecificFileResponse(Status.NO_IMAGE_AVAILABLE)]
    bench.session.receive(request(block(50), 200), 1, bench.now)
    answers = bench.ask(asked)
    assert ImageBlock(FILE, 50, DATA[50:100]) in answers
    assert QuerySpecificFileResponse(Status.NO_IMAGE_AVAILABLE) in answers


# -- ends -----------------------------------------------------------------------------------------------------------

CODES = {0x96: "invalid_image", 0x89: "no_space", 0x95: "aborted", 0x99: "require_more_image", 0x7E: "refused"}


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("status", range(1, 256))
def test_an_end_with_any_status_but_success(status: int, short: bool) -> None:
    bench = Bench()
    bench.ask(block(0))
    bench.ask(block(500))
    assert bench.ask(UpgradeEndRequest(status, None if short else FILE)) == [DefaultResponse(6, Status.SUCCESS)]
    assert (bench.session.stage, bench.session.confirmed) == (Stage.OFFERED, 0)
    assert bench.codes == [CODES.get(status, "refused")]


def test_an_image_that_is_refused_for_its_size_is_not_offered_for_ever() -> None:
    bench = Bench()
    for attempt in range(SessionLimits().max_failures):
        assert bench.session.stage is Stage.OFFERED, attempt
        bench.ask(QUERY)
        for _ in range(2):  # a repeat counts once
            assert bench.ask(UpgradeEndRequest(Status.INSUFFICIENT_SPACE, FILE)) == [DefaultResponse(6, Status.SUCCESS)]
    assert bench.session.stage is Stage.FAILED
    assert bench.codes[-1] == "no_space"


def test_an_end_repeated_every_hour_is_held_every_time_and_then_started() -> None:
    bench = Bench()
    bench.ask(block(950))
    for _ in range(48):
        assert bench.ask(END) == [LATER]
        assert bench.wait(3600) == []
    assert bench.facts.count(Fact.READY) == 1
    bench.session.direct(NodeDirective("t", NODE, 2, Want.INSTALL), bench.now)
    assert bench.sent() == [UpgradeEndResponse(FILE, 0, 0)]  # unsolicited
    assert bench.ask(END) == [UpgradeEndResponse(FILE, 0, 0)]  # it was lost


# -- versions after the order ---------------------------------------------------------------------------------------


def test_a_node_that_verifies_for_long_may_say_the_old_version_until_its_time_is_over() -> None:
    bench = Bench(state(Want.INSTALL), verify_s=900)
    bench.ask(END)
    for _ in range(29):  # silence of half a minute and more is no reboot
        bench.wait(31)
        assert bench.ask(QUERY) == [NO_IMAGE]
        assert bench.facts[-1] is Fact.INSTALLING
    bench.wait(31)
    bench.ask(QUERY)
    assert bench.facts[-1] is Fact.RUNNING


def test_the_time_to_verify_begins_when_the_node_is_told() -> None:
    bench = Bench(state(Want.INSTALL), verify_s=60)
    bench.session.receive(request(END, 1), 1, bench.now)
    for _ in range(30):
        for outgoing in bench.frames():
            bench.session.delivered(outgoing, False, bench.now)
        bench.now += 5
        bench.session.handle_timeout(bench.now)
    bench.ask(QUERY)
    assert bench.facts[-1] is Fact.INSTALLING


def test_the_new_version_after_an_old_one_is_told_too() -> None:
    bench = Bench(state(Want.INSTALL))
    bench.ask(END)
    bench.session.rebooted(bench.now)
    bench.ask(QUERY)
    bench.ask(replace(QUERY, version=NEW))
    assert bench.facts[-2:] == [Fact.RUNNING, Fact.RUNNING]


# -- models ---------------------------------------------------------------------------------------------------------


def test_stall_time_of_the_model() -> None:
    bench = Bench(stall_after_s=300.0)
    bench.ask(block(0))
    bench.wait(290)
    assert bench.codes == []
    bench.wait(20)
    assert bench.codes == ["silent"]


def test_wait_in_the_short_form_alone() -> None:
    held = ImageBlockRequest(FILE, 0, 50, None, 250)
    (answer,) = Bench(state(Want.HOLD), wait_short_form=True).ask(held)
    assert isinstance(answer, WaitForData)
    assert answer.minimum_block_period is None


@pytest.mark.parametrize(
    ("payload", "notify"),
    [
        (0, ImageNotify(100)),
        (1, ImageNotify(100, 0x1049)),
        (2, ImageNotify(100, 0x1049, 1)),
        (3, ImageNotify(100, 0x1049, 1, NEW)),
    ],
)
def test_notification_that_the_model_answers(payload: int, notify: ImageNotify) -> None:
    assert Bench(notify_payload=payload).wait(0.1) == [notify]


def test_a_question_for_the_version_names_no_version() -> None:
    bench = Bench(state(Want.INSTALL), notify_payload=3)
    bench.ask(END)
    bench.session.rebooted(bench.now)
    assert bench.wait(3) == [ImageNotify(100, 0x1049, 1)]


def test_page_requests_are_refused_for_a_model_that_does_them_badly() -> None:
    asked = ImagePageRequest(FILE, 0, 50, 512, 100)
    assert Bench(page_requests=False).ask(asked) == [DefaultResponse(4, Status.UNSUP_CLUSTER_COMMAND)]


# -- hostile --------------------------------------------------------------------------------------------------------

COMMANDS = [
    QUERY,
    block(500),
    ImageBlockRequest(FILE, 500, 50, bytes(8), 250),
    ImagePageRequest(FILE, 500, 50, 512, 50, bytes(8)),
    UpgradeEndRequest(Status.INVALID_IMAGE, FILE),
    END,
    QuerySpecificFileRequest(bytes(8), FILE, 2),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
@pytest.mark.parametrize("stage", [stage for stage in Stage if stage is not Stage.DROPPED])
def test_a_frame_cut_at_any_byte_changes_nothing(command: Command, stage: Stage) -> None:
    whole = request(command, 9)  # type: ignore[arg-type]  # client commands
    for length in range(len(whole)):
        if isinstance(command, UpgradeEndRequest) and command.status and length == 4:
            continue  # the one-byte form
        bench = Bench(state(stage=stage))
        bench.sent()
        before = bench.session.state()
        bench.session.receive(whole[:length], 1, bench.now)
        answers = [a for a in bench.sent() if not isinstance(a, ImageNotify | UpgradeEndResponse)]
        assert answers in ([], [DefaultResponse(whole[2], Status.MALFORMED_COMMAND)])
        assert bool(answers) == (length >= 3)
        assert bench.session.state() == before


@given(st.lists(st.tuples(st.binary(max_size=40), st.integers(0, 255)), max_size=8), st.sampled_from(Stage))
def test_no_bytes_raise_or_invent_progress(frames: list[tuple[bytes, int]], stage: Stage) -> None:
    bench = Bench(state(stage=stage))
    for frame, endpoint in frames:
        bench.session.receive(frame, endpoint, bench.now)
        bench.sent()
        bench.now += 1
        bench.session.handle_timeout(bench.now)
    assert 0 <= bench.session.confirmed <= len(DATA)
