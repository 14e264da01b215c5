"""Thresholds: a change that needs keys from several places waits, whole, until enough of them have signed."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from gatewayd.cloud.messages import Manufacturers
from gatewayd.errors import ConfigError
from gatewayd.publisher.keys import Role
from gatewayd.publisher.metadata import DAY_S, KeyChange
from gatewayd.publisher.repository import Repository
from gatewayd.publisher.staging import Staged
from tests.gatewayd.publisher.ceremony import Ceremony, add, verified
from tests.gatewayd.trust.site import HARDWARE, RELEASE


def test_a_repository_starts_when_enough_have_signed(ceremony: Ceremony) -> None:
    ceremony.init()
    folder = ceremony.folder / "www"
    assert not list((folder / "metadata").glob("*.json"))
    with pytest.raises(Staged, match=r"1 of 2 signatures by root 1") as caught:
        ceremony.at("bob").sign()
    assert {(one.role, one.have, one.need) for one in caught.value.lacking} == {
        (Role.ROOT, 1, 2),
        (Role.TARGETS, 1, 2),
    }
    with pytest.raises(Staged, match="snapshot key"):
        ceremony.at("ada").sign()
    assert not list((folder / "metadata").glob("*.json"))
    ceremony.at("host").sign()
    assert verified(folder).root.version == 1
    assert not (folder / "pending" / "change.json").exists()
    keyids, threshold = ceremony.at("host").role_keys()[Role.ROOT]
    assert (len(keyids), threshold) == (3, 2)


def test_several_changes_wait_for_one_round_of_signatures(ready: Ceremony) -> None:
    host = ready.at("host")
    assert len(host.manufacturers().keys) == 1
    assert len(host.campaign_keys().keys) == 1
    assert verified(ready.folder / "www").targets.version == 1  # init and both changes were one


def test_a_change_after_a_signature_asks_for_it_anew(ready: Ceremony) -> None:
    host = ready.at("host")
    with pytest.raises(Staged):
        host.set_floor(HARDWARE, 2)
    with pytest.raises(Staged):
        ready.at("ada").sign()
    with pytest.raises(Staged, match="0 of 2"):
        host.set_floor(HARDWARE, 3)
    with pytest.raises(Staged, match="1 of 2"):
        ready.at("bob").sign()
    with pytest.raises(Staged, match="snapshot key"):
        ready.at("ada").sign()
    host.sign()
    assert host.manufacturers().floors[0].minimum_security_version == 3


def test_what_is_served_goes_on_while_a_change_waits(ready: Ceremony) -> None:
    """A refresh, a release and a withdrawal are not held up by a change of targets that nobody has signed yet."""
    host = ready.at("host")
    with pytest.raises(Staged):
        host.set_campaign_keys([])
    add(ready, "host")
    host.refresh()
    add(ready, "host", "1.3.0", 4)
    host.withdraw_release(RELEASE)
    served = verified(ready.folder / "www")
    assert served.find(RELEASE) is None
    assert served.find("releases/meter/1.3.0.json")
    assert len(host.campaign_keys().keys) == 1
    ready.signed_by("bob", "cyd")
    served = verified(ready.folder / "www")
    assert served.targets.version == 2
    assert served.find("releases/meter/1.3.0.json")
    assert host.campaign_keys().keys == ()


def test_two_changes_that_wait_become_one(ready: Ceremony) -> None:
    """A release whose key is away does not push out the change of targets that waited before it."""
    host = ready.at("host")
    with pytest.raises(Staged):
        host.set_campaign_keys([])
    with pytest.raises(Staged, match="1 of 2"):
        ready.at("ada").sign()
    shutil.move(ready.folder / "host" / "releases.pem", ready.folder / "releases.pem")
    with pytest.raises(Staged, match=r"targets key .*1 of 2.*releases key .*0 of 1"):
        add(ready, "host")
    assert [one.role for one in host.staged()] == [Role.TARGETS, Role.RELEASES]
    shutil.move(ready.folder / "releases.pem", ready.folder / "host" / "releases.pem")
    ready.signed_by("cyd")
    assert verified(ready.folder / "www").find(RELEASE)
    assert host.campaign_keys().keys == ()


def test_a_staged_change_that_the_repository_has_overtaken(ready: Ceremony) -> None:
    shutil.copytree(ready.folder / "www", ready.folder / "elsewhere")
    with pytest.raises(Staged):
        ready.at("host", "elsewhere").set_floor(HARDWARE, 5)
    with pytest.raises(Staged):
        ready.at("host").set_floor(HARDWARE, 2)
    ready.signed_by("ada", "bob")
    shutil.copytree(ready.folder / "elsewhere" / "pending", ready.folder / "www" / "pending", dirs_exist_ok=True)
    with pytest.raises(ConfigError, match="`publish discard` it"):
        ready.at("host").sign()
    ready.at("host").discard()
    with pytest.raises(ConfigError, match="nothing waits"):
        ready.at("host").sign()
    with pytest.raises(ConfigError, match="nothing waits"):
        ready.at("host").discard()


def test_a_discarded_change_leaves_no_trace(ready: Ceremony) -> None:
    with pytest.raises(Staged):
        ready.at("host").set_campaign_keys([])
    ready.at("host").discard()
    assert ready.at("host").staged() == []
    with pytest.raises(Staged):
        ready.at("host").set_floor(HARDWARE, 2)
    ready.signed_by("ada", "bob")
    assert len(ready.at("host").campaign_keys().keys) == 1


def test_who_signs_is_told_what_is_signed(ready: Ceremony) -> None:
    host = ready.at("host")
    keyid = host.campaign_keys().keys[0].keyid
    for change in (
        lambda: host.revoke_campaign_key(keyid),
        lambda: host.set_floor(HARDWARE, 7),
        lambda: host.rotate(KeyChange(Role.TARGETS, threshold=3)),
    ):
        with pytest.raises(Staged):
            change()
    with pytest.raises(Staged):
        ready.at("bob").sign()
    root, targets = host.staged()
    assert (root.role, root.version, root.changes) == (Role.ROOT, 2, ("threshold of targets: 3 of 3 keys",))
    assert targets.role is Role.TARGETS
    assert targets.changes == (f"- campaign key {keyid}: gateway:*", f"+ floor {HARDWARE}: 7")
    assert [(count.by, count.need, len(count.signed)) for count in root.signatures] == [
        ("root 1", 2, 1),
        ("root 2", 2, 1),
    ]
    assert [(count.by, count.need, len(count.signed)) for count in targets.signatures] == [("root 2", 3, 1)]


def test_a_second_init_waits_for_nobody(ceremony: Ceremony) -> None:
    ceremony.init()
    with pytest.raises(ConfigError, match="already that waits"):
        Repository.create(ceremony.folder / "www", ceremony.keys["host"])


def test_a_refresh_leaves_what_waits_alone_and_warns(tmp_path: Path) -> None:
    clock = [time.time()]
    ceremony = Ceremony(tmp_path, lambda: clock[0])
    ceremony.init()
    ceremony.signed_by("ada", "bob")
    with pytest.raises(Staged):
        ceremony.at("host").set_floor(HARDWARE, 2)
    clock[0] += 80 * DAY_S
    done = ceremony.at("host").refresh()
    assert done.renewed == (Role.RELEASES, Role.SNAPSHOT, Role.TIMESTAMP)
    (warning,) = done.warnings
    assert "targets expires" in warning
    assert "waits for signatures" in warning
    assert ceremony.at("host").staged()[0].role is Role.TARGETS


def test_revoking_goes_through_the_same_door(ready: Ceremony) -> None:
    host = ready.at("host")
    (maker,) = host.manufacturers().keys
    with pytest.raises(ConfigError, match="not listed"):
        host.revoke_manufacturer("0" * 64)
    with pytest.raises(ConfigError, match="not listed"):
        host.revoke_campaign_key("0" * 64)
    assert host.staged() == []
    with pytest.raises(Staged):
        host.revoke_manufacturer(maker.keyid)
    ready.signed_by("bob", "cyd")
    assert revoked(host.manufacturers()) == [True]


def revoked(held: Manufacturers) -> Sequence[bool]:
    return [key.revoked for key in held.keys]
