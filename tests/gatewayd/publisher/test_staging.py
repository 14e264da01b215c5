"""Thresholds: a change that needs keys from several places waits, whole, until enough of them have signed."""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from gatewayd.cloud.messages import Manufacturers
from gatewayd.errors import ConfigError
from gatewayd.publisher.firmware import FirmwareFile
from gatewayd.publisher.keys import FileImageSigner, KeyFolder, Role, campaign_key, load_private, make_key
from gatewayd.publisher.metadata import DAY_S, KeyChange
from gatewayd.publisher.repository import Repository
from gatewayd.publisher.staging import Staged
from gatewayd.trust.metadata import MetadataFiles, TrustedMetadata
from tests.gatewayd.trust.site import HARDWARE, RELEASE, YEAR_S, spec

PEOPLE = ("ada", "bob", "cyd")


class Ceremony:
    """Root and targets: keys of three people, two of whom have to sign. The host has the other keys, and only public halves."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self.clock = clock
        self.keys = {name: KeyFolder(folder / name) for name in (*PEOPLE, "host")}
        for role in (Role.SNAPSHOT, Role.TIMESTAMP, Role.RELEASES, Role.CAMPAIGN, Role.MANUFACTURER):
            make_key(folder / "host" / f"{role}.pem")
        for person in PEOPLE:
            for role in (Role.ROOT, Role.TARGETS):
                make_key(folder / person / f"{role}-{person}.pem")
                self.publish_half(person, role, "host")

    def publish_half(self, person: str, role: Role, *folders: str) -> None:
        key = self.keys[person].signer(role).public_key
        for folder in folders:
            (self.folder / folder / f"{role}-{person}.pub").write_text(key.keyval["public"])

    def at(self, who: str, copy: str = "www") -> Repository:
        """The repository as somebody with a keys folder opens it; `copy` is where."""
        return Repository(self.folder / copy, self.keys[who], clock=self.clock)

    def init(self) -> None:
        with pytest.raises(Staged):
            Repository.create(
                self.folder / "www", self.keys["host"], clock=self.clock, thresholds={Role.ROOT: 2, Role.TARGETS: 2}
            )

    def signed_by(self, *people: str) -> None:
        """Each adds signatures; the host publishes at the end."""
        for person in people:
            with pytest.raises(Staged):
                self.at(person).sign()
        self.at("host").sign()


@pytest.fixture
def ceremony(tmp_path: Path) -> Ceremony:
    return Ceremony(tmp_path)


@pytest.fixture
def ready(ceremony: Ceremony) -> Ceremony:
    """With a repository that is served and trusts a manufacturer and a campaign key."""
    ceremony.init()
    host = ceremony.at("host")
    maker = ceremony.keys["host"].manufacturer()
    for change in (
        lambda: host.allow_manufacturer(maker.manufacturer("ACME", [HARDWARE], 0, time.time() + YEAR_S)),
        lambda: host.allow_campaign_key(campaign_key(ceremony.keys["host"].signer(Role.CAMPAIGN), ["gateway:*"])),
    ):
        with pytest.raises(Staged):
            change()
    ceremony.signed_by("ada", "cyd")
    (ceremony.folder / "image.bin").write_bytes(bytes(range(256)) * 700)
    return ceremony


def verified(folder: Path) -> TrustedMetadata:
    """What is served, as a gateway verifies it."""
    metadata = folder / "metadata"
    timestamp = (metadata / "timestamp.json").read_bytes()
    snapshot = (
        metadata / f"{json.loads(timestamp)['signed']['meta']['snapshot.json']['version']}.snapshot.json"
    ).read_bytes()
    listed = json.loads(snapshot)["signed"]["meta"]
    targets, releases = (
        (metadata / f"{listed[f'{role}.json']['version']}.{role}.json").read_bytes() for role in ("targets", "releases")
    )
    roots = [metadata / f"{number}.root.json" for number in range(1, 1 + len(list(metadata.glob("*.root.json"))))]
    files = MetadataFiles(timestamp, snapshot, targets, {"releases": releases})
    trusted = TrustedMetadata.verify([root.read_bytes() for root in roots], files)
    trusted.find("releases/-/-.json")
    return trusted


def add(ceremony: Ceremony, who: str, version: str = "1.2.0", sequence: int = 3, copy: str = "www") -> None:
    signer = FileImageSigner(load_private(ceremony.folder / "host" / "manufacturer.pem"))
    ceremony.at(who, copy).add_release(spec(version, sequence), FirmwareFile(ceremony.folder / "image.bin", signer))


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


def test_the_same_key_twice_is_one_signature(ready: Ceremony) -> None:
    with pytest.raises(Staged):
        ready.at("host").set_campaign_keys([])
    for _ in range(2):
        with pytest.raises(Staged, match="1 of 2"):
            ready.at("ada").sign()


def test_a_stranger_cannot_sign(ready: Ceremony, tmp_path: Path) -> None:
    make_key(tmp_path / "stranger" / "targets.pem")
    with pytest.raises(Staged):
        ready.at("host").set_campaign_keys([])
    with pytest.raises(Staged, match="not those of the repository"):
        Repository(ready.folder / "www", KeyFolder(tmp_path / "stranger")).sign()
    assert len(ready.at("host").campaign_keys().keys) == 1


def test_signatures_from_copies_that_were_signed_side_by_side(ready: Ceremony) -> None:
    """Each person takes the folder home; only pending/change.json comes back."""
    with pytest.raises(Staged):
        ready.at("host").set_campaign_keys([])
    for person in ("ada", "cyd"):
        shutil.copytree(ready.folder / "www", ready.folder / f"at-{person}")
        with pytest.raises(Staged, match="1 of 2"):
            ready.at(person, f"at-{person}").sign()
    with pytest.raises(Staged, match="1 of 2"):
        ready.at("host").sign(ready.folder / "at-ada" / "pending" / "change.json")
    ready.at("host").sign(ready.folder / "at-cyd" / "pending" / "change.json")
    assert ready.at("host").campaign_keys().keys == ()


def test_another_change_is_not_taken_for_this_one(ready: Ceremony) -> None:
    shutil.copytree(ready.folder / "www", ready.folder / "elsewhere")
    for copy, floor in (("www", 2), ("elsewhere", 3)):
        with pytest.raises(Staged):
            ready.at("host", copy).set_floor(HARDWARE, floor)
    with pytest.raises(Staged):
        ready.at("ada", "elsewhere").sign()
    with pytest.raises(ConfigError, match="not the one that is staged here"):
        ready.at("host").sign(ready.folder / "elsewhere" / "pending" / "change.json")


def test_a_signature_that_was_changed_on_the_way_does_not_count(ready: Ceremony) -> None:
    with pytest.raises(Staged):
        ready.at("host").set_campaign_keys([])
    for person in ("ada", "cyd"):
        with pytest.raises(Staged):
            ready.at(person).sign()
    staged = ready.folder / "www" / "pending" / "change.json"
    good = ready.folder / "good.json"
    shutil.copy(staged, good)
    change = json.loads(staged.read_bytes())
    signatures = change["roles"]["targets"]["signatures"]
    signatures[0]["sig"] = signatures[1]["sig"]
    staged.write_text(json.dumps(change))
    with pytest.raises(Staged, match="1 of 2"):
        ready.at("host").sign()
    staged.write_text(json.dumps(change))
    ready.at("host").sign(good)  # the copy that is whole
    published = json.loads((ready.folder / "www" / "metadata" / "2.targets.json").read_bytes())
    assert len(published["signatures"]) == 2


def test_signatures_that_count_for_nobody_are_not_published(ready: Ceremony) -> None:
    with pytest.raises(Staged):
        ready.at("host").set_campaign_keys([])
    staged = ready.folder / "www" / "pending" / "change.json"
    change = json.loads(staged.read_bytes())
    change["roles"]["targets"]["signatures"].append({"keyid": "0" * 64, "sig": "00"})
    staged.write_text(json.dumps(change))
    ready.signed_by("ada", "cyd")
    published = json.loads((ready.folder / "www" / "metadata" / "2.targets.json").read_bytes())
    assert "0" * 64 not in {signature["keyid"] for signature in published["signatures"]}


def test_what_a_publication_left_behind_is_no_change(ready: Ceremony) -> None:
    """Cut short after its last file: the timer renews what is due, and `sign` tidies up."""
    with pytest.raises(Staged):
        ready.at("host").set_campaign_keys([])
    staged = ready.folder / "www" / "pending" / "change.json"
    for person in ("ada", "cyd"):
        with pytest.raises(Staged):
            ready.at(person).sign()
    left = staged.read_bytes()
    ready.at("host").sign()
    staged.write_bytes(left)
    assert ready.at("host").staged() == []
    ready.at("host").sign()
    assert not staged.exists()
    assert verified(ready.folder / "www").targets.version == 2


def test_a_change_that_was_edited_loses_its_signatures(ready: Ceremony) -> None:
    """Whoever may write to the folder cannot slip something in after others have signed."""
    with pytest.raises(Staged):
        ready.at("host").set_floor(HARDWARE, 2)
    with pytest.raises(Staged):
        ready.at("ada").sign()
    staged = ready.folder / "www" / "pending" / "change.json"
    change = json.loads(staged.read_bytes())
    change["roles"]["targets"]["signed"]["delegations"]["roles"][0]["threshold"] = 1
    change["roles"]["targets"]["signed"]["expires"] = "2099-01-01T00:00:00Z"
    staged.write_text(json.dumps(change))
    with pytest.raises(Staged, match="1 of 2"):
        ready.at("cyd").sign()


def test_a_change_made_where_its_key_is_and_published_where_the_others_are(ready: Ceremony) -> None:
    """The releases key is offline: the release is made in a copy; the host takes targets, payloads and pending."""
    home = ready.folder / "home"
    shutil.copytree(ready.folder / "www", home)
    ready.keys["offline"] = KeyFolder(ready.folder / "offline")
    ready.keys["offline"].folder.mkdir()
    shutil.move(ready.folder / "host" / "releases.pem", ready.folder / "offline" / "releases.pem")
    with pytest.raises(Staged, match="the snapshot key is not at hand"):
        add(ready, "offline", copy="home")
    shutil.copytree(home / "pending", ready.folder / "www" / "pending", dirs_exist_ok=True)
    with pytest.raises(ConfigError, match="No such file"):
        ready.at("host").sign()  # the documents have been forgotten: nothing is published that cannot be fetched
    shutil.copytree(home / "targets", ready.folder / "www" / "targets", dirs_exist_ok=True)
    with pytest.raises(ConfigError, match="payloads"):
        ready.at("host").sign()
    shutil.copytree(home / "payloads", ready.folder / "www" / "payloads", dirs_exist_ok=True)
    ready.at("host").sign()
    assert verified(ready.folder / "www").find(RELEASE)


def test_a_payload_that_was_damaged_on_the_way_is_not_published(ready: Ceremony) -> None:
    shutil.move(ready.folder / "host" / "timestamp.pem", ready.folder / "timestamp.pem")
    with pytest.raises(Staged, match="timestamp key"):
        add(ready, "host")
    shutil.move(ready.folder / "timestamp.pem", ready.folder / "host" / "timestamp.pem")
    (payload,) = (ready.folder / "www" / "payloads").iterdir()
    payload.write_bytes(b"else")
    with pytest.raises(ConfigError, match="not the bytes"):
        ready.at("host").sign()


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


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"format": 2, "roles": {}}', b'{"format": 1, "roles": {"targets": 1}}', b"\xff"]
)
def test_a_file_that_is_no_staged_change(ready: Ceremony, content: bytes) -> None:
    place = ready.folder / "www" / "pending" / "change.json"
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(content)
    with pytest.raises(ConfigError, match=r"change\.json"):
        ready.at("host").sign()


def test_root_in_the_place_of_targets(ready: Ceremony) -> None:
    with pytest.raises(Staged):
        ready.at("host").rotate(KeyChange(Role.TARGETS, threshold=3))
    place = ready.folder / "www" / "pending" / "change.json"
    roles = json.loads(place.read_bytes())["roles"]
    place.write_text(json.dumps({"format": 1, "roles": {"targets": roles["root"]}}))
    with pytest.raises(ConfigError, match=r"change\.json"):
        ready.at("host").sign()


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
