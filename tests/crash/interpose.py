"""`interpose.c` from Python: compiled, armed in this process, its log read, and what a power cut leaves put in place.

A process has to be started with the library in LD_PRELOAD (`preloaded`); its forks have it too.
"""

import ctypes
import os
import shutil
import subprocess
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

ROOT = Path(__file__).parents[2]  # where programs are started, so that they import what is tested
SOURCE = Path(__file__).with_name("interpose.c")


SYNCS = frozenset({"fsync", "fdatasync"})


class How(StrEnum):
    """What happens at a point. `CUT`: the process ends before it, and what was not synced until then is lost."""

    BEFORE = "before"
    AFTER = "after"
    CUT = "cut"


@dataclass(frozen=True, slots=True)
class Call:
    """One counted call: its number from 1, its kind (fsync, rename, commit, chunk, ...), the path below the folder."""

    number: int
    kind: str
    path: str


def build(folder: Path) -> Path:
    """The shared library, made by the machine's C compiler. AssertionError with what the compiler says."""
    library = folder / "interpose.so"
    flags = ["-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-o", str(library)]
    command = ["cc", *flags, str(SOURCE), "-ldl", "-lpthread"]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    return library


def preloaded(library: Path) -> dict[str, str]:
    """The environment of a process that has it; the order of sets is the same in all of them."""
    return {**os.environ, "LD_PRELOAD": str(library), "PYTHONHASHSEED": "0"}


def armed_at_start(library: Path, folder: Path, log: Path, at: int, how: How, only: str) -> dict[str, str]:
    """What a program's environment needs beyond the usual: it ends itself at the call with this number among those whose
    "kind path" begins with `only`. Not for `CUT`."""
    return {
        "LD_PRELOAD": str(library),
        "CRASH_FOLDER": str(folder.resolve()),
        "CRASH_LOG": str(log),
        "CRASH_AT": str(at),
        "CRASH_HOW": how,
        "CRASH_ONLY": only,
    }


def arm(
    folder: Path, log: Path, at: int = 0, how: How = How.AFTER, durable: Path | None = None, observer: int = -1
) -> None:
    """Count calls below the folder in this process from now on, and end it at call `at` (0: never).

    `observer`: a socket on which `b` and `a` are said before and after each call, which waits for a byte in return.
    """
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    function = ctypes.CDLL(None).crash_arm  # of the preloaded library
    text, number = ctypes.c_char_p, ctypes.c_int
    function.argtypes = (text, number, ctypes.c_long, number, text, text, number)
    function.restype = None
    when = 2 if how is How.AFTER else 1
    keep_in = b"" if durable is None else os.fsencode(durable)
    function(os.fsencode(folder.resolve()), descriptor, at, when, b"", keep_in, observer)


def calls(log: Path) -> list[Call]:
    """What was counted, in order."""
    lines = (line.split(" ", 2) for line in log.read_text().splitlines())
    return [Call(int(number), kind, path) for number, kind, path in lines]


def cut_power(folder: Path, durable: Path) -> None:
    """Make the folder what is durable of it."""
    inode = folder.stat().st_ino
    shutil.rmtree(folder)
    _restore(folder, durable, inode)


def after_a_cut(folder: Path, durable: Path, to: Path) -> None:
    """What is durable of the folder, put elsewhere: names as of the last sync of their folder, files as of their own."""
    _restore(to, durable, folder.stat().st_ino)


def _restore(folder: Path, durable: Path, inode: int) -> None:
    folder.mkdir()
    names = durable / f"d{inode}"
    if not names.exists():
        return  # its name is durable, what was put into it is not
    for line in names.read_text().splitlines():
        kind, number, name, target = line.split(" ", 3)
        if kind == "d":
            _restore(folder / name, durable, int(number))
        elif kind == "l":
            (folder / name).symlink_to(target)
        else:
            held = durable / f"c{number}"
            (folder / name).write_bytes(held.read_bytes() if held.exists() else b"")
