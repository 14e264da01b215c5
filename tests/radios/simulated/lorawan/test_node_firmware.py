"""From fragments to a running image: integrity, verdicts, reboot, A/B swap, watchdog rollback."""

import random
import struct

import pytest

from radios.simulated.lorawan import crypto, firmware
from radios.simulated.lorawan.packages.fragmentation import StatusStyle

HARDWARE = 0x20
SIZE = 4050


def _image(version=2, hardware=HARDWARE, seed=0):
    return firmware.build(version=version, hardware=hardware, size=SIZE, seed=seed)


def _deliver(bench, image, cutter, encoder, fragment, *, loss=0.0, tail=b"", control=0, version=1):
    fragments = cutter(image, 100)
    padding = -len(image) % 100
    assert bench.set_up_fragments(len(fragments), 100, padding, control=control, tail=tail).hex() == "0200"
    rng = random.Random(5)
    number = 0
    for counter, data in enumerate(fragments, 1):
        if rng.random() >= loss:
            bench.unicast(201, fragment(counter, data))
    session = bench.node.fragmentation.session
    while not session.settled:
        number += 1
        if rng.random() >= loss:
            bench.unicast(201, fragment(len(fragments) + number, encoder(fragments, number, version)))


@pytest.mark.parametrize("style", list(StatusStyle))
def test_an_image_travels_is_judged_started_and_reported(make_bench, cutter, encoder, fragment, style):
    bench = make_bench(status_style=style)
    image = _image()
    assert bench.ask(203, b"\x04").hex() == "0400"
    _deliver(bench, image, cutter, encoder, fragment, loss=0.2)
    assert bench.ask(203, b"\x04") == b"\x04\x03" + (2).to_bytes(4, "little")
    assert bench.ask(203, b"\x03\x3c\x00\x00").hex() == "033c0000"
    assert bench.node.version == 1
    bench.run(120)
    assert bench.node.version == 2
    assert bench.node.running_image == image
    assert len(bench.joins) == 1
    assert bench.ask(203, b"\x01") == b"\x01" + struct.pack("<II", 2, HARDWARE)


def test_reboot_at_a_gps_time_and_cancelling_it(make_bench, cutter, encoder, fragment):
    bench = make_bench(clock_error_s=2.0)
    _deliver(bench, _image(), cutter, encoder, fragment)
    answer = bench.ask(203, b"\x02" + (bench.gps() + 500).to_bytes(4, "little"))
    assert 490 <= int.from_bytes(answer[1:], "little") <= 498
    assert bench.ask(203, b"\x02\xff\xff\xff\xff").hex() == "02ffffffff"
    assert bench.ask(203, b"\x02" + (bench.gps() - 5).to_bytes(4, "little")).hex() == "0200000000"
    bench.run(1000)
    assert bench.node.version == 1
    assert bench.ask(203, b"\x02\x00\x00\x00\x00") == b""
    bench.run(60)
    assert bench.node.version == 2


def test_a_failed_self_test_is_rolled_back_by_the_watchdog(make_bench, cutter, encoder, fragment):
    bench = make_bench(self_test_fails=True)
    before = bench.node.running_image
    _deliver(bench, _image(), cutter, encoder, fragment, loss=0.1)
    bench.unicast(203, b"\x03\x00\x00\x00")
    bench.run(20)
    assert bench.node.version == 2
    assert not bench.node.joined
    bench.run(120)
    assert bench.node.version == 1
    assert bench.node.running_image == before
    assert bench.node.bootloader.rollbacks == 1
    assert bench.node.state(bench.now) == "rolled_back"
    assert bench.ask(203, b"\x01") == b"\x01" + struct.pack("<II", 1, HARDWARE)


@pytest.mark.parametrize(
    ("image", "verdict"),
    [
        (_image(hardware=99), "0402"),
        (_image(seed=7), "0401"),
        (_image()[:-1] + b"\x00", "0401"),
        (b"\xff" * SIZE, "0401"),
    ],
)
def test_a_bad_image_is_refused_and_never_started(make_bench, cutter, encoder, fragment, image, verdict):
    bench = make_bench()
    _deliver(bench, image, cutter, encoder, fragment)
    assert bench.ask(203, b"\x04").hex() == verdict
    bench.unicast(203, b"\x03\x00\x00\x00")
    bench.run(60)
    assert bench.node.version == 1
    assert len(bench.joins) == 1


def test_deleting_the_image(make_bench, cutter, encoder, fragment):
    bench = make_bench()
    assert bench.ask(203, b"\x05\x02\x00\x00\x00").hex() == "0501"
    _deliver(bench, _image(), cutter, encoder, fragment)
    assert bench.ask(203, b"\x05\x03\x00\x00\x00").hex() == "0502"
    assert bench.ask(203, b"\x05\x02\x00\x00\x00").hex() == "0500"
    assert bench.ask(203, b"\x04").hex() == "0400"


def test_a_reboot_forgets_groups_and_sessions(make_bench):
    bench = make_bench()
    bench.join_group()
    bench.set_up_fragments(4, 10)
    bench.unicast(203, b"\x03\x00\x00\x00")
    bench.run(60)
    assert bench.ask(200, b"\x01\x0f").hex() == "0100"
    assert bench.node.fragmentation.session is None


@pytest.mark.parametrize(("good", "status"), [(True, "0400"), (False, "0404")])
def test_version_2_checks_the_mic_and_says_so(make_bench, cutter, encoder, fragment, good, status):
    bench = make_bench(package_versions={3: 2})
    image = _image()
    key = crypto.data_block_int_key(bench.spec.gen_app_key)
    mic = crypto.data_block_mic(key, 9, 0, bytes(4), image) if good else bytes(4)
    tail = (9).to_bytes(2, "little") + mic
    _deliver(bench, image, cutter, encoder, fragment, loss=0.1, tail=tail, control=0x40, version=2)
    told = [u.payload.hex() for u in bench.run(400) if u.f_port == 201]
    assert told == [status] * 3
    assert bench.ask(201, b"\x01\x01")[1] == (0 if good else 2)


def test_the_block_received_request_ends_when_it_is_answered(make_bench, cutter, encoder, fragment):
    bench = make_bench(package_versions={3: 2})
    image = _image()
    mic = crypto.data_block_mic(crypto.data_block_int_key(bench.spec.gen_app_key), 1, 0, bytes(4), image)
    _deliver(bench, image, cutter, encoder, fragment, tail=b"\x01\x00" + mic, control=0x40, version=2)
    bench.wait_for_port(201)
    bench.run(5)
    bench.unicast(201, b"\x04\x00")
    assert not [u for u in bench.run(400) if u.f_port == 201]
