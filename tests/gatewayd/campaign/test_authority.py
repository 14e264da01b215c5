"""What is believed: never by older metadata than those that are held. And what the log says without a repository."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog

from gatewayd.cloud.messages import Desired
from gatewayd.publisher.keys import Role, campaign_key
from radios.radio import NodeId, NodeObservation, Power, Want
from tests.gatewayd.campaign.conftest import Gateway
from tests.gatewayd.trust.site import HARDWARE, RELEASE, Gateways, Publisher, Site

pytestmark = pytest.mark.timeout(60)


@contextlib.asynccontextmanager
async def slow_disk(gateway: Gateway) -> AsyncIterator[None]:
    """Writes wait until the end of the context; reads do not."""
    go = threading.Event()
    first = asyncio.create_task(gateway.database.write(lambda db: go.wait(20)))
    await asyncio.sleep(0)  # it is in the queue before anybody else's
    try:
        yield
    finally:
        go.set()
        await first


async def test_a_release_that_is_withdrawn_while_it_is_stored_is_not_believed(
    gateway: Gateway, publisher: Publisher
) -> None:
    believed: list[bool] = []
    gateway.authority.changed = lambda: believed.append(RELEASE in gateway.authority.releases)
    before = gateway.authority.view
    async with asyncio.TaskGroup() as group:
        async with slow_disk(gateway):
            gateway.authority.require_release(group, RELEASE)
            await gateway.until(gateway.authority.storing.locked)  # verified, and on its way to the disk
            publisher.repository.withdraw_release(RELEASE)
            group.create_task(gateway.authority.refresh())
            await gateway.until(lambda: gateway.authority.view is not before)
        await gateway.until(lambda: believed)
    assert not any(believed)
    assert gateway.authority.release_refused(RELEASE)


async def test_a_campaign_whose_key_is_revoked_while_it_is_stored_is_not_believed(
    gateway: Gateway, publisher: Publisher
) -> None:
    before = gateway.authority.view
    async with slow_disk(gateway):
        issued = asyncio.create_task(gateway.issue(gateway.document()))
        await gateway.until(gateway.authority.storing.locked)
        publisher.repository.set_campaign_keys([])
        refreshed = asyncio.create_task(gateway.authority.refresh())
        await gateway.until(lambda: gateway.authority.view is not before)
    await issued
    assert gateway.authority.campaigns == {}
    assert gateway.authority.revoked == {"meters"}
    await refreshed
    await gateway.until_state("waiting")
    assert gateway.authority.campaigns == {}
    assert gateway.authority.revoked == {"meters"}
    assert gateway.radio.told == []


async def test_what_is_decided_by_older_metadata_is_not_told_to_a_radio(gateway: Gateway, publisher: Publisher) -> None:
    """The decision waits for the disk while the release is withdrawn."""
    lamp = NodeId("lorawan:0000000000000002")
    await gateway.issue(gateway.document())
    await gateway.until_told(Want.DELIVER)
    before = gateway.authority.view
    publisher.repository.withdraw_release(RELEASE)
    async with slow_disk(gateway):
        await gateway.inventory.observe(
            NodeObservation(lamp, time.time(), hardware=HARDWARE, version=1, power=Power.MAINS, joined=True)
        )
        asked = gateway.clock.asked
        await gateway.until(lambda: gateway.clock.asked > asked)  # decided, and on its way to the disk
        refreshed = asyncio.create_task(gateway.authority.refresh())
        await gateway.until(lambda: gateway.authority.view is not before)
    await refreshed
    await gateway.until_told(Want.HOLD)
    assert Want.DELIVER not in {directive.want for directive in gateway.radio.told if directive.node == lamp}


async def test_newer_metadata_stay_when_the_store_cannot_be_read_and_what_is_stored_is_judged_later(
    gateway: Gateway, publisher: Publisher
) -> None:
    await gateway.issue(gateway.document())
    await gateway.until_told(Want.DELIVER)
    publisher.repository.set_campaign_keys([])
    await gateway.database.write(lambda db: db.execute("ALTER TABLE release RENAME TO broken"))
    before = gateway.authority.view
    await gateway.authority.refresh()
    assert gateway.authority.view is not None
    assert gateway.authority.view is not before
    assert gateway.authority.problem is not None
    assert gateway.authority.problem[0] == "trust_not_stored"
    await gateway.until_told(Want.HOLD)  # the key is revoked, whatever the store says
    publisher.repository.set_campaign_keys([campaign_key(publisher.keys.signer(Role.CAMPAIGN), ["gateway:*"])])
    await gateway.authority.refresh()
    assert gateway.authority.revoked == {"meters"}
    await gateway.database.write(lambda db: db.execute("ALTER TABLE broken RENAME TO release"))
    await gateway.authority.refresh()  # nothing newer is there
    assert gateway.authority.problem is None
    await gateway.until(lambda: gateway.radio.wants() == [Want.DELIVER, Want.HOLD, Want.DELIVER])


async def test_a_site_that_is_offline_says_so_when_it_is_news_and_then_hourly(
    gateways: Gateways, tmp_path: Path, site: Site
) -> None:
    core = Gateway(gateways, tmp_path)
    await core.start()

    async def lines(passed_s: float) -> int:
        core.times.passed_s += passed_s
        with structlog.testing.capture_logs() as logs:
            await core.authority.refresh()
        return sum(line["event"] == "trust_unavailable" for line in logs)

    try:
        site.lies["metadata/timestamp.json"] = 503
        assert [await lines(0), await lines(600), await lines(600), await lines(3600)] == [1, 0, 0, 1]
        site.lies["metadata/timestamp.json"] = 500
        assert await lines(10) == 1, "another reason"
        del site.lies["metadata/timestamp.json"]
        assert await lines(10) == 0
        site.lies["metadata/timestamp.json"] = 500
        assert await lines(10) == 1, "it was there in between"
    finally:
        await core.stop()


async def test_a_revision_whose_adoption_was_interrupted_after_the_write_is_believed_when_it_comes_again(
    gateway: Gateway,
) -> None:
    await gateway.issue(gateway.document())
    await gateway.until_told(Want.DELIVER)
    second = gateway.document(revision=2, desired=Desired.CANCELLED)
    async with slow_disk(gateway):
        issued = asyncio.create_task(gateway.issue(second))
        await gateway.until(gateway.authority.storing.locked)
        issued.cancel()  # the link was cut; the store finishes all the same
    await asyncio.wait({issued})
    await gateway.issue(second)
    await gateway.until_told(Want.DROP)


async def test_a_refresh_that_was_interrupted_before_it_judged_the_store_is_made_up_for(
    gateway: Gateway, publisher: Publisher
) -> None:
    await gateway.issue(gateway.document())
    await gateway.until_told(Want.DELIVER)
    publisher.repository.set_campaign_keys([])
    await gateway.authority.refresh()
    await gateway.until_told(Want.HOLD)
    publisher.repository.set_campaign_keys([campaign_key(publisher.keys.signer(Role.CAMPAIGN), ["gateway:*"])])
    before = gateway.authority.view
    async with gateway.authority.storing:  # somebody is writing
        refreshed = asyncio.create_task(gateway.authority.refresh())
        await gateway.until(lambda: gateway.authority.view is not before)
        refreshed.cancel()  # the connection on whose behalf it asked is gone
        await asyncio.wait({refreshed})
    assert gateway.authority.campaigns == {}
    await gateway.authority.refresh()  # nothing newer is there
    await gateway.until(lambda: gateway.radio.wants() == [Want.DELIVER, Want.HOLD, Want.DELIVER])
