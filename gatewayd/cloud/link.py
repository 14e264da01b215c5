"""The link to the cloud over MQTT: stays connected, publishes state and documents, hands on what arrives. SHELL.

Desired state is retained by the broker, so every connection brings all of it again, and reports are forgotten only below
the cloud's watermark: neither depends on a message having arrived once. Not responsible for which reports go out when
(`report_stream.py`), for what a campaign or command means, nor for whether it is genuine (handlers).
"""

import asyncio
import random
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import aiomqtt
import structlog

from gatewayd.cloud import messages
from gatewayd.cloud.connection import FAREWELL_S, CloudSettings, Connection, Rejected, TlsFiles
from gatewayd.cloud.drain import Drain
from gatewayd.cloud.failures import code_of, outcome_of, text_of
from gatewayd.cloud.kept_commands import KeptCommands
from gatewayd.cloud.outbox import Outbox
from gatewayd.cloud.reconnect import keep_trying
from gatewayd.cloud.report_stream import ReportStream
from gatewayd.cloud.retained import Retained
from gatewayd.errors import GatewaydError, Refused, StoreError, Unavailable

__all__ = ["CloudLink", "CloudSettings", "Handlers", "LinkStatus", "TlsFiles"]

log = structlog.get_logger()

INBOX_MAX_MESSAGES = 64  # above every broker's window, so never reached by an honest one
STATE_PAUSE_S = 0.05  # between two publications of `state`


