"""asyncapi.yaml says what messages.py enforces."""

import re
from collections.abc import Iterator

import yaml

from gatewayd.cloud import messages
from gatewayd.nodes import bridge_messages
from gatewayd.trust.envelope import COMMAND_PAYLOAD_TYPE, PAYLOAD_TYPE
from tests.gatewayd.cloud.asyncapi_schemas import FILE, schemas

DESCRIPTION = yaml.safe_load(FILE.read_text())


def test_the_schemas_are_those_of_the_documents() -> None:
    assert DESCRIPTION["components"]["schemas"] == schemas(), "run python -m tests.gatewayd.cloud.asyncapi_schemas"


def references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "$ref":
                yield inner
            else:
                yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_every_reference_leads_somewhere() -> None:
    for reference in references(DESCRIPTION):
        place = DESCRIPTION
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]


def test_the_payload_types_are_those_that_are_verified() -> None:
    said = {name: DESCRIPTION["components"]["messages"][name]["summary"] for name in ("envelope", "command")}
    assert f"`{PAYLOAD_TYPE}`" in said["envelope"]
    assert f"`{COMMAND_PAYLOAD_TYPE}`" in said["command"]


def test_the_topics_are_those_of_the_code() -> None:
    described = {re.sub(r"\{\w+\}", "x", channel["address"]) for channel in DESCRIPTION["channels"].values()}
    leaves = ("commands", "acks", "state", "inventory/x", "reports", "summary/x", "nodes/requests", "nodes/responses")
    used = {messages.gateway_topic("x", leaf) for leaf in leaves}
    used |= {messages.campaign_topic("gateway:x", "x"), messages.campaign_topic("fleet:x", "x")}
    used.add(bridge_messages.traffic_topic("x", "x", "x"))
    used.add(bridge_messages.green_power_topic("x", "x"))
    assert described == used
