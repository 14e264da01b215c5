"""A node's way from a patch in flash to an image: the patch is applied to what runs, as a bootloader would.

Responsible for telling a file that holds a patch from one that holds an image. detools is only asked when there is one.
"""

import io
import shutil
import subprocess  # the tool is named in code, its arguments are ours
import tempfile
from collections.abc import Collection
from pathlib import Path

from radios.simulated.zigbee.firmware import TAG_IMAGE, FirmwareError, elements_of

TAG_PATCH = 0xF0D1  # manufacturer's range
_VCDIFF = b"\xd6\xc3\xc4"  # RFC 3284 section 4.1


def patched(file: bytes, running: bytes, formats: Collection[str]) -> bytes | None:
    """The file itself when it holds an image; what its patch makes of the running image; None when it makes nothing."""
    try:
        elements = {tag: file[at : at + length] for tag, at, length in elements_of(file)}
    except FirmwareError:
        return file  # refused where images are
    if TAG_IMAGE in elements or TAG_PATCH not in elements:
        return file
    patch = elements[TAG_PATCH]
    form = "vcdiff" if patch.startswith(_VCDIFF) else "detools"
    if form not in formats:
        return None
    return _vcdiff(patch, running) if form == "vcdiff" else _detools(patch, running)


def _detools(patch: bytes, running: bytes) -> bytes | None:
    import detools  # not on every machine that plays a site

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
