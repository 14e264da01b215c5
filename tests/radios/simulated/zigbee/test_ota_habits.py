"""What clients of different makers do differently: pages, block periods, short forms, what their attributes say."""

import struct
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from radios.simulated.zigbee.frames import ApsFrame
from radios.simulated.zigbee.ota_terms import OtaHabits, OtaState, OtaTiming

MANUFACTURER, IMAGE_TYPE, OLD, NEW = 0x1049, 0x0001, 0x0001_0000, 0x0002_0000
QUERY, BLOCK, PAGE, END, SPECIFIC = 0x01, 0x03, 0x04, 0x06, 0x08
PAGES = OtaHabits(page_size=400, page_spacing_ms=50)

MakeLab = Any
Lab = Any


def updated(lab: Lab) -> bool:
    return bool(lab.node.running_version == NEW)


def serve_pages(lab: Lab, *, leave_out: frozenset[int] = frozenset(), backwards: bool = False) -> None:
    """Blocks of a page go out by themselves, spaced as asked; `leave_out` are offsets that never come in a page."""

    def answer(command: int, request: bytes) -> bytes | None:
        if command != PAGE:
            return None
        offset, most, page, spacing_ms = struct.unpack_from("<IBHH", request, 9)
        end = min(offset + page, len(lab.file))
        offsets = list(range(offset, end, most))
        if backwards:
            offsets.reverse()
        for number, at in enumerate(offsets):
            if at not in leave_out:
                data = lab.file[at : min(at + most, end)]
                lab.mesh.call_at(
                    lab.now + (number + 1) * spacing_ms / 1000,
                    lambda when, at=at, data=data: lab.send(0x05, lab.block(at, data=data)),
                )
        return b""

    lab.override = answer


def attributes(lab: Lab, *identifiers: int) -> dict[int, int]:
    """Read attributes of the OTA cluster as a host does; what is unsupported is missing."""
    lab.other.clear()
    payload = bytes((0x00, 0x77, 0x00)) + struct.pack(f"<{len(identifiers)}H", *identifiers)
    lab._sequence = (lab._sequence + 1) % 256  # the APS counter: a repeated one is dropped
    frame = ApsFrame(0x0104, 0x0019, 1, 1, payload, lab._sequence)
    lab.mesh.unicast(lab.node.nwk, frame, lab.now, acknowledged=False, done=lambda _: None)
    lab.run(0.1)
    answer = next(f.payload[3:] for f in lab.other if f.payload[2] == 0x01)
    values, at = {}, 0
    sizes = {0x30: 1, 0x21: 2, 0x23: 4, 0xF0: 8}
    while at < len(answer):
        identifier, status = struct.unpack_from("<HB", answer, at)
        at += 3
        if status == 0:
            size = sizes[answer[at]]
            values[identifier] = int.from_bytes(answer[at + 1 : at + 1 + size], "little")
            at += 1 + size
    return values


