"""The schemas of asyncapi.yaml, as messages.py makes them. As a program: write them into the file."""

from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic.json_schema import models_json_schema

from gatewayd.cloud import messages
from gatewayd.nodes import bridge_messages

FILE = Path(str(resources.files("gatewayd.cloud") / "asyncapi.yaml"))
DOCUMENTS = (
    messages.Campaign,
    messages.Command,
    messages.Acks,
    messages.GatewayState,
    messages.InventoryPage,
    messages.ReportBatch,
    messages.CampaignSummary,
    bridge_messages.NodeTraffic,
    bridge_messages.GreenPowerTraffic,
    bridge_messages.NodeRequest,
    bridge_messages.NodeResponse,
)
ENVELOPE = {
    "title": "Envelope",
    "description": "DSSE: the signatures are over the payload type and the decoded payload.",
    "type": "object",
    "required": ["payload", "payloadType", "signatures"],
    "properties": {
        "payload": {"type": "string", "contentEncoding": "base64"},
        "payloadType": {"type": "string"},
        "signatures": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["keyid", "sig"],
                "properties": {"keyid": {"type": "string"}, "sig": {"type": "string", "contentEncoding": "base64"}},
            },
        },
    },
}


def schemas() -> dict[str, Any]:
    _, made = models_json_schema(
        [(document, "validation") for document in DOCUMENTS], ref_template="#/components/schemas/{model}"
    )
    return {"Envelope": ENVELOPE, **dict(sorted(made["$defs"].items()))}


def main() -> None:
    text = FILE.read_text()
    marker = "  schemas:\n"
    head = text[: text.index(marker)] if marker in text else text
    made = yaml.safe_dump({"schemas": schemas()}, sort_keys=False, width=130)
    FILE.write_text(head + "".join(f"  {line}\n" for line in made.splitlines()))


if __name__ == "__main__":
    main()
