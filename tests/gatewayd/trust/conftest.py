"""A publisher's repository, the web server in front of it, and gateways that trust it."""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.gatewayd.trust.site import Gateways, Publisher, Site, make_publisher, spec


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    made = make_publisher(tmp_path)
    made.add(spec())
    return made


@pytest.fixture
async def site(publisher: Publisher) -> AsyncIterator[Site]:
    made = Site(publisher.repository.path)
    application = web.Application()
    application.router.add_get("/{name:.*}", made.answer)
    server = TestServer(application)
    await server.start_server()
    made.url = str(server.make_url("/"))
    yield made
    await server.close()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as made:
        yield made


@pytest.fixture
async def gateways(
    site: Site, publisher: Publisher, session: aiohttp.ClientSession, tmp_path: Path
) -> AsyncIterator[Gateways]:
    made = Gateways(site, publisher, session, tmp_path / "gateways")
    yield made
    for trust in made.made:
        trust.close()
