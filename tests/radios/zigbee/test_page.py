"""Page requests: what goes out, when, what ends it, and whole downloads by pages over a lossy mesh."""

import itertools
from dataclasses import replace

import pytest

from radios.radio import ImageRef, NodeDirective, NodeId, Want
from radios.simulated.zigbee.node_spec import NodeSpec
from radios.simulated.zigbee.ota_terms import OtaHabits, OtaTiming
from radios.zigbee.air import ShareLimits
from radios.zigbee.ota_commands import (
    Command,
    DefaultResponse,
    FileId,
    ImageBlock,
    ImageBlockRefused,
    ImageBlockRequest,
    ImagePageRequest,
    Status,
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
from tests.support.zigbee_downloads import EUI64, download

NODE = NodeId("zigbee:00124b0000000001")
FILE = FileId(0x1049, 0x0001, 0x00020000)
DATA = bytes(range(256)) * 8


class Bench:
    """A session whose frames are delivered after `takes_s`, commits at once."""

    def __init__(self, limits: SessionLimits | None = None, pacer: Pacer | None = None, *, reconciled: bool = True):
        self.now, self.tsn, self.takes_s, self.ok = 1000.0, 0, 0.0, True
        state = SessionState(
            NODE, "t", 1, Want.DELIVER, None, OtaImage(ImageRef("d" * 64, len(DATA), FILE.version), FILE), Stage.OFFERED
        )
        self.pacer = pacer or Pacer(PacingLimits())
        self.pacer.route(NODE, 1)
        self.session = OtaSession(
            state, self.read, self.pacer, limits or SessionLimits(), self.now, reconciled=reconciled
        )
        self.sent: list[tuple[float, Outgoing]] = []
        self._under_way: list[tuple[float, Outgoing]] = []

    def read(self, offset: int, length: int) -> bytes:
        return DATA[offset : offset + length]

    def page(self, offset: int = 0, size: int = 500, spacing_ms: int = 50, most: int = 50) -> list[Command]:
        return self.ask(ImagePageRequest(FILE, offset, most, size, spacing_ms))

    def ask(self, command: ImagePageRequest | ImageBlockRequest | UpgradeEndRequest) -> list[Command]:
        """What is answered at once."""
        self.tsn += 1
        self.session.receive(request(command, self.tsn), 1, self.now)
        before = len(self.sent)
        self._pump()
        return [decode_command(*decode_header(out.frame)) for _, out in self.sent[before:]]

    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        self._pump()
        while True:
            times = [at for at, _ in self._under_way]
            deadline = self.session.next_deadline()
            if deadline is not None:
                times.append(deadline)
            if not times or min(times) > end:
                break
            self.now = max(self.now, min(times))
            for item in [item for item in self._under_way if item[0] <= self.now]:
                self._under_way.remove(item)
                self.session.delivered(item[1], self.ok, self.now)
            self.session.handle_timeout(self.now)
            self._pump()
        self.now = end

    def direct(self, want: Want) -> None:
        self.session.direct(NodeDirective("t", NODE, 2, want), self.now)
        self._pump()

    def blocks(self) -> list[tuple[float, int, int]]:
        """When, offset, length, of the blocks of pages."""
        found = []
        for at, out in self.sent:
            command = decode_command(*decode_header(out.frame))
            if out.purpose is Purpose.PAGE and isinstance(command, ImageBlock):
                assert command.data == DATA[command.offset : command.offset + len(command.data)]
                found.append((at, command.offset, len(command.data)))
        return found

    def _pump(self) -> None:
        commit = self.session.pending_commit()
        if commit is not None:
            self.session.committed(commit)
        for out in self.session.to_send(self.now):
            self.sent.append((self.now, out))
            if out.purpose is not Purpose.NOTIFY:
                self._under_way.append((self.now + self.takes_s, out))


def test_a_page_is_blocks_in_order_spaced_as_asked_without_acknowledgement() -> None:
    bench = Bench()
    bench.page(100, 220, 50)
    bench.wait(5)
    assert [(offset, length) for _, offset, length in bench.blocks()] == [
        (100, 50),
        (150, 50),
        (200, 50),
        (250, 50),
        (300, 20),
    ]
    times = [at for at, _, _ in bench.blocks()]
    assert all(later - earlier == pytest.approx(0.05) for earlier, later in itertools.pairwise(times))
    assert not any(out.acknowledged for _, out in bench.sent if out.purpose is Purpose.PAGE)
    assert {decode_header(out.frame)[0].tsn for _, out in bench.sent if out.purpose is Purpose.PAGE} == {bench.tsn}


def test_a_page_ends_with_the_file_and_blocks_keep_both_limits_of_size() -> None:
    bench = Bench()
    bench.page(len(DATA) - 90, 65535, 10, most=64)
    bench.wait(5)
    assert [(offset, length) for _, offset, length in bench.blocks()] == [
        (len(DATA) - 90, 50),
        (len(DATA) - 40, 40),
    ]
    bench.page(0, 60, 10, most=30)
    bench.wait(5)
    assert [length for _, _, length in bench.blocks()[2:]] == [30, 30]


def test_what_was_sent_proves_nothing_and_the_next_request_does() -> None:
    bench = Bench()
    bench.page(0, 500)
    bench.wait(5)
    assert len(bench.blocks()) == 10
    assert bench.session.confirmed == 0
    bench.page(500, 500)
    assert bench.session.confirmed == 500


def test_the_pacing_spaces_a_page_too() -> None:
    bench = Bench(pacer=Pacer(PacingLimits(shares=ShareLimits(air_share=0.04))))
    bench.page(0, 500, 0)
    bench.wait(20)
    times = [at for at, _, _ in bench.blocks()]
    assert len(times) == 10
    assert times[-1] - times[0] >= 9 * 0.0056 / 0.04 - 0.1


def test_never_two_blocks_of_a_page_in_the_dongle_at_once() -> None:
    bench = Bench()
    bench.takes_s = 0.3
    bench.page(0, 500, 10)
    bench.wait(10)
    times = [at for at, _, _ in bench.blocks()]
    assert len(times) == 10
    assert all(later - earlier >= 0.299 for earlier, later in itertools.pairwise(times))


def test_a_request_takes_the_place_of_the_page_that_runs() -> None:
    bench = Bench()
    bench.page(0, 1000, 50)
    bench.wait(0.12)
    assert bench.ask(ImageBlockRequest(FILE, 50, 50)) == [ImageBlock(FILE, 50, DATA[50:100])]
    bench.wait(5)
    assert len(bench.blocks()) == 3
    bench.page(100, 200, 50)
    bench.wait(0.06)
    bench.page(1000, 100, 50)
    bench.wait(5)
    assert [offset for _, offset, _ in bench.blocks()[3:]] == [100, 150, 1000, 1050]


@pytest.mark.parametrize("want", [Want.HOLD, Want.DROP])
def test_hold_and_drop_end_a_page(want: Want) -> None:
    bench = Bench()
    bench.page(0, 1000, 50)
    bench.wait(0.12)
    bench.direct(want)
    bench.wait(5)
    assert len(bench.blocks()) == 3
    (answer,) = bench.page(150)
    assert isinstance(answer, WaitForData if want is Want.HOLD else ImageBlockRefused)


def test_a_page_ends_when_the_node_ends_the_download() -> None:
    bench = Bench()
    bench.page(0, 1000, 50)
    bench.wait(0.12)
    (answer,) = bench.ask(UpgradeEndRequest(Status.SUCCESS, FILE))
    assert isinstance(answer, UpgradeEndResponse)
    bench.wait(5)
    assert len(bench.blocks()) == 3


def test_a_page_ends_when_a_block_is_not_delivered() -> None:
    bench = Bench()
    bench.ok = False
    bench.page(0, 1000, 50)
    bench.wait(5)
    assert len(bench.blocks()) == 1


def test_a_page_that_would_take_for_ever_is_cut() -> None:
    bench = Bench()
    bench.page(0, 65535, 65535)
    bench.wait(3600)
    assert len(bench.blocks()) == 1


def test_a_node_that_is_not_reconciled_is_told_to_wait() -> None:
    bench = Bench(reconciled=False)
    (answer,) = bench.page(0)
    assert isinstance(answer, WaitForData)


def test_a_page_above_the_cap_is_told_to_come_back() -> None:
    pacer = Pacer(PacingLimits(max_active_nodes=1))
    pacer.ask("other", 1000.0, 0, 1.0)
    (answer,) = Bench(pacer=pacer).page(0)
    assert isinstance(answer, WaitForData)
    assert answer.request_s > 0


def test_pages_that_are_turned_off_are_refused() -> None:
    assert Bench(SessionLimits(page_requests=False)).page(0) == [DefaultResponse(4, Status.UNSUP_CLUSTER_COMMAND)]
    assert ZigbeeSettings("x", page_requests=False).session_limits.page_requests is False


@pytest.mark.parametrize("wrong", [{"offset": len(DATA)}, {"offset": 2**32 - 1}, {"size": 0}, {"most": 0}])
def test_a_page_of_nothing_is_malformed(wrong: dict[str, int]) -> None:
    bench = Bench()
    assert bench.page(**wrong) == [DefaultResponse(4, Status.MALFORMED_COMMAND)]
    bench.wait(5)
    assert bench.blocks() == []


def test_a_page_request_with_an_eui64_and_cut_at_each_byte() -> None:
    bench = Bench()
    bench.wait(0)
    whole = request(ImagePageRequest(FILE, 0, 50, 100, 10, bytes(range(8))), 9)
    for length in range(3, len(whole)):
        bench.session.receive(whole[:length], 1, bench.now)
        (answer,) = [out for out in bench.session.to_send(bench.now) if out.purpose is Purpose.ANSWER]
        assert answer.frame[2:] == bytes((0x0B, 0x04, Status.MALFORMED_COMMAND))
    bench.session.receive(whole, 1, bench.now)
    bench.wait(5)
    assert len(bench.blocks()) == 2


HABITS = OtaHabits(page_size=1000, page_spacing_ms=40)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("habits", [HABITS, replace(HABITS, tells_eui64=True, page_spacing_ms=0)])
def test_whole_downloads_by_pages_over_a_lossy_mesh_end_with_every_byte(habits: OtaHabits, seed: int) -> None:
    timing = OtaTiming(boot_query_delay_s=(1e6, 1e6), verify_s=1e6)
    specs = [
        NodeSpec(EUI64 + at, hops=1 + at % 3, loss=0.05, mac_loss=0.05, habits=habits, timing=timing, seed=seed)
        for at in range(5)
    ]
    site = download(specs, ZigbeeSettings("simulated"), seed=seed)
    for node in site.mesh.nodes.values():
        counters = node.counters
        assert counters.blocks_received >= 80
        assert counters.requests_sent < counters.blocks_received  # by pages, and not one request for each block
        assert counters.downloads_thrown_away == 0


def test_nodes_fall_back_to_blocks_when_pages_are_turned_off() -> None:
    timing = OtaTiming(boot_query_delay_s=(1e6, 1e6), verify_s=1e6)
    specs = [NodeSpec(EUI64 + at, habits=HABITS, timing=timing) for at in range(2)]
    site = download(specs, ZigbeeSettings("simulated", page_requests=False))
    assert all(node.counters.requests_sent >= 80 for node in site.mesh.nodes.values())
