"""The commands talk to a real status endpoint, in a thread beside its loop."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import structlog
from click.testing import CliRunner, Result

from gatewayd.cli.commands import gatewayd
from gatewayd.status.server import StatusServer
from gatewayd.status.token import TOKEN_FILE
from tests.gatewayd.status.conftest import daemon, database, filled, server  # noqa: F401 - fixtures

Command = Callable[..., Awaitable[Result]]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The endpoint logs in this process, to the standard output that a command's answer is read from."""
    with structlog.testing.capture_logs():
        yield


@pytest.fixture
def command(server: StatusServer, tmp_path: Path) -> Command:  # noqa: F811 - a fixture
    """`gatewayd WORDS` with options that lead to the running endpoint."""

    async def run(*words: str, token: bool = True) -> Result:
        options = ["--url", server.url, *(["--token-file", str(tmp_path / TOKEN_FILE)] if token else [])]
        return await asyncio.to_thread(CliRunner().invoke, gatewayd, [*words, *options])

    return run