class Handlers(Protocol):
    """What the daemon does with what arrives. Called one at a time, in order; the same message comes again on reconnect."""

    async def campaign(self, topic: str, payload: bytes) -> None: ...

    async def command(self, topic: str, payload: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """For operators. Times are Unix seconds."""

    connected: bool
    connected_since: float | None
    connections: int  # how many there have been since the start
    last_error: str
    last_error_at: float | None
    outbox_reports: int
    outbox_bytes: int
    sent_seq: int  # highest seq published over this connection
    refused_publishes: int

    @property
    def reconnects(self) -> int:
        return max(0, self.connections - 1)


class CloudLink:
    """`run` for ever beside everything else; nothing that the cloud or the network does makes it raise."""

    def __init__(
        self,
        settings: CloudSettings,
        gateway: str,
        fleets: tuple[str, ...],
        outbox: Outbox,
        handlers: Handlers,
        *,
        version: str = "",
        rng: Callable[[], float] = random.random,
        drain: Drain | None = None,
    ) -> None:
        self._settings = settings
        # Over all connections: one that breaks again and again must not make a burst each time.
        self._drain = drain or Drain(settings.drain_bytes_s)
        self._gateway = gateway
        self._fleets = fleets
        self._filters = messages.campaign_filters(gateway, fleets)
        self._outbox = outbox
        self._handlers = handlers
        self._version = version
        self._rng = rng
        self._health: dict[str, str] = {}
        self._connection_id = ""
        self._connected_since: float | None = None
        self._connections = 0
        self._last_error = ""
        self._last_error_at: float | None = None
        self._refused = 0
        self._reports = ReportStream(settings, outbox, self._drain, self._send_reports, self._failed)
        self._retained = Retained()
        self._retained_news = asyncio.Event()
        self._state_news = asyncio.Event()
        self._missed = asyncio.Event()  # a campaign could not be taken, for a reason that may pass
        self._inbox: asyncio.Queue[tuple[Connection, aiomqtt.Message]] = asyncio.Queue(INBOX_MAX_MESSAGES)
        self._handling = asyncio.Lock()  # handlers are called one at a time
        self._commands = KeptCommands(self._do_command, settings.ask_again_s, rng)

    async def run(self) -> None:
        """Stay connected until cancelled; then say `offline` to the cloud, if it can be said at once."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._stay_connected(), name="cloud-connection")
            group.create_task(self._handle_inbox(), name="cloud-inbox")
            group.create_task(self._commands.run(), name="cloud-commands")
            group.create_task(self._reports.apply_acks(), name="cloud-acks")
            group.create_task(self._keep_bounded(), name="cloud-outbox")

    async def publish_retained(self, topic_leaf: str, document: messages.Document | None) -> None:
        """Make this the retained document of our topic `topic_leaf`, now or as soon as there is a connection.

        Only the latest per topic is kept; None clears the topic. Does not wait for the broker.
        """
        payload = b"" if document is None else messages.dump(document)
        if len(payload) > messages.DOCUMENT_MAX_BYTES:
            log.error("document not published", code="too_large", topic=topic_leaf, bytes=len(payload))
            return
        if self._retained.put(topic_leaf, payload):
            self._retained_news.set()

    async def set_health(self, health: Mapping[str, str]) -> None:
        """What `state` says about the gateway's health from now on."""
        if dict(health) != self._health:
            self._health = dict(health)
            self._state_news.set()

    def resend(self) -> None:
        """Publish again every report and every retained document that is kept (the cloud's request to resync)."""
        self._reports.all_again()
        self._retained.all_again()
        self._state_news.set()
        self._retained_news.set()

    def status(self) -> LinkStatus:
        depth = self._outbox.depth
        return LinkStatus(
            connected=self._connected_since is not None,
            connected_since=self._connected_since,
            connections=self._connections,
            last_error=self._last_error,
            last_error_at=self._last_error_at,
            outbox_reports=depth.reports,
            outbox_bytes=depth.bytes,
            sent_seq=self._reports.sent_seq,
            refused_publishes=self._refused,
        )

    # -- the connection ------------------------------------------------------------------------------------------------

    async def _stay_connected(self) -> None:
        await keep_trying(self._connection, self._settings, ended=self._ended, name="cloud-conversation", rng=self._rng)

    def _ended(self, error: BaseException | None) -> bool:
        was_connected, self._connected_since = self._connected_since is not None, None
        if error is not None:
            self._failed("connection lost" if was_connected else "no connection", error)
        return was_connected

    async def _connection(self) -> None:
        await self._outbox.load()
        self._connection_id = uuid.uuid4().hex
        will = aiomqtt.Will(self._topic("state"), self._state("offline"), qos=1, retain=True)
        async with Connection(self._settings, self._gateway, will) as connection:
            self._connected_since = time.time()
            self._connections += 1
            log.info("connected", host=self._settings.host, port=self._settings.port, connection=self._connection_id)
            try:
                await self._converse(connection)
            except asyncio.CancelledError:
                await self._farewell(connection)
                raise

    async def _converse(self, connection: Connection) -> None:
        self._state_news.set()
        self._retained.all_again()
        self._retained_news.set()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._receive(connection), name="cloud-receive")
            group.create_task(self._send_state(connection), name="cloud-state")
            for topic_filter in (self._topic("state"), self._topic("acks"), self._topic("commands"), *self._filters):
                try:
                    await connection.listen(topic_filter)
                except Rejected as error:  # the rest of the work goes on
                    self._failed("not subscribed", error)
            group.create_task(self._reports.run(connection), name="cloud-reports")
            group.create_task(self._send_retained(connection), name="cloud-retained")
            group.create_task(self._ask_again(connection), name="cloud-ask-again")

    async def _farewell(self, connection: Connection) -> None:
        # A clean DISCONNECT makes the broker discard the will, so it has to be said by hand.
        try:
            async with asyncio.timeout(FAREWELL_S):
                await connection.send(self._topic("state"), self._state("offline"), retain=True)
        except (TimeoutError, aiomqtt.MqttError, GatewaydError) as error:
            log.info("left without a farewell", error=text_of(error))

    # -- what arrives --------------------------------------------------------------------------------------------------

    async def _receive(self, connection: Connection) -> None:
        async for message in connection.messages:
            topic, payload = message.topic.value, bytes(message.payload)
            if topic == self._topic("acks"):
                self._take_acks(payload)
                connection.handled(message)
            elif topic == self._topic("state"):
                self._take_state(payload)
                connection.handled(message)
            else:
                try:
                    self._inbox.put_nowait((connection, message))
                except asyncio.QueueFull:
                    # Reconnecting brings everything retained again, and the back-off gives time to work.
                    raise aiomqtt.MqttError(
                        f"{INBOX_MAX_MESSAGES} messages wait: the broker ignores its window"
                    ) from None

    def _take_acks(self, payload: bytes) -> None:
        if not payload:
            return
        try:
            self._reports.take_acks(messages.parse(messages.Acks, payload, "acks"))
        except Refused as error:
            self._failed("acks refused", error)

    def _take_state(self, payload: bytes) -> None:
        if not payload:
            return
        try:
            state = messages.parse(messages.GatewayState, payload, "state")
        except Refused as error:
            log.warning("state refused", code=error.code, error=error.detail)
            self._state_news.set()
            return
        if state.connection == self._connection_id:
            return
        if state.state == "offline":  # the will of an earlier connection of ours, come late
            log.info("foreign offline published over", connection=state.connection)
            self._state_news.set()
        elif state.connection:
            # Published over once more it would never end: two machines with one id have to be found by people.
            log.warning("another connection claims to be this gateway", connection=state.connection)

    async def _handle_inbox(self) -> None:
        # It outlives connections, so that a handler is never cancelled in the middle of its work by a lost link.
        while True:
            connection, message = await self._inbox.get()
            await self._handle(message)
            connection.handled(message)

    async def _handle(self, message: aiomqtt.Message) -> None:
        topic, payload = message.topic.value, bytes(message.payload)
        if not payload:
            log.info("topic cleared, which changes nothing", topic=topic)
            return
        if topic == self._topic("commands"):
            work = self._commands.take(topic, payload)
        elif any(message.topic.matches(known) for known in self._filters):
            work = self._do_campaign(topic, payload)
        else:
            log.warning("message on a topic that was not asked for", topic=topic[:200])
            return
        error = await outcome_of(work, "cloud-handler")
        if isinstance(error, StoreError | Unavailable):
            self._failed("message not taken", error, topic=topic)
            if topic != self._topic("commands"):
                self._missed.set()
        elif isinstance(error, GatewaydError):
            self._failed("message refused", error, topic=topic, bytes=len(payload))
        elif error is not None:  # one message must not stop the link
            log.error("handler failed", code="bug", topic=topic, bytes=len(payload), exc_info=error)
            self._note(f"handler failed: {text_of(error)}")

    async def _do_campaign(self, topic: str, payload: bytes) -> None:
        async with self._handling:
            await self._handlers.campaign(topic, payload)

    async def _do_command(self, topic: str, payload: bytes) -> None:
        async with self._handling:
            await self._handlers.command(topic, payload)

    async def _ask_again(self, connection: Connection) -> None:
        while True:
            await self._missed.wait()
            await asyncio.sleep(self._settings.ask_again_s)
            self._missed.clear()
            for topic_filter in self._filters:
                await connection.listen(topic_filter)  # subscribing again brings everything retained again

    # -- what is sent --------------------------------------------------------------------------------------------------

    async def _send_state(self, connection: Connection) -> None:
        while True:
            await self._state_news.wait()
            self._state_news.clear()
            await self._try_to_send(connection, self._topic("state"), self._state("online"), retain=True)
            await asyncio.sleep(STATE_PAUSE_S)

    async def _send_retained(self, connection: Connection) -> None:
        while True:
            await self._drain.turn()
            while (next_one := self._retained.take()) is not None:
                leaf, payload = next_one
                try:
                    await self._try_to_send(connection, self._topic(leaf), payload, retain=True)
                except BaseException:
                    self._retained.give_back(leaf)
                    raise
                self._retained.published(leaf, payload)
                await self._drain.turn()
            await self._retained_news.wait()
            self._retained_news.clear()

    async def _send_reports(self, connection: Connection, batch: bytes) -> bool:
        return await self._try_to_send(connection, self._topic("reports"), batch)

    async def _try_to_send(self, connection: Connection, topic: str, payload: bytes, *, retain: bool = False) -> bool:
        """False when the broker has refused it; a dead link raises."""
        self._drain.take(len(payload))
        try:
            await connection.send(topic, payload, retain=retain)
        except Rejected as error:
            self._refused += 1
            self._failed("publish refused", error)
            return False
        return True

    async def _keep_bounded(self) -> None:
        while True:
            try:
                await self._outbox.trim()
            except StoreError as error:
                self._failed("outbox not trimmed", error)
            await asyncio.sleep(self._settings.trim_interval_s)

    # -- helpers -------------------------------------------------------------------------------------------------------

    def _topic(self, leaf: str) -> str:
        return messages.gateway_topic(self._gateway, leaf)

    def _state(self, state: str) -> bytes:
        said = {
            "state": state,
            "connection": self._connection_id,
            "gateway": self._gateway,
            "version": self._version,
            "fleets": self._fleets,
            "health": self._health if state == "online" else {},
        }
        return messages.dump(messages.GatewayState.model_validate(said))

    def _failed(self, event: str, error: BaseException, **where: object) -> None:
        code = code_of(error)
        self._note(f"{event}: {text_of(error)}")
        log.warning(event, code=code, error=text_of(error), **where)

    def _note(self, text: str) -> None:
        self._last_error, self._last_error_at = text, time.time()
