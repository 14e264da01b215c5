"""A node alone with a server, in virtual time: what Silicon Labs' client does, this one has to do."""

import itertools
import struct
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from radios.simulated.zigbee.bootloader import ResetCause
from radios.simulated.zigbee.node_spec import Life
from radios.simulated.zigbee.ota_terms import OtaState

MANUFACTURER, IMAGE_TYPE, OLD, NEW = 0x1049, 0x0001, 0x0001_0000, 0x0002_0000
QUERY, BLOCK, END = 0x01, 0x03, 0x06

MakeLab = Any
Lab = Any


def halfway(lab: Lab) -> None:
    """Run until about half of the file is on the node."""
    lab.run(60, lambda: len(lab.node.ota.staged) >= len(lab.file) // 2)
    assert lab.node.ota.state is OtaState.DOWNLOADING


def updated(lab: Lab) -> bool:
    return bool(lab.node.running_version == NEW and lab.node.life is Life.UP)


def test_a_node_that_asks_by_itself_ends_with_the_very_bytes(make_lab: MakeLab) -> None:
    lab = make_lab()
    lab.run(60)
    assert lab.node.running_image == lab.file
    assert [(c.version, c.cause) for c in lab.node.version_history] == [
        (OLD, ResetCause.POWER_ON),
        (NEW, ResetCause.SOFT),
    ]
    assert lab.node.counters.bytes_received == len(lab.file)
    assert lab.node.counters.bytes_received_twice == 0
    assert lab.asked[0][2] == struct.pack("<BHHIH", 1, MANUFACTURER, IMAGE_TYPE, OLD, 1)
    assert lab.commands()[-1] == QUERY, "the query after the reboot carries the new version"
    assert struct.unpack_from("<I", lab.asked[-1][2], 5)[0] == NEW


def test_a_unicast_notify_makes_it_ask_at_once_and_one_in_mid_download_nothing(make_lab: MakeLab) -> None:
    lab = make_lab()
    lab.notify()
    lab.run(0.1)
    assert lab.commands()[:2] == [QUERY, BLOCK]
    halfway(lab)
    lab.notify()
    lab.run(60, lambda: updated(lab))
    assert lab.commands().count(QUERY) == 1


def test_a_broadcast_notify_is_answered_by_chance(make_lab: MakeLab) -> None:
    answered = 0
    for seed in range(200):
        lab = make_lab(seed=seed)
        lab.silent = True
        lab.send(0x00, b"\x00\x1e", broadcast=True)
        lab.run(0.1)
        answered += len(lab.asked)
    assert 30 < answered < 90, "jitter 30 means three in ten"


@pytest.mark.parametrize(
    "spec", [{"loss": 0.2}, {"mac_loss": 0.5}, {"loss": 0.1, "mac_loss": 0.3}, {"sleepy": True, "loss": 0.1}]
)
def test_loss_costs_time_and_nothing_else(make_lab: MakeLab, spec: dict[str, Any]) -> None:
    lab = make_lab(**spec)
    lab.run(3600, lambda: updated(lab))
    assert lab.node.running_image == lab.file
    assert lab.mesh.frames_lost > 0
    assert lab.node.counters.bytes_received_twice == 0
    assert lab.node.counters.downloads_started_at_zero == 1


def test_a_reboot_goes_on_at_its_own_offset_without_a_query(make_lab: MakeLab) -> None:
    lab = make_lab()
    halfway(lab)
    held = len(lab.node.ota.staged)
    lab.asked.clear()
    lab.mesh.reboot(lab.node, lab.now)
    lab.run(60, lambda: updated(lab))
    assert lab.commands()[0] == BLOCK
    assert min(lab.offsets()) == held
    assert lab.node.counters.downloads_started_at_zero == 1
    assert lab.node.running_image == lab.file


def test_a_rejoin_under_another_address_goes_on_too(make_lab: MakeLab) -> None:
    lab = make_lab()
    halfway(lab)
    lab.mesh.readdress(lab.node, 0x1234, lab.now)
    lab.run(60, lambda: updated(lab))
    assert lab.node.nwk == 0x1234
    assert lab.node.counters.bytes_received_twice == 0
    assert lab.node.running_image == lab.file


@pytest.mark.parametrize(
    ("current", "request_time", "wait_s"),
    [(0, 90, 90.0), (1000, 1007, 7.0), (0, 10**6, 3600.0), (1000, 900, 300.0)],
)
def test_wait_for_data_is_obeyed(make_lab: MakeLab, current: int, request_time: int, wait_s: float) -> None:
    lab = make_lab()
    told: list[float] = []

    def tell_to_wait(command: int, request: bytes) -> bytes | None:
        if command == BLOCK and not told and struct.unpack_from("<I", request, 9)[0] >= 500:
            told.append(lab.now)
            return struct.pack("<BIIH", 0x97, current, request_time, 0)
        return None

    lab.override = tell_to_wait
    lab.run(5000, lambda: updated(lab))
    again = next(at for at, command, _ in lab.asked if command == BLOCK and at > told[0])
    assert again - told[0] == pytest.approx(wait_s, abs=0.1)
    assert lab.node.counters.told_to_wait == 1
    assert lab.node.counters.bytes_received_twice == 0
    assert lab.node.running_image == lab.file


@pytest.mark.parametrize("status", [0x95, 0x98])
def test_abort_throws_the_bytes_away(make_lab: MakeLab, status: int) -> None:
    lab = make_lab()
    halfway(lab)
    lab.override = lambda command, request: bytes((status,)) if command == BLOCK else None
    lab.run(30)
    assert lab.node.counters.downloads_thrown_away == 1
    assert lab.node.ota.file_offset == 0xFFFFFFFF
    assert lab.node.ota.state is OtaState.IDLE
    lab.override = lambda command, request: None
    lab.notify()
    lab.run(60, lambda: updated(lab))
    assert lab.node.counters.downloads_started_at_zero == 2
    assert lab.node.counters.bytes_received_twice > 0


def test_blocks_that_were_not_asked_for_change_nothing(make_lab: MakeLab) -> None:
    lab = make_lab()
    halfway(lab)
    wrong = {
        "other offset": lab.block(0),
        "other version": lab.block(len(lab.node.ota.staged), version=NEW + 1),
        "too long": lab.block(len(lab.node.ota.staged), data=bytes(60)),
        "length says less": lab.block(len(lab.node.ota.staged)) + b"\0",
        "truncated": lab.block(len(lab.node.ota.staged))[:9],
        "empty": lab.block(len(lab.node.ota.staged), data=b""),
    }
    lab.silent = True
    for name, payload in wrong.items():
        before = bytes(lab.node.ota.staged)
        lab.send(0x05, payload)
        lab.run(0.02)
        assert bytes(lab.node.ota.staged) == before, name
    lab.silent = False
    lab.run(60, lambda: updated(lab))
    assert lab.node.running_image == lab.file


def test_a_silent_server_is_asked_again_then_later_and_never_from_zero(make_lab: MakeLab) -> None:
    lab = make_lab()
    halfway(lab)
    held = len(lab.node.ota.staged)
    lab.asked.clear()
    lab.silent = True
    lab.run(40)
    times = [at for at, _, _ in lab.asked]
    assert len(times) >= 9
    assert all(2.0 <= b - a <= 3.1 for a, b in itertools.pairwise(times[1:]))
    assert lab.node.ota.state is OtaState.PAUSED
    lab.silent = False
    lab.run(120, lambda: updated(lab))
    assert set(lab.offsets()[:10]) == {held}
    assert QUERY not in lab.commands()
    assert lab.node.running_image == lab.file


def test_a_notify_wakes_a_node_that_gave_up(make_lab: MakeLab) -> None:
    lab = make_lab()
    halfway(lab)
    lab.silent = True
    lab.run(40)
    lab.silent = False
    lab.notify()
    lab.run(0.1)
    assert lab.node.ota.state is OtaState.DOWNLOADING
    assert lab.node.counters.downloads_started_at_zero == 1


def test_new_firmware_that_fails_its_self_test_is_rolled_back_by_the_watchdog(make_lab: MakeLab) -> None:
    lab = make_lab(self_test_fails=True)
    before = lab.node.running_image
    lab.run(60, lambda: lab.node.running_version == NEW)
    lab.override = lambda command, request: b"\x98" if command == QUERY else None
    lab.run(60)
    assert [(c.version, c.cause) for c in lab.node.version_history] == [
        (OLD, ResetCause.POWER_ON),
        (NEW, ResetCause.SOFT),
        (OLD, ResetCause.WATCHDOG),
    ]
    assert lab.node.running_image == before
    announces = [f for f in lab.other if f.cluster == 0x0013]
    assert len(announces) == 3, "at the start, as the new version, as the old one again"
    assert struct.unpack_from("<I", lab.asked[-1][2], 5)[0] == OLD


def test_an_image_on_trial_downloads_nothing(make_lab: MakeLab) -> None:
    lab = make_lab(self_test_s=10.0)
    lab.run(60, lambda: lab.node.running_version == NEW)
    lab.asked.clear()
    lab.notify()
    lab.run(5)
    assert lab.asked == []
    assert lab.node.life is Life.TESTING


def test_a_power_cut_during_the_trial_rolls_back_too(make_lab: MakeLab) -> None:
    lab = make_lab(self_test_s=10.0)
    lab.run(60, lambda: lab.node.running_version == NEW)
    lab.mesh.reboot(lab.node, lab.now)
    lab.run(5)
    assert lab.node.running_version == OLD


def test_told_to_hold_it_asks_hourly_and_starts_at_an_unsolicited_word(make_lab: MakeLab) -> None:
    lab = make_lab()
    hold = struct.pack("<HHIII", MANUFACTURER, IMAGE_TYPE, NEW, 0, 0xFFFFFFFF)
    lab.override = lambda command, request: hold if command == END else None
    lab.run(3 * 3600)
    ends = [at for at, command, _ in lab.asked if command == END]
    assert [round((b - a) / 3600) for a, b in itertools.pairwise(ends)] == [1, 1]
    assert lab.node.running_version == OLD
    assert lab.node.ota.upgrade_status == 3
    lab.send(0x07, struct.pack("<HHIII", MANUFACTURER, IMAGE_TYPE, NEW, 0, 0))
    lab.run(10)
    assert updated(lab)


def test_a_scheduled_upgrade_waits_for_its_time(make_lab: MakeLab) -> None:
    lab = make_lab()
    later = struct.pack("<HHIII", MANUFACTURER, IMAGE_TYPE, NEW, 5000, 5600)
    lab.override = lambda command, request: later if command == END else None
    lab.run(500)
    assert (lab.node.running_version, lab.node.ota.upgrade_status) == (OLD, 4)
    lab.run(200)
    assert updated(lab)


@pytest.mark.parametrize("by_itself", [False, True])
def test_nobody_answers_the_end(make_lab: MakeLab, by_itself: bool) -> None:
    lab = make_lab(apply_without_answer=by_itself)
    lab.override = lambda command, request: b"" if command == END else None
    lab.run(40)
    assert lab.commands().count(END) == 3
    assert updated(lab) == by_itself
    lab.override = lambda command, request: None
    lab.run(120)
    assert updated(lab)


@pytest.mark.parametrize("why", ["signature", "content", "identity"])
def test_an_image_that_is_not_good_is_refused_and_the_old_one_runs(make_lab: MakeLab, why: str) -> None:
    lab = make_lab(verify=lambda file: why != "signature")
    if why == "content":
        lab.file = lab.file[:60] + b"\xff\xff\xff\x7f" + lab.file[64:]  # the element is longer than the file
    if why == "identity":
        lab.file = lab.file[:12] + b"\x02" + lab.file[13:]
    before = lab.node.running_image
    lab.run(60)
    ends = [request for _, command, request in lab.asked if command == END]
    assert ends == [struct.pack("<BHHI", 0x96, MANUFACTURER, IMAGE_TYPE, NEW)]
    assert lab.node.running_image == before
    assert lab.node.counters.images_refused == 1
    assert lab.node.slots["b"] is None


def test_an_image_larger_than_the_slot_is_not_begun(make_lab: MakeLab) -> None:
    lab = make_lab(slot_size=1_000)
    lab.run(20)
    assert lab.commands() == [QUERY, END]
    assert lab.asked[1][2][0] == 0x89


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    loss=st.sampled_from([0.0, 0.05, 0.3]),
    seed=st.integers(0, 1000),
    sleepy=st.booleans(),
    reboots=st.lists(st.floats(1, 60), max_size=4),
    outages=st.lists(st.tuples(st.floats(1, 60), st.floats(1, 90)), max_size=2),
)
def test_whatever_happens_on_the_way_the_bytes_are_the_same(
    make_lab: MakeLab, loss: float, seed: int, sleepy: bool, reboots: list[float], outages: list[tuple[float, float]]
) -> None:
    lab = make_lab(loss=loss, seed=seed, sleepy=sleepy, poll_s=2.0)
    for at in reboots:
        lab.mesh.call_at(lab.now + at, lambda when: lab.mesh.reboot(lab.node, when))
    for at, length in outages:
        lab.mesh.call_at(lab.now + at, lambda when: setattr(lab, "silent", True))
        lab.mesh.call_at(lab.now + at + length, lambda when: setattr(lab, "silent", False))
    lab.run(200)
    lab.silent = False
    # A reboot during the trial rolls back, and the next query is a day away: the server's notify brings it on.
    for _ in range(10):
        lab.run(400, lambda: updated(lab))
        if updated(lab):
            break
        lab.notify()
    lab.run(30)
    assert lab.node.running_image == lab.file
    thrown = lab.node.counters.downloads_started_at_zero - 1
    assert lab.node.counters.bytes_received <= len(lab.file) * (1 + thrown)
