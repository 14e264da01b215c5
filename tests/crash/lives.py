"""Whole campaigns, each in the lives of a gateway that ended at one point: `python -m tests.crash.lives <published> <folder>`.

A runner that has everything imported. For a line of JSON {"at", "how"} it makes a world in a fork, and gateways in forks of
that, kills the first one there, and answers with a line of JSON, a `Result`. For {"at": -1} it lets one gateway pass by every
point (`album.py`) and answers with a line for each, and one for itself (`at` 0) in the end. It has to be started with the
interposing library preloaded.
"""

import asyncio
import gc
import json
import logging
import os
import shutil
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import structlog

from tests.crash import final, gateway, interpose
from tests.crash.album import STORE, Album
from tests.crash.cloud import Published
from tests.crash.far import FarMesh, FarNetwork
from tests.crash.interpose import How
from tests.crash.lamps import Lamps
from tests.crash.meters import Meters
from tests.crash.result import Result, sizes
from tests.crash.world import World

EVERY = -1
DOWN_S = 3.0  # how long the gateway is away
STALE = "5" * 64  # a payload of earlier times, which has to make room


def new_world(published: Published, folder: Path) -> World:
    """With a state folder that has seen earlier times."""
    payloads = folder / "state" / "payloads"
    payloads.mkdir(parents=True)
    (payloads / STALE).write_bytes(bytes(5000))
    kinds = {"zigbee": Lamps, "lorawan": Meters}
    return kinds[published.story.name](published, folder / "state" / STORE)


def campaign(published: Published, folder: Path, at: int, how: How) -> Result:
    """One campaign in a folder of its own, from nothing to its end; its first gateway is killed at call `at` (0: never)."""
    world = new_world(published, folder)
    state, log = folder / "state", folder / "calls"
    durable = None
    if how is How.CUT:
        durable = folder / "durable"
        durable.mkdir()
    status = _life(world, folder, lambda: interpose.arm(state, log, at, how, durable))
    before = len(world.asked_for)
    found: dict[str, int] = {}
    if at:
        if status != -signal.SIGKILL:
            raise RuntimeError(f"the gateway was not killed at call {at}, it ended with {status}")
        if durable is not None:
            interpose.cut_power(state, durable)
        found = sizes(state)
        _next_life(world, folder)
    else:
        _ended_well(status, folder)
    calls = [[call.kind, call.path] for call in interpose.calls(log)]
    return _result(world, folder, at, how, before, calls, found)


def every_point(published: Published, folder: Path, tell: Callable[[Result], None]) -> None:
    """One gateway that nothing happens to, and from each of its points a campaign that goes on as if it had."""
    world = new_world(published, folder)
    state, log = folder / "state", folder / "calls"
    (folder / "durable").mkdir()

    def go_on(place: Path) -> Result:
        world.store = place / "state" / STORE
        world.gateway_gone()
        before = len(world.asked_for)
        _next_life(world, place)
        return replace(_result(world, place, 0, How.AFTER, before, [], {}), told=[])

    album = Album(folder, log, world, go_on)
    watched, watcher = socket.socketpair()
    ours, theirs = Pipe()
    process = os.fork()
    if process == 0:
        ours.close()
        _be_the_gateway(
            world, folder, theirs, lambda: interpose.arm(state, log, 0, How.AFTER, folder / "durable", watcher.fileno())
        )
    theirs.close()
    album.watch(process, ours, watched)
    ours.close()
    _ended_well(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), folder)
    for result in album.results():
        tell(result)
    calls = [[call.kind, call.path] for call in interpose.calls(log)]
    tell(_result(world, folder, 0, How.AFTER, len(world.asked_for), calls, {}))


def _next_life(world: World, folder: Path) -> None:
    world.pause(DOWN_S)
    _ended_well(_life(world, folder, lambda: None), folder)


def _ended_well(status: int, folder: Path) -> None:
    if status != 0:
        raise RuntimeError(f"the gateway ended with {status}:\n{(folder / 'log').read_text()[-6000:]}")


def _result(
    world: World, folder: Path, at: int, how: How, before: int, calls: list[list[str]], found: dict[str, int]
) -> Result:
    asked = [world.asked_for[:before], world.asked_for[before:]]
    return Result(
        at,
        how,
        final=final.describe(folder / "state", world),
        early=world.told_too_early,
        told=[] if at else [[r.campaign, r.node, r.state, r.code] for r in world.told()],
        asked=[[[a.digest, a.start, a.stop] for a in life] for life in asked],
        calls=calls,
        found=found,
    )


def _life(world: World, folder: Path, arm: Callable[[], None]) -> int:
    """One process of the gateway; its exit status, negative for a signal."""
    ours, theirs = Pipe()
    process = os.fork()
    if process == 0:
        ours.close()
        _be_the_gateway(world, folder, theirs, arm)
    theirs.close()
    try:
        if not world.serve(ours):
            os.kill(process, signal.SIGABRT)
    finally:
        ours.close()
        _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status)


def _be_the_gateway(world: World, folder: Path, pipe: Connection, arm: Callable[[], None]) -> None:
    """Never returns."""
    status = 1
    try:
        output = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        arm()
        _run_gateway(world, folder, pipe)
        status = 0
    except BaseException:  # noqa: BLE001 - the last word of a process
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _run_gateway(world: World, folder: Path, pipe: Connection) -> None:
    with asyncio.Runner(loop_factory=lambda: gateway.SteadyLoop(world.now)) as runner:
        known = world.known_nodes()
        far = FarMesh(pipe, known) if known is not None else FarNetwork(pipe, runner.get_loop())
        runner.run(gateway.run(world.published, folder / "state", folder / "mirror", far))


def warm_up(published: Published, folder: Path) -> None:
    """A campaign with the gateway in this process, so that its forks find loaded what is loaded at the first use."""
    world = new_world(published, folder)
    ours, theirs = Pipe()
    process = os.fork()
    if process == 0:
        ours.close()
        world.serve(theirs)
        os._exit(0)
    theirs.close()
    _run_gateway(world, folder, ours)
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
    gc.freeze()  # so that the collector makes no copies of what the forks share; they do not live long enough to need it
    gc.disable()
    for number, line in enumerate(sys.stdin):
        asked = json.loads(line)
        work = folder / str(number)
        work.mkdir(parents=True)
        child = os.fork()
        if child == 0:
            _be_a_campaign(published, work, int(asked["at"]), How(asked["how"]))
        os.waitpid(child, 0)
        shutil.rmtree(work)


def _tell(result: Result) -> None:
    print(json.dumps(asdict(result)), flush=True)


def _be_a_campaign(published: Published, work: Path, at: int, how: How) -> None:
    """Never returns."""
    try:
        try:
            if at == EVERY:
                every_point(published, work, _tell)
            else:
                _tell(campaign(published, work, at, how))
        except Exception:  # noqa: BLE001 - told to whoever asked
            _tell(Result(max(at, 0), how, error=traceback.format_exc()))
    finally:
        os._exit(0)


if __name__ == "__main__":
    serve(Published(Path(sys.argv[1])), Path(sys.argv[2]))
