"""Attack: metadata and documents signed by somebody else, or sealed by nobody."""

import time
from pathlib import Path

import pytest
from tuf.api.metadata import MetaFile

from gatewayd.errors import Bug, ConfigError, Refused
from gatewayd.publisher.files import write_file
from gatewayd.publisher.keys import KeyFolder, Role, generate_all
from gatewayd.publisher.metadata import DEFAULT_LIFETIMES, MetadataSet
from gatewayd.publisher.repository import Repository
from gatewayd.trust.release import VerifiedRelease
from gatewayd.trust.seal import SEAL
from tests.gatewayd.trust.site import RELEASE, Gateways, Publisher, Site, make_publisher, obtained, spec
from tests.support.documents import release


async def test_a_repository_of_strangers(gateways: Gateways, site: Site, tmp_path: Path) -> None:
    stranger = make_publisher(tmp_path / "stranger")
    stranger.add(spec())
    site.folder = stranger.repository.path
    with pytest.raises(Refused) as caught:
        await gateways.start().refresh()
    assert caught.value.code == "bad_signature"
    assert "timestamp" in caught.value.detail


async def test_a_root_that_its_predecessor_has_not_signed(
    gateways: Gateways, publisher: Publisher, site: Site, tmp_path: Path
) -> None:
    stranger = make_publisher(tmp_path / "stranger")
    folder = stranger.repository.path / "metadata"
    MetadataSet.load(folder, stranger.keys, DEFAULT_LIFETIMES, time.time()).commit({Role.ROOT})
    site.lies["metadata/2.root.json"] = (folder / "2.root.json").read_bytes()
    with pytest.raises(Refused) as caught:
        await gateways.start().refresh()
    assert caught.value.code == "bad_signature"


@pytest.mark.parametrize("thief", [Role.RELEASES, Role.SNAPSHOT, Role.TIMESTAMP, Role.CAMPAIGN, Role.MANUFACTURER])
async def test_targets_signed_with_the_key_of_another_role(
    gateways: Gateways, publisher: Publisher, thief: Role
) -> None:
    """Even with the keys of snapshot and timestamp: no other key makes targets."""
    current = MetadataSet.load(publisher.repository.path / "metadata", publisher.keys, DEFAULT_LIFETIMES, time.time())
    forge(current, publisher, Role.TARGETS, thief)
    with pytest.raises(Refused) as caught:
        await gateways.start().refresh()
    assert caught.value.code == "bad_signature"


@pytest.mark.parametrize("thief", [Role.SNAPSHOT, Role.TIMESTAMP, Role.CAMPAIGN])
async def test_releases_signed_with_the_key_of_another_role(
    gateways: Gateways, publisher: Publisher, thief: Role
) -> None:
    current = MetadataSet.load(publisher.repository.path / "metadata", publisher.keys, DEFAULT_LIFETIMES, time.time())
    forge(current, publisher, Role.RELEASES, thief)
    with pytest.raises(Refused) as caught:
        await obtained(gateways.start(), RELEASE)
    assert caught.value.code == "bad_signature"


def test_verified_types_are_made_by_trust_only(tmp_path: Path) -> None:
    real = release()
    VerifiedRelease(real.path, real.document, real.body, 0.0, 1.0, SEAL)
    with pytest.raises(Bug):
        VerifiedRelease(real.path, real.document, real.body, 0.0, 1.0, object())


def forge(current: MetadataSet, publisher: Publisher, role: Role, thief: Role) -> None:
    """Write metadata of `role` signed by the thief's key, and snapshot and timestamp that vouch for it."""
    part = current.targets if role is Role.TARGETS else current.releases
    part.signed.version += 1
    part.signatures.clear()
    part.sign(publisher.keys.signer(thief))
    data = part.to_bytes()
    write_file(publisher.repository.path / "metadata" / f"{part.signed.version}.{role}.json", data)
    current.snapshot.signed.meta[f"{role}.json"] = MetaFile.from_data(part.signed.version, data, ["sha256"])
    current.commit(set())


def test_keys_of_strangers_are_told_apart_by_the_publisher_too(publisher: Publisher, tmp_path: Path) -> None:
    strangers: KeyFolder = generate_all(tmp_path / "strangers")
    with pytest.raises(ConfigError, match="not those of the repository"):
        Repository(publisher.repository.path, strangers).refresh()
