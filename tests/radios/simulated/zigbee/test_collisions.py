"""Collisions on the shared channel, where they are asked for: equal back-offs, and stations that do not hear each other."""

import heapq
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from radios.simulated.zigbee.channel import Channel, Collisions

FRAMES, STATIONS = 400, 4


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


def carry(
    collisions: Collisions | None, *, stations: int = STATIONS, together: bool = True
) -> tuple[Channel, list[bool]]:
    """Frames from several stations, all at once or each when the last one is through; what became of each."""
    agenda, channel = Agenda(), Channel(seed=3, collisions=collisions)
    channel.attach(agenda.call_at)
    outcome: list[bool] = []
    for number in range(FRAMES):
        channel.send(agenda.now, number % stations, 62, None, lambda _, ok: outcome.append(ok))
        if not together:
            agenda.run()
    agenda.run()
    return channel, outcome


def test_without_them_nothing_collides_and_nothing_else_changes() -> None:
    channel, outcome = carry(None)
    assert (channel.collided, channel.transmissions, channel.retries, outcome) == (0, FRAMES, 0, [True] * FRAMES)


def test_a_single_frame_collides_with_nobody() -> None:
    channel, outcome = carry(Collisions(hidden=0.5), together=False)
    assert (channel.collided, outcome) == (0, [True] * FRAMES)
    channel, outcome = carry(Collisions(hidden=0.5), stations=1)
    assert (channel.collided, outcome) == (0, [True] * FRAMES), "a station does not send against itself"


@pytest.mark.parametrize(("hidden", "least"), [(0.0, 50), (0.1, 100)])
def test_stations_that_contend_collide_and_repeat(hidden: float, least: int) -> None:
    channel, outcome = carry(Collisions(hidden))
    assert channel.collided >= least
    assert len(outcome) == FRAMES, "every frame ends once"
    assert channel.given_up == outcome.count(False)
    assert channel.retries > channel.given_up
    assert outcome.count(True) > FRAMES * 0.6
    assert channel.waiting == 0


def test_a_download_over_a_channel_with_collisions_ends_with_the_very_bytes(make_lab: Any) -> None:
    channel = Channel(seed=1, collisions=Collisions(hidden=0.2))
    lab = make_lab(mesh={"channel": channel}, hops=3)
    lab.run(600.0, until=lambda: lab.node.running_image == lab.file)
    assert lab.node.running_image == lab.file
