"""Patches as a node's bootloader applies them: to the image that runs, in the formats that it knows.

detools and xdelta3 are asked only when there is a patch: not every machine that plays a site has them.
"""

import io
import shutil
import subprocess  # the tool is named in code, its arguments are ours
import tempfile
from collections.abc import Collection
from pathlib import Path

_VCDIFF = b"\xd6\xc3\xc4"  # RFC 3284 section 4.1


def apply_patch(patch: bytes, running: bytes, formats: Collection[str]) -> bytes | None:
    """The image that the patch makes of the running one; None when it makes none, or the node does not know the format."""
    form = "vcdiff" if patch.startswith(_VCDIFF) else "detools"
    if form not in formats:
        return None
    return _vcdiff(patch, running) if form == "vcdiff" else _detools(patch, running)


def _detools(patch: bytes, running: bytes) -> bytes | None:
    import detools

    out = io.BytesIO()
    try:
        detools.apply_patch(io.BytesIO(running), io.BytesIO(patch), out)
    except (detools.Error, ValueError, EOFError):
        return None
    return out.getvalue()


def _vcdiff(patch: bytes, running: bytes) -> bytes | None:
    tool = shutil.which("xdelta3")
    if tool is None:
        return None
    with tempfile.TemporaryDirectory(prefix="node-") as name:
        base, file = Path(name, "base"), Path(name, "patch")
        base.write_bytes(running)
        file.write_bytes(patch)
        command = [tool, "-d", "-q", "-c", "-s", str(base), str(file)]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)  # noqa: S603 - no shell
    return done.stdout if done.returncode == 0 else None
