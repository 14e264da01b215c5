"""Files and folders that survive a power cut: a file is not safe before the names on the way to it are. SHELL."""

import os
from pathlib import Path


def make_folder(path: Path, mode: int = 0o777) -> None:
    """Make it, if it is missing; on return its name is durable, and so are those of folders made above it. OSError.

    `mode` is the folder's own, as for `mkdir`.
    """
    above = [path.parent]
    while not above[-1].exists():
        above.append(above[-1].parent)
    path.mkdir(mode, parents=True, exist_ok=True)
    # Also when it was there: who made it may have ended before this.
    for folder in above:
        sync(folder)


def sync(folder: Path) -> None:
    """Make the names in it durable. OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, data: bytes) -> None:
    """Its new content, whole or not at all; durable on return. OSError."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync(path.parent)
