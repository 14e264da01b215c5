"""The shared channel: what frames cost on it, the bound that follows, whose turn it is, retries and bursts of loss."""

import heapq
import itertools
import random
import struct
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from radios.simulated.zigbee.channel import (
    APS_ACK_BYTES,
    BLOCK_REQUEST_BYTES,
    DATA_REQUEST_S,
    Channel,
    block_s,
    hop_s,
    lower_bound_s,
    on_air_s,
    page_block_s,
)
from radios.simulated.zigbee.frames import ApsFrame, ota_request
from radios.simulated.zigbee.loss import Bursts, LossyLink
from radios.simulated.zigbee.mesh import Mesh
from radios.simulated.zigbee.node_spec import NodeSpec
from radios.simulated.zigbee.ota_terms import OtaTiming

MakeLab = Any
QUIET = OtaTiming(boot_query_delay_s=(1e6, 1e6))


class Agenda:
    def __init__(self) -> None:
        self.now = 0.0
        self.events: list[tuple[float, int, Callable[[float], None]]] = []
        self.order = itertools.count()

    def call_at(self, when: float, action: Callable[[float], None]) -> None:
        heapq.heappush(self.events, (when, next(self.order), action))

    def run(self) -> None:
        while self.events:
            self.now, _, action = heapq.heappop(self.events)
            action(self.now)


class Deaf:
    """Loses the first `count` attempts."""

    def __init__(self, count: int) -> None:
        self.count = count

    def lost(self, now: float) -> bool:
        self.count -= 1
        return self.count >= 0


@pytest.fixture
def air() -> tuple[Channel, Agenda]:
    channel, agenda = Channel(seed=1), Agenda()
    channel.attach(agenda.call_at)
    return channel, agenda


@pytest.mark.parametrize(
    ("payload", "whole", "on_air_ms", "hop_ms"),
    [(3 + 14, 62, 2.2, 4.0), (3 + 64, 112, 3.8, 5.6), (0, 45, 1.6, 3.4)],
    ids=["ImageBlockRequest", "ImageBlockResponse of 50 B", "APS acknowledgement"],
)
def test_the_table_of_the_protocol_file(payload: int, whole: int, on_air_ms: float, hop_ms: float) -> None:
    assert ApsFrame(0x0104, 0x0019, 1, 1, bytes(payload)).air_bytes == whole
    assert on_air_s(whole) * 1000 == pytest.approx(on_air_ms, abs=0.05)
    assert hop_s(whole) * 1000 == pytest.approx(hop_ms, abs=0.05)


def test_the_sizes_are_those_of_real_frames() -> None:
    request = ota_request(1, 0x03, struct.pack("<BHHIIB", 0, 1, 2, 3, 4, 50))
    assert ApsFrame(0x0104, 0x0019, 1, 1, request).air_bytes == BLOCK_REQUEST_BYTES


def test_the_lower_bound_of_the_protocol_file() -> None:
    assert block_s() * 1000 == pytest.approx(13, abs=0.05)
    assert 1 / lower_bound_s([(1, 1)]) == pytest.approx(77, abs=0.5)
    assert 1 / lower_bound_s([(1, 2)]) == pytest.approx(38, abs=0.6)
    assert 1 / lower_bound_s([(1, 1)], page_mode=True) == pytest.approx(175, abs=0.5)
    assert lower_bound_s([(100, 1), (50, 3)]) == pytest.approx(250 * block_s())
    assert page_block_s(page_bytes=10**9) == pytest.approx(hop_s(112))


@pytest.mark.parametrize(("size", "hop_ms"), [(62, 4.0), (112, 5.6), (APS_ACK_BYTES, 3.4)])
def test_what_frames_take_in_the_mean_is_what_the_table_says(
    air: tuple[Channel, Agenda], size: int, hop_ms: float
) -> None:
    channel, agenda = air
    for _ in range(4_000):
        channel.send(0.0, 1, size, None, lambda when, ok: None)
    agenda.run()
    assert agenda.now / 4_000 * 1000 == pytest.approx(hop_ms, abs=0.06)
    assert channel.busy_s == pytest.approx(agenda.now), "one transmission at a time, and none in vain"
    assert channel.longest_queue == 3_999


