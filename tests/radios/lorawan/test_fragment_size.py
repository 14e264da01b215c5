"""Bytes of a fragment: what takes the least air, in every region and at every data rate."""

from math import ceil

import pytest

from radios.errors import Unsupported
from radios.lorawan.airtime import PHY_OVERHEAD
from radios.lorawan.fragment_size import best, check_fits, largest
from radios.lorawan.inventory import Node
from radios.lorawan.journal_codec import Known, read_cohort
from radios.lorawan.network_server import Device, DeviceClass
from radios.lorawan.packages.fragmentation import FRAGMENT_OVERHEAD, N_MAX
from radios.lorawan.placement import Candidate, Place, assign, place_fragment
from radios.lorawan.regions import EU868, REGIONS
from radios.radio import Fact
from radios.simulated.lorawan.packages.fragmentation import StatusStyle
from tests.radios.lorawan.memory_site import node_id, site
from tests.radios.lorawan.test_driver_nodes import deliver
from tests.radios.lorawan.world import new_image, spec

SIZES = (1, 7, 500, 4_000, 20_479, 102_400, 262_144)


def on_air_s(spreading_factor, bandwidth_hz, frame_bytes):
    """Of a downlink, counted symbol by symbol: preamble, then groups of five (4/5) for each 4 (SF - 2 DE) bits."""
    slow = 2**spreading_factor / bandwidth_hz > 0.016
    bits = 8 * frame_bytes + 28 - 4 * spreading_factor  # explicit header, no CRC
    symbols = 12.25 + 8
    while bits > 0:
        symbols += 5
        bits -= 4 * (spreading_factor - 2 * slow)
    return symbols * 2**spreading_factor / bandwidth_hz


def settings():
    for name, region in REGIONS.items():
        for repeater in (True, False):
            for dwell in (True, False):
                plan = region.held_to(repeater=repeater, dwell_time=dwell)
                for rate, downlink in plan.downlinks.items():
                    yield pytest.param(plan, downlink, id=f"{name}-{repeater:d}{dwell:d}-DR{rate}")


@pytest.mark.parametrize(("plan", "downlink"), list(settings()))
def test_no_other_size_takes_less_air(plan, downlink):
    radio = downlink.modulation
    if downlink.max_payload < 8 + FRAGMENT_OVERHEAD:
        with pytest.raises(Unsupported):
            best(4_000, downlink.max_payload, radio)
        return
    one = {
        size: on_air_s(radio.spreading_factor, radio.bandwidth_hz, PHY_OVERHEAD + FRAGMENT_OVERHEAD + size)
        for size in range(8, downlink.max_payload - FRAGMENT_OVERHEAD + 1)
    }
    for image in SIZES:
        possible = {size: ceil(image / size) for size in one if ceil(image / size) <= N_MAX // 2}
        if not possible:
            with pytest.raises(Unsupported):
                best(image, downlink.max_payload, radio)
            continue
        air = {size: count * one[size] for size, count in possible.items()}
        chosen = best(image, downlink.max_payload, radio)
        assert air[chosen] == pytest.approx(min(air.values()))
        equal = [size for size in air if air[size] == pytest.approx(min(air.values()))]
        assert possible[chosen] == min(possible[size] for size in equal)
        few = best(image, downlink.max_payload, radio, fewest=True)
        assert possible[few] == min(possible.values())
        assert air[few] == pytest.approx(min(air[s] for s, count in possible.items() if count == possible[few]))


@pytest.mark.parametrize(
    ("rate", "image", "expected", "saved"),
    [
        (0, 102_400, 46, 0.017),  # 48 bytes end in a group of symbols that is nearly empty
        (5, 4_000, 211, 0.04),  # as many fragments as with 219 bytes, all of them shorter
        (1, 102_400, 48, 0.0),
    ],
)
def test_the_largest_is_not_always_the_best(rate, image, expected, saved):
    downlink = EU868.held_to(repeater=True, dwell_time=False).downlink(rate)
    most = largest(downlink.max_payload)
    assert best(image, downlink.max_payload, downlink.modulation) == expected

    def air(size):
        radio = downlink.modulation
        return ceil(image / size) * on_air_s(radio.spreading_factor, radio.bandwidth_hz, 16 + size)

    assert 1 - air(expected) / air(most) == pytest.approx(saved, abs=0.003)


def test_no_more_than_the_firmware_was_built_for():
    downlink = EU868.downlink(5)
    assert best(20_000, downlink.max_payload, downlink.modulation, 50) <= 50
    with pytest.raises(Unsupported):
        best(20_000, downlink.max_payload, downlink.modulation, 7)


def test_counters_have_to_suffice():
    assert check_fits(48 * 8191, 48) == 8191
    for image in (0, 48 * 8191 + 1):
        with pytest.raises(Unsupported):
            check_fits(image, 48)
    downlink = EU868.downlink(0)
    assert best(48 * 8191, 51, downlink.modulation) == 48  # though 46 would take less air


def test_nodes_that_were_built_for_smaller_fragments_are_apart():
    reach = frozenset({"a"})
    nodes = [Candidate("1", 1, 5, reach, 201), Candidate("2", 1, 5, reach, 201, frag_most=50)]
    found = dict(assign(nodes, {}, ("a",), lambda _: 1.0))
    assert {place.frag_most: names for place, names in found.items()} == {255: ["1"], 50: ["2"]}
    small = Place(1, 5, ("a",), 201, frag_most=50)
    assert place_fragment(EU868, small, 20_000) <= 50
    assert dict(assign([nodes[0]], {small: 1}, ("a",), lambda _: 1.0)).get(small) is None


async def test_a_node_as_its_library_is_delivered_gets_the_fragments_it_was_built_for():
    """LoRaMac-node: 50 bytes at most, or it has no memory for the session."""
    small = spec(1, fragment_bytes_most=50, status_style=StatusStyle.LORAMAC, tags={"gatewayd-fragment": "50"})
    other, wrong = spec(2), spec(3, fragment_bytes_most=50)
    image = new_image(3_000)
    async with site([small, other, wrong], image) as (radio, journal, network):
        await deliver(radio, journal, [small, other, wrong], image)
        await journal.until(Fact.RUNNING, node_id(small), node_id(other))
        await journal.until(Fact.FAILED, node_id(wrong))
        assert network.simulated.nodes[small.dev_eui].running_image == image
        made = [read_cohort(r) for batch, _ in journal.batches for r in batch if r.scope == "group" and is_cohort(r)]
        assert {cohort.frag_size <= 50 for cohort in made if cohort.frag_most == 50} == {True}
        assert {cohort.frag_size > 200 for cohort in made if cohort.frag_most == 255} == {True}


def is_cohort(record):
    return bool(record.value) and not record.secret


@pytest.mark.parametrize("tag", ["", "7", "256", "-1", "many", "٥٠"])
def test_a_fragment_tag_that_is_none_is_not_looked_at(tag):
    device = Device("a" * 16, "", DeviceClass.A, "EU868", (1, 0), 60.0, tags={"gatewayd-fragment": tag})
    assert Node(device, Known("a" * 16)).fragment_most == 255
