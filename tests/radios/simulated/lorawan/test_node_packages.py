"""A virtual node's answers, byte by byte, against the vectors and rules of TS003, TS004, TS005 and TS006."""

import struct

import pytest

from radios.simulated.lorawan.node import SENSOR_PORT
from radios.simulated.lorawan.packages.fragmentation import StatusStyle


@pytest.mark.parametrize(("port", "package"), [(202, 1), (200, 2), (201, 3), (203, 4)])
def test_each_package_tells_its_version(make_bench, port, package):
    bench = make_bench(package_versions={package: 2})
    assert bench.ask(port, b"\x00") == bytes([0, package, 2])


def test_several_commands_are_answered_in_one_frame(make_bench):
    bench = make_bench()
    assert bench.ask(203, b"\x00\x01") == b"\x00\x04\x01" + b"\x01" + struct.pack("<II", 1, 0x20)
    assert bench.ask(200, b"\x00\x03\x01") == bytes.fromhex("000201") + bytes.fromhex("0305")


@pytest.mark.parametrize("payload", [b"\x77", b"\x04\x01", b"\x00\x7f\x01", b""])
def test_rubbish_is_dropped_where_it_starts(make_bench, payload):
    bench = make_bench()
    for port in (200, 201, 202, 99):
        bench.unicast(port, payload)
    answers = [u.payload for u in bench.run(30) if u.f_port in (200, 201, 202)]
    assert len(answers) == (3 if payload[:1] == b"\x00" else 0)
    assert all(len(answer) == 3 for answer in answers)


def test_group_setup_status_and_delete(make_bench):
    bench = make_bench()
    assert bench.join_group(2) == bytes.fromhex("0202")
    assert bench.join_group(0) == bytes.fromhex("0200")
    assert bench.ask(200, b"\x01\x0f") == bytes.fromhex("0125" + "0004030201" + "0204030201")
    assert bench.ask(200, b"\x01\x02") == bytes.fromhex("0120")
    assert bench.ask(200, b"\x03\x02") == bytes.fromhex("0302")
    assert bench.ask(200, b"\x03\x02") == bytes.fromhex("0306")


def test_class_c_session_answer_tells_the_time_to_start(make_bench):
    bench = make_bench()
    bench.join_group()
    answer = bench.open_window(in_s=100)
    assert answer[:2] == b"\x04\x00"
    assert 98 <= int.from_bytes(answer[2:5], "little") <= 100


@pytest.mark.parametrize(("version", "status"), [(1, 0x10), (2, 0x20)])
def test_a_missed_start_is_told_as_each_version_does(make_bench, version, status):
    bench = make_bench(package_versions={2: version})
    bench.join_group()
    assert bench.open_window(in_s=-5) == bytes([4, status])


def test_class_c_session_refusals(make_bench):
    bench = make_bench()
    assert bench.open_window() == bytes([4, 0x10])
    bench.join_group(1)
    assert bench.open_window(group=1, data_rate=9) == bytes([4, 0x05])
    bad_frequency = struct.pack("<BIB", 1, bench.gps() + 60, 5) + (8_000_000).to_bytes(3, "little") + b"\x05"
    assert bench.ask(200, b"\x04" + bad_frequency) == bytes([4, 0x09])
    class_b = struct.pack("<BIB", 1, bench.gps() + 60, 5) + (8_695_250).to_bytes(3, "little") + b"\x05"
    assert bench.ask(200, b"\x05" + class_b) == bytes([5, 0x05])


def test_multicast_is_heard_only_in_the_window_on_its_channel(make_bench, fragment):
    bench = make_bench()
    bench.join_group()
    bench.set_up_fragments(4, 10)
    bench.multicast(201, fragment(1, bytes(10)))
    bench.open_window(in_s=100, time_out=6)
    bench.multicast(201, fragment(1, bytes(10)))
    assert bench.node.counters.multicast_received == 0
    bench.run(80)
    bench.multicast(201, fragment(1, bytes(10)), data_rate=3)
    bench.multicast(201, fragment(1, bytes(10)), frequency_hz=868_100_000)
    assert bench.node.counters.multicast_received == 0
    bench.multicast(201, fragment(1, bytes(10)))
    assert bench.node.counters.multicast_received == 1
    assert bench.node.fragment_counters.fragments_received == 1
    bench.run(64)
    bench.multicast(201, fragment(2, bytes(10)))
    assert bench.node.counters.multicast_received == 1


