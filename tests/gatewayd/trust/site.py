"""A publisher's repository, served over HTTP by a server that can be told to lie."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from aiohttp import web

from gatewayd.cloud.messages import Manufacturers
from gatewayd.publisher.files import write_file
from gatewayd.publisher.firmware import FirmwareFile, ReleaseSpec
from gatewayd.publisher.keys import FileImageSigner, KeyFolder, Role, campaign_key, generate_all
from gatewayd.publisher.metadata import DEFAULT_LIFETIMES, MetadataSet, target_file
from gatewayd.publisher.repository import Repository
from gatewayd.trust.client import TrustSettings
from gatewayd.trust.release import VerifiedRelease
from gatewayd.trust.repository import TrustRepository

HARDWARE = "lorawan:00000007"
RELEASE = "releases/meter/1.2.0.json"
YEAR_S = 365 * 86400.0


def spec(version: str = "1.2.0", sequence: int = 3, security_version: int = 2) -> ReleaseSpec:
    return ReleaseSpec("meter", version, sequence, security_version, 0x01020000, (HARDWARE,), "opaque")


@dataclass
class Publisher:
    """A repository and the keys behind it."""

    repository: Repository
    keys: KeyFolder
    manufacturer: FileImageSigner
    image: Path

    def add(self, release: ReleaseSpec) -> None:
        self.repository.add_release(release, FirmwareFile(self.image, self.manufacturer))


def make_publisher(folder: Path, clock: Callable[[], float] = time.time) -> Publisher:
    keys = generate_all(folder / "keys")
    repository = Repository.create(folder / "repository", keys, clock=clock)
    signer = keys.manufacturer()
    entry = signer.manufacturer("ACME", [HARDWARE], time.time() - YEAR_S, time.time() + YEAR_S)
    repository.set_campaign_keys([campaign_key(keys.signer(Role.CAMPAIGN), ["gateway:*", "fleet:north"])])
    repository.set_manufacturers(Manufacturers(keys=(entry,)).keys)
    image = folder / "image.bin"
    image.write_bytes(bytes(range(256)) * 700)
    return Publisher(repository, keys, signer, image)


def list_in_releases(publisher: Publisher, path: str, body: bytes) -> None:
    """What whoever holds the releases key (and snapshot and timestamp) can do."""
    folder = publisher.repository.path
    current = MetadataSet.load(folder / "metadata", publisher.keys, DEFAULT_LIFETIMES, time.time())
    current.releases.signed.targets[path] = target = target_file(path, body)
    write_file(folder / "targets" / target.get_prefixed_paths()[0], body)
    current.commit({Role.RELEASES})


@dataclass
class Site:
    """The web server in front of a folder. `lies` by path take the place of the file; `asked` is what came."""

    folder: Path
    url: str = ""
    lies: dict[str, bytes | int | str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)  # header Range, beside `asked`

    async def answer(self, request: web.Request) -> web.StreamResponse:
        name = request.path.lstrip("/")
        self.asked.append(name)
        self.ranges.append(request.headers.get("Range"))
        lie = self.lies.get(name)
        if isinstance(lie, bytes):
            return web.Response(body=lie)
        if isinstance(lie, int):
            return web.Response(status=lie)
        if lie == "endless":
            return await _endless(request)
        if lie is not None and lie.startswith("to "):
            raise web.HTTPFound(lie.removeprefix("to "))
        if lie == "hang":
            await asyncio.sleep(60)
        path = self.folder / name
        if not path.is_file():
            return web.Response(status=404)
        return _part(path.read_bytes(), request.headers.get("Range"))


def _part(body: bytes, asked: str | None) -> web.Response:
    """What the header Range asks for. No file stays open when the client goes away in the middle."""
    if asked is None:
        return web.Response(body=body)
    first, _, last = asked.removeprefix("bytes=").partition("-")
    start, stop = int(first), min(int(last) + 1, len(body))
    said = {"Content-Range": f"bytes {start}-{stop - 1}/{len(body)}"}
    return web.Response(status=206, body=body[start:stop], headers=said)


async def _endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    try:
        for _ in range(4096):  # 256 MiB: far above every cap
            await response.write(bytes(65536))
    except ConnectionError:
        pass
    return response


@dataclass
class Gateways:
    """Makes the trust of a gateway: the same folder is the same gateway started again."""

    site: Site
    publisher: Publisher
    session: aiohttp.ClientSession
    folder: Path
    made: list[TrustRepository] = field(default_factory=list)

    def start(self, name: str = "gw", now: Callable[[], float] = time.time, **settings: float) -> TrustRepository:
        given = TrustSettings(
            self.publisher.repository.root_path,
            f"{self.site.url}metadata/",
            f"{self.site.url}targets/",
            self.folder / name,
            **settings,
        )
        self.made.append(TrustRepository(given, self.session, now))
        return self.made[-1]


async def obtained(trust: TrustRepository, path: str) -> VerifiedRelease:
    """The release as the daemon comes by it: a check first where the metadata held do not list it."""
    if not trust.lists(path):
        await trust.refresh()
    return await trust.release(path)
