"""Staged changes that are carried to keys and back: which signatures count, and what is not taken for the change."""

import json
import shutil
from pathlib import Path

import pytest

from gatewayd.errors import ConfigError
from gatewayd.publisher.keys import KeyFolder, Role, make_key
from gatewayd.publisher.metadata import KeyChange
from gatewayd.publisher.repository import Repository
from gatewayd.publisher.staging import Staged
from tests.gatewayd.publisher.ceremony import Ceremony, add, verified
from tests.gatewayd.trust.site import HARDWARE, RELEASE


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
