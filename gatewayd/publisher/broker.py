"""The publisher's way to the broker: settings, connection, and publishing that is checked. SHELL."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import aiomqtt

from gatewayd.errors import ConfigError, Unavailable

QOS = 1
FAREWELL_S = 2.0


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """Where the broker is and who we are. `url`: mqtts://host[:8883] or mqtt://host[:1883] (no TLS)."""

    url: str
    ca: Path | None = None  # None: the system's authorities
    cert: Path | None = None
    key: Path | None = None
    username: str | None = None
    password_file: Path | None = None
    protocol: str = "5"  # or "3.1.1"
    client_id: str | None = None
    timeout_s: float = 10.0
    retained_wait_s: float = 2.0  # how long a retained message may take to come after the subscription


@contextlib.asynccontextmanager
async def connected(settings: BrokerSettings) -> AsyncIterator[aiomqtt.Client]:
    """A client, connected. Unavailable when the broker is not there or turns us away, also later on."""
    client = _client(settings)
    try:
        async with client:
            yield client
    except (aiomqtt.MqttError, OSError) as error:
        raise Unavailable(f"{settings.url}: {error}") from error


async def retained(client: aiomqtt.Client, topic: str, wait_s: float) -> bytes | None:
    """The retained message on a topic of which nothing else is subscribed; None when there is none."""
    await client.subscribe(topic, qos=QOS)
    # One more round trip: a busy broker is slow with this answer too, and what is retained mostly comes before it. Only
    # brokers that look up retained messages aside need the wait.
    await client.unsubscribe(f"{topic}/none")
    try:
        async with asyncio.timeout(wait_s):
            async for message in client.messages:
                if message.topic.value == topic and message.retain:
                    return payload_bytes(message)
    except TimeoutError:
        return None
    finally:
        await client.unsubscribe(topic)
    return None


async def publish_retained(settings: BrokerSettings, client: aiomqtt.Client, topic: str, payload: bytes) -> None:
    """Publish and read back: a broker's ACL can drop a message that it acknowledges. Unavailable when it was not kept."""
    await client.publish(topic, payload, qos=QOS, retain=True, timeout=settings.timeout_s)
    if await retained(client, topic, settings.timeout_s) != payload:
        raise Unavailable(f"{settings.url}: the broker does not hold what was published on {topic} (check its ACL)")


async def subscribe_all(client: aiomqtt.Client, topics: Iterable[str]) -> None:
    """Subscribe to each. Unavailable when the broker refuses one."""
    for topic in topics:
        for code in await client.subscribe(topic, qos=QOS):
            if (code if isinstance(code, int) else code.value) >= 0x80:
                raise Unavailable(f"the broker refuses a subscription to {topic}: {code}")


def payload_bytes(message: aiomqtt.Message) -> bytes:
    """The payload as it came."""
    payload = message.payload
    return payload if isinstance(payload, bytes) else str(payload or "").encode()


class _Client(aiomqtt.Client):
    """aiomqtt leaves its socket and a task behind when connecting fails half-way (a refused client certificate, say), and
    lets a farewell that fails take the place of what made us leave, a cancellation too.
    """

    async def __aenter__(self) -> Self:
        try:
            return await super().__aenter__()
        except BaseException:
            self._hang_up()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.timeout = FAREWELL_S
        try:
            await super().__aexit__(kind, error, trace)
        except aiomqtt.MqttError:
            pass  # all that was published has been confirmed before
        finally:
            self._hang_up()

    def _hang_up(self) -> None:
        self._client._sock_close()  # paho has no public way that sends nothing
        if self._misc_task is not None:
            self._misc_task.cancel()
        for future in (self._connected, self._disconnected):
            if future.done() and not future.cancelled():
                future.exception()  # retrieved: asyncio need not complain about it


def _client(settings: BrokerSettings) -> aiomqtt.Client:
    parts = urlsplit(settings.url)
    if parts.scheme not in ("mqtts", "mqtt") or not parts.hostname:
        raise ConfigError(f"broker {settings.url!r}: mqtts://host[:port] or mqtt://host[:port]")
    if settings.protocol not in ("5", "3.1.1"):
        raise ConfigError(f"MQTT {settings.protocol!r}: 5 or 3.1.1")
    secure = parts.scheme == "mqtts"
    try:
        password = settings.password_file.read_text().strip() if settings.password_file else None
        context = _tls(settings) if secure else None
        port = parts.port or (8883 if secure else 1883)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ConfigError(f"broker {settings.url}: {error}") from error
    return _Client(
        parts.hostname,
        port,
        username=settings.username,
        password=password,
        identifier=settings.client_id,
        protocol=aiomqtt.ProtocolVersion.V5 if settings.protocol == "5" else aiomqtt.ProtocolVersion.V311,
        tls_context=context,
        timeout=settings.timeout_s,
    )


def _tls(settings: BrokerSettings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(settings.ca) if settings.ca else None)
    if settings.cert is not None:
        context.load_cert_chain(settings.cert, settings.key)
    return context
