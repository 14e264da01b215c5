"""What a session makes of the pacing, of block periods, and of a commit that the daemon refuses."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from radios.radio import Fact, ImageRef, NodeDirective, NodeId, Want
from radios.zigbee.air import ShareLimits
from radios.zigbee.block_period import is_worth_setting, period_for
from radios.zigbee.broadcast import Broadcasts
from radios.zigbee.ota_commands import (
    WAIT_FOREVER,
    Command,
    FileId,
    ImageBlock,
    ImageBlockRequest,
    ImageNotify,
    UpgradeEndRequest,
    UpgradeEndResponse,
    WaitForData,
)
from radios.zigbee.ota_frames import decode_command, decode_header, request
from radios.zigbee.ota_session import OtaSession
from radios.zigbee.pacing import Pacer, PacingLimits
from radios.zigbee.session_output import Outgoing, Purpose
from radios.zigbee.session_state import OtaImage, SessionLimits, SessionState, Stage
from radios.zigbee.settings import ZigbeeSettings
from radios.zigbee.tap import is_foreground

NODE = NodeId("zigbee:00124b0000000001")
FILE = FileId(0x1049, 0x0001, 0x00020000)
DATA = bytes(1000)
SLOW = PacingLimits(shares=ShareLimits(air_share=0.04))
END = UpgradeEndRequest(0, FILE)


class Bench:
    """`refuses`: the journal raises for a commit with the fact INSTALLING; `broken`: for every one."""

    def __init__(
        self,
        want: Want = Want.DELIVER,
        stage: Stage = Stage.OFFERED,
        pacer: Pacer | None = None,
        limits: SessionLimits | None = None,
    ) -> None:
        self.now = 1000.0
        self.refuses = self.broken = False
        self.facts: list[Fact] = []
        image = OtaImage(ImageRef("d" * 64, len(DATA), FILE.version), FILE)
        state = SessionState(NODE, "t", 1, want, None, image, stage)
        self.session = OtaSession(
            state, self.read, pacer or Pacer(PacingLimits()), limits or SessionLimits(), self.now, reconciled=True
        )

    def read(self, offset: int, length: int) -> bytes:
        return DATA[offset : offset + length]

    def pump(self) -> list[Outgoing]:
        """What the service does: commit until nothing is left, then send."""
        for _ in range(20):
            commit = self.session.pending_commit()
            if commit is None:
                return self.session.to_send(self.now)
            if self.broken or (self.refuses and any(event.fact is Fact.INSTALLING for event in commit.events)):
                if not self.session.refuse_install(self.now):
                    return []
                continue
            self.facts += [event.fact for event in commit.events]
            self.session.committed(commit)
        raise AssertionError("commits without end")

    def sent(self) -> list[Command]:
        return [decode_command(*decode_header(out.frame)) for out in self.pump()]

    def ask(self, command: ImageBlockRequest | UpgradeEndRequest) -> list[Command]:
        self.session.receive(request(command, 7), 1, self.now)
        return self.sent()

    def wait(self, seconds: float) -> list[Command]:
        end, sent = self.now + seconds, self.sent()
        while (deadline := self.session.next_deadline()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.session.handle_timeout(self.now)
            sent += self.sent()
            self.now += 0.001
        self.now = end
        return sent

    def direct(self, generation: int, want: Want = Want.INSTALL) -> list[Command]:
        self.session.direct(NodeDirective("t", NODE, generation, want), self.now)
        return self.sent()


HELD, NOW = UpgradeEndResponse(FILE, 0, WAIT_FOREVER), UpgradeEndResponse(FILE, 0, 0)


# -- a refused installation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("generation", [1, 2])
def test_an_installation_that_the_daemon_refuses_is_tried_again_by_the_next_directive(generation: int) -> None:
    bench = Bench(Want.INSTALL)
    bench.ask(ImageBlockRequest(FILE, 0, 50))
    bench.refuses = True
    assert bench.ask(END) == [HELD]  # it is told to wait, so that it starts nothing by itself
    assert bench.session.state().stage is Stage.READY
    assert bench.facts[-2:] == [Fact.COMPLETE, Fact.READY]
    assert bench.wait(3600) == []
    bench.refuses = False
    assert bench.wait(3600) == []  # not by itself
    assert bench.direct(generation) == [NOW]
    assert bench.facts[-1] is Fact.INSTALLING
    assert bench.session.state().stage is Stage.INSTALLING


def test_a_refusal_that_goes_on_tells_the_node_nothing() -> None:
    bench = Bench(Want.DELIVER, Stage.READY)
    bench.refuses = True
    for generation in range(2, 6):
        assert bench.direct(generation) == []
        assert bench.session.stage is Stage.READY
    assert Fact.INSTALLING not in bench.facts


def test_an_installation_whose_commit_failed_for_a_moment_is_begun_in_the_end() -> None:
    """It looks like a refusal, and the daemon has nothing new to say."""
    bench = Bench(Want.INSTALL)
    bench.ask(ImageBlockRequest(FILE, 0, 50))
    bench.refuses = True
    assert bench.ask(END) == [HELD]
    bench.refuses = False
    assert bench.wait(3 * 3600 - 1) == []
    assert bench.wait(2) == [NOW]
    assert bench.facts.count(Fact.INSTALLING) == 1


def test_a_refusal_is_of_the_image_that_the_node_held_then() -> None:
    bench = Bench(Want.INSTALL)
    bench.ask(ImageBlockRequest(FILE, 0, 50))
    bench.refuses = True
    assert bench.ask(END) == [HELD]
    bench.refuses = False
    bench.session.rebooted(bench.now)
    bench.ask(ImageBlockRequest(FILE, 0, 50))  # it has lost it, and what waited for the next try with it
    assert bench.ask(END) == [NOW]


def test_a_journal_that_fails_altogether_is_no_refusal() -> None:
    bench = Bench(Want.INSTALL)
    bench.ask(ImageBlockRequest(FILE, 0, 50))
    bench.broken = True
    assert bench.ask(END) == []
    bench.now += 2.0
    assert bench.sent() == []
    bench.broken = False
    assert bench.wait(10)[-1] == NOW
    assert bench.facts[-1] is Fact.INSTALLING


# -- block periods -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("revision", "wanted_s", "value"),
    [(1, 0.25, 250), (3, 0.25, 250), (2, 0.25, 0), (2, 3.7, 3), (1, 0.01, 0), (None, 1.0, None), (4, 1.0, None)],
)
def test_a_period_is_in_the_unit_of_the_clusters_revision(
    revision: int | None, wanted_s: float, value: int | None
) -> None:
    assert period_for(revision, wanted_s) == value


def test_only_a_period_that_is_far_off_is_worth_a_frame() -> None:
    assert is_worth_setting(0, 300)
    assert is_worth_setting(300, 0)
    assert not is_worth_setting(250, 300)
    assert not is_worth_setting(0, 0)


def offered(offset: int, period: int) -> ImageBlockRequest:
    return ImageBlockRequest(FILE, offset, 50, minimum_block_period=period)


def test_a_node_that_offers_it_is_given_a_period_once_and_its_block_then() -> None:
    bench = Bench(pacer=Pacer(SLOW))
    bench.session.cluster_revision = 3
    bench.wait(1.0)
    (answer,) = bench.ask(offered(0, 0))
    assert isinstance(answer, WaitForData)
    assert answer.request_s == 0
    assert answer.minimum_block_period is not None
    assert 300 <= answer.minimum_block_period <= 1000
    (block,) = bench.ask(offered(0, 0))  # it did not care: no second try
    assert isinstance(block, ImageBlock)
    bench.now += 30.0
    (block,) = bench.ask(offered(50, answer.minimum_block_period))
    assert isinstance(block, ImageBlock)


def test_a_node_that_was_slowed_down_is_let_go_when_the_air_is_free() -> None:
    bench = Bench()
    bench.session.cluster_revision = 2
    bench.wait(1.0)
    assert bench.ask(offered(0, 2)) == [WaitForData(0, 0, 0)]


@pytest.mark.parametrize("why", ["revision unknown", "not offered", "short form", "off"])
def test_where_a_period_must_not_be_set_there_is_none(why: str) -> None:
    limits = SessionLimits(wait_short_form=why == "short form", minimum_block_period=why != "off")
    bench = Bench(pacer=Pacer(SLOW), limits=limits)
    bench.session.cluster_revision = None if why == "revision unknown" else 3
    bench.wait(1.0)
    request_ = ImageBlockRequest(FILE, 0, 50) if why == "not offered" else offered(0, 0)
    (answer,) = bench.ask(request_)
    assert isinstance(answer, ImageBlock)
    bench.session.direct(NodeDirective("t", NODE, 2, Want.HOLD), bench.now)
    (held,) = bench.ask(request_)
    assert isinstance(held, WaitForData)
    expected = None if why in ("not offered", "short form") else 0  # its own
    assert held.minimum_block_period == expected


# -- places ------------------------------------------------------------------------------------------------------------


def test_a_node_without_a_place_is_notified_when_the_pacing_says_so() -> None:
    pacer = Pacer(PacingLimits(max_active_nodes=1))
    pacer.ask("other", 1000.0, 0, 1.0)
    bench = Bench(pacer=pacer)
    assert bench.wait(5.0) == []
    pacer.release("other")
    assert pacer.to_wake(bench.now) == [NODE]
    bench.session.invited(bench.now)
    assert bench.wait(0.1) == [ImageNotify(100)]
    assert pacer.invited == 1


def test_a_node_that_wants_its_place_no_more_gives_it_back() -> None:
    pacer = Pacer(PacingLimits(max_active_nodes=1))
    pacer.ask("other", 1000.0, 0, 1.0)
    bench = Bench(pacer=pacer)
    bench.wait(1.0)
    bench.direct(2, Want.HOLD)
    pacer.release("other")
    assert pacer.to_wake(bench.now) == []
    bench.session.invited(bench.now)
    assert pacer.invited == 0


def test_the_last_block_gives_the_place_to_the_next_node() -> None:
    pacer = Pacer(PacingLimits(max_active_nodes=1))
    bench = Bench(pacer=pacer)
    bench.wait(0.1)
    bench.ask(ImageBlockRequest(FILE, len(DATA) - 100, 50))
    assert pacer.active == 1
    bench.ask(ImageBlockRequest(FILE, len(DATA) - 50, 50))
    assert pacer.active == 0


def test_a_repeated_request_makes_the_next_blocks_ask_for_an_acknowledgement() -> None:
    pacer = Pacer(PacingLimits())
    bench = Bench(pacer=pacer)
    bench.wait(0.1)

    def acknowledged(offset: int) -> bool:
        bench.session.receive(request(ImageBlockRequest(FILE, offset, 50), 7), 1, bench.now)
        (out,) = [out for out in bench.pump() if out.purpose is Purpose.BLOCK]
        return out.acknowledged

    assert acknowledged(0)
    pacer.delivered(NODE, True, 0.02, bench.now)
    assert not acknowledged(50)
    assert acknowledged(50)
    assert acknowledged(100)


# -- broadcasts --------------------------------------------------------------------------------------------------------

OTHER = FileId(0x1049, 0x0002, 0x00020000)


def test_a_broadcast_names_the_image_and_lets_as_many_answer_as_there_are_places() -> None:
    broadcasts = Broadcasts(8)
    assert broadcasts.due([FILE] * 7, 6, 0.0) is None
    assert broadcasts.due([FILE] * 20 + [OTHER] * 9, 6, 10.0) == ImageNotify(30, *_of(FILE))
    assert broadcasts.due([FILE] * 20 + [OTHER] * 9, 6, 20.0) is None  # too soon for any
    assert broadcasts.due([FILE] * 20 + [OTHER] * 9, 6, 80.0) == ImageNotify(66, *_of(OTHER))
    assert broadcasts.due([FILE] * 20 + [OTHER] * 9, 6, 600.0) is None  # too soon for these
    assert broadcasts.due([FILE] * 20, 60, 1900.0) == ImageNotify(100, *_of(FILE))


def test_no_broadcasts_when_the_operator_wants_none() -> None:
    assert not Broadcasts(0).is_due_to_look(1e9)


def _of(file: FileId) -> tuple[int, int, int]:
    return file.manufacturer, file.image_type, file.version


# -- foreground --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "counts"),
    [
        (bytes.fromhex("18070a2100201c"), True),  # a report
        (bytes.fromhex("010701"), True),  # a command
        (bytes.fromhex("055f1107fd"), True),  # a manufacturer's command
        (bytes.fromhex("1007020000200a"), True),  # a write
        (bytes.fromhex("1007000400"), False),  # a read
        (bytes.fromhex("180701040000420141"), False),  # its answer
        (bytes.fromhex("18070b0a00"), False),  # a default response
        (bytes.fromhex("1c5f11070a0000"), True),  # a manufacturer's report
        (b"\x1c\x5f\x11", False),
        (b"", False),
    ],
)
def test_what_counts_as_the_sites_own_traffic(frame: bytes, counts: bool) -> None:
    assert is_foreground(frame) is counts


def test_quiet_hours_are_in_the_sites_time() -> None:
    summer = datetime(2026, 7, 1, 20, 30, tzinfo=UTC).timestamp()
    assert ZigbeeSettings("x", timezone=ZoneInfo("Europe/Berlin")).minute_of_day(summer) == 22 * 60 + 30
