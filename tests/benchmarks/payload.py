"""Payloads, envelopes and planning: a download beside curl, a big envelope, campaigns over many nodes, the disk (disk.py)."""

import asyncio
import logging
import multiprocessing
import random
import shutil
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import structlog
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined] # a public name, but not in its __all__

from gatewayd.campaign.planner import Situation, decide
from gatewayd.campaign.rows import CampaignRow, CampaignState
from gatewayd.cloud.messages import CampaignKeys, Manufacturers, Payload, Selection
from gatewayd.demo.authority import Authority
from gatewayd.payload.cache import PayloadCache
from gatewayd.payload.fetch import Fetcher
from gatewayd.publisher.campaigns import sign_campaign
from gatewayd.publisher.firmware import CHUNK_BYTES
from gatewayd.publisher.keys import campaign_key
from gatewayd.trust.envelope import verify_campaign
from tests.benchmarks.disk import disk
from tests.benchmarks.result import Bench, Result, Target, median_ms, quick
from tests.support.documents import START_S, campaign, node, payload, release

PAYLOAD_BYTES = 64 * 2**20  # the most that a payload may have; three of them stand for the 200 MB
PAYLOADS = 1 if quick() else 3
RUNS = 5
MOST_TIMES_CURL = 1.2
MOST_GROWTH_MB = 10.0

ENVELOPE_NODES = 1000
PLANNED = (10_000, 100_000)
SMALL_TO_BIG = 1.2  # more than ten times the time of a tenth: sorting and caches; a square would be ten


