"""Keys are rotated while gateways look on, are away, or are in the middle of a check."""

import time
from pathlib import Path

import pytest

from gatewayd.errors import ConfigError, Refused, StoreError, Unavailable
from gatewayd.publisher.files import write_file
from gatewayd.publisher.keys import KeyFolder, KeyKind, Role, make_key
from gatewayd.publisher.metadata import DEFAULT_LIFETIMES, KEYED_ROLES, KeyChange, MetadataSet
from gatewayd.publisher.staging import Staged, read_change
from gatewayd.trust.repository import TrustRepository
from tests.gatewayd.trust.site import RELEASE, Gateways, Publisher, Site, obtained, spec

DAY_S = 86400.0


def new_key(publisher: Publisher, role: Role, name: str, kind: KeyKind = KeyKind.ECDSA_P256) -> str:
    """A further key of a role beside the others; its id."""
    path = publisher.keys.folder / f"{role}-{name}.pem"
    make_key(path, kind)
    return str(next(file.public.keyid for file in publisher.keys.files(role) if file.path == path))


def rotate(publisher: Publisher, role: Role, name: str, kind: KeyKind = KeyKind.ECDSA_P256) -> None:
    """A new key in the place of all others."""
    held, _ = publisher.repository.role_keys()[role]
    keyid = new_key(publisher, role, name, kind)
    add = tuple(key for key in publisher.keys.public_keys(role) if key.keyid == keyid)
    publisher.repository.rotate(KeyChange(role, add, held))


def forget(publisher: Publisher, role: Role) -> None:
    """The key that `init` was made with is gone."""
    (publisher.keys.folder / f"{role}.pem").unlink()


def current(publisher: Publisher) -> MetadataSet:
    return MetadataSet.load(publisher.repository.path / "metadata", publisher.keys, DEFAULT_LIFETIMES, time.time())


async def code(trust: TrustRepository) -> str:
    with pytest.raises(Refused) as caught:
        await trust.refresh()
    return caught.value.code


@pytest.mark.parametrize(
    ("role", "old_key"),
    # A lost root key cannot be rotated when the threshold is 1.
    [(role, old_key) for role in KEYED_ROLES for old_key in ("at hand", "lost") if (role, old_key) != ("root", "lost")],
)
async def test_a_gateway_follows_the_rotation_of_any_role(
    gateways: Gateways, publisher: Publisher, role: Role, old_key: str
) -> None:
    trust = gateways.start()
    await trust.refresh()
    if old_key == "lost":
        publisher.keys.folder.joinpath(f"{role}.pem").rename(publisher.keys.folder / "lost")
    rotate(publisher, role, "b")
    for gateway in (trust, gateways.start("another")):
        view = await gateway.refresh()
        assert view.fresh
        assert not view.problems
        assert (await obtained(gateway, RELEASE)).document.version == "1.2.0"
    publisher.add(spec("1.3.0", 4))
    publisher.repository.set_campaign_keys([])
    assert (await trust.refresh()).campaign_keys.keys == ()
    assert (await obtained(trust, "releases/meter/1.3.0.json")).document.sequence == 4


async def test_a_gateway_that_was_off_for_weeks_follows_every_rotation_at_once(
    gateways: Gateways, publisher: Publisher
) -> None:
    await gateways.start().refresh()
    for role in KEYED_ROLES:
        rotate(publisher, role, "b")
        forget(publisher, role)
    second = new_key(publisher, Role.ROOT, "second")
    add = tuple(key for key in publisher.keys.public_keys(Role.ROOT) if key.keyid == second)
    publisher.repository.rotate(KeyChange(Role.ROOT, add, threshold=2))
    for role in (Role.TIMESTAMP, Role.TARGETS):
        rotate(publisher, role, "c")
    for name in ("d", "e"):
        publisher.repository.rotate(KeyChange(Role.ROOT, threshold=1 if name == "d" else 2))
    publisher.add(spec("1.3.0", 4))
    trust = gateways.start()
    view = await trust.refresh()
    assert view.root_version == 1 + 4 + 1 + 2 + 2
    assert not view.problems
    assert (await obtained(trust, "releases/meter/1.3.0.json")).document.sequence == 4


