"""The daemon as a process: nodes can be used over MQTT, beside its campaigns, through bellows and the dongle."""

import asyncio
import json

import aiohttp
import pytest

from gatewayd.cloud.messages import gateway_topic
from gatewayd.demo.cloud_side import GATEWAY
from gatewayd.nodes.bridge_messages import REQUESTS, RESPONSES, NodeResponse
from gatewayd.publisher.broker import connected
from tests.support.rig import LAMPS, Rig

pytestmark = [pytest.mark.services, pytest.mark.asyncio(loop_scope="module")]


async def test_nodes_are_read_over_mqtt_while_a_campaign_runs_and_not_written_by_default(rig: Rig) -> None:
    await rig.issue(rig.campaign("lamps"))
    requests = {
        f"read-{n}": {"name": "read", "node": lamp.id, "arguments": {"cluster": "basic", "attributes": ["model"]}}
        for n, lamp in enumerate(LAMPS)
    }
    requests["write"] = {"name": "write", "node": LAMPS[0].id, "arguments": {"cluster": "basic", "attributes": {}}}
    said: dict[str, NodeResponse] = {}
    async with connected(rig.world.cloud_broker) as client, asyncio.timeout(30):
        await client.subscribe(gateway_topic(GATEWAY, RESPONSES), qos=1)

        async def ask() -> None:
            while len(said) < len(requests):  # the radio may still be starting: then asked anew, under another id
                for name, request in requests.items():
                    if name not in said:
                        asked = {"id": f"{name}/{asyncio.get_running_loop().time()}"[:64], **request}
                        await client.publish(gateway_topic(GATEWAY, REQUESTS), json.dumps(asked), qos=1)
                await asyncio.sleep(1)

        asking = asyncio.create_task(ask())
        async for message in client.messages:
            response = NodeResponse.model_validate_json(bytes(message.payload))
            if response.ok or response.code == "forbidden":
                said[response.id.partition("/")[0]] = response
            if len(said) == len(requests):
                break
        asking.cancel()
    assert said.pop("write").code == "forbidden"
    assert all(isinstance(r.value, dict) and r.value["failed"] == {} for r in said.values())
    await rig.until(lambda: rig.updated("lamps") == {lamp.id for lamp in LAMPS})
    async with aiohttp.ClientSession() as session, session.get(f"{rig.world.status_url}metrics") as answer:
        metrics = await answer.text()
    assert 'gatewayd_gateway_status{name="bridge.requests.outcomes.ok"}' in metrics
    assert 'gatewayd_gateway_status{name="bridge.dropped.overflow"} 0.0' in metrics
