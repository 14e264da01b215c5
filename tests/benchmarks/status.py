"""The status endpoint under load beside a bare aiohttp handler."""

import asyncio
import json
import logging
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web

from gatewayd.config_values import Listen
from gatewayd.nodes.inventory import Inventory
from gatewayd.status.server import StatusServer
from radios.radio import CommandResult, Json, NodeCommand, NodeObservation, Power, parse_node_id
from tests.benchmarks.result import Bench, Result, quick
from tests.benchmarks.store import store_in_transfer
from tests.support.documents import HARDWARE, OLD, START_S, node

NODES = 1000
PATHS = ("/healthz", "/api/v1/nodes", "/api/v1/nodes?limit=500")
CLIENTS = 4
RUNS = 3
RUN_S = 0.5 if quick() else 2.0

IN_TRANSFER = 50


def endpoint() -> list[Result]:
    """Requests a second and the 99th percentile of their latency, `CLIENTS` connections that ask without a pause."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-", dir="build") as folder,
        _server(_serve_gatewayd, folder) as ours,
    ):
        bodies = {path: asyncio.run(_body(ours, path)) for path in PATHS}
        with _server(_serve_bare, bodies) as bare:
            return [result for path in PATHS for result in _loaded(path, (ours, bare), len(bodies[path]))]


def _loaded(path: str, ports: Sequence[int], size: int) -> list[Result]:
    rates: list[list[float]] = [[] for _ in ports]
    tails: list[list[float]] = [[] for _ in ports]
    for _ in range(RUNS):
        for port, rate, tail in zip(ports, rates, tails, strict=True):
            latencies = asyncio.run(_load(port, path))
            rate.append(len(latencies) / RUN_S)
            tail.append(statistics.quantiles(latencies, n=100)[98] * 1e3)
    (our_rate, bare_rate), (our_tail, bare_tail) = map(statistics.median, rates), map(statistics.median, tails)
    peer = "bare aiohttp handler, same bytes"
    return [
        Result(f"{path}, {NODES} nodes, {size} bytes", our_rate, "requests/s", peers={peer: bare_rate}),
        Result(f"{path}, 99th percentile", our_tail, "ms", peers={peer: bare_tail}),
    ]


# -- the servers, each in a process of its own -------------------------------------------------------------------------


@contextmanager
def _server(serve: Callable[[Any, Connection], None], argument: object) -> Iterator[int]:
    """Its port. The process ends with the context."""
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=serve, args=(argument, theirs), daemon=True)
    process.start()
    try:
        yield pipe.recv()
    finally:
        pipe.send(None)
        process.join(10)


class _Live:
    """A daemon's live view with every node in mid-transfer."""

    def __init__(self, ids: list[str]) -> None:
        self._progress = {("bench.1", name): 5000 for name in ids[:IN_TRANSFER]}

    def gateway(self) -> Mapping[str, Json]:
        return {"id": "gw-1"}

    def radios(self) -> Mapping[str, Mapping[str, Json]]:
        return {"zigbee": {"link": "up"}}

    def cloud(self) -> Mapping[str, Json]:
        return {"connected": True}

    def live_progress(self) -> Mapping[tuple[str, str], int]:
        return self._progress

    def ready(self) -> list[str]:
        return []

    async def hold(self, campaign: str) -> bool:
        return False

    async def resume(self, campaign: str) -> bool:
        return False

    async def command(self, kind: str, command: NodeCommand) -> CommandResult:
        return CommandResult(ok=False)


def _serve_gatewayd(folder: str, pipe: Connection) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))

    async def serve() -> None:
        ids = [node(number).id for number in range(1, NODES + 1)]
        database = await store_in_transfer(Path(folder) / "state.db", ids, "bench.1", 10_000, 2)
        inventory = await Inventory.load(database)
        for name in ids:
            seen = NodeObservation(
                parse_node_id(name), START_S, name=f"lamp {name[-4:]}", model="TH-1", hardware=HARDWARE, version=OLD,
                power=Power.MAINS, lqi=200, rssi_dbm=-60.0, joined=True,
            )  # fmt: skip
            await inventory.observe(seen)
        await inventory.flush()
        server = StatusServer(Listen("127.0.0.1", 0), database, _Live(ids), Path(folder))
        await server.start()
        pipe.send(int(server.url.rstrip("/").rpartition(":")[2]))
        await asyncio.to_thread(pipe.recv)
        await server.close()
        database.close()

    asyncio.run(serve())


def _serve_bare(bodies: Mapping[str, bytes], pipe: Connection) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=bodies[request.path_qs], content_type="application/json")

    async def serve() -> None:
        application = web.Application()
        for path in {path.partition("?")[0] for path in bodies}:
            application.router.add_get(path, handler)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        pipe.send(runner.addresses[0][1])
        await asyncio.to_thread(pipe.recv)
        await runner.cleanup()

    asyncio.run(serve())


# -- the clients -------------------------------------------------------------------------------------------------------


async def _load(port: int, path: str) -> list[float]:
    """Latencies in seconds of all requests that were answered within `RUN_S`."""
    latencies: list[float] = []
    end = time.perf_counter() + RUN_S

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (begin := time.perf_counter()) < end:
            await _ask(reader, writer, path)
            latencies.append(time.perf_counter() - begin)
        writer.close()
        await writer.wait_closed()

    async with asyncio.TaskGroup() as clients:
        for _ in range(CLIENTS):
            clients.create_task(client())
    return latencies


async def _body(port: int, path: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = await _ask(reader, writer, path)
    json.loads(body)
    writer.close()
    await writer.wait_closed()
    return body


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> bytes:
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if b" 200 " not in head.partition(b"\r\n")[0]:
        raise AssertionError(f"{path}: {head!r}")
    length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
    return await reader.readexactly(length)


BENCHES: tuple[Bench, ...] = (endpoint,)
