"""aiomqtt's client with what it keeps to itself: refused publishes, acknowledging by hand, and hanging up for good. SHELL.

Not responsible for what is sent when (link.py).
"""

import asyncio
import math
import ssl
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import aiomqtt
from paho.mqtt.client import MQTT_CLEAN_START_FIRST_ONLY
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gatewayd.errors import ConfigError, GatewaydError

T = TypeVar("T")

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
MESSAGE_MAX_BYTES = 256 * 1024  # MQTT 5: the broker keeps larger ones to itself; documents are refused far below
RECEIVE_MAXIMUM = 16  # messages that the broker sends before the first of them is acknowledged
FAREWELL_S = 1.5


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files. Read anew for every connection, so that renewed certificates need no restart."""

    ca: Path
    cert: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True)
class CloudSettings:
    """How the broker is reached. ConfigError when the combination cannot be meant."""

    host: str
    port: int = 8883
    tls: TlsFiles | None = None  # None: plain, on loopback only
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    protocol: str = "5"  # or "3.1.1"
    keepalive_s: int = 60
    connect_timeout_s: float = 4.0  # each of TCP and TLS; below the 5 s in which the daemon has to end
    timeout_s: float = 20.0  # for the broker's answer to a publish or subscribe
    backoff_first_s: float = 1.0
    backoff_max_s: float = 120.0
    progress_interval_s: float = 5.0
    drain_bytes_s: float = 32_000.0  # of reports and retained documents together, after an outage
    ack_interval_s: float = 5.0  # between two transactions that forget acknowledged reports: flash wears out
    resend_after_s: float = 900.0  # reports that stay unacknowledged so long are sent again
    resend_missed_s: float = 10.0  # as long after an acknowledgement that lies below what was sent
    refused_retry_s: float = 30.0  # after the broker has refused a batch
    ask_again_s: float = 30.0  # for campaigns that the daemon could not take (disk full)
    trim_interval_s: float = 60.0

    def __post_init__(self) -> None:
        if self.protocol not in ("5", "3.1.1"):
            raise ConfigError(f"cloud.protocol: {self.protocol!r} is neither '5' nor '3.1.1'")
        if self.drain_bytes_s <= 0:
            raise ConfigError(f"cloud.drain_kb_s: {self.drain_bytes_s / 1000:g}; nothing would ever be sent")
        if self.tls is None and self.host not in LOOPBACK:
            raise ConfigError(f"cloud.tls: missing; without TLS the broker must be on loopback, not {self.host}")
        if self.tls is not None and (self.tls.cert is None) != (self.tls.key is None):
            raise ConfigError("cloud.tls: cert and key belong together")


class Rejected(GatewaydError):
    """The broker has answered a publish with an MQTT 5 reason code of failure: nothing was sent on."""

    code = "rejected"


class Connection(aiomqtt.Client):
    """One connection to the broker, to be entered once: a clean session, and every message acknowledged by hand."""

    def __init__(self, settings: CloudSettings, identifier: str, will: aiomqtt.Will | None = None) -> None:
        five = settings.protocol == "5"
        self._tls = None if settings.tls is None else tls_context(settings.tls)
        # A clean session is right: desired state is retained, so subscribing brings all of it; a stored session
        # would bring stale copies, and grow on the broker while the gateway is off.
        super().__init__(
            settings.host,
            settings.port,
            identifier=identifier,
            username=settings.username,
            password=settings.password,
            protocol=aiomqtt.ProtocolVersion.V5 if five else aiomqtt.ProtocolVersion.V311,
            will=will,
            clean_start=True if five else MQTT_CLEAN_START_FIRST_ONLY,  # the latter: "not said", as 3.1.1 wants it
            clean_session=None if five else True,
            timeout=settings.timeout_s,
            keepalive=settings.keepalive_s,
            max_queued_outgoing_messages=RECEIVE_MAXIMUM,
            properties=_limits() if five else None,
            tls_context=self._tls,
        )
        self._client.connect_timeout = settings.connect_timeout_s
        # Acknowledged after handling, the broker's window (receive maximum, or its own with 3.1.1) bounds our memory.
        self._client.manual_ack_set(True)
        self._one_publish = asyncio.Lock()
        self._reason: Any = None
        self._failures = 0
        self._disconnected.add_done_callback(lambda _: self._end_connecting("the broker broke the connection off"))

    async def send(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish with QoS 1; returns when the broker has taken it. Rejected, or aiomqtt.MqttError: the link is dead."""
        async with self._one_publish:  # so that the reason code seen last is this publish's
            self._reason = None
            await self.publish(topic, payload, qos=1, retain=retain)
            if self._reason is not None and self._reason.is_failure:
                raise Rejected(f"publish on {topic}: {self._reason}")

    async def send_together(self, documents: Sequence[tuple[str, bytes]]) -> int:
        """Publish (topic, payload) with QoS 1 in this order, without waiting in between; how many the broker refused.

        aiomqtt.MqttError: the link is dead, and nobody knows which of them arrived.
        """
        async with self._one_publish:
            self._failures = 0
            async with asyncio.TaskGroup() as group:
                for topic, payload in documents:
                    group.create_task(self.publish(topic, payload, qos=1))
            return self._failures

    async def listen(self, topic_filter: str) -> None:
        """Subscribe with QoS 1. Rejected when the broker does not grant it."""
        for reason in await self.subscribe(topic_filter, 1):
            if (reason if isinstance(reason, int) else reason.value) >= 0x80:
                raise Rejected(f"subscription to {topic_filter}: {reason}")

    def handled(self, message: aiomqtt.Message) -> None:
        """Acknowledge the message to the broker; without effect when the connection is gone."""
        self._client.ack(message.mid, message.qos)

    async def __aenter__(self) -> Self:
        try:
            return await super().__aenter__()
        except BaseException:
            self._hang_up()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.timeout = FAREWELL_S  # for the answer to DISCONNECT
        try:
            await super().__aexit__(kind, error, trace)
        except aiomqtt.MqttError:
            pass  # we leave anyway; what made us leave is in `error`
        finally:
            self._hang_up()

    def _hang_up(self) -> None:
        # aiomqtt leaves the socket, its reader and a task behind when connecting fails half-way or a write breaks.
        self._client._sock_close()  # paho has no public way that sends nothing
        if self._misc_task is not None:
            self._misc_task.cancel()
        if self._tls is not None:
            self._tls.close_sockets()
        for future in (self._connected, self._disconnected):
            if future.done() and not future.cancelled():
                future.exception()  # retrieved: asyncio need not complain about it

    async def _wait_for(self, fut: Awaitable[T], timeout: float | None) -> T:
        # aiomqtt takes asyncio.wait_for, which in Python 3.11 loses a cancellation that comes together with the result:
        # the cancelled task would go on, and its group wait for it for ever.
        limit_s = self.timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(None if limit_s == math.inf else limit_s):
                return await fut
        except TimeoutError:
            raise aiomqtt.MqttError(f"no answer from the broker in {limit_s:g} s") from None

    def _end_connecting(self, why: str) -> None:
        if not self._connected.done():
            self._connected.set_exception(aiomqtt.MqttError(why))

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason_code: Any, properties: Any = None) -> None:
        # aiomqtt leaves this out, and waits for its time-out when a broker refuses our certificate (TLS 1.3).
        self._end_connecting(f"the broker broke the connection off: {reason_code}")
        super()._on_disconnect(client, userdata, flags, reason_code, properties)

    def _on_publish(self, client: Any, userdata: Any, mid: int, reason_code: Any, properties: Any) -> None:
        self._reason = reason_code
        self._failures += bool(reason_code.is_failure)
        super()._on_publish(client, userdata, mid, reason_code, properties)


class TlsContext(ssl.SSLContext):
    """Remembers the socket that it wraps: paho leaves it open when the handshake fails."""

    _wrapped: ssl.SSLSocket | None = None

    def wrap_socket(self, *arguments: Any, **named: Any) -> ssl.SSLSocket:
        self._wrapped = super().wrap_socket(*arguments, **named)
        return self._wrapped

    def close_sockets(self) -> None:
        if self._wrapped is not None:
            self._wrapped.close()


def tls_context(files: TlsFiles) -> TlsContext:
    """Trusts `ca` alone, checks the host's name, shows the client certificate. OSError when a file is unusable."""
    context = TlsContext(ssl.PROTOCOL_TLS_CLIENT)  # requires a certificate and checks the name
    context.load_verify_locations(cafile=str(files.ca))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if files.cert is not None:
        context.load_cert_chain(files.cert, files.key)
    return context


def _limits() -> Properties:
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call] # paho's own omission
    properties.ReceiveMaximum = RECEIVE_MAXIMUM
    properties.MaximumPacketSize = MESSAGE_MAX_BYTES
    return properties
