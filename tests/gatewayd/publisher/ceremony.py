"""A repository whose root and targets take the keys of several people: what the tests of staged changes share."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gatewayd.publisher.firmware import FirmwareFile
from gatewayd.publisher.keys import FileImageSigner, KeyFolder, Role, load_private, make_key
from gatewayd.publisher.repository import Repository
from gatewayd.publisher.staging import Staged
from gatewayd.trust.metadata import MetadataFiles, TrustedMetadata
from tests.gatewayd.trust.site import spec

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
