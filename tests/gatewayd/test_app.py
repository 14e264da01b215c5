"""The daemon as a process: it ends when it is told to, whatever hangs."""

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gatewayd.app import built
from gatewayd.config import load
from gatewayd.publisher.keys import generate_all
from gatewayd.publisher.repository import Repository
from radios.radio import NodeId, NodeObservation

pytestmark = pytest.mark.services


@contextlib.asynccontextmanager
async def silent_server() -> AsyncIterator[int]:
    """Takes connections and never answers."""
    writers: list[asyncio.StreamWriter] = []

    async def take(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.close()


async def test_sigterm_ends_it_in_time_while_broker_and_repository_hang(tmp_path: Path) -> None:
    repository = Repository.create(tmp_path / "repository", generate_all(tmp_path / "keys"))
    async with silent_server() as port:
        (tmp_path / "gatewayd.toml").write_text(
            f"""
[gateway]
id = "gw-1"
state_dir = "{tmp_path}/state"
assume_synchronised = true
[cloud]
host = "127.0.0.1"
port = {port}
tls = false
[trust]
root = "{repository.root_path}"
metadata_url = "http://127.0.0.1:{port}/metadata"
[payload]
urls = ["http://127.0.0.1:{port}"]
[status]
listen = "127.0.0.1:0"
[log]
format = "json"
"""
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gatewayd", "run", "--config", str(tmp_path / "gatewayd.toml"),
            stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            assert process.stderr is not None
            async with asyncio.timeout(20):
                seen: list[dict[str, object]] = []
                while not (seen and seen[-1].get("event") == "started"):
                    line = await process.stderr.readline()
                    assert line, seen
                    seen.append(json.loads(line) if line.startswith(b"{") else {"text": line})
            asked = time.monotonic()
            process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.communicate(), 10.0)
            assert process.returncode == 0
            assert time.monotonic() - asked < 5.0  # the limit that the unit file and the issue name
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def test_what_is_stored_of_a_radio_follows_a_step_that_came_while_the_daemon_was_down(tmp_path: Path) -> None:
    """As it is put together: the radio's clock is the one whose stamps are moved."""
    repository = Repository.create(tmp_path / "repository", generate_all(tmp_path / "keys"))
    (tmp_path / "gatewayd.toml").write_text(
        f"""
[gateway]
id = "gw-1"
state_dir = "{tmp_path}/state"
[cloud]
host = "127.0.0.1"
tls = false
[trust]
root = "{repository.root_path}"
metadata_url = "http://127.0.0.1:9/metadata"
[payload]
urls = ["http://127.0.0.1:9"]
[zigbee]
device = "socket://127.0.0.1:9"
"""
    )
    config = load(tmp_path / "gatewayd.toml")
    node = "zigbee:0000000000000001"
    async with built(config) as daemon:
        await daemon.times.start()
        at = daemon.radios["zigbee"].clock.now()
        await daemon.inventory.observe(NodeObservation(NodeId(node), at, version=1))
        # In an hour that was wrong, and is not any more.
        await daemon.database.write(
            lambda db: db.execute(
                "UPDATE meta SET value = json_set(value, '$.offset_s', json_extract(value, '$.offset_s') + 3600,"
                " '$.since', json_extract(value, '$.since') + 3600) WHERE key = 'radio_time.era'"
            )
        )
        await daemon.database.write(lambda db: db.execute("UPDATE node SET version_at = version_at + 3600"))
    async with built(config) as daemon:
        await daemon.times.start()
        known = daemon.inventory.get(node)
        assert known is not None
        assert known.version_at == pytest.approx(at, abs=5.0)
