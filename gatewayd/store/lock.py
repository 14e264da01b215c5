"""Who may write in the state folder: one daemon, or one restore, at a time. SHELL.

The lock is the kernel's, on a file that stays: it ends with its process, however that ends.
"""

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from gatewayd.errors import StoreError

LOCK_FILE = "lock"


class StateLock:
    """`with StateLock(folder):`. Makes the folder. StoreError when somebody else has it, or it cannot be made."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK_FILE
        self._descriptor = -1

    def __enter__(self) -> Self:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._give_to_owner()
        except OSError as error:
            raise StoreError(f"{self._path}: {error.strerror}") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._descriptor, 32).decode(errors="replace").strip()
            self._close()
            raise StoreError(f"{self._path.parent}: is in use by another gatewayd (process {holder})") from None
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, f"{os.getpid()}\n".encode())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._close()

    def _give_to_owner(self) -> None:
        """Root restores for the daemon's user, who could not open a file that stays root's."""
        if os.geteuid() == 0:
            owner = self._path.parent.stat()
            os.fchown(self._descriptor, owner.st_uid, owner.st_gid)

    def _close(self) -> None:
        os.close(self._descriptor)
        self._descriptor = -1
