"""Writing files that others may be reading: whole or not at all, and durable before the next one is written."""

import hashlib
import os
from pathlib import Path

from gatewayd.errors import ConfigError, StoreError
from gatewayd.folders import make_folder, sync


def write_file(path: Path, data: bytes) -> None:
    """Replace or make the file; durable on return, with the folders on the way to it. StoreError: the disk would not."""
    part = _part(path)
    try:
        make_folder(path.parent)
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _into_place(part, path)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error


def copy_file(source: Path, path: Path, sha256: str) -> None:
    """Copy to a new name; as `write_file`. ConfigError when the source no longer has this SHA-256 (hex), or cannot be read."""
    part = _part(path)
    hasher = hashlib.sha256()
    try:
        reader = source.open("rb")
    except OSError as error:
        raise ConfigError(f"{source}: {error.strerror}") from error
    try:
        with reader:
            make_folder(path.parent)
            with part.open("wb") as writer:
                while piece := reader.read(1 << 20):
                    hasher.update(piece)
                    writer.write(piece)
                writer.flush()
                os.fsync(writer.fileno())
        if hasher.hexdigest() != sha256:
            part.unlink()
            raise ConfigError(f"{source}: the file has changed while it was published")
        _into_place(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)  # what has been copied so far: the disk may be full
        raise StoreError(f"{path}: {error.strerror}") from error


def check_file(path: Path, sha256: str) -> None:
    """ConfigError when it is not there, or has another SHA-256 (hex)."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    if found != sha256:
        raise ConfigError(f"{path}: not the bytes that the release lists")


def remove_file(path: Path) -> None:
    """Remove it, if it is there; gone for good on return. StoreError."""
    try:
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            sync(path.parent)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")  # a web server does not list it, a rerun overwrites it


def _into_place(part: Path, path: Path) -> None:
    part.chmod(0o644)
    part.replace(path)
    sync(path.parent)
