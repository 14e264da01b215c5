"""Attack: two truths under one revision, both well signed."""

import json

import pytest
from securesystemslib.dsse import Envelope

from gatewayd.cloud.messages import Desired, campaign_topic, dump
from gatewayd.publisher.keys import Role
from gatewayd.trust.envelope import PAYLOAD_TYPE
from radios.radio import Want
from tests.gatewayd.campaign.conftest import AUDIENCE, Gateway
from tests.gatewayd.trust.attacks.conftest import nothing_on_air, refusals
from tests.gatewayd.trust.site import Publisher


@pytest.mark.parametrize("restart", [False, True])
async def test_the_first_one_stands_and_the_other_is_reported(gateway: Gateway, restart: bool) -> None:
    await gateway.issue(gateway.document(desired=Desired.PAUSED))
    await gateway.until_state("paused")
    if restart:
        await gateway.stop()
        await gateway.start(refresh=False)
    await gateway.issue(gateway.document())
    assert await refusals(gateway) == [("meters", "conflict")]
    await nothing_on_air(gateway)
    assert (await gateway.row()).state == "paused"


async def test_a_running_one_is_not_stopped_by_the_other(gateway: Gateway) -> None:
    await gateway.issue(gateway.document())
    await gateway.until_told(Want.DELIVER)
    await gateway.issue(gateway.document(desired=Desired.CANCELLED))
    assert await refusals(gateway) == [("meters", "conflict")]
    await gateway.issue(gateway.document("last", desired=Desired.PAUSED))
    await gateway.until_state("paused", "last")
    assert gateway.radio.wants() == [Want.DELIVER]


async def test_bytes_count_and_not_what_they_mean(gateway: Gateway, publisher: Publisher) -> None:
    """The same document with other white space is signed by other hands, or by a signer that lies about what it signed."""
    document = gateway.document(desired=Desired.PAUSED)
    await gateway.issue(document)
    spaced = json.dumps(json.loads(dump(document)), indent=2).encode()
    envelope = Envelope(spaced, PAYLOAD_TYPE, {})
    envelope.sign(publisher.keys.signer(Role.CAMPAIGN))
    await gateway.campaign(campaign_topic(AUDIENCE, "meters"), json.dumps(envelope.to_dict()).encode())
    assert await refusals(gateway) == [("meters", "conflict")]


@pytest.mark.parametrize("change", [{"release": "releases/meter/9.0.0.json"}, {"audience": "gateway:*"}])
async def test_a_later_revision_cannot_make_another_campaign_of_it(gateway: Gateway, change: dict[str, object]) -> None:
    await gateway.issue(gateway.document(desired=Desired.PAUSED))
    await gateway.until_state("paused")
    await gateway.issue(gateway.document(revision=2).model_copy(update=change))
    assert (await refusals(gateway))[0][1] in {"conflict", "bad_document", "wrong_audience"}
    await nothing_on_air(gateway)
    assert (await gateway.row()).revision == 1


async def test_what_was_cancelled_stays_so(gateway: Gateway) -> None:
    await gateway.issue(gateway.document(desired=Desired.CANCELLED))
    await gateway.until_state("cancelled")
    await gateway.issue(gateway.document(revision=2))
    assert await refusals(gateway) == [("meters", "conflict")]
    await nothing_on_air(gateway)