def test_first_backoffs_are_drawn_from_eight_values(air: tuple[Channel, Agenda]) -> None:
    channel, agenda = air
    ends: list[float] = [0.0]
    for _ in range(500):
        channel.send(0.0, 1, 62, None, lambda when, ok: ends.append(when))
    agenda.run()
    fixed = hop_s(62) - 3.5 * 320e-6
    units = {round((b - a - fixed) / 320e-6, 3) for a, b in pairwise(ends)}
    assert units == {float(n) for n in range(8)}


def test_three_retries_follow_and_back_off_longer(air: tuple[Channel, Agenda]) -> None:
    channel, agenda = air
    outcomes: list[bool] = []
    for lost in (3, 4):
        channel.send(agenda.now, 1, 62, Deaf(lost), lambda when, ok: outcomes.append(ok))
        agenda.run()
    assert outcomes == [True, False]
    assert (channel.transmissions, channel.retries, channel.given_up) == (8, 6, 1)
    before = agenda.now
    for _ in range(500):
        channel.send(before, 1, 62, Deaf(4), lambda when, ok: None)
    agenda.run()
    mean_units = (3.5 + 7.5 + 15.5 + 15.5) / 4
    expected = hop_s(62) + (mean_units - 3.5) * 320e-6
    assert (agenda.now - before) / 2_000 == pytest.approx(expected, rel=0.03)


def test_a_station_keeps_its_order_and_no_station_is_starved(air: tuple[Channel, Agenda]) -> None:
    channel, agenda = air
    sent: list[tuple[int, int]] = []
    for station in range(4):
        for number in range(50):
            channel.send(0.0, station, 62, None, lambda when, ok, s=station, n=number: sent.append((s, n)))  # type: ignore[misc]
    assert channel.waiting == 199
    agenda.run()
    for station in range(4):
        assert [n for s, n in sent if s == station] == list(range(50))
    assert {s for s, _ in sent[:40]} == {0, 1, 2, 3}


def test_a_poll_takes_what_the_protocol_file_says(air: tuple[Channel, Agenda]) -> None:
    channel, agenda = air
    for _ in range(4_000):
        channel.poll(0.0, 1, None, lambda when, ok: None)
    agenda.run()
    assert agenda.now / 4_000 == pytest.approx(DATA_REQUEST_S, rel=0.05)


def test_bursts_last_as_long_and_take_as_much_as_told() -> None:
    link = LossyLink(0.0, Bursts(loss=1.0, mean_s=2.0, share=0.1), random.Random(3))
    step_s = 0.05
    states = [link.lost(at * step_s) for at in range(400_000)]
    assert sum(states) / len(states) == pytest.approx(0.1, abs=0.01)
    runs = [len(list(group)) for bad, group in itertools.groupby(states) if bad]
    assert sum(runs) / len(runs) * step_s == pytest.approx(2.0, rel=0.15)
    alone = [link.lost(20_000 + 1_000.0 * at) for at in range(5_000)]
    assert sum(alone) / len(alone) == pytest.approx(0.1, abs=0.02), "long silence forgets the state"


def test_bursts_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="share"):
        Bursts(share=1.0)


def test_every_hop_costs(make_lab: MakeLab) -> None:
    took = []
    for hops in (1, 2, 3):
        lab = make_lab(mesh={"channel": Channel(seed=2)}, hops=hops, timing=QUIET)
        lab.run(5)
        busy, begun, arrivals = lab.mesh.channel.busy_s, lab.now, []
        for counter in range(200):
            frame = ApsFrame(0x0104, 0x0000, 1, 1, b"\x18\x01\x0b\x00\x00", counter)
            lab.mesh.unicast(
                lab.node.nwk, frame, lab.now, acknowledged=True, done=lambda ok: None, arrived=arrivals.append
            )
            lab.run(1)
        assert len(arrivals) == 200
        took.append(sum(at - begun - n for n, at in enumerate(arrivals)) / 200)
        assert lab.mesh.channel.busy_s - busy == pytest.approx(200 * hops * (hop_s(50) + hop_s(45)), rel=0.05)
    assert took == pytest.approx([hop_s(50), 2 * hop_s(50), 3 * hop_s(50)], rel=0.05)


