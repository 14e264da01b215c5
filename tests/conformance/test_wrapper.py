"""The wrapper for the public suite, run as the suite runs it, against our publisher's own repository."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from gatewayd.trust.repository import CAMPAIGN_KEYS
from tests.gatewayd.trust.attacks.test_tampered import newest
from tests.gatewayd.trust.conftest import publisher, session, site
from tests.gatewayd.trust.site import RELEASE, Publisher, Site, spec

__all__ = ["publisher", "session", "site"]

pytestmark = pytest.mark.services

CLIENT = Path(__file__).with_name("client")
ROLES = {"root.json", "timestamp.json", "snapshot.json", "targets.json"}


class Wrapper:
    """A client with its folders."""

    def __init__(self, folder: Path, site: Site) -> None:
        self.metadata, self.targets = folder / "metadata", folder / "targets"
        self.metadata.mkdir()
        self.targets.mkdir()
        self._site = site

    async def run(self, command: str, *more: str) -> int:
        """The exit status. `more` goes before the command, the trusted root behind it."""
        last = more if command == "init" else ()
        options = ("--metadata-dir", self.metadata, "--metadata-url", f"{self._site.url}metadata/")
        process = await asyncio.create_subprocess_exec(
            CLIENT, *options, *more[len(last) :], command, *last, env={**os.environ, "PYTHON": sys.executable}
        )
        return await process.wait()

    async def download(self, *names: str) -> int:
        wanted = [argument for name in names for argument in ("--target-name", name)]
        places = ("--target-dir", str(self.targets), "--target-base-url", f"{self._site.url}targets/")
        return await self.run("download", *wanted, *places)

    def shown(self) -> set[str]:
        return {path.name for path in self.metadata.glob("*.json")}

    def held(self) -> list[bytes]:
        return sorted(path.read_bytes() for path in self.targets.iterdir())


@pytest.fixture
async def wrapper(tmp_path: Path, site: Site, publisher: Publisher) -> Wrapper:
    (tmp_path / "client").mkdir()
    made = Wrapper(tmp_path / "client", site)
    assert await made.run("init", str(publisher.repository.root_path)) == 0
    assert made.shown() == {"root.json"}
    assert site.asked == [], "the beginning asks nobody"
    return made


async def test_a_refresh_shows_the_metadata_that_are_held(wrapper: Wrapper, site: Site) -> None:
    assert await wrapper.run("refresh") == 0
    assert wrapper.shown() == ROLES
    assert (wrapper.metadata / "timestamp.json").read_bytes() == (site.folder / "metadata/timestamp.json").read_bytes()


async def test_targets_of_the_top_role_and_of_a_delegated_one_are_downloaded_once(
    wrapper: Wrapper, publisher: Publisher, site: Site
) -> None:
    assert await wrapper.download(RELEASE, CAMPAIGN_KEYS) == 0
    assert wrapper.shown() == {*ROLES, "releases.json"}
    (release,) = (site.folder / "targets/releases/meter").iterdir()
    (keys,) = [path for path in (site.folder / "targets/trust").iterdir() if b"audiences" in path.read_bytes()]
    assert wrapper.held() == sorted([release.read_bytes(), keys.read_bytes()])
    asked = len(site.asked)
    assert await wrapper.download(RELEASE) == 0
    assert [name for name in site.asked[asked:] if name.startswith("targets/")] == []
    assert await wrapper.download("releases/meter/9.9.9.json") == 1


async def test_what_the_daemon_refuses_it_refuses(wrapper: Wrapper, publisher: Publisher, site: Site) -> None:
    """One of each: other bytes than those listed, an older timestamp, metadata of another moment. What is held stays."""
    old = (site.folder / "metadata/timestamp.json").read_bytes()
    release = newest(site, "targets/releases/meter/*.1.2.0.json")
    site.lies[release] = (site.folder / release).read_bytes().replace(b'"sequence":3', b'"sequence":4')
    assert await wrapper.download(RELEASE) == 1
    assert wrapper.held() == []
    publisher.add(spec("1.3.0", sequence=4))
    assert await wrapper.run("refresh") == 0
    shown = (wrapper.metadata / "timestamp.json").read_bytes()
    site.lies["metadata/timestamp.json"] = old
    assert await wrapper.run("refresh") == 1
    assert (wrapper.metadata / "timestamp.json").read_bytes() == shown
    del site.lies["metadata/timestamp.json"]
    publisher.repository.refresh()
    site.lies[newest(site, "metadata/*.snapshot.json")] = 404
    assert await wrapper.run("refresh") == 1
