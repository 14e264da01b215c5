"""How the daemon reaches web servers: client certificates, a proxy, a cap and quiet hours, all from the configuration."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from gatewayd.config import Config, Proxy, load
from gatewayd.config_values import SecretFile
from gatewayd.demo.authority import Authority
from gatewayd.download_settings import session, throttle
from gatewayd.errors import ConfigError, Unavailable
from gatewayd.payload.cache import PayloadCache
from gatewayd.payload.fetch import Fetcher, FetchSettings
from gatewayd.service.wall_clock import WallClock
from tests.gatewayd.payload.conftest import BODY, payload_of
from tests.support.proxy import connect_proxy
from tests.support.web import StaticServer

PAYLOAD = payload_of(BODY)
ONCE = FetchSettings(barren_attempts=1)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    (folder / "payloads").mkdir(parents=True)
    (folder / "payloads" / PAYLOAD.sha256).write_bytes(BODY)
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> PayloadCache:
    return PayloadCache(tmp_path / "payloads", 10**7)


async def test_a_server_that_asks_who_we_are(tmp_path: Path, site: Path, cache: PayloadCache) -> None:
    authority = Authority(tmp_path / "pki")
    us = authority.client("gw-1")
    with StaticServer(site, authority, clients=True) as server:
        async with session(authority.ca, None, None, None) as nobody:
            with pytest.raises(Unavailable):
                await Fetcher(nobody, cache, [server.url], ONCE).fetch(PAYLOAD)
        assert server.requests == []
        async with session(authority.ca, us.cert, us.key, None) as known:
            await Fetcher(known, cache, [server.url], ONCE).fetch(PAYLOAD)
    assert cache.has(PAYLOAD.sha256, PAYLOAD)


async def test_a_certificate_that_is_none_is_named(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "pki")
    (tmp_path / "us.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match=r"us\.pem"):
        session(authority.ca, tmp_path / "us.pem", tmp_path / "us.pem", None)


async def test_through_a_proxy_with_credentials(tmp_path: Path, site: Path, cache: PayloadCache) -> None:
    authority = Authority(tmp_path / "pki")
    secret = tmp_path / "password"
    secret.write_text("s3cret\n")
    secret.chmod(0o600)
    async with connect_proxy("gateway:s3cret") as proxy:
        with StaticServer(site, authority) as server:
            async with session(authority.ca, None, None, Proxy(url=proxy.url)) as stranger:
                with pytest.raises(Unavailable, match="407"):
                    await Fetcher(stranger, cache, [server.url], ONCE).fetch(PAYLOAD)
            assert proxy.refused
            known = Proxy.model_construct(url=proxy.url, username="gateway", password_file=SecretFile(secret))
            async with session(authority.ca, None, None, known) as through:
                await Fetcher(through, cache, [server.url], ONCE).fetch(PAYLOAD)
            secret.write_text("wrong")
            async with session(authority.ca, None, None, known) as mistaken:
                with pytest.raises(Unavailable) as caught:
                    await Fetcher(mistaken, PayloadCache(tmp_path / "other", 10**7), [server.url], ONCE).fetch(PAYLOAD)
            assert "wrong" not in str(caught.value)
            assert proxy.asked == [f"localhost:{server.port}"]
    assert cache.has(PAYLOAD.sha256, PAYLOAD)


async def test_an_environments_proxy_is_not_asked(
    tmp_path: Path, site: Path, cache: PayloadCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever starts the daemon does not decide by accident where its traffic goes."""
    authority = Authority(tmp_path / "pki")
    async with connect_proxy() as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        with StaticServer(site, authority) as server:
            async with session(authority.ca, None, None, None) as plain:
                await Fetcher(plain, cache, [server.url], ONCE).fetch(PAYLOAD)
        assert proxy.asked == []


@pytest.mark.parametrize(("local", "closed"), [("06:59", False), ("07:00", True), ("18:59", True), ("19:00", False)])
def test_quiet_hours_are_those_of_the_site(configured: Callable[[str], Config], local: str, closed: bool) -> None:
    config = configured('rate_kb_s = 50\nquiet_hours = { start = "07:00", end = "19:00" }')
    at = datetime.fromisoformat(f"2026-07-01T{local}").replace(tzinfo=ZoneInfo("Europe/Berlin")).timestamp()
    made = throttle(config, WallClock(assume_synchronised=True, now=lambda: at))
    assert made.closed is closed
    if not closed:
        assert made.take(100_000, 0.0) == pytest.approx(1.0)  # two seconds' worth, one of them free


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ('cert = "client.pem"', "`cert` and `key` belong together"),
        ('quiet_hours = { start = "07:00", end = "07:00" }', "must differ"),
        ("rate_kb_s = 0", "greater than or equal to 1"),
        ('quiet_hours = { start = "7", end = "08:00" }', "22:30"),
        ('[proxy]\nurl = "http://me:pw@proxy:1"', "credentials in keys"),
        ('[proxy]\nurl = "socks5://proxy:1"', "must be like"),
    ],
)
def test_what_is_refused(configured: Callable[[str], Config], lines: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        configured(lines)


@pytest.fixture
def configured(tmp_path: Path) -> Callable[[str], Config]:
    """A whole configuration with these lines at the end of [payload]."""
    root = tmp_path / "root.json"
    root.write_text('{"signed": {"_type": "root"}, "signatures": []}')
    (tmp_path / "client.pem").write_text("x")

    def make(lines: str) -> Config:
        path = tmp_path / "gatewayd.toml"
        path.write_text(
            f"""[gateway]
id = "gw-1"
timezone = "Europe/Berlin"
[cloud]
host = "localhost"
tls = false
[trust]
root = "root.json"
metadata_url = "https://u.example.org/metadata"
[payload]
urls = ["https://u.example.org"]
{lines}
"""
        )
        return load(path)

    return make
