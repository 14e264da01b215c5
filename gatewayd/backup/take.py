"""Taking a backup: what of the state folder is in one, copied while the daemon may be running. SHELL.

The file holds the network's keys and the multicast keys: it is for its owner alone (mode 0600), whole or not there at all.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from gatewayd.backup import archive
from gatewayd.backup.archive import Manifest
from gatewayd.backup.sealed import Sealer
from gatewayd.errors import Refused, StoreError
from gatewayd.folders import sync
from gatewayd.service.version import version
from gatewayd.store.snapshot import check, snapshot

_WORK = ".gatewayd-backup-"
COPIES_MOST = 5  # of a folder that changes meanwhile


def file_name(gateway: str, now: datetime) -> str:
    return f"gatewayd-{gateway}-{now:%Y%m%dT%H%M%SZ}.backup"


def take(
    state: Path, gateway: str, target: Path, now: datetime, *, passphrase: str | None = None, payloads: bool = False
) -> Manifest:
    """Make the backup `target`, which must not exist. StoreError when something cannot be read or written."""
    if not (state / archive.STORE).exists():
        raise StoreError(f"{state}: there is no {archive.STORE}: no gatewayd has run here")
    if target.exists():
        raise StoreError(f"{target}: exists already")
    try:
        with _work_folder(target.parent) as work:
            names = _collect(state, work, payloads=payloads)
            if len(names) > archive.FILES_MOST:
                raise StoreError(f"{state}: {len(names)} files, a backup has at most {archive.FILES_MOST}")
            sources = {name: work / name if (work / name).exists() else state / name for name in names}
            manifest = Manifest(
                gateway=gateway,
                program=version(),
                made_at=now,
                store_schema=check(work / archive.STORE),
                members=tuple(archive.member(source_root(sources[name], name), name) for name in names),
            )
            _write(work / "whole", manifest, sources, passphrase)
            with contextlib.suppress(FileExistsError):
                os.link(work / "whole", target)  # never over another one
                sync(target.parent)
                return manifest
            raise StoreError(f"{target}: exists already")
    except (OSError, Refused) as error:
        raise StoreError(f"{target}: {error}") from error


def source_root(path: Path, name: str) -> Path:
    """The folder that `name` is relative to."""
    return path.parents[name.count("/")]


def _collect(state: Path, work: Path, *, payloads: bool) -> list[str]:
    """Names of the members; what others may change meanwhile is copied into `work`."""
    names = [archive.STORE]
    snapshot(state / archive.STORE, work / archive.STORE)
    if (state / archive.ZIGBEE_TABLE).exists():
        snapshot(state / archive.ZIGBEE_TABLE, work / archive.ZIGBEE_TABLE)
        names.append(archive.ZIGBEE_TABLE)
    names += _trust(state, work)
    networks = sorted(name for name in _names(state, "backups") if name.endswith(".json"))
    for name in networks[-1:]:  # the newest, by its name
        (work / "backups").mkdir(mode=0o700)
        shutil.copyfile(state / name, work / name)
        names.append(name)
    if payloads:
        names += sorted(_names(state, "payloads"))  # whole ones: their names are their digests
    return names


def _trust(state: Path, work: Path) -> list[str]:
    """Copied again when it changed meanwhile: one file of it goes with the others."""
    for _ in range(COPIES_MOST):
        shutil.rmtree(work / "trust", ignore_errors=True)
        before = {name: _seen(state / name) for name in _names(state, "trust")}
        for name in before:
            (work / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # then it changed
                shutil.copyfile(state / name, work / name)
        if before == {name: _seen(state / name) for name in _names(state, "trust")}:
            return sorted(before)
    raise StoreError(f"{state / 'trust'}: changes all the time")


def _seen(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0, -1
    return found.st_mtime_ns, found.st_size


def _names(state: Path, folder: str) -> list[str]:
    found = [path.relative_to(state).as_posix() for path in (state / folder).rglob("*") if path.is_file()]
    return [name for name in found if archive.NAMES.fullmatch(name)]


def _write(path: Path, manifest: Manifest, sources: dict[str, Path], passphrase: str | None) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        if passphrase is None:
            archive.write(file, manifest, sources.__getitem__)
        else:
            sealer = Sealer(file, passphrase)
            archive.write(sealer, manifest, sources.__getitem__)
            sealer.close()
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _work_folder(parent: Path) -> Iterator[Path]:
    """Beside the target, so that the finished file only needs a name; for its owner alone.

    Locked while it is used. One that nobody holds is of a process that was killed: it has keys in it, and is removed.
    """
    for left in parent.glob(f"{_WORK}*"):
        with contextlib.suppress(OSError), _locked(left):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_WORK, dir=parent) as work, contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # a file system without locks, where nothing is removed either
            stack.enter_context(_locked(Path(work)))
        yield Path(work)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """OSError when another one has it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
