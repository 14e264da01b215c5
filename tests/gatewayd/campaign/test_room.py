"""Which payload files stay while the cache is too small for all: nothing that a node is part-way with is ever lost."""

from dataclasses import replace
from pathlib import Path

import pytest

from gatewayd.cloud.messages import Campaign, Desired, campaign_topic
from gatewayd.publisher.campaigns import sign_campaign
from gatewayd.publisher.keys import KeyFolder, Role, campaign_key, generate_all
from radios.radio import Fact, Want
from tests.gatewayd.campaign.conftest import AUDIENCE, Gateway
from tests.gatewayd.trust.site import RELEASE, Publisher, Site, spec

pytestmark = pytest.mark.timeout(60)

OTHER = "releases/meter/1.3.0.json"


@pytest.fixture
def rival(publisher: Publisher, tmp_path: Path) -> KeyFolder:
    """Another release, with an image of its own, and another key for campaigns."""
    publisher.image.write_bytes(bytes(range(255, -1, -1)) * 700)
    publisher.add(replace(spec("1.3.0", sequence=4), node_version=0x01030000))
    return generate_all(tmp_path / "rival")


def payload_path(publisher: Publisher, version: str) -> str:
    (document,) = [found for found in publisher.repository.releases() if found.version == version]
    return document.payloads[0].path


async def issue(gateway: Gateway, document: Campaign, keys: KeyFolder) -> None:
    await gateway.campaign(campaign_topic(AUDIENCE, document.id), sign_campaign(document, keys.signer(Role.CAMPAIGN)))


async def test_the_first_look_after_a_start_evicts_nothing_that_a_later_campaign_needs(
    gateway: Gateway, publisher: Publisher, site: Site, rival: KeyFolder
) -> None:
    await gateway.authority.refresh()
    other = payload_path(publisher, "1.3.0")
    site.lies[other] = 503
    await gateway.issue(
        gateway.document("first", release=OTHER, desired=Desired.PAUSED)
    )  # adopted first: looked at first
    await gateway.until(lambda: OTHER in gateway.authority.releases)
    await gateway.issue(gateway.document())
    await gateway.until_told(Want.DELIVER)
    await gateway.fact(Fact.PROGRESS, confirmed=1000)
    held = gateway.payload().sha256
    await gateway.stop()
    del site.lies[other]
    gateway.quota_bytes = 200_000  # for one of the two
    await gateway.start(refresh=False)
    await gateway.until_told(Want.DELIVER)
    assert gateway.cache.has(held)
    await gateway.until(lambda: "no room" in str(gateway.supply.status()))  # the other one waits
    assert gateway.cache.has(held)


@pytest.mark.parametrize("fate", ["revoked", "withdrawn"])
async def test_a_part_way_nodes_file_stays_while_nobody_may_say_what_it_is(
    gateway: Gateway, publisher: Publisher, rival: KeyFolder, fate: str
) -> None:
    """The campaign's key is revoked, or its release withdrawn; another campaign needs the room meanwhile."""
    ours, theirs = (campaign_key(keys.signer(Role.CAMPAIGN), ["gateway:*"]) for keys in (publisher.keys, rival))
    gateway.cache.quota_bytes = 200_000
    await gateway.issue(gateway.document())
    await gateway.until_told(Want.DELIVER)
    await gateway.fact(Fact.PROGRESS, confirmed=1000)
    held = gateway.payload()
    publisher.repository.set_campaign_keys([theirs] if fate == "revoked" else [ours, theirs])
    if fate == "withdrawn":
        publisher.repository.withdraw_release(RELEASE)
    await gateway.authority.refresh()
    await gateway.until_told(Want.HOLD)
    await issue(gateway, gateway.document("other", release=OTHER), rival)
    await gateway.until_state("waiting", "other")
    await gateway.until(lambda: "no room" in str(gateway.supply.status()))
    assert gateway.cache.has(held.sha256)
    publisher.repository.set_campaign_keys([ours, theirs])
    await gateway.authority.refresh()
    if fate == "revoked":
        await gateway.until(lambda: gateway.radio.wants() == [Want.DELIVER, Want.HOLD, Want.DELIVER])
    await gateway.issue(gateway.document(revision=2, desired=Desired.CANCELLED))
    await gateway.until_told(Want.DROP)
    await gateway.fact(Fact.DROPPED)
    await gateway.until(lambda: held.sha256 not in (gateway.supply.needed or ()))


async def test_parts_that_no_campaign_needs_are_removed_once_all_campaigns_are_known(
    gateway: Gateway, publisher: Publisher, site: Site
) -> None:
    site.lies[payload_path(publisher, "1.2.0")] = 503
    await gateway.issue(gateway.document())
    await gateway.until(lambda: RELEASE in gateway.authority.releases)
    payload = gateway.payload()
    await gateway.until(lambda: gateway.cache.digests() == {payload.sha256})
    begun, stale = (gateway.cache.folder / f"{digest}.part" for digest in (payload.sha256, "ab" * 32))
    await gateway.stop()
    stale.write_bytes(b"of a campaign that is over")
    (gateway.trust_folder / "trusted.json").unlink()
    await gateway.start(refresh=False)
    await gateway.until(lambda: gateway.supply.needed is not None)
    assert gateway.authority.view is None
    assert begun.exists(), "nobody can say yet that no campaign needs it"
    assert stale.exists()
    await gateway.authority.refresh()
    await gateway.until(lambda: not stale.exists())
    assert begun.exists()


async def test_the_part_of_a_campaign_that_ends_is_removed_when_its_fetch_has_ended(
    gateway: Gateway, publisher: Publisher, site: Site
) -> None:
    site.lies[payload_path(publisher, "1.2.0")] = 503
    await gateway.issue(gateway.document())
    await gateway.until(lambda: "payload_unavailable" in str(gateway.supply.status()))
    assert gateway.cache.digests() == {gateway.payload().sha256}
    await gateway.issue(gateway.document(revision=2, desired=Desired.CANCELLED))
    await gateway.until(lambda: gateway.cache.digests() == frozenset())
