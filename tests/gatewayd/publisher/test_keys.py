"""Key files."""

from pathlib import Path

import pytest

from gatewayd.errors import ConfigError
from gatewayd.publisher.keys import KeyFolder, KeyKind, Role, generate_all, load_private, make_key


def test_one_private_file_per_role(tmp_path: Path) -> None:
    keys = generate_all(tmp_path / "keys")
    assert {path.name for path in (tmp_path / "keys").iterdir()} == {f"{role}.pem" for role in Role}
    for path in (tmp_path / "keys").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
    ids = {keys.signer(role).public_key.keyid for role in Role}
    assert len(ids) == len(Role)


def test_keys_are_never_overwritten(tmp_path: Path) -> None:
    make_key(tmp_path / "root.pem")
    before = (tmp_path / "root.pem").read_bytes()
    with pytest.raises(ConfigError, match=r"root\.pem"):
        make_key(tmp_path / "root.pem")
    assert (tmp_path / "root.pem").read_bytes() == before


def test_several_keys_of_a_role(tmp_path: Path) -> None:
    for name in ("root.pem", "root-b.pem", "root-a.pem", "releases.pem"):
        make_key(tmp_path / name)
    keys = KeyFolder(tmp_path)
    assert len(list(keys.signers(Role.ROOT))) == 3
    assert len(list(keys.signers(Role.RELEASES))) == 1
    assert list(keys.signers(Role.TARGETS)) == []
    with pytest.raises(ConfigError, match="no targets key"):
        keys.signer(Role.TARGETS)


def test_a_passphrase(tmp_path: Path) -> None:
    path = tmp_path / "root.pem"
    make_key(path, passphrase=b"open sesame")
    assert b"ENCRYPTED" in path.read_bytes()
    assert KeyFolder(tmp_path, b"open sesame").signer(Role.ROOT)
    for wrong in (None, b"open barley"):
        with pytest.raises(ConfigError, match=r"root\.pem"):
            load_private(path, wrong)


def test_a_passphrase_does_not_disturb_plain_files(tmp_path: Path) -> None:
    make_key(tmp_path / "root.pem")
    assert KeyFolder(tmp_path, b"open sesame").signer(Role.ROOT)


def test_rsa_4096(tmp_path: Path) -> None:
    make_key(tmp_path / "manufacturer.pem", KeyKind.RSA_4096)
    signer = KeyFolder(tmp_path).manufacturer()
    assert signer.scheme == "rsa-pkcs1v15-sha256"
    assert len(signer.public_der) > 512


@pytest.mark.parametrize("content", [b"", b"junk", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_file_that_is_no_key(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "root.pem").write_bytes(content)
    with pytest.raises(ConfigError, match=r"root\.pem"):
        load_private(tmp_path / "root.pem")
