"""What strace sees of one campaign that nothing happens to: the same calls as those that `interpose.c` counts, or not."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.crash import interpose
from tests.crash.cloud import Published
from tests.crash.interpose import How

_TRACED = ("fsync", "fdatasync", "rename", "renameat", "renameat2", "pwrite64")
_LINE = re.compile(r"^\d+ +(\w+)\((.*)$")
_DESCRIPTOR = re.compile(r"^\d+<([^>]*)>")
_STRINGS = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_FRAME_HEADER = re.compile(r", 24, \d+")


def counted_by_strace(published: Published, library: Path, folder: Path) -> Counter[tuple[str, str]]:
    """Kind and path of the calls below the state folder, by how often; classified from strace's words alone."""
    trace = folder / "trace"
    # --seccomp-bpf: only these calls stop the process.
    command = [
        "strace",
        "-f",
        "--seccomp-bpf",
        "-y",
        "-xx",
        "-s",
        "4096",
        "-o",
        str(trace),
        "-e",
        "trace=" + ",".join(_TRACED),
    ]
    work = folder / "work"
    runner = [sys.executable, "-m", "tests.crash.lives", str(published.folder), str(work)]
    done = subprocess.run(
        [*command, *runner],
        cwd=interpose.ROOT,
        env=interpose.preloaded(library),
        input=json.dumps({"at": 0, "how": How.AFTER}) + "\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["error"] == ""
    state = f"{work.resolve()}/0/state"
    seen = (_call(line, state) for line in trace.read_text().splitlines())
    return Counter(call for call in seen if call is not None)


def _call(line: str, state: str) -> tuple[str, str] | None:
    found = _LINE.match(line)
    if found is None:
        return None  # the end of a call that was seen to begin, or of a process
    kind, arguments = found[1], found[2]
    strings = [bytes.fromhex(text.replace("\\x", "")) for text in _STRINGS.findall(arguments)]
    if kind.startswith("rename"):
        path = strings[1].decode()
    else:
        descriptor = _DESCRIPTOR.match(arguments)
        assert descriptor is not None, line
        path = bytes(descriptor[1], "ascii").decode("unicode_escape")
    if path != state and not path.startswith(f"{state}/"):
        return None
    below = path.removeprefix(state).lstrip("/") or "."
    if kind != "pwrite64":
        return kind, below
    if below.endswith(".part"):
        return "chunk", below
    frame = below.endswith("-wal") and len(strings[0]) == 24 and _FRAME_HEADER.search(arguments) is not None
    return ("commit", below) if frame and any(strings[0][4:8]) else None