async def test_an_rsa_key_takes_over_from_an_ecdsa_key(gateways: Gateways, publisher: Publisher) -> None:
    trust = gateways.start()
    await trust.refresh()
    rotate(publisher, Role.RELEASES, "rsa", KeyKind.RSA_4096)
    await trust.refresh()
    assert (await obtained(trust, RELEASE)).document.version == "1.2.0"


async def test_an_offline_restart_keeps_every_root(gateways: Gateways, publisher: Publisher, site: Site) -> None:
    for role in (Role.ROOT, Role.SNAPSHOT, Role.TIMESTAMP):
        rotate(publisher, role, "b")
    view = await gateways.start().refresh()
    site.folder = Path("/nonexistent")
    again = gateways.start()
    assert await again.restore() == view
    assert view.root_version == 4
    with pytest.raises(Unavailable):
        await again.refresh()
    assert again.view == view


@pytest.mark.parametrize("role", [Role.SNAPSHOT, Role.TIMESTAMP, Role.TARGETS])
async def test_a_restart_between_a_new_root_and_what_it_names_loses_nothing(
    gateways: Gateways, publisher: Publisher, site: Site, role: Role
) -> None:
    trust = gateways.start()
    view, release = await trust.refresh(), await obtained(trust, RELEASE)
    rotate(publisher, role, "b")
    site.lies["metadata/timestamp.json"] = 500
    with pytest.raises(Unavailable):
        await trust.refresh()
    assert (gateways.folder / "gw/metadata/root_history/2.root.json").exists()
    again = gateways.start()
    assert await again.restore() == view
    assert (again.reverify_release(RELEASE, release.body)).document == release.document
    site.lies.clear()
    assert (await again.refresh()).root_version == 2


@pytest.mark.parametrize("role", [Role.ROOT, Role.TARGETS, Role.SNAPSHOT, Role.TIMESTAMP])
async def test_a_gateway_that_looks_between_any_two_writes_is_served_a_valid_set(
    gateways: Gateways, publisher: Publisher, role: Role
) -> None:
    """The publisher's disk fails at each file in turn: what is there then is what a gateway sees between two writes."""
    watching = gateways.start("watching")
    await watching.refresh()
    folder = publisher.repository.path / "metadata"
    new_key(publisher, role, "b")
    add = tuple(key for key in publisher.keys.public_keys(role) if key.keyid not in held(publisher, role))
    change = KeyChange(role, add, held(publisher, role))
    for number, name in enumerate(files_to_be_written(publisher, role)):
        obstacle = folder / f".{name}.part"
        obstacle.mkdir()
        with pytest.raises(StoreError, match=name):
            # The first attempt is the command, those that follow end what it began.
            publisher.repository.rotate(change) if number == 0 else publisher.repository.sign()
        for gateway in (watching, gateways.start(f"fresh-{number}")):
            assert not (await gateway.refresh()).problems
            assert await obtained(gateway, RELEASE)
        assert publisher.repository.staged()
        obstacle.rmdir()
    publisher.repository.sign()
    assert publisher.repository.staged() == []
    assert (await watching.refresh()).root_version == 2
    forget(publisher, role)
    publisher.repository.refresh()
    assert (await watching.refresh()).fresh


def held(publisher: Publisher, role: Role) -> tuple[str, ...]:
    return publisher.repository.role_keys()[role][0]


def files_to_be_written(publisher: Publisher, role: Role) -> list[str]:
    """In the order that they are written; what was written by an attempt that failed counts up once per attempt."""
    now = current(publisher)
    snapshot, targets = now.snapshot.signed.version + 1, now.targets.signed.version + 1
    first = [f"{targets}.targets.json"] if role is Role.TARGETS else []
    return [*first, f"{snapshot}.snapshot.json", "timestamp.json", "2.root.json"]


