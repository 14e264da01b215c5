"""Rotation of roles with thresholds: who has to sign what it makes necessary."""

from pathlib import Path

import pytest

from gatewayd.errors import ConfigError
from gatewayd.publisher.keys import KeyFolder, Role, make_key
from gatewayd.publisher.metadata import KeyChange
from gatewayd.publisher.repository import Repository
from gatewayd.publisher.staging import Staged
from tests.gatewayd.publisher.ceremony import Ceremony, verified


def test_a_root_needs_the_thresholds_of_the_old_and_the_new(ready: Ceremony) -> None:
    """Ada and Bob leave; Cyd stays with Dora: two of the old, then two of the new have to sign."""
    ready.keys["dora"] = KeyFolder(ready.folder / "dora")
    make_key(ready.folder / "dora" / "root-dora.pem")
    leaving = tuple(ready.keys[person].signer(Role.ROOT).public_key.keyid for person in ("ada", "bob"))
    coming = tuple(ready.keys["dora"].public_keys(Role.ROOT))
    with pytest.raises(Staged, match=r"0 of 2 .*by root 1.*0 of 2 .*by root 2"):
        ready.at("host").rotate(KeyChange(Role.ROOT, coming, leaving))
    with pytest.raises(Staged, match=r"1 of 2 .*by root 1.*1 of 2 .*by root 2"):
        ready.at("cyd").sign()
    with pytest.raises(Staged, match=r"1 of 2 .*by root 1"):
        ready.at("dora").sign()
    with pytest.raises(Staged, match="snapshot key"):
        ready.at("ada").sign()
    ready.at("host").sign()
    assert verified(ready.folder / "www").root.version == 2


def test_rotating_targets_signs_its_metadata_anew_with_the_root(ready: Ceremony) -> None:
    """The threshold rises to all three: two signatures are no longer enough for what is served."""
    with pytest.raises(Staged) as caught:
        ready.at("host").rotate(KeyChange(Role.TARGETS, threshold=3))
    assert {(one.role, one.by) for one in caught.value.lacking} == {
        (Role.ROOT, "root 1"),
        (Role.ROOT, "root 2"),
        (Role.TARGETS, "root 2"),
    }
    ready.signed_by("ada", "bob", "cyd")
    trusted = verified(ready.folder / "www")
    assert (trusted.root.version, trusted.targets.version) == (2, 2)


def test_what_is_still_good_is_not_signed_anew(ready: Ceremony) -> None:
    """A further targets key, or a lower threshold, is root's business alone."""
    with pytest.raises(Staged) as caught:
        ready.at("host").rotate(KeyChange(Role.TARGETS, threshold=1))
    assert {one.role for one in caught.value.lacking} == {Role.ROOT}
    ready.signed_by("ada", "bob")
    trusted = verified(ready.folder / "www")
    assert (trusted.root.version, trusted.targets.version) == (2, 1)


def test_a_threshold_of_online_roles_is_met_in_one_place(tmp_path: Path) -> None:
    keys = KeyFolder(tmp_path / "keys")
    for name in ("root", "targets", "releases", "snapshot", "timestamp-a", "timestamp-b"):
        make_key(keys.folder / f"{name}.pem")
    repository = Repository.create(tmp_path / "www", keys, thresholds={Role.TIMESTAMP: 2})
    assert verified(tmp_path / "www").root.roles["timestamp"].threshold == 2
    (keys.folder / "timestamp-b.pem").unlink()
    with pytest.raises(ConfigError, match=r"timestamp key is not at hand \(1 of 2"):
        repository.refresh()
    assert verified(tmp_path / "www").timestamp.version == 1


@pytest.mark.parametrize(
    ("thresholds", "complaint"), [({Role.ROOT: 2}, "threshold of 2 with 1 keys"), ({Role.TARGETS: 0}, "threshold of 0")]
)
def test_a_threshold_that_cannot_be_met(tmp_path: Path, thresholds: dict[Role, int], complaint: str) -> None:
    for role in Role:
        make_key(tmp_path / "keys" / f"{role}.pem")
    with pytest.raises(ConfigError, match=complaint):
        Repository.create(tmp_path / "www", KeyFolder(tmp_path / "keys"), thresholds=thresholds)
    assert not (tmp_path / "www" / "pending" / "change.json").exists()
