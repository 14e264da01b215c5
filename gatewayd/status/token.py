"""The operator's token: a file in the state folder that only the daemon's user and root can read."""

import os
import secrets
import stat
from pathlib import Path

from gatewayd.errors import StoreError

TOKEN_FILE = "operator.token"  # noqa: S105 - a file's name


def operator_token(folder: Path) -> str:
    """The token in the state folder, made at the first start. One that others could read is replaced."""
    path = folder / TOKEN_FILE
    try:
        with path.open() as file:
            mode = os.fstat(file.fileno()).st_mode
            token = file.read(256).strip()
        if len(token) >= 32 and not stat.S_IMODE(mode) & 0o077:
            return token
    except FileNotFoundError:
        pass
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: {error}") from error
    token = secrets.token_urlsafe(32)
    fresh = path.with_name(f"{path.name}.new")
    try:
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(f"{token}\n")
        fresh.replace(path)
    except OSError as error:
        raise StoreError(f"{path}: {error}") from error
    return token
