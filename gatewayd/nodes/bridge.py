"""The site's own traffic over MQTT: what nodes send is published, what they are asked comes from there. SHELL.

It lies with the nodes and not with the cloud: its broker may be one of the site's own, and campaigns know nothing of it.
Its connection is its own as well, so that a flood of reports never stands before the link of the campaigns. What waits for
the broker is bounded; the oldest reports go first, and are counted.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import structlog

from gatewayd.cloud.connection import CloudSettings, Connection, Rejected
from gatewayd.cloud.failures import code_of, text_of
from gatewayd.cloud.messages import gateway_topic
from gatewayd.cloud.reconnect import keep_trying
from gatewayd.nodes.bridge_messages import (
    REQUESTS,
    RESPONSES,
    green_power_payload,
    green_power_topic,
    traffic_payload,
    traffic_topic,
)
from gatewayd.nodes.bridge_queue import BoundedQueue
from gatewayd.nodes.bridge_requests import Allowed, RequestDesk
from radios.radio import GreenPowerMessage, Json, Radio

AT_ONCE = 8  # publishes that wait for their acknowledgement; below what the connection queues
REFUSED_SAID_EVERY_S = 600.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class BridgeSettings:
    """`broker`: the cloud's, or one of the site's own."""

    broker: CloudSettings
    requests: Allowed = "read"
    max_messages: int = 5000
    max_bytes: int = 4 * 2**20
    max_responses: int = 256


class NodeBridge:
    """`run` for ever; nothing that nodes, the network or askers do makes it raise."""

    def __init__(
        self,
        settings: BridgeSettings,
        gateway: str,
        radios: Mapping[str, Radio],
        *,
        rng: Callable[[], float] = random.random,
        moved: Callable[[str, float], float] = lambda _, at: at,
    ) -> None:
        """`moved`: a stamp of that kind of radio as Unix seconds."""
        self._settings = settings
        self._moved = moved
        self._gateway = gateway
        self._radios = radios
        self._rng = rng
        self._messages = BoundedQueue(settings.max_messages, settings.max_bytes)
        self._responses = BoundedQueue(settings.max_responses, settings.max_bytes)
        self._news = asyncio.Event()
        self._desk = RequestDesk(radios, settings.requests, self._respond)
        self._connected = False
        self._connections = 0
        self._last_error = ""
        self._published = 0
        self._answered = 0
        self._refused = 0
        self._refused_said_at = float("-inf")

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for kind, radio in self._radios.items():
                group.create_task(self._collect(radio), name=f"bridge-{kind}")
            group.create_task(self._desk.run(), name="bridge-requests")
            trying = keep_trying(
                self._conversation, self._settings.broker, ended=self._ended, name="bridge-conversation", rng=self._rng
            )
            group.create_task(trying, name="bridge-connection")

    def status(self) -> dict[str, Json]:
        """Counters since the start, and what waits."""
        outcomes: dict[str, Json] = dict(sorted(self._desk.outcomes.items()))
        return {
            "connected": self._connected,
            "connections": self._connections,
            "broker": f"{self._settings.broker.host}:{self._settings.broker.port}",
            "last_error": self._last_error,
            "published": self._published,
            "queued": len(self._messages),
            "queued_bytes": self._messages.bytes,
            "dropped": {
                "overflow": self._messages.overflowed,
                "refused": self._refused,
                "responses_overflow": self._responses.overflowed,
            },
            "requests": {"allowed": self._settings.requests, "in_flight": self._desk.in_flight, "outcomes": outcomes},
            "answered": self._answered,
        }

    # -- from the nodes ----------------------------------------------------------------------------------------------

    async def _collect(self, radio: Radio) -> None:
        async for said in radio.traffic():
            message = replace(said, at=self._moved(radio.kind, said.at))
            # Not retained: a button pressed is over, and who comes later must not take it for a new one.
            if isinstance(message, GreenPowerMessage):
                topic, payload = green_power_topic(self._gateway, message.source), green_power_payload(message)
            else:
                topic, payload = (
                    traffic_topic(self._gateway, message.node, message.endpoint),
                    traffic_payload(message),
                )
            self._messages.put((topic, payload))
            self._news.set()

    def _respond(self, document: bytes) -> None:
        self._responses.put((gateway_topic(self._gateway, RESPONSES), document))
        self._news.set()

    # -- the connection ----------------------------------------------------------------------------------------------

    async def _conversation(self) -> None:
        async with Connection(self._settings.broker, f"{self._gateway}-nodes") as connection:
            self._connected = True
            self._connections += 1
            log.info("bridge_connected", host=self._settings.broker.host, port=self._settings.broker.port)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._receive(connection), name="bridge-receive")
                group.create_task(self._publish(connection), name="bridge-publish")

    async def _receive(self, connection: Connection) -> None:
        if self._settings.requests != "none":
            try:
                await connection.listen(gateway_topic(self._gateway, REQUESTS))
            except Rejected as error:  # what nodes send goes out all the same
                self._last_error = f"no requests: {text_of(error)}"
                log.warning("bridge_not_subscribed", code=error.code, error=text_of(error))
        async for message in connection.messages:
            self._desk.take(bytes(message.payload), retained=message.retain)
            connection.handled(message)

    async def _publish(self, connection: Connection) -> None:
        while True:
            self._news.clear()
            answers = bool(len(self._responses))
            queue = self._responses if answers else self._messages
            batch = queue.take(AT_ONCE)
            if not batch:
                await self._news.wait()
                continue
            try:
                refused = await connection.send_together(batch)
            except BaseException:
                queue.give_back(batch)
                raise
            if answers:
                self._answered += len(batch) - refused
            else:
                self._published += len(batch) - refused
            self._refused += refused
            if refused:
                await self._say_refused(all_of_them=refused == len(batch))

    async def _say_refused(self, *, all_of_them: bool) -> None:
        self._last_error = "the broker refuses what nodes send (its ACL?)"
        now = time.monotonic()
        if now - self._refused_said_at >= REFUSED_SAID_EVERY_S:
            self._refused_said_at = now
            log.warning("bridge_refused", refused=self._refused, error=self._last_error)
        if all_of_them:
            await asyncio.sleep(self._settings.broker.refused_retry_s)

    def _ended(self, error: BaseException | None) -> bool:
        was_connected, self._connected = self._connected, False
        if error is not None:
            self._last_error = text_of(error)
            event = "bridge_connection_lost" if was_connected else "bridge_no_connection"
            log.warning(event, code=code_of(error), error=self._last_error)
        return was_connected
