"""Makes deltas between two published files, and proves each before it is listed. SHELL.

A patch is between whole files, as they were published: the node has to hold the base as it received it. detools
(sequential, heatshrink) is for small microcontrollers, VCDIFF by xdelta3 for nodes with more memory. Firmware for Zigbee
nodes travels in an OTA file, so its patch gets an OTA header of its own with the identity and version of the new file, and
lies in an element of the manufacturer's range.
"""

import importlib
import io
import shutil
import struct
import subprocess  # the tool is named in code, its arguments are ours
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final

from gatewayd.cloud.messages import DeltaFormat
from gatewayd.errors import ConfigError
from radios.errors import FrameError
from radios.zigbee.ota_image import MAX_HEADER_BYTES, parse_ota_header

WORTH: Final = 0.70  # of the full image: above it a delta is not worth its risk (encrypted images end near 1)
OTA_DELTA_TAG: Final = 0xF0D1  # ZCL8 11.4.2.2: F000 to FFFF are the manufacturer's
_TOOL_TIMEOUT_S: Final = 600
_ELEMENT = struct.Struct("<HL")
_TOTAL_AT: Final = 52  # of "total image size" in an OTA header


@dataclass(frozen=True, slots=True)
class Delta:
    """A patch that was applied once and made the new file. `data` is what goes on air, with its container."""

    format: DeltaFormat
    data: bytes


def make_delta(base: Path, new: Path, form: DeltaFormat, container: str, tag: int = OTA_DELTA_TAG) -> Delta | None:
    """The delta from one file to the other; None when it is not below `WORTH` of the new file.

    ConfigError when the tool for the format is missing or fails, when a file cannot be read or is no OTA file though the
    container says so, and when base and patch together do not give the new file again.
    """
    old_data, new_data = _read(base), _read(new)
    patch = _create(base, new, form)
    if _apply(base, patch, form) != new_data:
        raise ConfigError(f"{form} delta from {base} to {new}: applied to its base it does not give the new file")
    data = _in_ota(new_data, patch, tag, new) if container == "zigbee-ota" else patch
    if len(data) >= WORTH * len(new_data) or old_data == new_data:
        return None
    return Delta(form, data)


def _create(base: Path, new: Path, form: DeltaFormat) -> bytes:
    if form is DeltaFormat.VCDIFF:
        return _xdelta("-e", "-9", "-S", "none", "-A", "-n", base, new)
    detools = _detools()
    out = io.BytesIO()
    with base.open("rb") as old, new.open("rb") as wanted:
        try:
            detools.create_patch(old, wanted, out, compression="heatshrink", patch_type="sequential", use_mmap=False)
        except detools.Error as error:
            raise ConfigError(f"detools, {base} to {new}: {error}") from error
    return out.getvalue()


def _apply(base: Path, patch: bytes, form: DeltaFormat) -> bytes:
    if form is DeltaFormat.VCDIFF:
        with tempfile.NamedTemporaryFile(prefix="gatewayd-", suffix=".vcdiff") as file:
            file.write(patch)
            file.flush()
            return _xdelta("-d", base, Path(file.name))
    detools = _detools()
    out = io.BytesIO()
    with base.open("rb") as old:
        try:
            detools.apply_patch(old, io.BytesIO(patch), out)
        except detools.Error as error:
            raise ConfigError(f"detools, applied to {base}: {error}") from error
    return out.getvalue()


def _xdelta(mode: str, *args: str | Path) -> bytes:
    """xdelta3 with the source as the last argument but one; its standard output."""
    *options, source, target = [str(arg) for arg in args]
    tool = shutil.which("xdelta3")
    if tool is None:
        raise ConfigError("VCDIFF deltas: xdelta3 is not installed")
    command = [tool, mode, "-q", "-c", *options, "-s", source, target]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TOOL_TIMEOUT_S, check=False)  # noqa: S603 - no shell
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"xdelta3: not done within {_TOOL_TIMEOUT_S} s with {source} and {target}") from error
    if done.returncode != 0:
        raise ConfigError(f"xdelta3 with {source} and {target}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def _in_ota(new: bytes, patch: bytes, tag: int, path: Path) -> bytes:
    try:
        header = parse_ota_header(new[:MAX_HEADER_BYTES])
    except FrameError as error:
        raise ConfigError(f"{path}: {error}") from error
    total = header.header_length + _ELEMENT.size + len(patch)
    head = bytearray(new[: header.header_length])
    head[_TOTAL_AT : _TOTAL_AT + 4] = struct.pack("<L", total)
    return bytes(head) + _ELEMENT.pack(tag, len(patch)) + patch


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error


def _detools() -> ModuleType:
    try:
        return importlib.import_module("detools")
    except ImportError as error:
        raise ConfigError("detools deltas: install gatewayd[delta], which needs a C compiler") from error
