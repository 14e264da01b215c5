"""Asking for nodes to be tried anew: once, and also of gateways that were away."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from gatewayd.cloud.campaign_policy import Retriable, Retry
from gatewayd.cloud.messages import Campaign, dump, parse
from gatewayd.publisher.campaigns import new_campaign, revise
from gatewayd.publisher.commands import publish
from tests.support.mosquitto import Mosquitto


def test_a_retry_is_asked_for_by_one_revision_only() -> None:
    now = time.time()
    first = new_campaign("lamps", "releases/lamp/2.0.0.json", "gateway:gw-1", now)
    wanted = Retry(outcomes=(Retriable.FAILED, Retriable.ROLLED_BACK), nodes=("zigbee:0000000000000001",))
    second = revise(first, now, retry=wanted)
    assert first.retry is None
    assert parse(Campaign, dump(second), "campaign").retry == wanted.model_copy(update={"revision": 2})
    third = revise(second, now)
    assert third.retry == second.retry  # for gateways that were away
    again = revise(third, now, retry=Retry()).retry
    assert again == Retry(revision=4)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "broker") as made:
        yield made


@pytest.mark.services
def test_the_command(tmp_path: Path, broker: Mosquitto) -> None:
    def run(*words: str, status: int = 0) -> str:
        result = CliRunner().invoke(publish, words)
        assert result.exit_code == status, result.output
        return result.output

    keys = ("--keys", str(tmp_path / "keys"))
    run("keys", "make", *keys, "--role", "campaign")
    common = ("--broker", f"mqtt://127.0.0.1:{broker.port}", *keys, "--audience", "gateway:gw-1")
    run("campaign", "start", "meters", *common, "--release", "releases/meter/1.2.0.json")
    node = "zigbee:0000000000000001"
    options = ("--outcome", "rolled_back", "--outcome", "moved", "--node", node)
    assert json.loads(run("campaign", "retry", "meters", *common, *options, "--json"))["revision"] == 2
    shown = json.loads(run("campaign", "show", "meters", *common))["retry"]
    assert shown == {"revision": 2, "outcomes": ["rolled_back", "moved"], "nodes": [node]}
    assert "retry" in run("campaign", "retry", "meters", *common, "--node", "toaster", status=2)
