"""What the site's own traffic costs an update, in virtual time: in proportion to how much there is of it."""

from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import pytest

from radios.simulated.zigbee.node_spec import NodeSpec
from radios.simulated.zigbee.ota_terms import OtaTiming
from radios.zigbee.settings import ZigbeeSettings
from tests.support.zigbee_downloads import EUI64, Site, download

BASIC, POWER_SOURCE = 0x0000, 0x0007
NEVER_S = 1e6
IMAGE_BYTES = 15_000  # a virtual minute for six nodes
NODES = 6


@cache
def took_s(gaps_s: tuple[float, ...] = ()) -> float:
    """Virtual seconds of an update of six nodes, one of which reports after each gap in turn, over and over."""

    def report(site: Site, gaps: Sequence[float], count: int, now: float) -> None:
        node = list(site.mesh.nodes.values())[count % NODES]
        site.mesh.uplink(node, node.report_frame(BASIC, POWER_SOURCE), now, acknowledged=True)
        site.mesh.call_at(now + gaps[count % len(gaps)], lambda at: report(site, gaps, count + 1, at))

    def watch(site: Site) -> None:
        if gaps_s:
            site.mesh.call_at(site.loop.time() + 1.0, lambda at: report(site, gaps_s, 0, at))

    specs = [
        NodeSpec(
            EUI64 + at,
            hops=1 + at % 3,
            mac_loss=0.02,
            timing=OtaTiming(boot_query_delay_s=(NEVER_S, NEVER_S), verify_s=NEVER_S),
            seed=1,
        )
        for at in range(NODES)
    ]
    site = download(specs, ZigbeeSettings("simulated"), image_bytes=IMAGE_BYTES, meanwhile=watch)
    return site.took_s


@pytest.mark.parametrize(
    ("gaps_s", "times"),
    [
        ((20.0,), 1.1),
        ((10.0,), 1.15),
        ((1.0, 1.0, 18.0), 1.2),  # three together
        ((5.0,), 1.25),
        ((2.5,), 1.6),
        ((0.5,), 2.9),
    ],
)
def test_an_update_of_six_nodes_takes_longer_by_what_is_kept_for_the_foreground(
    gaps_s: tuple[float, ...], times: float
) -> None:
    assert took_s(gaps_s) <= times * took_s()


def test_more_foreground_takes_more_of_the_update_without_a_step() -> None:
    rates_per_s = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    speeds = [took_s() / took_s((1.0 / rate,) if rate else ()) for rate in rates_per_s]
    steps = [before - after for before, after in pairwise(speeds)]
    assert all(-0.05 <= step <= 0.2 for step in steps)
    assert speeds[-1] <= 0.5
