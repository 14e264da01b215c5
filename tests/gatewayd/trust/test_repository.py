"""What a gateway trusts after a check, and releases by path."""

import asyncio
import time
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gatewayd.demo.authority import Authority
from gatewayd.errors import ConfigError, Refused, Unavailable
from gatewayd.publisher.keys import KeyFolder, Role, make_key
from gatewayd.publisher.metadata import DEFAULT_LIFETIMES, MetadataSet
from gatewayd.trust.client import TrustSettings
from gatewayd.trust.repository import TrustRepository
from tests.gatewayd.trust.site import HARDWARE, RELEASE, Gateways, Publisher, Site, obtained, spec
from tests.support.web import StaticServer


async def test_a_check_gives_keys_manufacturers_and_dates(gateways: Gateways, publisher: Publisher) -> None:
    trust = gateways.start()
    assert await trust.restore() is None
    view = await trust.refresh()
    assert view.campaign_keys == publisher.repository.campaign_keys()
    assert view.manufacturers == publisher.repository.manufacturers()
    assert view.fresh
    assert not view.problems
    assert 0 < view.expires - time.time() <= 86400  # the timestamp's day is the earliest
    assert trust.view == view


async def test_a_release_is_told_with_its_signed_bytes(gateways: Gateways) -> None:
    release = await obtained(gateways.start(), RELEASE)
    assert release.document.version == "1.2.0"
    assert release.document.hardware == (HARDWARE,)
    assert not release.expired(time.time())
    assert release.expired(time.time() + 91 * 86400)


async def test_a_release_published_after_the_last_check_is_found(gateways: Gateways, publisher: Publisher) -> None:
    trust = gateways.start()
    await trust.refresh()
    publisher.add(spec("1.3.0", 4))
    assert (await obtained(trust, "releases/meter/1.3.0.json")).document.sequence == 4


@pytest.mark.parametrize("path", ["releases/meter/9.9.9.json", "releases/../x.json", "trust/manufacturers.json", ""])
async def test_an_unknown_release_is_refused(gateways: Gateways, path: str) -> None:
    with pytest.raises(Refused) as caught:
        await obtained(gateways.start(), path)
    assert caught.value.code == "unknown_release"


async def test_an_unchanged_document_is_not_fetched_again(gateways: Gateways, publisher: Publisher, site: Site) -> None:
    trust = gateways.start()
    await trust.refresh()
    publisher.repository.refresh()
    site.asked.clear()
    await trust.refresh()
    assert not [name for name in site.asked if name.startswith("targets/")]


async def test_a_rotated_root_is_followed_and_kept(gateways: Gateways, publisher: Publisher, site: Site) -> None:
    current = MetadataSet.load(publisher.repository.path / "metadata", publisher.keys, DEFAULT_LIFETIMES, time.time())
    current.commit({Role.ROOT})
    trust = gateways.start()
    assert (await trust.refresh()).root_version == 2
    view = await gateways.start().restore()
    assert view is not None
    assert view.root_version == 2


@pytest.mark.parametrize("status", [403, 404, 500, 503])
async def test_a_server_without_metadata_is_unavailable(gateways: Gateways, site: Site, status: int) -> None:
    site.lies["metadata/timestamp.json"] = status
    with pytest.raises(Unavailable, match="timestamp"):
        await gateways.start().refresh()


async def test_a_dead_server_is_unavailable_and_what_was_trusted_stays(gateways: Gateways, site: Site) -> None:
    trust = gateways.start()
    view = await trust.refresh()
    for name in ("2.root.json", "timestamp.json"):
        site.lies[f"metadata/{name}"] = 500
    with pytest.raises(Unavailable):
        await trust.refresh()
    assert trust.view == view
    assert (await obtained(trust, RELEASE)).path == RELEASE


async def test_a_server_that_says_nothing_is_given_up(gateways: Gateways, site: Site) -> None:
    site.lies["metadata/timestamp.json"] = "hang"
    with pytest.raises(Unavailable, match="timed out"):
        await gateways.start(stall_timeout_s=0.2).refresh()