def test_a_disturbed_node_hears_no_more_of_its_group_and_counts_how_all_else_came(make_bench, fragment):
    bench = make_bench(group_frames_most=2)
    bench.join_group()
    bench.set_up_fragments(4, 10)
    bench.open_window(in_s=40)
    bench.run(40)
    for counter in (1, 2, 3):
        bench.multicast(201, fragment(counter, bytes(10)))
    bench.unicast(201, fragment(5, bytes(10)))
    counters, fragments = bench.node.counters, bench.node.fragment_counters
    assert (counters.multicast_received, counters.disturbed) == (2, 1)
    assert (fragments.fragments_received, fragments.coded_by_unicast) == (3, 1)
    heard = {
        "unicast 200:02": 1,
        "unicast 201:02": 1,
        "unicast 200:04": 1,
        "class C DR5 201:08": 2,
        "unicast 201:08": 1,
    }
    assert bench.node.downlinks == heard
    assert bench.ask(201, b"\x01\x01")
    assert fragments.statuses_told == 1


def test_multicast_counters_and_keys_are_checked(make_bench, fragment):
    bench = make_bench()
    bench.join_group(min_f_cnt=10, max_f_cnt=20)
    bench.set_up_fragments(30, 10)
    bench.open_window(in_s=40)
    bench.run(40)
    for f_cnt, heard in ((9, 0), (12, 1), (12, 1), (11, 1), (13, 2), (20, 2)):
        bench.mc_f_cnt = f_cnt
        bench.multicast(201, fragment(f_cnt, bytes(10)))
        assert bench.node.counters.multicast_received == heard, f_cnt
    other = type(bench.mc_session)(bench.mc_session.dev_addr, bytes(16), bench.mc_session.app_s_key)
    bench.mc_session, bench.mc_f_cnt = other, 15
    bench.multicast(201, fragment(15, bytes(10)))
    assert bench.node.counters.multicast_received == 2


def test_group_setup_uses_the_roots_of_lorawan_1_1(make_bench, fragment):
    """With another root key the node derives another McKey, so nothing of the group verifies."""
    bench = make_bench(mac_1_1=True, app_key=bytes(range(16)))
    bench.join_group()
    bench.open_window()
    bench.run(40)
    bench.multicast(201, fragment(1, bytes(10)))
    assert bench.node.counters.bad_mic == 1


def test_unicast_counters_and_keys_are_checked(make_bench):
    bench = make_bench()
    bench.unicast(203, b"\x01")
    bench.f_cnt = 0
    bench.unicast(203, b"\x01")
    assert bench.node.counters.unicast_received == 1
    assert bench.node.counters.bad_mic == 1


def test_a_class_a_node_hears_unicast_only_after_its_uplinks(make_bench):
    bench = make_bench(device_class="A", uplink_interval_s=100)
    bench.unicast(203, b"\x01")
    assert bench.node.counters.unicast_received == 0
    bench.wait_for_port(SENSOR_PORT)
    bench.f_cnt = 0
    sent = bench.node._sent
    assert sent is not None
    bench.now = sent.end + 2.0
    bench.unicast(203, b"\x01")
    assert bench.node.counters.unicast_received == 1


@pytest.mark.parametrize(
    ("version", "tail", "expected"), [(1, b"", "0240"), (2, bytes(6), "0240"), (1, bytes(6), "0240"), (2, b"", "")]
)
def test_setup_lengths_are_those_of_the_version(make_bench, version, tail, expected):
    bench = make_bench(package_versions={3: version})
    answer = bench.set_up_fragments(10, 10, index=1, tail=tail)
    assert answer.hex().startswith(expected)
    assert (len(answer) > 0) == bool(expected)


