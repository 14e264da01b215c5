"""The file of a backup: a tar of named members, the first of which, the manifest, says what the others are.

Nothing in the file is believed that the manifest does not say, and no name but those of `NAMES` reaches the disk. Not
responsible for what the members mean, nor for encryption (sealed.py).
"""

import hashlib
import io
import os
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Final, Literal, Protocol, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from gatewayd.errors import Refused

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
MANIFEST_MAX_BYTES: Final = 4 * 2**20
FILES_MOST: Final = 10_000
STORE: Final = "gatewayd.db"
ZIGBEE_TABLE: Final = "zigbee.db"

NAMES: Final = re.compile(
    r"gatewayd\.db|zigbee\.db"
    r"|trust/[A-Za-z0-9_][A-Za-z0-9._%-]{0,200}(/[A-Za-z0-9_][A-Za-z0-9._%-]{0,200}){0,4}"
    r"|backups/zigbee-\d{8}T\d{6}Z(-[a-z-]{1,40})?\.json"
    r"|payloads/[0-9a-f]{64}"
)

_PIECE_BYTES = 1 << 20
_EXTENSION_MAX_BYTES = 64 * 1024  # of a header about a long name, which tarfile reads as a whole
_PAX_TYPES = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_EXTENSIONS = (*_PAX_TYPES, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)


class Source(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Sink(Protocol):
    def write(self, data: bytes, /) -> int: ...


class Member(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    name: Annotated[str, StringConstraints(pattern=f"^({NAMES.pattern})$")]
    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Manifest(BaseModel):
    """`store_schema` is the store's; members come in this order."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    format: Literal[1] = FORMAT
    gateway: str
    program: str  # version of the gatewayd that made it
    made_at: AwareDatetime
    store_schema: int
    members: Annotated[tuple[Member, ...], Field(max_length=FILES_MOST)]


def member(folder: Path, name: str) -> Member:
    """What the manifest says of a file. Refused when its name has no place in a backup; OSError."""
    if not NAMES.fullmatch(name):
        raise Refused("bad_backup", f"{name!r} has no place in a backup")
    digest, size = hashlib.sha256(), 0
    with (folder / name).open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
            size += len(piece)
    return Member(name=name, size=size, sha256=digest.hexdigest())


def write(target: Sink, manifest: Manifest, sources: Callable[[str], Path]) -> None:
    """`sources` says where a member's file is. Refused when one is not what the manifest says; OSError."""
    raw = manifest.model_dump_json(indent=1).encode()
    with tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
        tar.addfile(_info(MANIFEST, len(raw)), io.BytesIO(raw))
        for entry in manifest.members:
            with sources(entry.name).open("rb") as file:
                checked = _Checked(file, entry)
                tar.addfile(_info(entry.name, entry.size), checked)
                checked.finish()


def read(source: Source, folder: Path | None, accept: Callable[[Manifest], None]) -> Manifest:
    """Verify the whole archive, and write its members into `folder` (mode 0600), unless that is None.

    `accept` judges the manifest before a member is written, and raises. Refused (`bad_backup`) for anything that is not as
    the manifest says: what is in `folder` then is worth nothing. OSError.
    """
    try:
        with tarfile.open(fileobj=source, mode="r|", tarinfo=_Bounded) as tar:  # type: ignore[call-overload]
            members = _members(tar)
            manifest = _manifest(members)
            accept(manifest)
            for entry in manifest.members:
                name, size, file = next(members, ("", 0, None))
                if (name, size) != (entry.name, entry.size) or file is None:
                    raise Refused("bad_backup", f"{entry.name}: is missing, or another member is in its place")
                _copy(_Checked(file, entry), None if folder is None else folder / name)
            if (more := next(members, None)) is not None:
                raise Refused("bad_backup", f"{more[0]!r}: is not in the manifest")
        while source.read(_PIECE_BYTES):
            pass  # a sealed file is proven by its last piece alone
    except (tarfile.TarError, EOFError, ValueError, RecursionError) as error:
        raise Refused("bad_backup", f"is no backup, or is cut off: {error}") from None
    return manifest


class _Bounded(tarfile.TarInfo):
    """Headers that extend others have the length that they say, and are in memory before anybody can judge them."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        info = super().frombuf(buf, encoding, errors)
        if info.type in _EXTENSIONS and info.size > _EXTENSION_MAX_BYTES:
            raise tarfile.TarError(f"a header of {info.size} bytes")
        if info.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.TarError("a file with holes, which no backup has")
        return info


class _Checked:
    """Reads a member, and refuses other bytes than the manifest's."""

    def __init__(self, file: Source, entry: Member) -> None:
        self._file, self._entry = file, entry
        self._digest, self._left = hashlib.sha256(), entry.size

    def read(self, size: int = _PIECE_BYTES, /) -> bytes:
        piece = self._file.read(min(size, self._left))
        self._digest.update(piece)
        self._left -= len(piece)
        if not piece or not self._left:
            self.finish()
        return piece

    def finish(self) -> None:
        if self._left or self._digest.hexdigest() != self._entry.sha256:
            raise Refused("bad_backup", f"{self._entry.name}: is not what the manifest says")


def _members(tar: tarfile.TarFile) -> Iterator[tuple[str, int, Source | None]]:
    for info in tar:
        if not info.isreg():
            raise Refused("bad_backup", f"{info.name!r}: is no file")
        yield info.name, info.size, tar.extractfile(info)


def _manifest(members: Iterable[tuple[str, int, Source | None]]) -> Manifest:
    name, size, file = next(iter(members), ("", 0, None))
    if name != MANIFEST or file is None or size > MANIFEST_MAX_BYTES:
        raise Refused("bad_backup", f"does not begin with {MANIFEST}: is no backup of a gateway")
    try:
        manifest = Manifest.model_validate_json(file.read(size))
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, fault["loc"])) or "document"
        raise Refused("bad_backup", f"{MANIFEST}: {place}: {fault['msg']}") from None
    names = [entry.name for entry in manifest.members]
    if STORE not in names or len(names) != len(set(names)):
        raise Refused("bad_backup", f"{MANIFEST}: must name {STORE}, and each member once")
    return manifest


def _copy(source: _Checked, target: Path | None) -> None:
    if target is None:
        while source.read():
            pass
        return
    for folder in reversed(target.parents):
        folder.mkdir(mode=0o700, exist_ok=True)
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        while piece := source.read():
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def _info(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    return info
