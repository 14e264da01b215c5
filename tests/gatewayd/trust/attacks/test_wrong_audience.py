"""Attack: a well-signed campaign that is for somebody else, or by somebody who may not order it here."""

import pytest

from gatewayd.publisher.campaigns import sign_campaign
from gatewayd.publisher.keys import Role, campaign_key
from tests.gatewayd.campaign.conftest import AUDIENCE, Gateway
from tests.gatewayd.trust.attacks.conftest import nothing_on_air, refusals
from tests.gatewayd.trust.site import Publisher

OURS = "ota/v1/gateways/gw-1/campaigns/meters"


@pytest.mark.parametrize(
    ("audience", "topic", "listed"),
    [
        pytest.param("gateway:gw-2", "ota/v1/gateways/gw-2/campaigns/meters", "gateway:*", id="another gateway's"),
        pytest.param("gateway:gw-2", OURS, "gateway:*", id="another gateway's, on our topic"),
        pytest.param("fleet:south", "ota/v1/fleets/south/campaigns/meters", "fleet:*", id="a fleet we are not in"),
        pytest.param(AUDIENCE, OURS, "gateway:gw-2", id="the key is for another gateway"),
        pytest.param(AUDIENCE, OURS, "fleet:*", id="the key is for fleets"),
        pytest.param(AUDIENCE, "ota/v1/fleets/north/campaigns/meters", "gateway:*", id="ours, on a fleet's topic"),
        pytest.param(AUDIENCE, "ota/v1/gateways/gw-1/campaigns/other", "gateway:*", id="under another id"),
    ],
)
async def test_a_campaign_that_is_not_for_us_touches_nobody(
    gateway: Gateway, publisher: Publisher, audience: str, topic: str, listed: str
) -> None:
    signer = publisher.keys.signer(Role.CAMPAIGN)
    publisher.repository.set_campaign_keys([campaign_key(signer, [listed])])
    await gateway.authority.refresh()
    await gateway.campaign(topic, sign_campaign(gateway.document(audience=audience), signer))
    assert await refusals(gateway) == [(topic.rpartition("/")[2], "wrong_audience")]
    assert gateway.authority.campaigns == {}
    publisher.repository.set_campaign_keys([campaign_key(signer, ["gateway:*"])])
    await gateway.authority.refresh()
    await nothing_on_air(gateway)


async def test_a_key_for_one_gateway_has_no_say_when_its_audience_shrinks(
    gateway: Gateway, publisher: Publisher
) -> None:
    """What it ordered while it was entitled stops, although the key itself is still listed."""
    await gateway.issue(gateway.document())
    await gateway.until(lambda: gateway.radio.told)
    publisher.repository.set_campaign_keys([campaign_key(publisher.keys.signer(Role.CAMPAIGN), ["gateway:gw-2"])])
    await gateway.authority.refresh()
    await gateway.until(lambda: gateway.radio.wants()[-1] == "hold")
    assert (await gateway.row()).code == "revoked"
