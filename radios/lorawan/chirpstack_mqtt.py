"""One subscription at an MQTT broker, connected again for ever. SHELL around aiomqtt; what messages mean is not its business."""

import asyncio
import logging
import random
import ssl
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import aiomqtt

_log = logging.getLogger(__name__)

_RECONNECT_FIRST_S = 0.5
_RECONNECT_MOST_S = 30.0


@dataclass(frozen=True, slots=True)
class Broker:
    host: str
    port: int = 1883
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls_ca_path: str | None = None
    timeout_s: float = 10.0  # real seconds


class Subscription:
    """`up`: whether the broker has taken it now."""

    def __init__(self, broker: Broker, topics: Sequence[str]) -> None:
        self.up = False
        self._broker = broker
        self._topics = [(topic, 1) for topic in topics]

    async def messages(self) -> AsyncIterator[tuple[str, bytes]]:
        """(topic, payload) until cancelled."""
        delay_s = _RECONNECT_FIRST_S
        while True:
            try:
                async for message in self._connected():
                    delay_s = _RECONNECT_FIRST_S
                    yield message
            except (aiomqtt.MqttError, OSError) as error:
                _raise_if_cancelled()
                _log.warning("chirpstack mqtt: %s; connecting again within %.1f s", error, delay_s)
            finally:
                self.up = False
            await asyncio.sleep(random.uniform(0, delay_s))  # noqa: S311 - full jitter, no secret
            delay_s = min(delay_s * 2, _RECONNECT_MOST_S)

    async def _connected(self) -> AsyncIterator[tuple[str, bytes]]:
        broker = self._broker
        context = ssl.create_default_context(cafile=broker.tls_ca_path) if broker.tls_ca_path else None
        async with aiomqtt.Client(
            broker.host,
            broker.port,
            username=broker.username,
            password=broker.password,
            tls_context=context,
            timeout=broker.timeout_s,
        ) as client:
            await client.subscribe(self._topics)
            _raise_if_cancelled()
            self.up = True
            async for message in client.messages:
                yield str(message.topic), message.payload if isinstance(message.payload, bytes) else b""


def _raise_if_cancelled() -> None:
    """aiomqtt can turn a cancellation into an error of its own, or swallow it (asyncio.wait_for before Python 3.12)."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