def download() -> list[Result]:
    """Fetch, verify and cache over TLS beside curl, sha256sum and sync: same server, files and disk, turn about."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir="build") as name:
        folder = Path(name).absolute()
        served = folder / "served"
        payloads = _make_payloads(served)
        authority = Authority(folder / "tls")
        ours, theirs, growths = [], [], []
        with (
            _server(served, authority) as url,
            multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool,
        ):
            for run in range(RUNS):
                taken, grown = pool.apply(_fetched, (url, authority.ca, folder / f"cache-{run}", payloads))
                ours.append(taken)
                growths.append(grown)
                theirs.append(_curled_s(url, authority.ca, folder / f"curl-{run}", payloads))
    megabytes = PAYLOADS * PAYLOAD_BYTES / 1e6
    what = f"download, verify and cache {PAYLOADS} x 64 MiB over TLS"
    seconds, peer = statistics.median(ours), statistics.median(theirs)
    return [
        Result(f"{what} / curl + sha256sum + sync", seconds / peer, "x", Target("<=", MOST_TIMES_CURL)),
        Result(what, seconds, "s", peers={"curl + sha256sum + sync": peer}),
        Result("rate of that", megabytes / seconds, "MB/s", peers={"curl + sha256sum + sync": megabytes / peer}),
        Result("peak memory growth in it", max(growths), "MB", Target("<=", MOST_GROWTH_MB)),
    ]


def envelope() -> list[Result]:
    """A campaign that names its nodes, signed with ECDSA P-256, from bytes to a verified document."""
    signer = CryptoSigner.generate_ecdsa()
    keys = CampaignKeys(keys=(campaign_key(signer, ["gateway:gw-1"]),))
    named = tuple(node(number).id for number in range(1, ENVELOPE_NODES + 1))
    raw = sign_campaign(campaign(selection=Selection(nodes=named)), signer)
    audiences = frozenset({"gateway:gw-1"})
    (taken,) = median_ms(lambda: verify_campaign(raw, keys, audiences, START_S, None), runs=51)
    return [Result(f"envelope of {ENVELOPE_NODES} nodes verified ({len(raw)} bytes)", taken, "ms", Target("<=", 1.0))]


def planning() -> list[Result]:
    """`planner.decide` for a campaign that has just come, and again when all its nodes have a row."""
    least, most = PLANNED
    times = {count: _planned_s(count) for count in PLANNED}
    results = []
    for count in PLANNED:
        first, again = times[count]
        target = Target("<=", 1.0) if count == least else None
        results += [
            Result(f"planning of {count} nodes, first", first, "s", target),
            Result(f"planning of {count} nodes, again", again, "s", target),
        ]
    bound = Target("<=", SMALL_TO_BIG * most / least)
    for at, which in enumerate(("first", "again")):
        growth = times[most][at] / times[least][at]
        results.append(Result(f"planning of {most} nodes / of {least}, {which}", growth, "x", bound))
    return results


def _planned_s(count: int) -> tuple[float, float]:
    document = campaign()
    row = CampaignRow(
        document.id, "t", document.audience, 1, "0" * 64, b"", document.release, CampaignState.WAITING, "", "",
        False, 1, "", START_S, START_S,
    )  # fmt: skip
    first = Situation(
        campaign=document,
        row=row,
        release=release(),
        manufacturers=Manufacturers(keys=()),
        blocked=None,
        forbidden=False,
        nodes={made.id: made for made in map(node, range(1, count + 1))},
        updates={},
        elsewhere={},
        now=START_S,
        radio_now={"zigbee": START_S},
    )
    decision = decide(first)
    again = replace(first, row=decision.row, updates={update.node: update for update in decision.updates})
    if len(again.updates) != count:
        raise AssertionError(f"{len(again.updates)} of {count} nodes were planned")
    taken = median_ms(lambda: decide(first), lambda: decide(again), runs=5)
    return taken[0] / 1e3, taken[1] / 1e3


# -- the download ------------------------------------------------------------------------------------------------------


def _make_payloads(folder: Path) -> list[Payload]:
    (folder / "payloads").mkdir(parents=True)
    made = []
    for number in range(PAYLOADS):
        body = random.Random(number).randbytes(PAYLOAD_BYTES)
        described = payload(body, CHUNK_BYTES)
        (folder / described.path).write_bytes(body)
        made.append(described)
    return made


@contextmanager
def _server(folder: Path, authority: Authority) -> Iterator[str]:
    credentials = authority.server("web")
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.https_server",
        *map(str, (folder, credentials.cert, credentials.key)),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        if process.stdin is None or process.stdout is None:
            raise AssertionError("pipes were asked for")
        try:
            yield f"https://localhost:{int(process.stdout.readline())}"
        finally:
            process.stdin.close()


def _curled_s(url: str, ca: Path, folder: Path, payloads: Sequence[Payload]) -> float:
    folder.mkdir()
    begin = time.perf_counter()
    for wanted in payloads:
        file = folder / wanted.sha256
        subprocess.run(["curl", "-sSf", "--cacert", ca, "-o", file, f"{url}/{wanted.path}"], check=True)
        told = subprocess.run(["sha256sum", file], check=True, capture_output=True, text=True).stdout
        subprocess.run(["sync", file, folder], check=True)
        if told.split()[0] != wanted.sha256:
            raise AssertionError("curl brought other bytes")
    taken = time.perf_counter() - begin
    shutil.rmtree(folder)
    return taken


def _fetched(url: str, ca: Path, folder: Path, payloads: Sequence[Payload]) -> tuple[float, float]:
    """Seconds, and MB by which memory grew at its peak. Runs in a process of its own, whose memory knows nothing else."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    return asyncio.run(_fetch(url, ca, folder, payloads))


async def _fetch(url: str, ca: Path, folder: Path, payloads: Sequence[Payload]) -> tuple[float, float]:
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=str(ca)), limit=4)
    async with aiohttp.ClientSession(connector=connector) as session:
        cache = PayloadCache(folder, 1 << 40)
        fetcher = Fetcher(session, cache, [url])
        before = _reset_peak_kb()
        begin = time.perf_counter()
        for wanted in payloads:
            await fetcher.fetch(wanted)
        taken = time.perf_counter() - begin
        grown = _memory_kb("VmHWM") - before
        if not all(cache.has(wanted.sha256, wanted) for wanted in payloads):
            raise AssertionError("not everything is in the cache")
        cache.close()
    shutil.rmtree(folder)
    return taken, grown * 1024 / 1e6


def _reset_peak_kb() -> int:
    """Forget the peak of this process's memory; what it holds now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory_kb("VmRSS")


def _memory_kb(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


BENCHES: tuple[Bench, ...] = (envelope, planning, download, disk)
