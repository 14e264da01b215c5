"""One world per test module: the daemon as a process, with everything real around it that can be."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from gatewayd.demo.world import World
from tests.support.rig import Rig, lamp_options


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    """Three lamps on release 1, one release 2.0.0 published."""
    async with World(tmp_path_factory.mktemp("world"), lamp_options(quota_mb=1)) as world:
        yield Rig(world)
