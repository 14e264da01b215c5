"""Nothing of a file is believed that its manifest does not say, and nothing of it reaches another place on the disk."""

import io
import json
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.backup import archive
from gatewayd.backup.sealed import PIECE_BYTES, Opener, Sealer, is_sealed
from gatewayd.errors import Refused

STORE = b"a store"


def entry(name: str, data: bytes) -> dict[str, Any]:
    return {"name": name, "size": len(data), "sha256": sha256(data).hexdigest()}


def document(*members: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "format": 1,
        "gateway": "gw-1",
        "program": "0.1.0",
        "made_at": "2026-06-01T12:00:00Z",
        "store_schema": 1,
        "members": [entry("gatewayd.db", STORE), *members],
        **changes,
    }


def packed(manifest: Any, *files: tuple[str, bytes], kind: bytes = tarfile.REGTYPE) -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        raw = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
        for name, data in [("manifest.json", raw), *files]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if name != "manifest.json":
                info.type = kind
            tar.addfile(info, io.BytesIO(data))
    stream.seek(0)
    return stream


def read(stream: archive.Source, folder: Path | None = None) -> archive.Manifest:
    return archive.read(stream, folder, lambda _: None)


@pytest.mark.parametrize("folder", [False, True])
def test_what_is_written_is_read(tmp_path: Path, folder: bool) -> None:
    source = tmp_path / "source"
    (source / "trust").mkdir(parents=True)
    (source / "gatewayd.db").write_bytes(STORE * 500_000)
    (source / "trust/trusted.json").write_bytes(b"")
    names = ["gatewayd.db", "trust/trusted.json"]
    manifest = archive.Manifest(
        gateway="gw-1",
        program="1",
        made_at=datetime(2026, 6, 1, tzinfo=UTC),
        store_schema=1,
        members=tuple(archive.member(source, name) for name in names),
    )
    stream = io.BytesIO()
    archive.write(stream, manifest, lambda name: source / name)
    stream.seek(0)
    assert read(stream, tmp_path / "new" if folder else None) == manifest
    if folder:
        for name in names:
            assert (tmp_path / "new" / name).read_bytes() == (source / name).read_bytes()
            assert (tmp_path / "new" / name).stat().st_mode & 0o777 == 0o600


OTHER = entry("zigbee.db", b"a table")


