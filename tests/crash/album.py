"""What a crash would leave at every call of one life of the gateway, and what becomes of it.

The gateway stands still before and after each counted call, stopped as a whole: then its files are copied as they are, or as
the last syncs left them, and a fork of the world goes on from there without that gateway, with a new one on the copy. A
kill leaves nothing else: a few points are tried with one, and have to give the same (`test_every_point.py`).

What begins with the same files and the same world ends the same, so it is followed once. Of the store that means its pages,
as SQLite finds them after recovery: a frame that is torn or lacks its commit is none.
"""

import hashlib
import os
import shutil
import signal
import socket
import sqlite3
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path

from tests.crash import interpose
from tests.crash.interpose import SYNCS, Call, How
from tests.crash.result import Result, sizes
from tests.crash.world import World

SLOTS = 2  # lives that go on at a time
STORE = "gatewayd.db"

GoOn = Callable[[Path], Result]
"""In a fork of the world: from the files in a folder's `state` to the end."""


@dataclass(frozen=True, slots=True)
class _Same:
    """A point that leaves what another one left."""

    result: Result
    key: str


class Album:
    """`state` and `durable` are those of the life that goes by; `go_on` is called in forks."""

    def __init__(self, folder: Path, log: Path, world: World, go_on: GoOn) -> None:
        self._folder = folder
        self._state = folder / "state"
        self._durable = folder / "durable"
        self._log = log
        self._world = world
        self._go_on = go_on
        self._under_way: dict[Connection, tuple[int, Path, str, Result]] = {}
        self._ended: dict[str, Result] = {}  # by what it began with
        self._same: list[_Same] = []
        self._synced = True  # what is there at the start counts as durable
        self._number = 0

    def watch(self, process: int, connection: Connection, watched: socket.socket) -> None:
        """Answer the gateway until it ends, and take every picture on the way."""
        self._world.begin_life()
        while True:
            ready = wait([connection, watched])
            if connection in ready:
                if not self._world.answer(connection):
                    return
            elif moment := watched.recv(1):
                os.kill(process, signal.SIGSTOP)
                os.waitpid(process, os.WUNTRACED)
                self._look(moment)
                os.kill(process, signal.SIGCONT)
                watched.send(moment)

    def results(self) -> list[Result]:
        """Of all points."""
        while self._under_way:
            self._collect()
        rest = (
            replace(
                self._ended[same.key],
                at=same.result.at,
                how=same.result.how,
                calls=same.result.calls,
                found=same.result.found,
            )
            for same in self._same
        )
        return sorted([*self._ended.values(), *rest], key=lambda result: (result.at, result.how))

    def _look(self, moment: bytes) -> None:
        self._number += moment == b"b"
        calls = interpose.calls(self._log)
        if moment == b"b":
            if self._synced:
                self._take(How.CUT, calls)
            self._take(How.BEFORE, calls)
            self._synced = calls[-1].kind in SYNCS
        elif not self._synced:
            self._take(How.AFTER, calls)

    def _take(self, how: How, calls: list[Call]) -> None:
        place = self._folder / f"{self._number}-{how}"
        place.mkdir()
        if how is How.CUT:
            interpose.after_a_cut(self._state, self._durable, place / "state")
        else:
            shutil.copytree(self._state, place / "state", symlinks=True)
        result = Result(
            self._number, how, calls=[[call.kind, call.path] for call in calls], found=sizes(place / "state")
        )
        key = f"{self._world.requests} {_digest(place)}"
        if key in self._ended or key in {known for *_, known, _ in self._under_way.values()}:
            self._same.append(_Same(result, key))
            shutil.rmtree(place)
            return
        while len(self._under_way) >= SLOTS:
            self._collect()
        ours, theirs = Pipe(duplex=False)
        child = os.fork()
        if child == 0:
            self._be_the_rest(place, result, theirs)
        theirs.close()
        self._under_way[ours] = child, place, key, result

    def _be_the_rest(self, place: Path, result: Result, pipe: Connection) -> None:
        """Never returns."""
        try:
            try:
                end = self._go_on(place)
                end = replace(end, at=result.at, how=result.how, calls=result.calls, found=result.found)
            except Exception:  # noqa: BLE001 - told to whoever asked
                end = replace(result, error=traceback.format_exc())
            pipe.send(end)
        finally:
            os._exit(0)

    def _collect(self) -> None:
        """The results of those that have ended, at least one."""
        for pipe in wait(list(self._under_way)):
            assert isinstance(pipe, Connection)
            child, place, key, result = self._under_way.pop(pipe)
            try:
                self._ended[key] = pipe.recv()
            except EOFError:
                self._ended[key] = replace(result, error="its process has ended without a word")
            pipe.close()
            os.waitpid(child, 0)
            shutil.rmtree(place)


def _digest(place: Path) -> str:
    """Of everything in its `state` that a new process can see."""
    state, total = place / "state", hashlib.sha256()
    for path in sorted(state.rglob("*")):
        below = str(path.relative_to(state))
        if path.is_dir():
            total.update(f"{below}/\n".encode())
        elif not below.startswith(STORE):
            total.update(f"{below} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return f"{total.hexdigest()} {_pages(place)}"


def _pages(place: Path) -> str:
    scratch = place / "scratch"
    scratch.mkdir()
    for path in (place / "state").glob(f"{STORE}*"):
        if not path.name.endswith("-shm"):  # made anew
            shutil.copyfile(path, scratch / path.name)
    store = sqlite3.connect(scratch / STORE)
    try:
        pages = store.execute("PRAGMA page_count").fetchone()[0]
        return hashlib.sha256(store.serialize() if pages else b"").hexdigest()
    finally:
        store.close()
        shutil.rmtree(scratch)