async def test_without_the_old_key_a_rotation_that_was_cut_short_is_ended_by_sign(
    gateways: Gateways, publisher: Publisher
) -> None:
    """Nothing is good under both roots then: gateways refuse between the last two writes, and try again."""
    trust = gateways.start()
    await trust.refresh()
    publisher.keys.folder.joinpath("timestamp.pem").rename(publisher.keys.folder / "lost")
    obstacle = publisher.repository.path / "metadata" / ".2.root.json.part"
    obstacle.mkdir()
    with pytest.raises(StoreError):
        rotate(publisher, Role.TIMESTAMP, "b")
    assert await code(trust) == "bad_signature"
    with pytest.raises(ConfigError, match="`publish sign` may end"):
        publisher.repository.refresh()
    obstacle.rmdir()
    publisher.repository.sign()
    assert (await trust.refresh()).root_version == 2


async def test_metadata_below_the_threshold_is_refused(gateways: Gateways, publisher: Publisher) -> None:
    """Whoever has one of two keys, and those of snapshot and timestamp, writes what the publisher would not."""
    keyid = new_key(publisher, Role.TARGETS, "b")
    add = tuple(key for key in publisher.keys.public_keys(Role.TARGETS) if key.keyid == keyid)
    publisher.repository.rotate(KeyChange(Role.TARGETS, add, threshold=2))
    trust = gateways.start()
    await trust.refresh()
    forget(publisher, Role.TARGETS)
    forged = current(publisher)
    forged.advance(Role.TARGETS)
    assert forged.seal(*KEYED_ROLES, Role.SNAPSHOT, Role.TIMESTAMP)
    forged.seal(Role.SNAPSHOT, Role.TIMESTAMP)
    forged.write()
    assert await code(trust) == "bad_signature"


@pytest.mark.parametrize("role", KEYED_ROLES)
async def test_signatures_of_a_key_that_was_rotated_out_are_refused(
    gateways: Gateways, publisher: Publisher, tmp_path: Path, role: Role
) -> None:
    """A thief has the old key of one role and the present ones of snapshot and timestamp."""
    (tmp_path / "thief").mkdir()
    (tmp_path / "thief" / f"{role}.pem").write_bytes((publisher.keys.folder / f"{role}.pem").read_bytes())
    stolen = KeyFolder(tmp_path / "thief").signer(role)
    rotate(publisher, role, "b")
    trust = gateways.start()
    await trust.refresh()
    forged = current(publisher)
    if role in (Role.SNAPSHOT, Role.TIMESTAMP):
        forged.seal(Role.SNAPSHOT, Role.TIMESTAMP)
    else:
        forged.advance(role)
        forged.seal(role, Role.SNAPSHOT, Role.TIMESTAMP)
    forged.part(role).signatures.clear()
    forged.part(role).sign(stolen)
    if role is Role.SNAPSHOT:
        forged.seal(Role.TIMESTAMP)
    elif role in (Role.TARGETS, Role.RELEASES):
        forged.seal(Role.SNAPSHOT, Role.TIMESTAMP)
    forged.write()
    if role is Role.RELEASES:
        assert "bad_signature" in (await trust.refresh()).problems["releases"]
        with pytest.raises(Refused, match="bad_signature"):
            await obtained(trust, RELEASE)
    else:
        assert await code(trust) == "bad_signature"


