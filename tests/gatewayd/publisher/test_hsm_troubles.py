"""Tokens that are away or refuse the PIN: the other keys sign, and no PIN is tried twice. Against SoftHSM."""

import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pkcs11
import pytest
from tuf.api.metadata import Metadata, Targets

from gatewayd.errors import ConfigError, Unavailable
from gatewayd.publisher.hsm import TokenKey, TokenUri
from gatewayd.publisher.keys import KeyFolder, Role, campaign_key, make_key, make_token_key
from gatewayd.publisher.metadata import KEYED_ROLES
from gatewayd.publisher.repository import Repository
from tests.support.softhsm import PIN, SoftHsm

pytestmark = pytest.mark.services

WRONG = "9999-wrong"


@pytest.fixture(scope="module")
def softhsm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftHsm]:
    with SoftHsm(tmp_path_factory.mktemp("softhsm")) as made:
        yield made


def key_uri(softhsm: SoftHsm, label: str, pin_file: Path) -> str:
    """Of a key that has yet to be made, on a new token whose PIN is in a file of its own."""
    pin_file.write_text(f"{PIN}\n")
    uri = softhsm.token(label).replace(str(softhsm.pin_file), str(pin_file))
    return TokenUri.parse(uri, Path("/")).with_object("key")


def two_tokens_and_a_file(softhsm: SoftHsm, folder: Path, threshold: int) -> tuple[Repository, list[str], list[str]]:
    """A repository whose targets role has a key on two tokens and one in a file; the tokens, and what it warned of."""
    keys, warned = folder / "keys", list[str]()
    for role in KEYED_ROLES:
        make_key(keys / f"{role}.pem")
    make_key(keys / "campaign.pem")
    labels = [f"{name}-{uuid.uuid4().hex[:12]}" for name in ("a", "b")]
    for label in labels:
        make_token_key(keys / f"targets-{label}.pkcs11", key_uri(softhsm, label, folder / f"{label}.pin"))
    thresholds = {Role.TARGETS: threshold}
    made = Repository.create(folder / "www", KeyFolder(keys, unused=warned.append), thresholds=thresholds)
    return made, labels, warned


def change(repository: Repository, keys: Path) -> None:
    signer = KeyFolder(keys).signer(Role.CAMPAIGN)
    repository.set_campaign_keys([campaign_key(signer, ["gateway:*"])])


def signatures(repository: Repository) -> int:
    newest = max(
        (repository.path / "metadata").glob("*.targets.json"), key=lambda path: int(path.name.partition(".")[0])
    )
    return len(Metadata[Targets].from_bytes(newest.read_bytes()).signatures)


def test_a_token_that_is_away_is_done_without_where_the_others_are_enough(softhsm: SoftHsm, tmp_path: Path) -> None:
    repository, (label, _), warned = two_tokens_and_a_file(softhsm, tmp_path, threshold=2)
    change(repository, tmp_path / "keys")
    assert signatures(repository) == 3
    assert warned == []
    softhsm.unplug(label)
    change(repository, tmp_path / "keys")
    assert signatures(repository) == 2
    assert any(f"targets-{label}.pkcs11" in text and text.startswith("targets is signed without") for text in warned)


def test_where_the_others_are_not_enough_it_is_named_and_nothing_is_published(softhsm: SoftHsm, tmp_path: Path) -> None:
    repository, (label, _), warned = two_tokens_and_a_file(softhsm, tmp_path, threshold=3)
    change(repository, tmp_path / "keys")
    before = sorted(path.name for path in (tmp_path / "www" / "metadata").iterdir())
    softhsm.unplug(label)
    with pytest.raises(ConfigError, match=f"targets-{label}.pkcs11: .*knows no such token"):
        change(repository, tmp_path / "keys")
    assert sorted(path.name for path in (tmp_path / "www" / "metadata").iterdir()) == before
    assert warned == []


class _Unplugged(KeyFolder):
    """The token goes between finding the key and signing with it."""

    def __init__(self, folder: Path, softhsm: SoftHsm, label: str) -> None:
        super().__init__(folder)
        self._softhsm, self._label = softhsm, label

    def signers(self, role: Role) -> Iterator[object]:  # type: ignore[override]
        for signer in list(super().signers(role)):
            if role is Role.TARGETS and self._label:
                self._softhsm.unplug(self._label)
                self._label = ""
            yield signer