@pytest.mark.parametrize("backwards", [False, True])
def test_a_page_is_asked_once_and_its_blocks_come_by_themselves(make_lab: MakeLab, backwards: bool) -> None:
    lab = make_lab(habits=PAGES)
    serve_pages(lab, backwards=backwards)
    lab.run(120, lambda: updated(lab))
    assert lab.node.running_image == lab.file
    assert lab.commands().count(PAGE) == -(-len(lab.file) // 400)
    assert BLOCK not in lab.commands()
    first = next(request for _, command, request in lab.asked if command == PAGE)
    assert first == struct.pack("<BHHIIBHH", 0, MANUFACTURER, IMAGE_TYPE, NEW, 0, 50, 400, 50)
    assert lab.node.counters.bytes_received == len(lab.file)


def test_what_a_page_left_out_is_asked_by_block(make_lab: MakeLab) -> None:
    lab = make_lab(habits=PAGES)
    missing = frozenset({0, 100, 350, 400, 450, 500, 1950})
    serve_pages(lab, leave_out=missing)
    lab.run(120, lambda: updated(lab))
    assert lab.node.running_image == lab.file
    assert sorted(lab.offsets()) == sorted(missing)
    assert lab.node.counters.bytes_received_twice == 0


@pytest.mark.parametrize("status", [0x81, 0x80, 0x01])
def test_a_refused_page_makes_it_ask_by_block_for_good(make_lab: MakeLab, status: int) -> None:
    lab = make_lab(habits=PAGES)

    def refuse(command: int, request: bytes) -> bytes | None:
        if command != PAGE:
            return None
        frame = ApsFrame(0x0104, 0x0019, 1, 1, bytes((0x18, 5, 0x0B, PAGE, status)), 200)
        lab.mesh.unicast(lab.node.nwk, frame, lab.now, acknowledged=False, done=lambda _: None)
        return b""

    lab.override = refuse
    lab.run(60, lambda: updated(lab))
    assert lab.node.running_image == lab.file
    assert lab.commands().count(PAGE) == 1


def test_pages_that_nobody_answers_end_in_blocks_too(make_lab: MakeLab) -> None:
    lab = make_lab(habits=PAGES)
    lab.override = lambda command, request: b"" if command == PAGE else None
    lab.run(120, lambda: updated(lab))
    assert lab.node.running_image == lab.file
    assert lab.commands().count(PAGE) == 3


def test_a_page_that_is_answered_with_wait_is_asked_again(make_lab: MakeLab) -> None:
    lab = make_lab(habits=PAGES)
    serve_pages(lab)
    serve, told = lab.override, []

    def wait_once(command: int, request: bytes) -> bytes | None:
        if command == PAGE and not told:
            told.append(lab.now)
            lab.send(0x05, struct.pack("<BIIH", 0x97, 0, 20, 0))
            return b""
        return serve(command, request)  # type: ignore[no-any-return]

    lab.override = wait_once
    lab.run(120, lambda: updated(lab))
    assert lab.node.running_image == lab.file
    again = next(at for at, command, _ in lab.asked if command == PAGE and at > told[0])
    assert again - told[0] == pytest.approx(20, abs=0.1)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    loss=st.sampled_from([0.0, 0.1, 0.4]),
    page=st.integers(1, 1500),
    block=st.integers(1, 64),
    reboots=st.lists(st.floats(5, 30), max_size=3),
    seed=st.integers(0, 100),
)
def test_pages_end_with_the_very_bytes_whatever_is_lost(
    make_lab: MakeLab, loss: float, page: int, block: int, reboots: list[float], seed: int
) -> None:
    lab = make_lab(habits=OtaHabits(page_size=page, page_spacing_ms=20), loss=loss, block_size=block, seed=seed)
    serve_pages(lab)
    lab.answer = answer_in_blocks(lab)
    for at in sorted(reboots):
        lab.run(max(0.0, 1_700_000_000.0 + at - lab.now))
        if not lab.node.bootloader.on_trial:  # that would be a rollback
            lab.mesh.reboot(lab.node, lab.now)
    lab.run(20_000, lambda: updated(lab))
    assert lab.node.running_image == lab.file
    assert lab.node.counters.bytes_received_twice == 0


def answer_in_blocks(lab: Lab) -> Any:
    """The lab's server gives out 50 bytes; these clients ask for other sizes."""
    plain = lab.answer

    def answer(command: int, request: bytes) -> bytes:
        if command == BLOCK:
            offset, most = struct.unpack_from("<IB", request, 9)
            return lab.block(offset, data=lab.file[offset : offset + most])  # type: ignore[no-any-return]
        return plain(command, request)  # type: ignore[no-any-return]

    return answer


@pytest.mark.parametrize(("revision", "period", "gap_s"), [(1, 300, 0.3), (3, 300, 0.3), (2, 3, 3.0), (None, 300, 0.3)])
def test_the_unit_of_the_block_period_is_the_cluster_revisions(
    make_lab: MakeLab, revision: int | None, period: int, gap_s: float
) -> None:
    lab = make_lab(habits=OtaHabits(minimum_block_period=0, cluster_revision=revision))
    told: list[float] = []

    def set_period(command: int, request: bytes) -> bytes | None:
        if command == BLOCK and not told:
            told.append(lab.now)
            return struct.pack("<BIIH", 0x97, 0, 0, period)
        return None

    lab.override = set_period
    lab.run(12)
    asked = [(at, request) for at, command, request in lab.asked if command == BLOCK]
    assert asked[0][1] == struct.pack("<BHHIIBH", 0x02, MANUFACTURER, IMAGE_TYPE, NEW, 0, 50, 0)
    assert asked[2][1] == struct.pack("<BHHIIBH", 0x02, MANUFACTURER, IMAGE_TYPE, NEW, 50, 50, period)
    gaps = [b[0] - a[0] for a, b in pairwise(asked[1:])]
    assert min(gaps) >= gap_s
    assert max(gaps) < gap_s + 0.1
    expected = {0x0009: period} | ({} if revision is None else {0xFFFD: revision})
    assert attributes(lab, 0x0009, 0xFFFD) == expected


def test_a_client_that_offers_no_block_period_has_none(make_lab: MakeLab) -> None:
    lab = make_lab()
    lab.override = lambda c, r: struct.pack("<BIIH", 0x97, 0, 0, 500) if c == BLOCK and len(lab.asked) == 2 else None
    lab.run(60, lambda: updated(lab))
    asked = [at for at, command, _ in lab.asked if command == BLOCK]
    assert max(b - a for a, b in pairwise(asked[2:])) < 0.1
    assert 0x0009 not in attributes(lab, 0x0009)


