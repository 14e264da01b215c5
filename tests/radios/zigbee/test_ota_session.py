"""What a session answers, in which order with the journal, and which facts it states."""

import struct
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from radios.errors import ImageError
from radios.radio import Fact, ImageRef, NodeDirective, NodeId, Want
from radios.zigbee.air import ShareLimits
from radios.zigbee.journal_codec import session_record, session_state
from radios.zigbee.ota_commands import (
    WAIT_FOREVER,
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
from radios.zigbee.quirks import Quirk
from radios.zigbee.session_output import Outgoing, Purpose
from radios.zigbee.session_state import OtaImage, SessionLimits, SessionState, Stage, Terms
from radios.zigbee.settings import quirk_table

NODE = NodeId("zigbee:00124b0000000001")
FILE = FileId(0x1049, 0x0001, 0x00020000)
OLD, NEW = 0x00010000, 0x00020000
DATA = bytes(range(256)) * 4
LIMITS = SessionLimits(verify_s=30.0, lost_after_s=600.0, max_failures=3)


def state(want: Want = Want.DELIVER, stage: Stage = Stage.OFFERED, confirmed: int = 0) -> SessionState:
    image = OtaImage(ImageRef("d" * 64, len(DATA), NEW), FILE, 1, 3)
    return SessionState(NODE, "t1", 1, want, None, image, stage, confirmed)


class Bench:
    """A session with the shell's part done as the contract says: commit, then send."""

    def __init__(
        self,
        start: SessionState | None = None,
        *,
        reconciled: bool = True,
        pacer: Pacer | None = None,
        quirks: tuple[Quirk, ...] = (),
    ) -> None:
        self.now = 1000.0
        self.facts: list[Fact] = []
        self.last_version: int | None = None
        self.stalls: list[str] = []
        self.broken = False
        self.image_gone = False
        self.tsn = 0
        start = start or state()
        file = start.image.file
        limits = quirk_table(quirks).limits(LIMITS, file.manufacturer, file.image_type, "SIM-1")
        self.session = OtaSession(
            start, self.read, pacer or Pacer(PacingLimits()), limits, self.now, reconciled=reconciled
        )

    def read(self, offset: int, length: int) -> bytes:
        if self.image_gone:
            raise ImageError("evicted")
        return DATA[offset : offset + length]

    def frames(self) -> list[Outgoing]:
        commit = self.session.pending_commit()
        if commit is not None and not self.broken:
            if commit.state.stage is not Stage.DROPPED:
                assert session_state(session_record(commit.state)) == commit.state
            self.facts += [event.fact for event in commit.events]
            self.last_version = commit.events[-1].version if commit.events else None
            self.session.committed(commit)
        frames = self.session.to_send(self.now)
        event = self.session.progress()
        if event is not None:
            if event.fact is Fact.STALLED:
                self.stalls.append(event.code)
            else:
                self.facts.append(event.fact)
        return frames

    def sent(self) -> list[Command]:
        return [decode_command(*decode_header(outgoing.frame)) for outgoing in self.frames()]

    def ask(self, command: Command) -> list[Command]:
        """The node sends a command; what is answered. Sequence numbers must match."""
        self.tsn = (self.tsn + 1) % 256
        self.session.receive(request(command, self.tsn), 1, self.now)  # type: ignore[arg-type]  # client commands
        frames = self.frames()
        for outgoing in frames:
            if outgoing.purpose in (Purpose.ANSWER, Purpose.BLOCK):
                assert decode_header(outgoing.frame)[0].tsn == self.tsn
        return [decode_command(*decode_header(outgoing.frame)) for outgoing in frames]

    def wait(self, seconds: float) -> list[Command]:
        """Time passes, deadline by deadline."""
        end = self.now + seconds
        sent = self.sent()
        while (deadline := self.session.next_deadline()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.session.handle_timeout(self.now)
            sent += self.sent()
        self.now = end
        return sent

    def direct(self, want: Want, generation: int = 2, install_at: datetime | None = None) -> list[Command]:
        self.session.direct(NodeDirective("t1", NODE, generation, want, install_at), self.now)
        return self.sent()

    def to_ready(self) -> None:
        self.ask(QUERY)
        self.ask(block(0))
        self.ask(block(len(DATA) - 50))
        self.ask(END)


QUERY = QueryNextImageRequest(0x1049, 0x0001, OLD, 2)
QUERY_NEW = replace(QUERY, version=NEW)
OFFER = QueryNextImageResponse(Status.SUCCESS, FILE, len(DATA))
NO_IMAGE = QueryNextImageResponse(Status.NO_IMAGE_AVAILABLE)
END = UpgradeEndRequest(Status.SUCCESS, FILE)
INSTALL_NOW = UpgradeEndResponse(FILE, 0, 0)
INSTALL_LATER = UpgradeEndResponse(FILE, 0, WAIT_FOREVER)


def block(offset: int, size: int = 50, file: FileId = FILE, period: int | None = None) -> ImageBlockRequest:
    return ImageBlockRequest(file, offset, size, None, period)


def test_whole_delivery_states_its_facts_in_order() -> None:
    bench = Bench()
    assert bench.wait(0.1) == [ImageNotify(100)]
    assert bench.ask(QUERY) == [OFFER]
    for offset in range(0, len(DATA), 50):
        assert bench.ask(block(offset)) == [ImageBlock(FILE, offset, DATA[offset : offset + 50])]
        assert bench.session.confirmed == offset
        bench.now += 0.5
    assert bench.ask(END) == [INSTALL_LATER]
    assert bench.facts[0] is Fact.PREPARING
    assert bench.facts[-2:] == [Fact.COMPLETE, Fact.READY]
    assert set(bench.facts[1:-2]) == {Fact.PROGRESS}
    assert bench.session.state().confirmed == len(DATA)


def test_progress_is_told_by_steps_or_from_time_to_time_and_at_once_after_a_stall() -> None:
    limits = replace(LIMITS, progress_interval_s=1, progress_step=0.2, max_progress_interval_s=30)
    session = OtaSession(state(), lambda at, n: DATA[at : at + n], Pacer(PacingLimits()), limits, 0.0, reconciled=True)

    def told(offset: int, now: float) -> int | None:
        session.receive(request(block(offset), 1), 1, now)
        event = session.progress()
        return None if event is None or event.fact is not Fact.PROGRESS else event.confirmed

    step = len(DATA) // 5
    assert told(0, 0.0) == 0
    assert told(step - 50, 20.0) is None  # too little
    assert told(step + 50, 20.1) == step + 50
    assert told(2 * step + 100, 20.2) is None  # too soon
    assert told(2 * step + 101, 21.2) == 2 * step + 101
    assert told(2 * step + 102, 51.1) is None
    assert told(2 * step + 103, 51.2) == 2 * step + 103
    session.refused(0x05, 0x80, 51.3)
    assert session.progress() is not None
    assert told(2 * step + 104, 51.4) == 2 * step + 104


def test_any_offset_is_served_without_a_query() -> None:
    bench = Bench()
    assert bench.ask(block(700)) == [ImageBlock(FILE, 700, DATA[700:750])]
    assert bench.session.confirmed == 700
    assert bench.ask(block(1000)) == [ImageBlock(FILE, 1000, DATA[1000:])]


@pytest.mark.parametrize("offset", [0, 1, 499, 500, len(DATA) - 1])
def test_a_restarted_daemon_serves_the_next_block_of_a_journalled_download(offset: int) -> None:
    before = Bench()
    before.ask(block(offset))
    after = Bench(session_state(session_record(before.session.state())), reconciled=False)
    assert after.ask(block(offset)) == [WaitForData(0, LIMITS.unreconciled_wait_s, None)]
    after.session.direct(NodeDirective("t1", NODE, 1, Want.DELIVER), after.now)
    assert after.ask(block(offset)) == [ImageBlock(FILE, offset, DATA[offset : offset + 50])]
    assert after.session.confirmed == offset
    assert ImageNotify(100) not in after.wait(300)  # a query would make it start at 0


def test_unreconciled_never_aborts_offers_or_installs() -> None:
    bench = Bench(state(Want.INSTALL, Stage.DOWNLOADING, 500), reconciled=False)
    assert isinstance(bench.ask(block(500))[0], WaitForData)
    assert bench.ask(QUERY) == [NO_IMAGE]
    assert bench.ask(END) == [INSTALL_LATER]
    assert Fact.INSTALLING not in bench.facts
    assert bench.wait(3600) == []


@pytest.mark.parametrize(
    ("manufacturer", "asked", "served"),
    [(0x1049, 255, 50), (0x1049, 20, 20), (4474, 64, 40), (4405, 64, 40), (4129, 128, 128)],
)
def test_block_size_limits(manufacturer: int, asked: int, served: int) -> None:
    file = replace(FILE, manufacturer=manufacturer)
    start = state()
    bench = Bench(replace(start, image=replace(start.image, file=file)))
    assert bench.ask(block(100, asked, file)) == [ImageBlock(file, 100, DATA[100 : 100 + served])]


def test_query_that_must_not_be_offered() -> None:
    bench = Bench()
    assert bench.ask(replace(QUERY, image_type=2)) == [NO_IMAGE]
    assert bench.stalls[-1] == "other_hardware"
    bench.session.terms = Terms(expires_at=bench.now)
    assert bench.ask(QUERY) == [NO_IMAGE]
    assert bench.stalls[-1] == "expired"
    bench.session.terms = Terms()
    assert bench.ask(replace(QUERY, hardware_version=4)) == [NO_IMAGE]
    assert bench.facts[-1] is Fact.FAILED
    assert bench.session.stage is Stage.FAILED


def test_a_node_that_has_the_version_is_done() -> None:
    bench = Bench()
    assert bench.ask(QUERY_NEW) == [NO_IMAGE]
    assert bench.facts[-1] is Fact.RUNNING
    assert bench.last_version == NEW


def test_page_requests_fall_back_and_specific_files_are_not_there() -> None:
    bench = Bench(quirks=(Quirk(model="*", page_requests=False),))
    assert bench.ask(ImagePageRequest(FILE, 0, 50, 512, 100)) == [DefaultResponse(4, Status.UNSUP_CLUSTER_COMMAND)]
    asked = QuerySpecificFileRequest(bytes(8), FILE, 0)
    assert bench.ask(asked) == [QuerySpecificFileResponse(Status.NO_IMAGE_AVAILABLE)]


def test_nonsense_gets_a_status_and_no_exception() -> None:
    bench = Bench()
    malformed = DefaultResponse(3, Status.MALFORMED_COMMAND)
    assert bench.ask(block(len(DATA))) == [malformed]
    assert bench.ask(block(2**32 - 1)) == [malformed]
    assert bench.ask(block(0, 0)) == [malformed]
    for frame, answer in (
        (b"\x01\x07\x03\x00\x49", malformed),
        (b"\x01\x07\x77", DefaultResponse(0x77, Status.UNSUP_CLUSTER_COMMAND)),
        (b"\x01\x07", None),
        (b"", None),
    ):
        bench.session.receive(frame, 1, bench.now)
        assert bench.sent() == ([] if answer is None else [answer])
    assert bench.session.confirmed == 0


def test_another_version_mid_way_is_ended_and_ours_offered() -> None:
    bench = Bench()
    bench.wait(0.1)
    refused = ImageBlockRefused(Status.NO_IMAGE_AVAILABLE)
    assert bench.ask(block(500, file=replace(FILE, version=0x00015000))) == [refused]
    assert ImageNotify(100) in bench.wait(LIMITS.notify_interval_s + 1)


def test_hold_waits_and_release_goes_on() -> None:
    bench = Bench()
    bench.ask(block(100))
    bench.direct(Want.HOLD)
    assert bench.ask(block(150)) == [WaitForData(0, LIMITS.hold_wait_s, None)]
    assert bench.ask(block(150, period=250)) == [WaitForData(0, LIMITS.hold_wait_s, 250)]
    assert bench.session.confirmed == 150
    assert bench.ask(QUERY) == [NO_IMAGE]
    assert bench.wait(3600) == []
    bench.direct(Want.DELIVER, 3)
    assert bench.ask(block(150)) == [ImageBlock(FILE, 150, DATA[150:200])]


def test_a_held_node_is_not_notified() -> None:
    bench = Bench(state(Want.HOLD))
    assert bench.wait(3600) == []


def test_older_and_equal_generations_change_nothing() -> None:
    bench = Bench()
    bench.direct(Want.HOLD, 5)
    bench.direct(Want.DELIVER, 4)
    bench.direct(Want.DELIVER, 5)
    assert isinstance(bench.ask(block(0))[0], WaitForData)


def test_queued_node_is_told_to_come_back() -> None:
    pacer = Pacer(PacingLimits(max_active_nodes=1))
    pacer.ask("other", 1000.0, 0, 1.0)
    bench = Bench(pacer=pacer)
    assert bench.ask(QUERY) == [OFFER]
    (answer,) = bench.ask(block(0))
    assert isinstance(answer, WaitForData)
    assert answer.request_s > 0
    pacer.release("other")
    assert bench.ask(block(0)) == [ImageBlock(FILE, 0, DATA[:50])]


def test_a_delayed_answer_goes_out_at_its_time() -> None:
    pacer = Pacer(PacingLimits(shares=ShareLimits(air_share=0.04)))
    bench = Bench(pacer=pacer)
    assert len(bench.ask(block(0))) == 1
    assert bench.ask(block(50)) == []
    assert bench.wait(1.0) == [ImageBlock(FILE, 50, DATA[50:100])]


def test_missing_image_waits_and_says_so() -> None:
    bench = Bench()
    bench.image_gone = True
    assert bench.ask(block(0)) == [WaitForData(0, LIMITS.image_unavailable_wait_s, None)]
    assert bench.stalls == ["image_unavailable"]
    bench.image_gone = False
    assert bench.ask(block(0)) == [ImageBlock(FILE, 0, DATA[:50])]


def test_a_fresh_start_lowers_what_is_confirmed() -> None:
    bench = Bench()
    bench.ask(QUERY)
    bench.ask(block(0))
    bench.ask(block(800))
    bench.ask(block(300))  # a late duplicate
    assert bench.session.confirmed == 800
    bench.ask(QUERY)
    bench.ask(block(0))
    assert bench.session.confirmed == 0


def test_failed_end_gets_a_default_response_and_is_limited() -> None:
    bench = Bench()
    failed = UpgradeEndRequest(Status.INVALID_IMAGE, FILE)
    for attempt in range(LIMITS.max_failures):
        bench.ask(block(0))
        bench.ask(block(500))
        assert bench.session.stage is Stage.DOWNLOADING, attempt
        assert bench.ask(failed) == [DefaultResponse(6, Status.SUCCESS)]
        assert bench.ask(failed) == [DefaultResponse(6, Status.SUCCESS)]  # a repeat counts once
        assert bench.session.confirmed == 0
    assert bench.facts[-1] is Fact.FAILED
    assert bench.session.state().code == "invalid_image"
    assert bench.ask(block(0)) == [ImageBlockRefused(Status.NO_IMAGE_AVAILABLE)]
    bench.direct(Want.DELIVER, 9)
    assert bench.ask(QUERY) == [OFFER]


def test_short_failed_end_is_understood() -> None:
    bench = Bench()
    bench.ask(block(500))
    assert bench.ask(UpgradeEndRequest(Status.ABORT)) == [DefaultResponse(6, Status.SUCCESS)]
    assert bench.stalls[-1] == "aborted"


def test_install_is_held_until_told_and_committed_before() -> None:
    bench = Bench()
    bench.to_ready()
    assert bench.ask(END) == [INSTALL_LATER]
    assert bench.facts[-1] is Fact.READY
    assert bench.direct(Want.INSTALL) == [INSTALL_NOW]
    assert bench.facts[-1] is Fact.INSTALLING
    assert bench.ask(END) == [INSTALL_NOW]  # a repeat gets the same answer
    assert bench.facts.count(Fact.INSTALLING) == 1


def test_no_install_without_a_commit() -> None:
    bench = Bench(state(Want.INSTALL))
    bench.ask(block(0))
    bench.broken = True
    assert bench.ask(END) == []
    assert bench.ask(END) == []
    assert bench.wait(100) == []
    bench.broken = False
    assert bench.wait(1) == [INSTALL_NOW]
    assert bench.facts[-3:] == [Fact.COMPLETE, Fact.READY, Fact.INSTALLING]


def test_install_waits_until_the_node_was_asked_what_a_new_firmware_may_lose() -> None:
    bench = Bench(state(Want.INSTALL))
    bench.session.unprepared()
    bench.to_ready()
    assert bench.ask(END) == [INSTALL_LATER]
    assert bench.wait(LIMITS.prepare_s - 1) == []
    bench.session.prepared(bench.now)
    assert bench.sent() == [INSTALL_NOW]


def test_install_does_not_wait_long_for_a_node_that_does_not_say_it() -> None:
    bench = Bench(state(Want.DELIVER))
    bench.session.unprepared()
    bench.to_ready()
    bench.wait(1000)
    assert bench.direct(Want.INSTALL) == []
    assert bench.wait(LIMITS.prepare_s - 1) == []
    assert bench.wait(1) == [INSTALL_NOW]


def test_what_a_node_is_asked_changes_no_hold() -> None:
    bench = Bench(state(Want.DELIVER))
    bench.session.unprepared()
    bench.to_ready()
    bench.session.prepared(bench.now)
    assert bench.sent() == []
    assert bench.direct(Want.INSTALL) == [INSTALL_NOW]


def test_install_waits_for_its_time_and_can_be_held_until_then() -> None:
    bench = Bench(state(Want.INSTALL))
    at = datetime.fromtimestamp(bench.now + 500, UTC)
    bench.direct(Want.INSTALL, 2, at)
    bench.to_ready()
    assert bench.wait(400) == []
    assert bench.ask(END) == [INSTALL_LATER]
    bench.direct(Want.HOLD, 3)
    assert bench.wait(200) == []
    assert bench.direct(Want.INSTALL, 4, at) == [INSTALL_NOW]


def test_an_undelivered_install_is_told_again() -> None:
    bench = Bench()
    bench.to_ready()
    bench.session.direct(NodeDirective("t1", NODE, 2, Want.INSTALL), bench.now)
    (outgoing,) = bench.frames()
    bench.session.delivered(outgoing, False, bench.now)
    assert bench.wait(LIMITS.install_retry_s - 1) == []
    assert bench.wait(2) == [INSTALL_NOW]


def test_a_sleepy_node_is_told_to_install_when_it_is_heard() -> None:
    bench = Bench()
    bench.to_ready()
    bench.session.direct(NodeDirective("t1", NODE, 2, Want.INSTALL), bench.now)
    for _ in range(6):
        for outgoing in bench.frames():
            bench.session.delivered(outgoing, False, bench.now)
        bench.now += 50
        bench.session.handle_timeout(bench.now)
    for outgoing in bench.frames():
        bench.session.delivered(outgoing, False, bench.now)
    bench.now += 1
    bench.session.heard(bench.now)
    assert INSTALL_NOW in bench.wait(0.1)


def scheduled(in_s: float) -> Bench:
    """A sleepy node that holds the image, to be installed at a time."""
    bench = Bench(state(Want.INSTALL))
    bench.session.sleeps = True
    bench.direct(Want.INSTALL, 2, datetime.fromtimestamp(bench.now + in_s, UTC))
    bench.to_ready()
    return bench


def test_a_sleepy_node_is_told_its_time_before_and_can_be_held_until_then() -> None:
    bench = scheduled(1000)
    assert bench.ask(END) == [INSTALL_LATER]
    assert bench.wait(600) == []
    bench.direct(Want.HOLD, 3)
    assert bench.wait(200) == []
    at = datetime.fromtimestamp(bench.now + 200, UTC)
    assert bench.direct(Want.INSTALL, 4, at) == [UpgradeEndResponse(FILE, 0, 200)]
    assert bench.facts[-1] is Fact.INSTALLING
    assert bench.wait(50) == []
    assert bench.ask(END) == [UpgradeEndResponse(FILE, 0, 150)], "whoever asks again is told what is left"


def test_a_scheduled_install_is_told_when_its_time_is_near() -> None:
    bench = scheduled(1000)
    assert bench.wait(1000 - LIMITS.hand_out_s - 1) == []
    assert bench.wait(1) == [UpgradeEndResponse(FILE, 0, 300)]
    assert bench.wait(300 + LIMITS.probe_installing_after_s - 1) == [], "nor is it asked for its version before"
    assert bench.wait(1) == [ImageNotify(100)]


def test_a_frame_that_did_not_arrive_is_repeated_with_what_is_left() -> None:
    bench = scheduled(1000)
    bench.session.handle_timeout(bench.now)
    bench.now += 990.5
    bench.session.handle_timeout(bench.now)
    (outgoing,) = bench.frames()
    assert decode_command(*decode_header(outgoing.frame)) == UpgradeEndResponse(FILE, 0, 10)
    bench.session.delivered(outgoing, False, bench.now)
    assert bench.wait(LIMITS.install_retry_s) == [UpgradeEndResponse(FILE, 0, 5)]


def test_a_reboot_before_its_time_is_no_rollback_and_it_is_told_again() -> None:
    bench = scheduled(200)
    bench.now += 50
    bench.session.rebooted(bench.now)
    assert bench.ask(QUERY) == [NO_IMAGE]
    assert bench.facts[-1] is Fact.INSTALLING
    assert UpgradeEndResponse(FILE, 0, 150) in bench.wait(2)
    bench.wait(160)
    bench.session.rebooted(bench.now)
    bench.ask(QUERY)
    assert (bench.facts[-1], bench.last_version) == (Fact.RUNNING, OLD)


def test_a_scheduled_install_that_a_restart_finds_is_told_again() -> None:
    found = replace(state(Want.INSTALL, Stage.INSTALLING, len(DATA)), install_at=1100.0)
    bench = Bench(found, reconciled=False)
    bench.session.sleeps = True
    at = datetime.fromtimestamp(1100.0, UTC)
    bench.direct(Want.INSTALL, 1, at)
    assert UpgradeEndResponse(FILE, 0, 95) in bench.wait(LIMITS.install_retry_s)


def test_new_version_proves_the_install() -> None:
    bench = Bench(state(Want.INSTALL))
    bench.to_ready()
    bench.now += 5
    assert bench.ask(QUERY_NEW) == [NO_IMAGE]
    assert bench.facts[-1] is Fact.RUNNING
    assert bench.last_version == NEW
    bench.ask(QUERY_NEW)
    assert bench.facts.count(Fact.RUNNING) == 1


def test_old_version_counts_only_after_the_reboot() -> None:
    bench = Bench(state(Want.INSTALL))
    bench.to_ready()
    bench.now += 1
    assert bench.ask(QUERY) == [NO_IMAGE]
    assert bench.facts[-1] is Fact.INSTALLING
    bench.session.rebooted(bench.now)
    assert bench.wait(3) == [ImageNotify(100)]
    assert bench.ask(QUERY) == [NO_IMAGE]
    assert bench.facts[-1] is Fact.RUNNING
    assert bench.last_version == OLD


def test_old_version_counts_when_the_time_to_verify_is_over() -> None:
    bench = Bench(state(Want.INSTALL))
    bench.to_ready()
    bench.wait(31)
    bench.session.version_read(OLD, bench.now)
    assert Fact.RUNNING not in bench.facts  # an attribute that was read says nothing of silence by itself
    bench.session.heard(bench.now)
    bench.session.version_read(OLD, bench.now)
    bench.sent()
    assert bench.facts[-1] is Fact.RUNNING


def test_rollback_after_the_new_version_ran() -> None:
    bench = Bench(state(Want.INSTALL))
    bench.to_ready()
    bench.ask(QUERY_NEW)
    bench.session.rebooted(bench.now)
    assert bench.ask(QUERY) == [NO_IMAGE]
    assert bench.facts[-2:] == [Fact.RUNNING, Fact.RUNNING]
    assert bench.last_version == OLD


def test_a_node_that_stays_away_is_lost_until_it_comes_back() -> None:
    bench = Bench(state(Want.INSTALL))
    bench.to_ready()
    bench.wait(LIMITS.lost_after_s + 1)
    assert bench.facts[-1] is Fact.FAILED
    assert bench.session.state().code == "lost"
    bench.ask(QUERY_NEW)
    assert bench.facts[-1] is Fact.RUNNING


def test_timers_due_together_do_not_trip_over_each_other() -> None:
    bench = Bench(state(Want.INSTALL))
    bench.to_ready()
    bench.now += 10 * LIMITS.lost_after_s  # a suspended machine: every timer at once
    bench.session.handle_timeout(bench.now)
    bench.sent()
    assert bench.facts[-1] is Fact.FAILED


def test_installing_is_resumed_after_a_restart() -> None:
    bench = Bench(replace(state(Want.INSTALL, Stage.INSTALLING, len(DATA))), reconciled=False)
    assert bench.wait(100) == []
    bench.direct(Want.INSTALL, 1)
    sent = bench.wait(20)
    assert sent[0] == ImageNotify(100)  # it may run already: ask first
    assert INSTALL_NOW in sent
    assert Fact.INSTALLING not in bench.facts  # it was journalled before


def test_failure_of_the_install_itself() -> None:
    bench = Bench(state(Want.INSTALL))
    bench.to_ready()
    assert bench.ask(UpgradeEndRequest(Status.INVALID_IMAGE, FILE)) == [DefaultResponse(6, Status.SUCCESS)]
    assert bench.facts[-1] is Fact.FAILED


def test_drop_aborts_a_running_download() -> None:
    bench = Bench()
    bench.ask(block(100))
    bench.direct(Want.DROP)
    assert Fact.DROPPED not in bench.facts
    assert bench.ask(block(150)) == [ImageBlockRefused(Status.ABORT)]
    assert bench.facts[-1] is Fact.DROPPED
    assert session_record(bench.session.state()).value == b""
    assert bench.ask(block(150)) == [ImageBlockRefused(Status.ABORT)]
    assert bench.ask(QUERY_NEW) == [NO_IMAGE]
    assert bench.facts[-1] is Fact.DROPPED


def test_drop_of_an_idle_node_is_done_at_once() -> None:
    bench = Bench()
    bench.direct(Want.DROP)
    assert bench.facts[-1] is Fact.DROPPED
    assert bench.wait(3600) == []


def test_drop_does_not_wait_for_ever() -> None:
    bench = Bench()
    bench.ask(block(100))
    bench.direct(Want.DROP)
    bench.wait(LIMITS.drop_after_s + 1)
    assert bench.facts[-1] is Fact.DROPPED


def test_notifications_back_off_and_stop_in_mid_download() -> None:
    bench = Bench()
    assert 4 <= len(bench.wait(120)) <= 8
    assert bench.stalls == ["silent"]
    bench.ask(QUERY)
    bench.ask(block(0))
    for _ in range(100):
        bench.now += 2
        bench.session.heard(bench.now)
        assert bench.ask(block(50)) == [ImageBlock(FILE, 50, DATA[50:100])]


def test_a_stalled_download_says_so_and_is_offered_again_late() -> None:
    bench = Bench()
    bench.ask(block(100))
    assert bench.wait(LIMITS.stall_after_s + 1) == []
    assert bench.stalls == ["silent"]
    assert bench.wait(LIMITS.renotify_stalled_after_s - 10) == []
    assert bench.wait(20)[0] == ImageNotify(100)
    assert bench.ask(block(150)) == [ImageBlock(FILE, 150, DATA[150:200])]


def test_a_sleepy_node_is_offered_when_it_is_heard() -> None:
    bench = Bench()
    bench.wait(600)  # notifications that found it asleep
    bench.session.handle_timeout(bench.now)
    bench.sent()
    bench.now += 400
    bench.session.heard(bench.now)
    assert bench.wait(0.1) == [ImageNotify(100)]


def test_expired_transfer_is_not_offered_but_finished() -> None:
    bench = Bench()
    bench.session.terms = Terms(expires_at=bench.now)
    assert bench.wait(3600) == []
    assert bench.ask(block(0)) == [ImageBlockRefused(Status.NO_IMAGE_AVAILABLE)]
    assert bench.ask(block(500)) == [ImageBlock(FILE, 500, DATA[500:550])]


def test_a_refusal_by_default_response_is_reported() -> None:
    bench = Bench()
    bench.session.refused(0x00, Status.UNSUP_CLUSTER_COMMAND, bench.now)
    bench.sent()
    assert bench.stalls == ["refused"]


def test_stale_answers_are_not_sent() -> None:
    bench = Bench(state(Want.DELIVER))
    bench.broken = True
    bench.ask(block(0))
    bench.ask(END)
    bench.now += 60
    bench.broken = False
    assert bench.sent() == []


def test_block_frames_are_exact() -> None:
    bench = Bench()
    bench.session.receive(request(block(10, 3), 0x33), 1, bench.now)
    (outgoing,) = bench.frames()
    expected = b"\x19\x33\x05\x00" + struct.pack("<HHLLB", 0x1049, 1, NEW, 10, 3) + DATA[10:13]
    assert outgoing.frame == expected