@pytest.mark.parametrize(("threshold", "enough"), [(2, True), (3, False)])
def test_a_token_that_goes_in_the_middle_of_it(softhsm: SoftHsm, tmp_path: Path, threshold: int, enough: bool) -> None:
    _, (label, _), _ = two_tokens_and_a_file(softhsm, tmp_path, threshold)
    repository = Repository(tmp_path / "www", _Unplugged(tmp_path / "keys", softhsm, label))
    if enough:
        change(repository, tmp_path / "keys")
        assert signatures(repository) == 2
    else:
        with pytest.raises(Unavailable, match=f"'{label}'.* has been removed"):
            change(repository, tmp_path / "keys")


def test_a_refused_pin_is_not_tried_again_until_its_file_changes(softhsm: SoftHsm, tmp_path: Path) -> None:
    """By another run neither, as a timer's: the token counts the tries."""
    pin_file = tmp_path / "pin"
    uri = TokenUri.parse(key_uri(softhsm, "counts", pin_file), tmp_path)
    made = tmp_path / "keys" / "campaign.pkcs11"
    make_token_key(made, uri.text)
    pin_file.write_text(f"{WRONG}\n")
    with pytest.raises(ConfigError, match=r"the PIN is wrong; it is not tried again until .*pin has changed"):
        TokenKey.find(uri)
    pin_file.write_bytes(pin_file.read_bytes())  # changed: one more try
    with pytest.raises(ConfigError, match="the PIN is wrong"):
        TokenKey.find(uri)

    # From here on the file holds the right PIN, but looks as it did when the token refused it: no try is made.
    found = pin_file.stat()
    pin_file.write_text(f"{PIN}\n".ljust(found.st_size, "\n")[: found.st_size])
    os.utime(pin_file, ns=(found.st_atime_ns, found.st_mtime_ns))
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"has refused the PIN in .*pin \(20.*Z\); it is not tried again"):
            KeyFolder(made.parent).signer(Role.CAMPAIGN)
    (note,) = (path for path in tmp_path.iterdir() if path.name.endswith(".refused"))
    assert WRONG not in note.read_text()

    os.utime(pin_file, ns=(found.st_atime_ns, time.time_ns()))
    assert KeyFolder(made.parent).signer(Role.CAMPAIGN).sign(b"x").signature
    assert not note.exists()


def test_a_refusal_is_of_one_token(softhsm: SoftHsm, tmp_path: Path) -> None:
    """A PIN file that two tokens share is good for the one that takes it."""
    pin_file = tmp_path / "pin"
    first = TokenUri.parse(key_uri(softhsm, "shares", pin_file), tmp_path)
    make_token_key(tmp_path / "keys" / "campaign.pkcs11", first.text)
    other = TokenUri.parse(key_uri(softhsm, "differs", pin_file), tmp_path)
    library = pkcs11.lib(str(softhsm.module))
    library.reinitialize()  # it has been set up since
    with library.get_token(token_label="differs").open(rw=True, user_pin=PIN) as session:
        session.set_pin(PIN, "another")
    for _ in range(2):
        with pytest.raises(ConfigError, match="PIN"):
            TokenKey.find(other)
        assert TokenKey.find(first)


def test_where_the_refusal_cannot_be_noted_that_is_said(softhsm: SoftHsm, tmp_path: Path) -> None:
    """And this process knows it all the same."""
    pin_file = tmp_path / "pin"
    uri = TokenUri.parse(key_uri(softhsm, "no-note", pin_file), tmp_path)
    make_token_key(tmp_path / "keys" / "campaign.pkcs11", uri.text)
    (tmp_path / "..pin.refused.part").mkdir()  # in the way of the note
    pin_file.write_text(f"{WRONG}\n")
    with pytest.raises(ConfigError, match=r"that could not be noted .*: stop what would try it again"):
        TokenKey.find(uri)
    with pytest.raises(ConfigError, match="has refused the PIN"):
        TokenKey.find(uri)
