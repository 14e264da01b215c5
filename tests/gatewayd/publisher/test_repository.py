"""The repository as a publisher makes it; what a gateway makes of it is tested in tests/gatewayd/trust."""

import hashlib
import resource
import time
from dataclasses import replace
from pathlib import Path

import pytest

from gatewayd.cloud.messages import ManufacturerSignature, SignatureScheme
from gatewayd.errors import ConfigError, GatewaydError, Refused, StoreError
from gatewayd.publisher.files import copy_file
from gatewayd.publisher.firmware import FirmwareFile
from gatewayd.publisher.keys import FileImageSigner, KeyFolder, KeyKind, Role, load_private, make_key, write_private
from gatewayd.publisher.metadata import DAY_S
from gatewayd.publisher.repository import Repository
from gatewayd.publisher.staging import Staged
from gatewayd.trust.metadata import MetadataFiles, TrustedMetadata
from tests.gatewayd.trust.site import HARDWARE, Publisher, make_publisher, spec


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    return make_publisher(tmp_path)


def as_a_gateway(repository: Repository) -> TrustedMetadata:
    """The set that timestamp.json names, verified."""
    folder = repository.path / "metadata"

    def newest(role: str) -> bytes:
        return max(folder.glob(f"*.{role}.json"), key=lambda path: int(path.name.split(".")[0])).read_bytes()

    timestamp = (folder / "timestamp.json").read_bytes()
    files = MetadataFiles(timestamp, newest("snapshot"), newest("targets"), {"releases": newest("releases")})
    return TrustedMetadata.verify([repository.root_path.read_bytes()], files)


def test_a_release_is_all_there_for_a_web_server(publisher: Publisher) -> None:
    publisher.add(spec())
    found = as_a_gateway(publisher.repository).find("releases/meter/1.2.0.json")
    assert found is not None
    folder = publisher.repository.path
    body = (folder / "targets" / found.target.get_prefixed_paths()[0]).read_bytes()
    found.target.verify_length_and_hashes(body)
    (document,) = publisher.repository.releases()
    payload = document.payloads[0]
    image = publisher.image.read_bytes()
    assert (folder / payload.path).read_bytes() == image
    chunks = [image[at : at + payload.chunk_size] for at in range(0, len(image), payload.chunk_size)]
    assert [hashlib.sha256(chunk).hexdigest() for chunk in chunks] == list(payload.chunks)
    assert not list(folder.rglob("*.part"))


def test_lifetimes(publisher: Publisher) -> None:
    now = time.time()
    ends = publisher.repository.refresh().expires
    days = {role: round((at - now) / DAY_S) for role, at in ends.items()}
    assert days == {Role.ROOT: 365, Role.TARGETS: 90, Role.RELEASES: 90, Role.SNAPSHOT: 7, Role.TIMESTAMP: 1}


def test_a_second_init_is_refused(publisher: Publisher) -> None:
    with pytest.raises(ConfigError, match="already"):
        Repository.create(publisher.repository.path, publisher.keys)


def test_a_folder_that_holds_none(tmp_path: Path, publisher: Publisher) -> None:
    with pytest.raises(ConfigError, match="no repository"):
        Repository(tmp_path / "empty", publisher.keys).refresh()


@pytest.mark.parametrize("missing", [Role.RELEASES, Role.SNAPSHOT, Role.TIMESTAMP])
def test_a_change_whose_key_is_away_is_kept_and_the_old_set_served(
    publisher: Publisher, missing: Role, tmp_path: Path
) -> None:
    before = as_a_gateway_by_timestamp(publisher.repository)
    key = publisher.keys.folder / f"{missing}.pem"
    key.rename(tmp_path / "away.pem")
    with pytest.raises(Staged, match=f"{missing} key is not at hand"):
        publisher.add(spec())
    assert as_a_gateway_by_timestamp(publisher.repository) == before
    assert publisher.repository.releases() == []
    with pytest.raises(ConfigError, match="staged already"):
        publisher.add(spec())
    (tmp_path / "away.pem").rename(key)
    publisher.repository.sign()
    assert as_a_gateway(publisher.repository).find(spec().path)
    assert publisher.repository.staged() == []