async def test_a_cancelled_check_ends_at_once(gateways: Gateways, site: Site) -> None:
    site.lies["metadata/timestamp.json"] = "hang"
    trust = gateways.start()
    check = asyncio.create_task(trust.refresh())
    while "metadata/timestamp.json" not in site.asked:
        await asyncio.sleep(0.01)
    check.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(check, 10)
    site.lies.clear()
    assert (await trust.refresh()).fresh


async def test_closing_does_not_wait_for_a_server(gateways: Gateways, site: Site) -> None:
    site.lies["metadata/timestamp.json"] = "hang"
    trust = gateways.start()
    check = asyncio.create_task(trust.refresh())
    while "metadata/timestamp.json" not in site.asked:
        await asyncio.sleep(0.01)
    trust.close()
    with pytest.raises(Unavailable, match="stopped"):
        await check


async def test_checks_at_the_same_time_do_not_disturb_each_other(gateways: Gateways) -> None:
    trust = gateways.start()
    results = await asyncio.gather(trust.refresh(), obtained(trust, RELEASE), trust.refresh())
    assert results[0] == results[2] or results[0].checked_at <= results[2].checked_at


@pytest.mark.parametrize("content", [None, b"", b"{}", b"not json"])
async def test_a_root_that_is_none_is_the_operators_business(
    gateways: Gateways, publisher: Publisher, content: bytes | None
) -> None:
    trust = gateways.start()
    if content is None:
        publisher.repository.root_path.unlink()
    else:
        publisher.repository.root_path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"trust\.root"):
        await trust.refresh()


async def test_over_tls_with_the_right_authority_only(publisher: Publisher, tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path / "ca"), Authority(tmp_path / "stranger")
    root = publisher.repository.root_path
    with StaticServer(publisher.repository.path, authority) as server:
        for known, works in ((stranger, False), (authority, True)):
            connector = aiohttp.TCPConnector(ssl=known.client_context())
            async with aiohttp.ClientSession(connector=connector) as session:
                settings = TrustSettings(root, f"{server.url}/metadata", f"{server.url}/targets", tmp_path / "gw")
                trust = TrustRepository(settings, session)
                if works:
                    assert (await obtained(trust, RELEASE)).document.name == "meter"
                else:
                    with pytest.raises(Unavailable, match="ertificate"):
                        await trust.refresh()
                trust.close()


async def test_a_redirect_away_from_https_is_not_followed_into_trust(
    publisher: Publisher, tmp_path: Path, site: Site
) -> None:
    authority = Authority(tmp_path / "ca")

    async def away(request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound(site.url + request.path.lstrip("/"))

    application = web.Application()
    application.router.add_get("/{name:.*}", away)
    server = TestServer(application, scheme="https")
    await server.start_server(ssl=authority.server_context())
    connector = aiohttp.TCPConnector(ssl=authority.client_context())
    async with aiohttp.ClientSession(connector=connector) as session:
        url = str(server.make_url("/"))
        settings = TrustSettings(publisher.repository.root_path, f"{url}metadata", f"{url}targets", tmp_path / "gw")
        trust = TrustRepository(settings, session)
        with pytest.raises(Unavailable, match="away from https"):
            await trust.refresh()
        trust.close()
    await server.close()


async def test_a_forgotten_releases_role_does_not_keep_revocations_away(
    gateways: Gateways, publisher: Publisher, tmp_path: Path
) -> None:
    trust = gateways.start()
    await trust.refresh()
    make_key(tmp_path / "new" / "releases.pem")
    current = MetadataSet.load(publisher.repository.path / "metadata", publisher.keys, DEFAULT_LIFETIMES, time.time())
    targets = current.targets.signed
    targets.revoke_key(publisher.keys.signer(Role.RELEASES).public_key.keyid, "releases")
    targets.add_key(KeyFolder(tmp_path / "new").signer(Role.RELEASES).public_key, "releases")
    current.commit({Role.TARGETS})
    publisher.repository.set_campaign_keys([])
    view = await trust.refresh()
    assert view.campaign_keys.keys == ()
    assert "bad_signature" in view.problems["releases"]
    for again in (trust, gateways.start()):  # and after an offline restart
        if again is not trust:
            await again.restore()
        with pytest.raises(Refused):
            again.reverify_release(RELEASE, b"{}")
    with pytest.raises(Refused) as caught:
        await obtained(trust, RELEASE)
    assert caught.value.code == "bad_signature"