def test_setup_refusals(make_bench):
    bench = make_bench(flash_bytes=1000)
    assert bench.set_up_fragments(11, 100, index=2).hex() == "0282"
    assert bench.set_up_fragments(10, 100, control=0x08).hex() == "0201"
    assert bench.set_up_fragments(10, 0).hex() == "0208"


def test_session_cnt_must_grow_once_data_was_seen(make_bench, fragment):
    bench = make_bench(package_versions={3: 2})
    tail = (5).to_bytes(2, "little") + bytes(4)
    assert bench.set_up_fragments(4, 10, tail=tail).hex() == "0200"
    assert bench.set_up_fragments(4, 10, tail=tail).hex() == "0200"
    bench.unicast(201, fragment(1, bytes(10)))
    assert bench.set_up_fragments(4, 10, tail=tail).hex() == "0210"
    assert bench.set_up_fragments(4, 10, tail=(6).to_bytes(2, "little") + bytes(4)).hex() == "0200"


def test_delete_session(make_bench):
    bench = make_bench()
    bench.set_up_fragments(4, 10, index=3)
    assert bench.ask(201, b"\x03\x02").hex() == "0306"
    assert bench.ask(201, b"\x03\x03").hex() == "0303"
    assert bench.ask(201, b"\x03\x03").hex() == "0307"


def _lose_two_of_eight(bench, fragment):
    bench.set_up_fragments(8, 10, index=2)
    for counter in (1, 2, 4, 5, 7, 8):
        bench.unicast(201, fragment(counter, bytes([counter] * 10), 2))


@pytest.mark.parametrize(
    ("style", "version", "expected"),
    [
        (StatusStyle.SPEC, 1, "01" + "0680" + "02" + "00"),
        (StatusStyle.LBM, 1, "01" + "0680" + "02" + "00"),
        (StatusStyle.LORAMAC, 1, "01" + "0880" + "02" + "00"),
        (StatusStyle.LBM, 2, "01" + "00" + "0680" + "02"),
        (StatusStyle.LORAMAC, 2, "01" + "00" + "0880" + "02"),
    ],
)
def test_status_styles(make_bench, fragment, style, version, expected):
    bench = make_bench(status_style=style, package_versions={3: version})
    if version == 2:
        bench.set_up_fragments(8, 10, index=2, tail=bytes(6))
        for counter in (1, 2, 4, 5, 7, 8):
            bench.unicast(201, fragment(counter, bytes([counter] * 10), 2))
    else:
        _lose_two_of_eight(bench, fragment)
    assert bench.ask(201, b"\x01\x04").hex() == expected


def test_loramac_never_counts_missing_down_and_lbm_does(make_bench, fragment, encoder):
    fragments = [bytes([n] * 10) for n in range(1, 9)]
    found = {}
    for style in (StatusStyle.LBM, StatusStyle.LORAMAC):
        bench = make_bench(status_style=style)
        _lose_two_of_eight(bench, fragment)
        for number in range(1, 30):
            bench.unicast(201, fragment(8 + number, encoder(fragments, number, 1), 2))
        found[style] = bench.ask(201, b"\x01\x05")[3]
        assert bench.node.bootloader.download == b"".join(fragments)
    assert found == {StatusStyle.LBM: 0, StatusStyle.LORAMAC: 2}


def test_lbm_notices_a_loss_free_pass_only_with_a_coded_fragment(make_bench, fragment, encoder):
    fragments = [bytes([n] * 10) for n in range(4)]
    bench = make_bench()
    bench.set_up_fragments(4, 10)
    for counter, data in enumerate(fragments, 1):
        bench.unicast(201, fragment(counter, data))
    assert bench.ask(201, b"\x01\x01").hex() == "01" + "0400" + "01" + "00"
    bench.unicast(201, fragment(5, encoder(fragments, 1, 1)))
    assert bench.ask(201, b"\x01\x00") == b""
    assert bench.ask(201, b"\x01\x01")[3] == 0


def test_missing_wraps_at_256_except_in_the_specification(make_bench, fragment):
    for style, expected in ((StatusStyle.LBM, 0), (StatusStyle.LORAMAC, 0), (StatusStyle.SPEC, 255)):
        bench = make_bench(status_style=style)
        bench.set_up_fragments(300, 10)
        bench.unicast(201, fragment(257, bytes(10)))
        assert bench.ask(201, b"\x01\x01")[3] == expected