@pytest.mark.parametrize(
    ("stream", "what"),
    [
        (lambda: io.BytesIO(b""), "is no backup"),
        (lambda: io.BytesIO(b"not a tar" * 200), "is no backup"),
        (lambda: packed(b"{}"), "manifest.json: gateway"),
        (lambda: packed(b"no json"), "manifest.json: document"),
        (lambda: packed(document(format=2)), "manifest.json: format"),
        (lambda: packed(document(more=1)), "manifest.json: more"),
        (lambda: packed(document(made_at="2026-06-01T12:00:00")), "manifest.json: made_at"),
        (lambda: packed(document(members=[])), "must name gatewayd.db"),
        (lambda: packed(document(entry("gatewayd.db", STORE))), "each member once"),
        (lambda: packed(document(entry("trust/../../evil", b"x"))), "members.1.name"),
        (lambda: packed(document(entry("/etc/passwd", b"x"))), "members.1.name"),
        (lambda: packed(document(entry("operator.token", b"x"))), "members.1.name"),
        (lambda: packed(document()), "gatewayd.db: is missing"),
        (lambda: packed(document(), ("gatewayd.db", b"another")), "gatewayd.db: is not what the manifest says"),
        (lambda: packed(document(), ("gatewayd.db", b"longer store")), "gatewayd.db: is missing"),
        (
            lambda: packed(document(), ("gatewayd.db", STORE), ("zigbee.db", b"x")),
            "'zigbee.db': is not in the manifest",
        ),
        (lambda: packed(document(OTHER), ("zigbee.db", b"a table"), ("gatewayd.db", STORE)), "gatewayd.db: is missing"),
        (lambda: packed(document(), ("gatewayd.db", STORE), kind=tarfile.SYMTYPE), "is no file"),
        (lambda: packed(document(), ("gatewayd.db", STORE), kind=tarfile.DIRTYPE), "is no file"),
    ],
)
def test_anything_else_is_refused(stream: Callable[[], io.BytesIO], what: str, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    with pytest.raises(Refused) as refused:
        read(stream(), folder)
    assert refused.value.code == "bad_backup"
    assert what in refused.value.detail
    assert {p.name for p in tmp_path.iterdir()} <= {"new"}


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_a_header_that_would_take_the_machines_memory_is_refused_unread(kind: bytes) -> None:
    class Endless(io.RawIOBase):
        def __init__(self, head: bytes) -> None:
            self.head, self.given = head, 0

        def read(self, size: int = -1, /) -> bytes:
            found, self.head = self.head[:size], self.head[size:]
            found += bytes(size - len(found))
            self.given += len(found)
            assert self.given < 2**22
            return found

    info = tarfile.TarInfo("manifest.json")
    info.size, info.type = 2**33 - 1, kind
    with pytest.raises(Refused, match="a header of 8589934591 bytes"):
        read(Endless(info.tobuf(tarfile.GNU_FORMAT)))


def test_a_long_name_may_still_be_told_by_such_a_header(tmp_path: Path) -> None:
    name = f"trust/{'a' * 150}/{'b' * 150}"
    stream = packed(document(entry(name, b"x")), ("gatewayd.db", STORE), (name, b"x"))
    read(stream, tmp_path / "new")
    assert (tmp_path / "new" / name).read_bytes() == b"x"


def test_a_manifest_that_is_not_accepted_lets_nothing_be_written(tmp_path: Path) -> None:
    def accept(_: archive.Manifest) -> None:
        raise Refused("wrong_gateway", "no")

    with pytest.raises(Refused, match="wrong_gateway"):
        archive.read(packed(document(), ("gatewayd.db", STORE)), tmp_path / "new", accept)
    assert not (tmp_path / "new").exists()


@given(cut=st.integers(min_value=0, max_value=3 * 512 + len(STORE) - 1))  # of three blocks, and the store
def test_a_file_that_is_cut_off_is_refused(cut: int) -> None:
    whole = packed(document(), ("gatewayd.db", STORE)).getvalue()
    with pytest.raises(Refused):
        read(io.BytesIO(whole[:cut]))


def test_a_member_that_is_no_part_of_a_backup_is_never_written(tmp_path: Path) -> None:
    (tmp_path / "operator.token").write_text("x")
    with pytest.raises(Refused, match="has no place"):
        archive.member(tmp_path, "operator.token")


# -- sealed ----------------------------------------------------------------------------------------------------------


def sealed(data: bytes, step: int = 10_000) -> bytes:
    stream = io.BytesIO()
    sealer = Sealer(stream, "correct horse")
    for at in range(0, len(data), step):
        sealer.write(data[at : at + step])
    sealer.close()
    return stream.getvalue()


def opened(raw: bytes, passphrase: str = "correct horse") -> bytes:
    opener, found = Opener(io.BytesIO(raw), passphrase), bytearray()
    while piece := opener.read(7000):
        found += piece
    return bytes(found)


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES, 200_000])
def test_what_is_sealed_is_opened(size: int) -> None:
    data = bytes(n % 251 for n in range(size))
    raw = sealed(data)
    assert is_sealed(raw)
    assert opened(raw) == data
    assert size < 100 or data[:100] not in raw


def test_the_same_backup_is_never_sealed_alike() -> None:
    assert sealed(b"x")[:60] != sealed(b"x")[:60]


PIECE = PIECE_BYTES + 16
HEAD = len(sealed(b"")) - 16


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw[:-1],
        lambda raw: raw[: HEAD + PIECE],  # the last piece is gone
        lambda raw: raw[:HEAD],
        lambda raw: raw[: HEAD - 1],
        lambda raw: raw + b"x",
        lambda raw: (
            raw[:HEAD] + raw[HEAD + PIECE : HEAD + 2 * PIECE] + raw[HEAD : HEAD + PIECE] + raw[HEAD + 2 * PIECE :]
        ),
        lambda raw: raw[: HEAD + 5] + bytes((raw[HEAD + 5] ^ 1,)) + raw[HEAD + 6 :],
        lambda raw: raw[:30] + bytes((raw[30] ^ 1,)) + raw[31:],  # of the salt
        lambda raw: raw[:25] + b"\x3f" + raw[26:],  # a cost that would take the machine's memory
        lambda raw: b"other" + raw[5:],
    ],
)
def test_a_sealed_file_that_was_changed_is_refused(change: Callable[[bytes], bytes]) -> None:
    raw = sealed(bytes(150_000))
    with pytest.raises(Refused) as refused:
        opened(change(raw))
    assert refused.value.code == "sealed"


@pytest.mark.parametrize("log_n", [0, 18, 20, 255])
def test_a_cost_that_a_gateway_cannot_pay_is_refused_before_it_is_paid(log_n: int) -> None:
    raw = sealed(b"x")
    with pytest.raises(Refused, match="does not know"):
        Opener(io.BytesIO(raw[:25] + bytes((log_n,)) + raw[26:]), "correct horse")


def test_another_passphrase_opens_nothing() -> None:
    with pytest.raises(Refused, match="another passphrase"):
        opened(sealed(b"x"), "correct house")
