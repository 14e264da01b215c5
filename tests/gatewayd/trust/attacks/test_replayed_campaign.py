"""Attack: an envelope that was good once is sent again."""

import time

import pytest

from gatewayd.cloud.messages import Desired, campaign_topic, utc
from radios.radio import Want
from tests.gatewayd.campaign.conftest import AUDIENCE, Gateway
from tests.gatewayd.trust.attacks.conftest import nothing_on_air, refusals

TOPIC = campaign_topic(AUDIENCE, "meters")
DAY_S = 86400.0


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("now", [Desired.PAUSED, Desired.CANCELLED])
async def test_an_older_revision_starts_nothing_that_a_newer_one_stopped(
    gateway: Gateway, now: Desired, restart: bool
) -> None:
    running = gateway.signed(gateway.document())
    await gateway.issue(gateway.document(revision=2, desired=now))
    await gateway.until_state(now.value)
    if restart:
        await gateway.stop()
        await gateway.start(refresh=False)
    await gateway.campaign(TOPIC, running)
    assert await refusals(gateway) == [("meters", "replayed")]
    assert (await gateway.row()).revision == 2
    await nothing_on_air(gateway)


async def test_the_same_envelope_again_and_again_changes_nothing(gateway: Gateway) -> None:
    """The broker keeps it for every connection; it is no attack, and nothing is done twice."""
    envelope = gateway.signed(gateway.document())
    for _ in range(5):
        await gateway.campaign(TOPIC, envelope)
    await gateway.until_told(Want.DELIVER)
    for _ in range(5):
        await gateway.campaign(TOPIC, envelope)
    await gateway.issue(gateway.document("last", desired=Desired.PAUSED))
    await gateway.until_state("paused", "last")
    assert gateway.radio.wants() == [Want.DELIVER]
    assert await refusals(gateway) == []


async def test_a_campaign_is_not_brought_to_life_by_a_gateway_that_forgot_it_once_it_has_expired(
    gateway: Gateway,
) -> None:
    """A new store knows no revisions; the envelope's own dates bound how long it can be replayed."""
    old = gateway.document(issued=gateway.document().issued.replace(year=2026, month=1, day=1))
    old = old.model_copy(update={"expires": old.issued.replace(day=20)})
    await gateway.issue(old)
    assert await refusals(gateway) == [("meters", "expired")]
    await nothing_on_air(gateway)


async def test_an_envelope_for_later_is_not_taken_early(gateway: Gateway) -> None:
    document = gateway.document()
    later = document.model_copy(update={"issued": utc(time.time() + DAY_S)})
    await gateway.issue(later)
    assert await refusals(gateway) == [("meters", "not_yet_valid")]
    await nothing_on_air(gateway)
