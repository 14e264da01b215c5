"""Zigbee: what a served block costs, what an active node holds in memory, and how the mesh fares."""

import asyncio
import gc
import statistics
import time
import tracemalloc
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from tests.benchmarks import zigbee_dongle, zigbee_foreground, zigbee_mesh
from tests.benchmarks.result import Bench, Result, Target, quick
from tests.benchmarks.zigbee_site import Site, addresses, check_answers, gatewayd_site, requests, zigpy_site

NODES = (1, 20, 200)
BLOCKS = 4500  # in all, of 50 bytes: 60 s of a saturated channel, so the journal is flushed six times
RUNS = 1 if quick() else 5
LEAST_BETTER = 5.0  # times less CPU time than zigpy
MOST_BYTES_PER_NODE = 10_000
MOST_GROWTH = 1.2

SiteOf = Callable[[int], AbstractAsyncContextManager[Site]]


def block_cost() -> list[Result]:
    """(a) and the second half of (d)."""
    ours, theirs = {}, {}
    for count in NODES:
        runs = [
            (asyncio.run(_cpu_us(gatewayd_site, count)), asyncio.run(_cpu_us(zigpy_site, count))) for _ in range(RUNS)
        ]
        ours[count], theirs[count] = (statistics.median(side) for side in zip(*runs, strict=True))
    results = []
    for count in NODES:
        what = f"CPU per served 50-byte block, {count} node{'s' if count > 1 else ''}"
        ratio = theirs[count] / ours[count]
        results += [
            Result(what, ours[count], "us", peers={"zigpy OTAManager": theirs[count]}),
            Result(f"{what}: zigpy / gatewayd", ratio, "x", Target(">=", LEAST_BETTER)),
        ]
    most, least = max(NODES), min(NODES)
    peers = {"zigpy OTAManager": theirs[most] / theirs[least]}
    growth = ours[most] / ours[least]
    return [
        *results,
        Result(f"CPU per block at {most} nodes / at {least}", growth, "x", Target("<=", MOST_GROWTH), peers),
    ]


def through_dongle() -> list[Result]:
    """(a) with bellows, EZSP and ASH in the way, on both sides."""
    ours, theirs = zigbee_dongle.cpu_us()
    what = f"CPU per served 50-byte block through bellows and the dongle, {zigbee_dongle.NODES} nodes"
    return [Result(what, ours, "us", peers={"zigpy OTAManager": theirs})]


def memory() -> list[Result]:
    """The first half of (d)."""
    count = max(NODES)
    ours, theirs = (asyncio.run(_bytes_per_node(site, count)) for site in (gatewayd_site, zigpy_site))
    target = Target("<=", MOST_BYTES_PER_NODE)
    return [Result(f"memory per active node, {count} nodes", ours, "B", target, {"zigpy OTAManager": theirs})]


async def _cpu_us(site_of: SiteOf, count: int) -> float:
    """CPU time of this process, all threads, per block."""
    rounds = BLOCKS // count
    warm = requests(addresses(count), 2)
    packets = requests(addresses(count), rounds, first=2)
    async with site_of(count) as site:
        await site.begin()
        await site.serve(warm)
        site.app.sent.clear()
        gc.collect()
        begin = time.process_time()
        await site.serve(packets)
        taken = time.process_time() - begin
        check_answers(packets, site.app.sent)
    return taken / (rounds * count) * 1e6


async def _bytes_per_node(site_of: SiteOf, count: int) -> float:
    """Python memory that the transfers of `count` nodes in mid-download hold beyond the idle network."""
    packets = requests(addresses(count), 10)
    async with site_of(count) as site:
        gc.collect()
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            await site.begin()
            await site.serve(packets)
            check_answers(packets, site.app.sent)
            site.app.sent.clear()
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    return (after - before) / count


BENCHES: tuple[Bench, ...] = (block_cost, through_dongle, memory, *zigbee_mesh.BENCHES, *zigbee_foreground.BENCHES)