@pytest.mark.parametrize("obstacle", ["2.releases.json", "4.snapshot.json", "timestamp.json"])
def test_a_publication_cut_short_at_any_step_leaves_the_old_set_and_can_be_repeated(
    publisher: Publisher, obstacle: str
) -> None:
    before = as_a_gateway_by_timestamp(publisher.repository)
    blocked = publisher.repository.path / "metadata" / f".{obstacle}.part"
    blocked.mkdir()
    with pytest.raises(StoreError, match=obstacle):
        publisher.add(spec())
    assert as_a_gateway_by_timestamp(publisher.repository) == before
    assert publisher.repository.releases() == []
    blocked.rmdir()
    publisher.add(spec())
    assert as_a_gateway(publisher.repository).find(spec().path)


def as_a_gateway_by_timestamp(repository: Repository) -> bytes:
    return (repository.path / "metadata" / "timestamp.json").read_bytes()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"hardware": ("lorawan:00000008",)}, "wrong_hardware"),
        ({"container": "zigbee-ota"}, "header_mismatch"),
        ({"version": "1.2"}, "version"),
        ({"version": "1.2.0-RC1"}, "no path"),
        ({"name": "Meter"}, "no path"),
        ({"name": "../meter"}, "no path"),
        ({"sequence": 0}, "sequence"),
        ({"node_version": 2**32}, "node_version"),
        ({"hardware": ("toaster",)}, "hardware"),
        ({"chunk_bytes": 100}, "chunk_size"),
    ],
)
def test_what_a_gateway_would_refuse_is_not_published(
    publisher: Publisher, changes: dict[str, object], complaint: str
) -> None:
    with pytest.raises(GatewaydError, match=complaint):
        publisher.add(replace(spec(), **changes))  # type: ignore[arg-type]
    assert publisher.repository.releases() == []


def test_a_signature_that_is_not_the_manufacturers(publisher: Publisher, tmp_path: Path) -> None:
    stranger = FileImageSigner(make_key(tmp_path / "stranger.pem"))
    with pytest.raises(Refused, match="unknown_manufacturer"):
        publisher.repository.add_release(spec(), FirmwareFile(publisher.image, stranger))
    other = publisher.manufacturer.sign_digest(bytes(32))
    with pytest.raises(Refused, match="bad_signature"):
        publisher.repository.add_release(spec(), FirmwareFile(publisher.image, other))


def test_a_detached_signature(publisher: Publisher) -> None:
    digest = hashlib.sha256(publisher.image.read_bytes()).digest()
    signature = publisher.manufacturer.sign_digest(digest)
    assert isinstance(signature, ManufacturerSignature)
    document = publisher.repository.add_release(spec(), FirmwareFile(publisher.image, signature))
    assert document.payloads[0].signature == signature


def test_an_rsa_manufacturer(publisher: Publisher, tmp_path: Path) -> None:
    make_key(tmp_path / "rsa.pem", KeyKind.RSA_4096)
    for number, scheme in enumerate((SignatureScheme.RSA_PKCS1V15_SHA256, SignatureScheme.RSA_PSS_SHA256)):
        signer = FileImageSigner(load_private(tmp_path / "rsa.pem"), scheme)
        entry = signer.manufacturer("ACME", [HARDWARE], time.time() - DAY_S, time.time() + DAY_S)
        publisher.repository.set_manufacturers([entry])
        document = publisher.repository.add_release(
            spec(f"2.0.{number}", 10 + number), FirmwareFile(publisher.image, signer)
        )
        assert document.payloads[0].signature.scheme == scheme


def test_a_published_version_never_changes(publisher: Publisher) -> None:
    publisher.add(spec())
    with pytest.raises(ConfigError, match="published already"):
        publisher.add(spec(sequence=9))
    with pytest.raises(ConfigError, match="sequence 3 of meter is taken"):
        publisher.add(spec("1.3.0", 3))


def test_two_images_for_one_hardware_do_not_report_the_same_version(publisher: Publisher) -> None:
    """A node that runs the first would be called updated to the second, without a transfer."""
    publisher.add(spec())
    publisher.add(spec("1.2.1", 4))  # the same bytes under another name are what the nodes say they are
    publisher.image.write_bytes(b"another firmware" * 100)
    with pytest.raises(
        ConfigError, match=f"node version 0x1020000 of {HARDWARE} is taken by releases/meter/1.2.0.json"
    ):
        publisher.add(spec("1.3.0", 5))
    publisher.add(replace(spec("1.3.0", 5), node_version=0x01030000))


