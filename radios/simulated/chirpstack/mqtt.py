"""The MQTT integration of the simulated ChirpStack: events out, commands in; reconnects by itself."""

import asyncio
import base64
import binascii
import json
import logging
import random
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import aiomqtt

from radios.simulated.chirpstack.bus import BusMessage, encoded
from radios.simulated.chirpstack.model import ApiError, Event
from radios.simulated.chirpstack.network import NetworkServer

_LOG = logging.getLogger(__name__)
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 5.0
_KEPT_WHILE_OFFLINE = 5_000


@dataclass(frozen=True, slots=True)
class MqttSettings:
    host: str
    port: int
    username: str | None = None
    password: str | None = None
    tls: ssl.SSLContext | None = None
    client_id: str = "chirpstack"
    gateway_prefix: str | None = None  # of the topics of the gateway bus; None: it is not on this broker
    gateway_json: bool = False  # default: protobuf


class MqttIntegration:
    """`run` never ends by itself; `publish` never waits. The oldest events go when too many wait for the broker."""

    def __init__(self, settings: MqttSettings, network: NetworkServer, before_command: Callable[[], None]) -> None:
        self._settings = settings
        self._network = network
        self._before_command = before_command
        self._application_id = network.settings.application_id
        self._waiting: deque[tuple[str, bytes]] = deque(maxlen=_KEPT_WHILE_OFFLINE)
        self._more = asyncio.Event()
        self.connected = asyncio.Event()
        self.connections = 0

    def publish(self, event: Event) -> None:
        topic = f"application/{self._application_id}/device/{event.dev_eui}/event/{event.kind}"
        self._waiting.append((topic, json.dumps(event.body).encode()))
        self._more.set()

    def publish_bus(self, message: BusMessage) -> None:
        if self._settings.gateway_prefix is not None:
            prefix, as_json = self._settings.gateway_prefix, self._settings.gateway_json
            self._waiting.append(encoded(message, prefix, as_json=as_json))
            self._more.set()

    async def run(self) -> None:
        wait_s = _FIRST_WAIT_S
        while True:
            try:
                async with self._client() as client, asyncio.TaskGroup() as group:
                    wait_s = _FIRST_WAIT_S
                    self.connections += 1
                    await client.subscribe(f"application/{self._application_id}/device/+/command/down", qos=1)
                    self.connected.set()
                    group.create_task(self._send(client), name="chirpstack-mqtt-send")
                    group.create_task(self._receive(client), name="chirpstack-mqtt-receive")
            except* (aiomqtt.MqttError, OSError) as errors:
                _LOG.info("simulated ChirpStack lost the broker: %s", errors.exceptions[0])
            finally:
                self.connected.clear()
            await asyncio.sleep(random.uniform(0.5, 1.0) * wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    def _client(self) -> aiomqtt.Client:
        settings = self._settings
        return aiomqtt.Client(
            settings.host,
            settings.port,
            username=settings.username,
            password=settings.password,
            tls_context=settings.tls,
            identifier=settings.client_id,
            protocol=aiomqtt.ProtocolVersion.V311,
        )

    async def _send(self, client: aiomqtt.Client) -> None:
        while True:
            while self._waiting:
                message = self._waiting[0]
                await client.publish(*message, qos=0)
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    raise asyncio.CancelledError  # aiomqtt uses asyncio.wait_for, which can swallow it before 3.12
                if self._waiting and self._waiting[0] is message:
                    self._waiting.popleft()
            self._more.clear()
            await self._more.wait()

    async def _receive(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            parts = str(message.topic).split("/")
            self._before_command()
            try:
                self._command(parts[3], json.loads(bytes(message.payload)))
            except (ApiError, ValueError, TypeError, KeyError, IndexError, AttributeError, binascii.Error) as error:
                _LOG.warning("command on %s refused: %s", message.topic, error)  # as ChirpStack: only its log knows

    def _command(self, dev_eui: str, body: dict[str, object]) -> None:
        if body.get("devEui") != dev_eui:
            raise ValueError("devEui is not that of the topic")
        expires = body.get("expiresAt")
        self._network.enqueue(
            dev_eui,
            int(str(body["fPort"])),
            base64.b64decode(str(body.get("data", "")), validate=True),
            confirmed=body.get("confirmed") is True,
            expires_at=None if expires is None else datetime.fromisoformat(str(expires)).timestamp(),
            item_id=str(body.get("id", "")),
        )