async def test_everything_that_a_stolen_releases_key_signed_is_refused(
    gateways: Gateways, publisher: Publisher, tmp_path: Path
) -> None:
    """The thief publishes a release; the key is rotated, the release withdrawn: nothing is left of it."""
    trust = gateways.start()
    publisher.add(spec("6.6.6", 666))
    wicked = "releases/meter/6.6.6.json"
    taken = await obtained(trust, wicked)
    rotate(publisher, Role.RELEASES, "b")
    forget(publisher, Role.RELEASES)
    publisher.repository.withdraw_release(wicked)
    await trust.refresh()
    with pytest.raises(Refused, match="unknown_release"):
        trust.reverify_release(wicked, taken.body)
    assert (await obtained(trust, RELEASE)).document.version == "1.2.0"


async def test_a_root_that_the_new_keys_have_not_signed_is_refused(
    gateways: Gateways, publisher: Publisher, tmp_path: Path
) -> None:
    trust = gateways.start()
    await trust.refresh()
    make_key(tmp_path / "elsewhere" / "root.pem")
    forged = current(publisher)
    forged.rotate(
        KeyChange(
            Role.ROOT, tuple(KeyFolder(tmp_path / "elsewhere").public_keys(Role.ROOT)), held(publisher, Role.ROOT)
        )
    )
    forged.advance(Role.ROOT)
    assert forged.seal(Role.ROOT, Role.SNAPSHOT, Role.TIMESTAMP)
    forged.write()
    assert await code(trust) == "bad_signature"
    assert trust.view is not None
    assert trust.view.root_version == 1


async def test_a_root_that_the_old_keys_have_not_signed_is_refused(gateways: Gateways, publisher: Publisher) -> None:
    trust = gateways.start()
    await trust.refresh()
    publisher.keys.folder.joinpath("root.pem").rename(publisher.keys.folder / "lost")
    with pytest.raises(Staged, match="root key"):
        rotate(publisher, Role.ROOT, "b")
    short = read_change(publisher.repository.path / "pending" / "change.json")[Role.ROOT]
    assert short.signatures
    write_file(publisher.repository.path / "metadata" / "2.root.json", short.to_bytes())
    assert await code(trust) == "bad_signature"


async def test_gateways_recover_when_stolen_keys_have_counted_far_ahead(
    gateways: Gateways, publisher: Publisher
) -> None:
    """TUF's fast-forward attack: rotating snapshot and timestamp makes gateways forget those versions."""
    ahead = current(publisher)
    ahead.snapshot.signed.version = ahead.timestamp.signed.version = 2**30
    ahead.commit(set())
    folder = publisher.repository.path / "metadata"
    stolen = (folder / "timestamp.json").read_bytes()
    trust = gateways.start()
    assert (await trust.refresh()).timestamp_version == 2**30 + 1
    for role in (Role.SNAPSHOT, Role.TIMESTAMP):
        rotate(publisher, role, "b")
        forget(publisher, role)
    back = current(publisher)
    back.snapshot.signed.version = back.timestamp.signed.version = 100
    back.commit(set())
    for gateway in (trust, gateways.start()):
        assert (await gateway.refresh()).timestamp_version == 101
    write_file(folder / "timestamp.json", stolen)
    assert await code(trust) == "bad_signature"


def test_what_makes_no_sense_is_not_rotated(publisher: Publisher) -> None:
    keyid = held(publisher, Role.TARGETS)[0]
    known = tuple(publisher.keys.public_keys(Role.TARGETS))
    for change, complaint in (
        (KeyChange(Role.TARGETS, add=known), "already"),
        (KeyChange(Role.TARGETS, revoke=("0" * 64,)), "is no key of targets"),
        (KeyChange(Role.TARGETS, revoke=(keyid,)), "threshold of 1 with 0 keys"),
        (KeyChange(Role.TARGETS, threshold=2), "threshold of 2 with 1 keys"),
        (KeyChange(Role.TARGETS, threshold=0), "threshold of 0"),
    ):
        with pytest.raises(ConfigError, match=complaint):
            publisher.repository.rotate(change)
    assert publisher.repository.staged() == []
    assert not (publisher.repository.path / "metadata" / "2.root.json").exists()