def test_floors_only_rise_and_hold_for_the_publisher_too(publisher: Publisher) -> None:
    publisher.repository.set_floor(HARDWARE, 3)
    with pytest.raises(ConfigError, match="only rises"):
        publisher.repository.set_floor(HARDWARE, 2)
    with pytest.raises(Refused, match="below_floor"):
        publisher.add(spec(security_version=2))
    assert publisher.repository.manufacturers().keys  # untouched by the floor
    publisher.add(spec(security_version=3))


@pytest.mark.parametrize("content", [None, b""])
def test_a_firmware_file_that_is_none(publisher: Publisher, content: bytes | None) -> None:
    publisher.image.unlink()
    if content is not None:
        publisher.image.write_bytes(content)
    with pytest.raises(ConfigError, match=r"image\.bin"):
        publisher.add(spec())


def test_refresh_renews_what_is_due_and_warns_of_keys_that_are_elsewhere(tmp_path: Path) -> None:
    clock = [time.time()]
    publisher = make_publisher(tmp_path, lambda: clock[0])
    publisher.add(spec())
    assert publisher.repository.refresh().renewed == (Role.SNAPSHOT, Role.TIMESTAMP)
    clock[0] += 50 * DAY_S
    (publisher.keys.folder / "targets.pem").rename(tmp_path / "targets.pem")
    done = publisher.repository.refresh()
    assert done.renewed == (Role.RELEASES, Role.SNAPSHOT, Role.TIMESTAMP)
    assert done.warnings == ()  # 40 days are left
    clock[0] += 30 * DAY_S
    (warning,) = publisher.repository.refresh().warnings
    assert "targets expires" in warning
    clock[0] += 110 * DAY_S
    done = publisher.repository.refresh()
    assert Role.ROOT in done.renewed
    assert any("targets expired" in warning for warning in done.warnings)
    assert (publisher.repository.path / "metadata" / "2.root.json").exists()


def test_withdrawing(publisher: Publisher) -> None:
    publisher.add(spec())
    publisher.repository.withdraw_release(spec().path)
    assert as_a_gateway(publisher.repository).find(spec().path) is None
    with pytest.raises(ConfigError):
        publisher.repository.withdraw_release(spec().path)


def test_a_withdrawn_version_does_not_come_back_with_other_bytes(publisher: Publisher) -> None:
    """Nodes may run what was withdrawn, and say its version: what is called so has to be it."""
    publisher.add(spec())
    publisher.repository.withdraw_release(spec().path)
    held = publisher.image.read_bytes()
    publisher.image.write_bytes(held[::-1])
    with pytest.raises(ConfigError, match=r"releases/meter/1\.2\.0\.json was published and withdrawn"):
        publisher.add(spec())
    publisher.add(spec("1.2.1"))
    publisher.image.write_bytes(held)
    publisher.repository.withdraw_release(spec("1.2.1").path)
    publisher.add(spec())  # the withdrawal was a mistake


def test_a_disk_that_is_full_is_said_and_leaves_nothing_behind(tmp_path: Path) -> None:
    source = tmp_path / "image.bin"
    source.write_bytes(bytes(200_000))
    place = tmp_path / "payloads" / "x"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))  # Python ignores the signal: the write fails
    try:
        with pytest.raises(StoreError, match="payloads/x: File too large"):
            copy_file(source, place, hashlib.sha256(source.read_bytes()).hexdigest())
        with pytest.raises(StoreError, match=r"root\.pem: File too large; the key was not made"):
            write_private(tmp_path / "root.pem", bytes(60_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(place.parent.iterdir()) == []
    write_private(tmp_path / "root.pem", b"key")
    with pytest.raises(ConfigError, match=r"gone\.bin: No such file"):
        copy_file(tmp_path / "gone.bin", place, "00")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "www").write_text("a file is in the way")
    with pytest.raises(StoreError, match="www"):
        Repository(tmp_path / "www", KeyFolder(tmp_path)).refresh()


def test_a_file_that_changes_while_it_is_published(tmp_path: Path) -> None:
    source, place = tmp_path / "image.bin", tmp_path / "payloads" / "x"
    source.write_bytes(b"new")
    with pytest.raises(ConfigError, match="has changed"):
        copy_file(source, place, hashlib.sha256(b"old").hexdigest())
    assert list(place.parent.iterdir()) == []
    copy_file(source, place, hashlib.sha256(b"new").hexdigest())
    assert place.read_bytes() == b"new"