def test_without_acknowledgement_the_sender_knows_of_the_first_hop_only(make_lab: MakeLab) -> None:
    lab = make_lab(mesh={"channel": Channel()}, hops=2, loss=1.0, timing=QUIET)
    lab.run(5)
    done: list[bool] = []
    frame = ApsFrame(0x0104, 0x0000, 1, 1, b"\x18\x01\x0b\x00\x00", 1)
    lab.mesh.unicast(lab.node.nwk, frame, lab.now, acknowledged=False, done=done.append)
    lab.run(5)
    assert done == [True]
    lab.mesh.unicast(lab.node.nwk, frame, lab.now, acknowledged=True, done=done.append)
    lab.run(10)
    assert done == [True, False]
    assert lab.mesh.aps_retries == 3


def test_a_node_without_power_acknowledges_nothing(make_lab: MakeLab) -> None:
    lab = make_lab(mesh={"channel": Channel()}, timing=QUIET)
    lab.run(5)
    lab.node.power_off()
    done: list[bool] = []
    lab.mesh.unicast(
        lab.node.nwk, ApsFrame(0x0104, 0, 1, 1, b"\x18\x01\x0b"), lab.now, acknowledged=False, done=done.append
    )
    lab.run(5)
    assert done == [False]
    assert lab.mesh.channel.given_up == 1


@pytest.mark.parametrize("sleepy", [False, True])
@pytest.mark.parametrize("hops", [1, 3])
def test_a_download_over_the_channel_ends_with_the_very_bytes(make_lab: MakeLab, sleepy: bool, hops: int) -> None:
    lab = make_lab(
        mesh={"channel": Channel(seed=4)}, sleepy=sleepy, hops=hops, mac_loss=0.1, bursts=Bursts(mean_s=0.5, share=0.05)
    )
    lab.run(7200, lambda: lab.node.running_image == lab.file)
    assert lab.node.running_image == lab.file
    assert lab.node.counters.bytes_received_twice == 0
    assert lab.mesh.channel.retries > 0


def test_a_sleepers_frame_expires_at_its_parent(make_lab: MakeLab) -> None:
    lab = make_lab(mesh={"channel": Channel()}, sleepy=True, hops=2, poll_s=60.0, timing=QUIET)
    done: list[bool] = []
    asked = lab.now
    frame = ApsFrame(0x0104, 0, 1, 1, b"\x18\x01\x0b")
    lab.mesh.unicast(lab.node.nwk, frame, asked, acknowledged=False, done=done.append)
    lab.run(30, lambda: bool(done))
    assert done == [False]
    assert lab.now - asked == pytest.approx(7.68, abs=0.1)


def test_a_broadcast_is_repeated_by_every_router_and_reaches_all(make_lab: MakeLab) -> None:
    channel = Channel()
    mesh = Mesh([NodeSpec(eui64=n, hops=1 + n % 3, timing=QUIET) for n in range(30)], channel=channel)
    mesh.power_on(0.0)
    while (deadline := mesh.next_deadline()) is not None and deadline < 100:
        mesh.handle_timeout(deadline)
    before, down = channel.transmissions, mesh.frames_down
    mesh.broadcast(ApsFrame(0, 0x0036, 0, 0, b"\x01\x00\x00", broadcast=True), 100.0)
    while (deadline := mesh.next_deadline()) is not None and deadline < 200:
        mesh.handle_timeout(deadline)
    assert mesh.frames_down - down == 30
    assert channel.transmissions - before == 31


def test_the_same_seeds_give_the_same_world(make_lab: MakeLab) -> None:
    def world(seed: int) -> list[object]:
        lab = make_lab(mesh={"channel": Channel(seed)}, hops=2, mac_loss=0.3, bursts=Bursts(), seed=seed)
        lab.run(60)
        return lab.asked  # type: ignore[no-any-return]

    assert world(1) == world(1)
    assert world(1) != world(2)
