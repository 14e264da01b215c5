"""Whole campaigns, each in the lives of a gateway that was killed at one point: `python -m tests.crash.lives <published> <folder>`.

A runner that has everything imported: for a line of JSON {"at", "how"} it makes a world in a fork, and gateways in forks of
that, and answers with a line of JSON, a `Result`. It has to be started with the interposing library preloaded.
"""

import asyncio
import gc
import json
import logging
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import structlog

from tests.crash import final, gateway, interpose
from tests.crash.cloud import Published
from tests.crash.far import FarMesh
from tests.crash.interpose import How
from tests.crash.world import World

DOWN_S = 3.0  # how long the gateway is away
STALE = "5" * 64  # a payload of earlier times, which has to make room


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one campaign. `killed`: the first life ended by the signal, at the point."""

    at: int
    how: str
    killed: bool = False
    error: str = ""
    final: dict[str, Any] = field(default_factory=dict)
    early: list[str] = field(default_factory=list)  # nodes told to install before that was stored
    asked: list[list[list[Any]]] = field(default_factory=list)  # of the mirror, by life: [digest, start, stop]
    calls: list[list[str]] = field(default_factory=list)  # of the first life: kind, path
    found: dict[str, int] = field(default_factory=dict)  # files and their sizes, when the second life began


def campaign(published: Published, folder: Path, at: int = 0, how: How = How.AFTER) -> Result:
    """One campaign in a folder of its own, from nothing to its end; its first gateway is killed at call `at` (0: never)."""
    state, log = folder / "state", folder / "calls"
    (state / "payloads").mkdir(parents=True)
    (state / "payloads" / STALE).write_bytes(bytes(5000))
    world = World(published, state / "gatewayd.db")
    durable = None
    if how is How.CUT:
        durable = folder / "durable"
        durable.mkdir()
    status = _life(world, published, folder, log, at, how, durable)
    killed = status == -signal.SIGKILL
    before = len(world.asked_for)
    found: dict[str, int] = {}
    if killed:
        if durable is not None:
            interpose.cut_power(state, durable)
        found = {str(path.relative_to(state)): path.stat().st_size for path in state.rglob("*") if path.is_file()}
        world.pause(DOWN_S)
        status = _life(world, published, folder, folder / "calls-2", 0, how, None)
    if status != 0:
        raise RuntimeError(f"the gateway ended with {status}:\n{(folder / 'log').read_text()[-6000:]}")
    asked = [world.asked_for[:before], world.asked_for[before:]]
    return Result(
        at,
        how,
        killed,
        final=final.describe(state, world),
        early=world.told_too_early,
        asked=[[[a.digest, a.start, a.stop] for a in life] for life in asked],
        calls=[[call.kind, call.path] for call in interpose.calls(log)],
        found=found,
    )


def _life(world: World, published: Published, folder: Path, log: Path, at: int, how: How, durable: Path | None) -> int:
    """One process of the gateway; its exit status, negative for a signal."""
    ours, theirs = Pipe()
    process = os.fork()
    if process == 0:
        ours.close()
        _be_the_gateway(
            world, published, folder, theirs, lambda: interpose.arm(folder / "state", log, at, how, durable)
        )
    theirs.close()
    try:
        if not world.serve(ours):
            os.kill(process, signal.SIGABRT)
    finally:
        ours.close()
        _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status)


def _be_the_gateway(
    world: World, published: Published, folder: Path, pipe: Connection, arm: Callable[[], None]
) -> None:
    """Never returns."""
    status = 1
    try:
        output = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        arm()
        _run_gateway(world, published, folder, pipe)
        status = 0
    except BaseException:  # noqa: BLE001 - the last word of a process
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _run_gateway(world: World, published: Published, folder: Path, pipe: Connection) -> None:
    mesh = FarMesh(pipe, world.mesh.nodes)
    with asyncio.Runner(loop_factory=lambda: gateway.SteadyLoop(world.now)) as runner:
        runner.run(gateway.run(published, folder / "state", folder / "mirror", mesh))


def warm_up(published: Published, folder: Path) -> None:
    """A campaign with the gateway in this process, so that its forks find loaded what is loaded at the first use."""
    (folder / "state").mkdir(parents=True)
    world = World(published, folder / "state" / "gatewayd.db")
    ours, theirs = Pipe()
    process = os.fork()
    if process == 0:
        ours.close()
        world.serve(theirs)
        os._exit(0)
    theirs.close()
    _run_gateway(world, published, folder, ours)
    ours.close()
    os.waitpid(process, 0)
    shutil.rmtree(folder)


def serve(published: Published, folder: Path) -> None:
    """Line by line, until standard input ends."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    warm_up(published, folder / "warm")
    structlog.reset_defaults()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    gc.freeze()  # so that the collector makes no copies of what the forks share
    for number, line in enumerate(sys.stdin):
        asked = json.loads(line)
        work = folder / str(number)
        work.mkdir(parents=True)
        child = os.fork()
        if child == 0:
            _be_a_campaign(published, work, int(asked["at"]), How(asked["how"]))
        os.waitpid(child, 0)
        shutil.rmtree(work)


def _be_a_campaign(published: Published, work: Path, at: int, how: How) -> None:
    """Never returns."""
    try:
        try:
            result = campaign(published, work, at, how)
        except Exception:  # noqa: BLE001 - told to whoever asked
            result = Result(at, how, error=traceback.format_exc())
        print(json.dumps(asdict(result)), flush=True)
    finally:
        os._exit(0)


if __name__ == "__main__":
    serve(Published(Path(sys.argv[1])), Path(sys.argv[2]))
