"""Runs campaigns in runners (`lives.py`), some at a time, as many as there are processors up to two."""

import json
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from tests.crash import interpose
from tests.crash.cloud import Published
from tests.crash.interpose import How
from tests.crash.lives import Result

RUNNERS = 2
_MEMORY = Path("/dev/shm")  # a sync there costs nothing, and means the same to whoever asks for it

Point = tuple[int, How]


def run_all(published: Published, library: Path, points: Sequence[Point]) -> list[Result]:
    """One campaign for each point (0: nothing is done to it), in the order of the points."""
    with tempfile.TemporaryDirectory(prefix="crash-", dir=_MEMORY if _MEMORY.is_dir() else None) as scratch:
        waiting: queue.SimpleQueue[tuple[int, Point]] = queue.SimpleQueue()
        for job in enumerate(points):
            waiting.put(job)
        results: dict[int, Result] = {}

        def work(folder: Path) -> None:
            command = [sys.executable, "-m", "tests.crash.lives", str(published.folder), str(folder)]
            with subprocess.Popen(
                command,
                cwd=interpose.ROOT,
                env=interpose.preloaded(library),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            ) as runner:
                assert runner.stdin is not None
                assert runner.stdout is not None
                while True:
                    try:
                        number, (at, how) = waiting.get_nowait()
                    except queue.Empty:
                        break
                    print(json.dumps({"at": at, "how": how}), file=runner.stdin, flush=True)
                    results[number] = Result(**json.loads(runner.stdout.readline()))
                runner.stdin.close()

        threads = [threading.Thread(target=work, args=(Path(scratch) / f"{n}",)) for n in range(RUNNERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return [results[number] for number in range(len(points))]
