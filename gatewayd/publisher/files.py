"""Writing files that others may be reading: whole or not at all, and durable before the next one is written."""

import hashlib
import os
from pathlib import Path

from gatewayd.errors import ConfigError, StoreError
from gatewayd.folders import sync


def write_file(path: Path, data: bytes) -> None:
    """Replace or make the file; durable on return. StoreError: the disk would not."""
    part = _part(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _into_place(part, path)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error


def copy_file(source: Path, path: Path, sha256: str) -> None:
    """Copy to a new name; durable on return. ConfigError when the source no longer has this SHA-256 (hex)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part(path)
    hasher = hashlib.sha256()
    with source.open("rb") as reader, part.open("wb") as writer:
        while piece := reader.read(1 << 20):
            hasher.update(piece)
            writer.write(piece)
        writer.flush()
        os.fsync(writer.fileno())
    if hasher.hexdigest() != sha256:
        part.unlink()
        raise ConfigError(f"{source}: the file has changed while it was published")
    _into_place(part, path)


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")  # a web server does not list it, a rerun overwrites it


def _into_place(part: Path, path: Path) -> None:
    part.chmod(0o644)
    part.replace(path)
    sync(path.parent)