@pytest.mark.parametrize(("style", "finished"), [(StatusStyle.LORAMAC, True), (StatusStyle.LBM, False)])
def test_too_many_lost_is_a_memory_error(make_bench, fragment, style, finished):
    bench = make_bench(status_style=style, redundancy_limit=5)
    bench.set_up_fragments(20, 10)
    bench.unicast(201, fragment(10, bytes(10)))
    bench.unicast(201, fragment(21, bytes(10)))
    assert bench.ask(201, b"\x01\x01")[4] == 1
    assert (bench.node.bootloader.download is not None) == finished
    assert bench.ask(203, b"\x04").hex() == ("0401" if finished else "0400")


def test_status_without_a_session(make_bench):
    assert make_bench().ask(201, b"\x01\x01") == b""
    assert make_bench(package_versions={3: 2}).ask(201, b"\x01\x03").hex() == "0104" + "0040" + "00"


def test_multicast_status_answers_are_spread_and_only_from_who_misses_something(make_bench, fragment):
    bench = make_bench()
    bench.join_group()
    bench.set_up_fragments(8, 10, control=3)
    bench.open_window()
    bench.run(40)
    for counter in (1, 3):
        bench.multicast(201, fragment(counter, bytes(10)))
    moments = []
    for _ in range(8):
        bench.run(5)
        bench.multicast(201, b"\x01\x00")
        asked = bench.now
        answer = bench.wait_for_port(201)
        assert answer.payload.hex() == "01" + "0200" + "01" + "00"
        moments.append(bench.now - asked)
    assert max(moments) <= 128 + 4
    assert max(moments) > 20


def test_a_repeated_setup_erases_what_was_received(make_bench, fragment):
    bench = make_bench(status_style=StatusStyle.SPEC)
    bench.set_up_fragments(4, 10)
    bench.unicast(201, fragment(1, bytes(10)))
    bench.set_up_fragments(4, 10)
    assert bench.ask(201, b"\x01\x01").hex() == "01" + "0000" + "00" + "00"
    bench.unicast(201, fragment(1, bytes(10)))
    assert bench.node.fragment_counters.bytes_received_twice == 10
    assert bench.node.fragment_counters.sessions_set_up == 2


def test_app_time_is_asked_for_and_the_answer_must_be_to_that_request(make_bench):
    bench = make_bench(clock_error_s=-37.0, app_time_period_s=600.0)
    requests = [u for u in bench.run(620) if u.f_port == 202]
    assert len(requests) == 1
    cid, device_time, param = struct.unpack("<BIB", requests[0].payload)
    assert (cid, param) == (1, 0)
    correction = bench.gps() - 20 - device_time
    assert 15 <= correction <= 40
    bench.unicast(202, struct.pack("<BiB", 1, 1000, 5))
    assert bench.node.clock.error_at(bench.now) == -37.0
    bench.unicast(202, struct.pack("<BiB", 1, 37, 0))
    assert bench.node.clock.error_at(bench.now) == 0.0


def test_forced_resync_asks_with_an_answer_required(make_bench):
    bench = make_bench()
    bench.unicast(202, b"\x03\x02")
    requests = [u.payload for u in bench.run(70) if u.f_port == 202]
    assert [request[5] for request in requests] == [0x10, 0x10]


def test_periodicity_is_set_and_answered_with_the_time(make_bench):
    bench = make_bench()
    answer = bench.ask(202, b"\x02\x01")
    assert answer[:2] == b"\x02\x00"
    assert abs(int.from_bytes(answer[2:], "little") - bench.gps()) <= 31
    assert len([u for u in bench.run(600) if u.f_port == 202]) == 2


def test_a_drifting_clock_opens_the_window_early(make_bench, fragment):
    bench = make_bench(clock_error_s=20.0)
    bench.join_group()
    bench.set_up_fragments(4, 10)
    bench.open_window(in_s=100)
    bench.run(55)
    bench.multicast(201, fragment(1, bytes(10)))
    assert bench.node.counters.multicast_received == 1
