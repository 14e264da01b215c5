"""Repeaters and dwell time bind everything that chooses a size or a data rate: cohorts, single nodes, plans."""

from dataclasses import replace

import pytest

from radios.errors import Unsupported
from radios.lorawan.air import Turn
from radios.lorawan.air_book import AirBook
from radios.lorawan.chirpstack import ChirpStackSettings
from radios.lorawan.link import slower, usable
from radios.lorawan.placement import Candidate, Place
from radios.lorawan.regions import REGIONS, region
from radios.lorawan.session_factory import SessionFactory
from radios.lorawan.settings import LorawanSettings
from radios.lorawan.transfer_plan import planned
from radios.lorawan.unicast_air import UnicastAir
from radios.radio import ImageRef

CHIRPSTACK = ChirpStackSettings("127.0.0.1:1", "token", "a", "t", "127.0.0.1")
GATEWAY = "00800000a0000001"


def settings(**changes):
    return LorawanSettings(chirpstack=CHIRPSTACK, **{"region": "AS923", "multicast_data_rate": 5, **changes})


def factory(made):
    book = AirBook(made.plan, made.frequency_hz)
    return SessionFactory(made, Turn(), book, lambda *_: b"", bool)


@pytest.mark.parametrize(
    ("changes", "bytes_"),
    [
        ({}, 219),
        ({"repeater_compatible": False}, 239),
        ({"dwell_time": True, "repeater_compatible": False}, 239),
        ({"dwell_time": True, "multicast_data_rate": 4}, 122),
        ({"dwell_time": True, "multicast_data_rate": 3}, 50),
        ({"dwell_time": True, "multicast_data_rate": 2}, 8),
        ({"multicast_data_rate": 3}, 112),
    ],
)
def test_fragments_of_a_cohort_fit(changes, bytes_):
    made = settings(**changes)
    assert bytes_ - 4 <= factory(made).frag_size(Place(1, made.data_rate, (GATEWAY,), 201), 20_000) <= bytes_


def test_a_data_rate_that_dwell_time_forbids_is_refused_where_it_is_configured():
    assert settings(multicast_data_rate=0).data_rate == 0
    with pytest.raises(Unsupported, match="no room for a fragment"):
        settings(multicast_data_rate=0, dwell_time=True)


def test_no_node_is_given_a_data_rate_that_dwell_time_forbids():
    plan = settings(dwell_time=True).plan
    assert slower(plan, 3) == 2
    assert slower(plan, 2) is None
    assert slower(region("AS923"), 2) == 1
    assert usable(plan, 5, {GATEWAY: -30.0}, 0, (GATEWAY,))[0] == 2
    assert usable(plan, 5, {}, 0, ())[0] == 2


def test_a_single_node_is_answered_at_the_lowest_rate_that_dwell_time_allows():
    held = settings(dwell_time=True).plan
    bound, free = UnicastAir(held, rx2={}), UnicastAir(region("AS923"), rx2={})
    assert [bound.data_rate(dr, always_on=False) for dr in range(6)] == [2, 2, 2, 3, 4, 5]
    assert [free.data_rate(dr, always_on=False) for dr in range(6)] == [0, 1, 2, 3, 4, 5]
    assert [bound.max_payload(dr) for dr in range(7)] == [0, 0, 11, 53, 125, 222, 222]


def test_a_plan_counts_the_fragments_that_will_be_sent():
    image, candidates = ImageRef("00" * 32, 10_000, 2), [Candidate("1", 1, 3, frozenset({GATEWAY}), 201)]
    counts = []
    for dwell_time in (False, True):
        made = settings(dwell_time=dwell_time)
        parts = planned(
            image,
            candidates,
            [GATEWAY],
            made.plan,
            factory(made).unicast_air,
            lambda place, made=made: factory(made).pace(1.0, place.gateways, place.data_rate),
            lambda _: 300.0,
        )
        counts.append(parts.parts[0].frames)
    assert counts == [105, 241]  # of 111 and of 48 bytes, and 15 %


@pytest.mark.parametrize("name", list(REGIONS))
def test_a_plan_that_is_held_says_the_same_however_it_is_asked(name):
    plan = region(name)
    for repeater in (False, True):
        for dwell_time in (False, True):
            held = plan.held_to(repeater=repeater, dwell_time=dwell_time)
            for dr in plan.downlinks:
                expected = plan.max_payload(dr, repeater=repeater, dwell_time=dwell_time)
                assert held.max_payload(dr) == expected
                assert held.max_payload(dr, repeater=True, dwell_time=True) == expected
            assert replace(held, downlinks=plan.downlinks) == plan
