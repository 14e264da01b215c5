"""What a day of transfers writes to disk: flash wears out."""

import asyncio
from pathlib import Path

from tests.benchmarks.result import Result, Target, quick
from tests.benchmarks.zigbee_site import CHANNEL_BLOCKS_PER_S, addresses, gatewayd_site, requests

NODES = 50
FOR_S = 300 if quick() else 1800
MOST_BYTES_A_DAY = 0.5e9


def disk() -> list[Result]:
    """`write_bytes` of this process for nodes that download over a saturated channel, taken to a day."""
    written = asyncio.run(_written_bytes())
    a_day = written * 86400 / FOR_S
    what = f"bytes written to disk per day for {NODES} nodes in transfer"
    return [Result(what, a_day / 1e6, "MB", Target("<=", MOST_BYTES_A_DAY / 1e6))]


async def _written_bytes() -> int:
    nodes = addresses(NODES)
    rounds = round(FOR_S * CHANNEL_BLOCKS_PER_S / NODES)
    async with gatewayd_site(NODES, with_inventory=True) as site:
        await site.begin()
        await site.serve(requests(nodes, 2))
        before = _process_written_bytes()
        for number in range(2, 2 + rounds):
            site.app.sent.clear()
            await site.serve(requests(nodes, 1, first=number))
        return _process_written_bytes() - before


def _process_written_bytes() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes:"))
