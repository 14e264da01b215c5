"""Starts runners (`lives.py`) and asks them for campaigns."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.crash import interpose
from tests.crash.cloud import Published
from tests.crash.interpose import How
from tests.crash.lives import EVERY
from tests.crash.result import Result

_MEMORY = Path("/dev/shm")  # a sync there costs nothing, and means the same to whoever asks for it

Point = tuple[int, How]


class Runner:
    """One process; a campaign after the other."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def campaign(self, at: int, how: How) -> Result:
        """One whose gateway is killed there; 0: never."""
        self._ask(at, how)
        return self._answer()

    def every_point(self) -> tuple[Result, list[Result]]:
        """A campaign that nothing happens to, and what becomes of it at each of its points."""
        self._ask(EVERY, How.AFTER)
        points = []
        while (result := self._answer()).at:
            points.append(result)
        return result, points

    def _ask(self, at: int, how: How) -> None:
        assert self._process.stdin is not None
        print(json.dumps({"at": at, "how": how}), file=self._process.stdin, flush=True)

    def _answer(self) -> Result:
        assert self._process.stdout is not None
        return Result(**json.loads(self._process.stdout.readline()))


@contextmanager
def runner(published: Published, library: Path) -> Iterator[Runner]:
    with tempfile.TemporaryDirectory(prefix="crash-", dir=_MEMORY if _MEMORY.is_dir() else None) as scratch:
        command = [sys.executable, "-m", "tests.crash.lives", str(published.folder), scratch]
        with subprocess.Popen(
            command,
            cwd=interpose.ROOT,
            env=interpose.preloaded(library),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            yield Runner(process)
            assert process.stdin is not None
            process.stdin.close()
