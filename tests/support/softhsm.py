"""SoftHSM as the real PKCS#11 module, with tokens in a folder of their own.

    with SoftHsm(tmp_path / "softhsm") as softhsm: uri = softhsm.token("acme")

The module reads SOFTHSM2_CONF when it is loaded: one of these at a time in a process.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pkcs11

MODULES = (
    Path("/usr/lib/softhsm/libsofthsm2.so"),
    *sorted(Path("/usr/lib").glob("*/softhsm/libsofthsm2.so")),
    Path("/usr/lib64/pkcs11/libsofthsm2.so"),
)
UTIL = shutil.which("softhsm2-util") or "/usr/bin/softhsm2-util"
PIN = "1234-pin"


class SoftHsm:
    """Tokens are made as they are needed; `module` and `pin_file` are what their URIs name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.module = next(path for path in MODULES if path.exists())
        self.tokens = folder / "tokens"
        self.tokens.mkdir(parents=True)
        self.pin_file = folder / "pin"
        self.pin_file.write_text(f"{PIN}\n")
        self.conf = folder / "softhsm2.conf"
        self.conf.write_text(f"directories.tokendir = {self.tokens}\nobjectstore.backend = file\nlog.level = ERROR\n")

    def __enter__(self) -> Self:
        self._before = os.environ.get("SOFTHSM2_CONF")
        os.environ["SOFTHSM2_CONF"] = str(self.conf)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pkcs11.unload(str(self.module))
        if self._before is None:
            del os.environ["SOFTHSM2_CONF"]
        else:
            os.environ["SOFTHSM2_CONF"] = self._before

    def token(self, label: str) -> str:
        """A new token; its URI without an object."""
        self._util(("--init-token", "--free", "--label", label, "--so-pin", "5678-so-pin", "--pin", PIN))
        return f"pkcs11:token={label}?module-path={self.module}&pin-source={self.pin_file}"

    def unplug(self, label: str) -> None:
        """Take the token out of the running process's reach, with what it holds."""
        for folder in self.tokens.iterdir():
            if label.encode() in (folder / "token.object").read_bytes():
                shutil.rmtree(folder)

    def _util(self, arguments: Sequence[str]) -> None:
        subprocess.run([UTIL, *arguments], check=True, capture_output=True, timeout=60)