def test_some_clients_take_only_the_short_wait(make_lab: MakeLab) -> None:
    lab = make_lab(habits=OtaHabits(wait_without_period_only=True))
    long = struct.pack("<BIIH", 0x97, 0, 600, 0)
    lab.override = lambda c, r: (long if len(lab.asked) < 4 else long[:9]) if c == BLOCK else None
    lab.run(30, lambda: lab.node.ota.state is OtaState.WAITING)
    assert len(lab.asked) == 4, "it asked again as if nothing had come"
    assert any(f.payload[2:] == bytes((0x0B, 0x05, 0x80)) for f in lab.other), "and said that it was malformed"


@pytest.mark.parametrize("hardware", [None, 7])
def test_hardware_version_and_eui64_are_told_by_those_who_do(make_lab: MakeLab, hardware: int | None) -> None:
    lab = make_lab(hardware_version=hardware, habits=OtaHabits(tells_eui64=True))
    lab.run(30, lambda: len(lab.asked) > 1)
    told = b"" if hardware is None else struct.pack("<H", hardware)
    assert lab.asked[0][2] == struct.pack("<BHHI", hardware is not None, MANUFACTURER, IMAGE_TYPE, OLD) + told
    eui64 = struct.pack("<Q", lab.node.spec.eui64)
    assert lab.asked[1][2] == struct.pack("<BHHIIB", 1, MANUFACTURER, IMAGE_TYPE, NEW, 0, 50) + eui64


@pytest.mark.parametrize("short", [True, False])
def test_a_refused_image_is_ended_in_either_form(make_lab: MakeLab, short: bool) -> None:
    lab = make_lab(verify=lambda image: False, habits=OtaHabits(short_end_on_error=short))
    lab.run(60, lambda: END in lab.commands())
    request = next(request for _, command, request in lab.asked if command == END)
    assert request == (b"\x96" if short else struct.pack("<BHHI", 0x96, MANUFACTURER, IMAGE_TYPE, NEW))
    assert lab.node.running_version == OLD


def test_a_specific_file_is_asked_for_on_request(make_lab: MakeLab) -> None:
    lab = make_lab(timing=OtaTiming(boot_query_delay_s=(1e6, 1e6)))
    lab.silent = True
    lab.run(1)
    lab.node.ask_specific_file(NEW, lab.now)
    lab.mesh.settle(lab.node, lab.now)
    lab.run(1)
    assert lab.asked[-1][1:] == (
        SPECIFIC,
        struct.pack("<QHHIH", lab.node.spec.eui64, MANUFACTURER, IMAGE_TYPE, NEW, 2),
    )
    lab.send(0x09, b"\x98")
    lab.run(1)
    assert lab.node.ota.specific_answers == [0x98]


def test_the_attributes_are_true_at_all_times(make_lab: MakeLab) -> None:
    lab = make_lab(timing=OtaTiming(verify_s=2.0))
    none = {1: 0xFFFFFFFF, 2: OLD, 4: 0xFFFFFFFF, 6: 0}
    assert attributes(lab, 1, 2, 4, 6) == none
    lab.run(60, lambda: len(lab.node.ota.staged) >= 1000)
    seen = attributes(lab, 1, 2, 4, 6)
    assert seen[1] >= 1000
    assert seen[1] % 50 == 0
    assert seen | {1: 0} == {1: 0, 2: OLD, 4: NEW, 6: 1}
    held = len(lab.node.ota.staged)
    lab.silent = True
    lab.mesh.reboot(lab.node, lab.now)
    lab.run(2.05)
    assert attributes(lab, 1, 2, 4, 6) == {1: held, 2: OLD, 4: NEW, 6: 1}, "after a reboot, before it asks"
    lab.silent = False
    lab.override = lambda c, r: (
        struct.pack("<HHIII", MANUFACTURER, IMAGE_TYPE, NEW, 0, 0xFFFFFFFF) if c == END else None
    )
    lab.run(60, lambda: lab.node.ota.state is OtaState.HOLDING)
    assert attributes(lab, 1, 2, 4, 6) == {1: len(lab.file), 2: OLD, 4: NEW, 6: 3}
    lab.send(0x07, struct.pack("<HHIII", MANUFACTURER, IMAGE_TYPE, NEW, 0, 30))
    lab.run(1)
    assert attributes(lab, 6) == {6: 4}
    lab.run(60, lambda: updated(lab))
    lab.run(10)
    assert attributes(lab, 1, 2, 4, 6) == none | {2: NEW}


def test_the_file_offset_counts_no_block_beyond_a_hole(make_lab: MakeLab) -> None:
    lab = make_lab(habits=PAGES)
    serve_pages(lab, leave_out=frozenset({100}))
    lab.run(60, lambda: lab.node.counters.blocks_received == 5)
    assert attributes(lab, 1) == {1: 100}


def test_many_attributes_are_absent_on_real_nodes(make_lab: MakeLab) -> None:
    lab = make_lab(habits=OtaHabits(absent_attributes=frozenset({1, 6}), cluster_revision=None))
    assert attributes(lab, 1, 2, 6, 0xFFFD) == {2: OLD}
