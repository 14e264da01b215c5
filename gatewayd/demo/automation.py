"""A program that uses the site's nodes beside their updates, over MQTT, as a building's automation does.

It counts the reports that come from nodes, binds a cluster of one node, asks it to report an attribute, and looks in the end
whether the node still is so: its new firmware has forgotten both, and gatewayd has to have told it again.
"""

import asyncio
import contextlib
import json

import aiomqtt

from gatewayd.cloud.messages import gateway_topic
from gatewayd.demo.cloud_side import GATEWAY
from gatewayd.demo.verdict import CONFIGURED
from gatewayd.errors import Unavailable
from gatewayd.nodes.bridge_messages import REQUESTS, RESPONSES, NodeResponse, NodeTraffic, traffic_topic
from gatewayd.publisher.broker import BrokerSettings, connected, subscribe_all

ASK_S = 5.0
RETRY_S = 0.5
NODE = CONFIGURED.id
CLUSTER, ATTRIBUTE = "basic", "power_source"
TERMS = {"min_s": 1, "max_s": 300}


class Automation:
    """`run` until cancelled; the rest may be asked meanwhile."""

    def __init__(self) -> None:
        self.reports: dict[str, list[int]] = {}  # ZCL sequences by node
        self.configured = False  # the node took the binding and the terms
        self._asked = 0
        self._answers: dict[str, asyncio.Future[NodeResponse]] = {}
        self._client: aiomqtt.Client | None = None

    async def run(self, broker: BrokerSettings) -> None:
        while True:
            with contextlib.suppress(Unavailable):
                async with connected(broker) as client:
                    await subscribe_all(client, [traffic_topic(GATEWAY, "+", "+"), gateway_topic(GATEWAY, RESPONSES)])
                    self._client = client
                    configuring = asyncio.create_task(self._configure(), name="demo-automation")
                    try:
                        async for message in client.messages:
                            self._take(message.topic.value, bytes(message.payload or b""))
                    finally:
                        self._client = None
                        configuring.cancel()
            await asyncio.sleep(RETRY_S)

    async def reporting_fault(self, limit_s: float) -> str:
        """Empty when the node took binding and terms and says that it holds them; asked until it does or the time is up."""
        if not self.configured:
            return "it was never configured"
        fault = "no answer"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while True:
                    reporting = await self._ask("reporting", {"cluster": CLUSTER, "attributes": [ATTRIBUTE]}, limit_s)
                    bindings = await self._ask("bindings", {}, limit_s)
                    if _holds_terms(reporting) and _holds_binding(bindings):
                        return ""
                    for answer in (reporting, bindings):
                        if answer is not None:
                            fault = f"it answers {answer.value}" if answer.ok else f"{answer.code}: {answer.detail}"
                    await asyncio.sleep(RETRY_S)
        return fault

    async def reading_fault(self, limit_s: float) -> str:
        """Empty when the node says its own model."""
        answer = await self._ask("read", {"cluster": CLUSTER, "attributes": ["model"]}, limit_s)
        if answer is None or not answer.ok:
            return "no answer" if answer is None else f"{answer.code}: {answer.detail}"
        return "" if _value(answer, "model") == CONFIGURED.name else f"it answers {answer.value}"

    async def _configure(self) -> None:
        while not self.configured:
            answers = (
                await self._ask("bind", {"cluster": CLUSTER}, ASK_S),
                await self._ask("configure_reporting", {"cluster": CLUSTER, "attributes": {ATTRIBUTE: TERMS}}, ASK_S),
            )
            self.configured = all(answer is not None and answer.ok for answer in answers)
            await asyncio.sleep(RETRY_S)

    async def _ask(self, name: str, arguments: dict[str, object], limit_s: float) -> NodeResponse | None:
        """The answer; None when there is none in time, for the daemon may be starting."""
        client = self._client
        if client is None:
            return None
        self._asked += 1
        request = f"demo-{self._asked}"
        future: asyncio.Future[NodeResponse] = asyncio.get_running_loop().create_future()
        self._answers[request] = future
        try:
            document = {"id": request, "node": NODE, "name": name, "arguments": arguments, "timeout_s": limit_s}
            await client.publish(gateway_topic(GATEWAY, REQUESTS), json.dumps(document), qos=1)
            async with asyncio.timeout(limit_s):
                return await future
        except (TimeoutError, aiomqtt.MqttError):
            return None
        finally:
            del self._answers[request]

    def _take(self, topic: str, payload: bytes) -> None:
        if topic == gateway_topic(GATEWAY, RESPONSES):
            response = NodeResponse.model_validate_json(payload)
            if (waiting := self._answers.get(response.id)) is not None and not waiting.done():
                waiting.set_result(response)
            return
        traffic = NodeTraffic.model_validate_json(payload)
        if traffic.kind == "attribute_report" and isinstance(sequence := traffic.data["sequence"], int):
            self.reports.setdefault(traffic.node, []).append(sequence)


def _value(answer: NodeResponse, attribute: str) -> object:
    """Of what was read."""
    values = answer.value.get("values") if isinstance(answer.value, dict) else None
    return values.get(attribute) if isinstance(values, dict) else None


def _holds_terms(answer: NodeResponse | None) -> bool:
    terms = None if answer is None or not answer.ok else _value(answer, ATTRIBUTE)
    return isinstance(terms, dict) and TERMS.items() <= terms.items()


def _holds_binding(answer: NodeResponse | None) -> bool:
    if answer is None or not answer.ok or not isinstance(answer.value, list):
        return False
    wanted = {"cluster": CLUSTER, "target": "coordinator", "kept": True}
    return any(isinstance(bound, dict) and wanted.items() <= bound.items() for bound in answer.value)
