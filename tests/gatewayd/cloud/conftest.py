"""A gateway's link with a store of its own, and the cloud's side of the conversation, over a real broker."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from gatewayd.cloud import messages
from gatewayd.cloud.drain import Drain
from gatewayd.cloud.link import CloudLink, CloudSettings, TlsFiles
from gatewayd.cloud.outbox import Outbox, append
from gatewayd.demo.authority import Authority
from gatewayd.store.database import Database
from tests.support.mosquitto import Mosquitto

LIMIT_S = 20.0


async def eventually(condition: Callable[[], bool], what: str = "") -> None:
    """Return when it holds; fail after a long time."""
    try:
        async with asyncio.timeout(LIMIT_S):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"never came true: {what}")


class Handlers:
    """Keeps what the link hands on; raises what it is told to."""

    def __init__(self) -> None:
        self.campaigns: list[tuple[str, bytes]] = []
        self.commands: list[bytes] = []
        self.raises: Exception | None = None

    async def campaign(self, topic: str, payload: bytes) -> None:
        self.campaigns.append((topic, payload))
        if self.raises is not None:
            raise self.raises

    async def command(self, topic: str, payload: bytes) -> None:
        self.commands.append(payload)
        if self.raises is not None:
            raise self.raises


class Cloud:
    """The cloud's client: collects everything that gateways say."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self.client = client
        self.heard: list[aiomqtt.Message] = []

    async def listen(self) -> None:
        async for message in self.client.messages:
            self.heard.append(message)

    def on(self, topic: str) -> list[bytes]:
        return [bytes(message.payload) for message in self.heard if message.topic.value == topic]

    def batches(self, gateway: str = "gw-a") -> list[messages.ReportBatch]:
        raw = self.on(messages.gateway_topic(gateway, "reports"))
        return [messages.parse(messages.ReportBatch, payload, "reports") for payload in raw]

    def seqs(self, gateway: str = "gw-a") -> list[int]:
        return [entry.seq for batch in self.batches(gateway) for entry in batch.reports]

    def states(self, gateway: str = "gw-a") -> list[str]:
        raw = self.on(messages.gateway_topic(gateway, "state"))
        return [messages.parse(messages.GatewayState, payload, "state").state for payload in raw]

    async def say(self, topic: str, payload: bytes, *, retain: bool = True) -> None:
        await self.client.publish(topic, payload, qos=1, retain=retain)


class Site:
    """Makes gateways against one broker and ends them."""

    def __init__(self, folder: Path, broker: Mosquitto, authority: Authority) -> None:
        self.folder = folder
        self.broker = broker
        self.authority = authority
        self._running: list[asyncio.Task[None]] = []
        self._databases: list[Database] = []

    def settings(self, identity: str, **changes: Any) -> CloudSettings:
        credentials = self.authority.client(identity)
        quick: dict[str, Any] = {
            "host": self.broker.host,
            "port": self.broker.port,
            "tls": TlsFiles(self.authority.ca, credentials.cert, credentials.key),
            "backoff_first_s": 0.05,
            "backoff_max_s": 0.2,
            "progress_interval_s": 0.2,
            "drain_bytes_s": 1e9,
            "ack_interval_s": 0.01,
            "refused_retry_s": 0.1,
        }
        return CloudSettings(**{**quick, **changes})

    def database(self, gateway: str) -> Database:
        database = Database.open(self.folder / f"{gateway}.db")
        self._databases.append(database)
        return database

    def link(
        self,
        gateway: str = "gw-a",
        identity: str | None = None,
        database: Database | None = None,
        drain: Drain | None = None,
        **changes: Any,
    ) -> tuple[CloudLink, Outbox, Handlers]:
        outbox = Outbox(database or self.database(gateway), 10**6)
        handlers = Handlers()
        settings = self.settings(identity or gateway, **changes)
        link = CloudLink(settings, gateway, ("f1",), outbox, handlers, version="0.1.0", drain=drain)
        return link, outbox, handlers

    def start(self, link: CloudLink) -> asyncio.Task[None]:
        task = asyncio.create_task(link.run())
        self._running.append(task)
        return task

    @contextlib.asynccontextmanager
    async def cloud(self) -> AsyncIterator[Cloud]:
        async with self.broker.client("cloud") as client:
            await client.subscribe("ota/v1/#", 1)
            cloud = Cloud(client)
            listening = asyncio.create_task(cloud.listen())
            try:
                yield cloud
            finally:
                listening.cancel()
                await asyncio.wait({listening})
                if not listening.cancelled():
                    listening.exception()

    async def close(self) -> None:
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)
        for database in self._databases:
            database.close()


async def report(outbox: Outbox, database: Database, *states: str, kind: str = "node") -> None:
    """Append reports as the rest of the daemon does."""
    made = [messages.Report(kind=messages.ReportKind(kind), at=messages.utc(1000.0), state=state) for state in states]
    await database.write(lambda db: append(db, made))
    outbox.notify()


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def broker(tmp_path: Path, authority: Authority) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "broker", authority, {"gw-a": ("f1",), "gw-b": ("f2",)}) as broker:
        yield broker


@pytest.fixture
async def site(tmp_path: Path, broker: Mosquitto, authority: Authority) -> AsyncIterator[Site]:
    site = Site(tmp_path, broker, authority)
    yield site
    await site.close()
