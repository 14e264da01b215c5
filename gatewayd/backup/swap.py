"""One state for another, in the same folder, whatever happens in between. SHELL.

A new state is made in `NEW`, beside what is there, and touches nothing. Renamed to `READY` it is decided: from then on
`finish` does the rest, and does it to the end however often it is interrupted; the daemon calls it at its start too.
What was there goes into a folder of its own, whole, and is never deleted.

Within the state folder and not beside it, because the daemon's user owns nothing above it, and it may be a mount of its own.
"""

import os
import shutil
from pathlib import Path
from typing import Final

from gatewayd.folders import sync
from gatewayd.store.lock import LOCK_FILE

NEW: Final = "restore.new"
READY: Final = "restore.ready"
_CLEARED: Final = "restore.cleared"  # what was there is moved aside; what is here goes in its place
REPLACED: Final = "replaced-"

_OURS = frozenset({NEW, READY, _CLEARED, LOCK_FILE})


def present(state: Path) -> list[str]:
    """Names in the folder that belong to a state."""
    if not state.exists():
        return []
    return sorted(p.name for p in state.iterdir() if p.name not in _OURS and not p.name.startswith(REPLACED))


def begin(state: Path) -> Path:
    """An empty folder for the new state. What an interrupted attempt left there was worth nothing."""
    new = state / NEW
    if new.exists():
        shutil.rmtree(new)
    new.mkdir(mode=0o700)
    return new


def decide(state: Path) -> None:
    """What is in `NEW`, on the disk to the last byte, is the state from now on."""
    for folder, _, _ in os.walk(state / NEW):
        sync(Path(folder))
    _give_to_owner(state, state / NEW)
    (state / NEW).rename(state / READY)
    sync(state)


def finish(state: Path) -> Path | None:
    """Do what was decided, if anything was. Returns where the state that was there before is now; None: nowhere."""
    ready, cleared = state / READY, state / _CLEARED
    aside = None
    if ready.exists():
        aside = _aside(state)
        ready.rename(cleared)
        sync(state)
    if cleared.exists():
        for path in sorted(cleared.iterdir()):
            path.rename(state / path.name)
        sync(state)
        cleared.rmdir()
        sync(state)
    return aside


def _aside(state: Path) -> Path | None:
    """Move what is there into one folder; one that an interruption left half filled is filled further."""
    half = state / f"{REPLACED}unfinished"
    names = present(state)
    if not names and not half.exists():
        return None
    half.mkdir(mode=0o700, exist_ok=True)
    _give_to_owner(state, half)
    for name in names:
        (state / name).rename(half / name)
    sync(half)
    number = 1
    while (aside := state / f"{REPLACED}{number}").exists():
        number += 1
    half.rename(aside)
    sync(state)
    return aside


def _give_to_owner(state: Path, folder: Path) -> None:
    """Root restores for the daemon's user."""
    if os.geteuid() != 0:
        return
    owner = state.stat()
    for path in (folder, *folder.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
