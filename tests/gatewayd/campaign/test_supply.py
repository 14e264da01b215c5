"""Payloads are ready only when the newest metadata says so, and no trouble with one ends the daemon."""

import asyncio
import time
from dataclasses import replace
from typing import cast

import pytest

from gatewayd.cloud.messages import Desired, Gate, Payload, ReportKind, Rollout, Tier
from gatewayd.payload.fetch import Fetcher, Progress
from gatewayd.trust.release import VerifiedRelease
from gatewayd.trust.seal import SEAL
from radios.errors import ImageError
from radios.radio import Fact, Json, Want
from tests.gatewayd.campaign.conftest import Gateway
from tests.gatewayd.trust.site import Publisher, Site, spec

pytestmark = pytest.mark.timeout(60)


class HeldFetcher:
    """Lets a fetch through when it is told to; fails first with what it is given."""

    def __init__(self, inner: Fetcher) -> None:
        self.inner = inner
        self.go = asyncio.Event()
        self.asked = 0
        self.failures: list[Exception] = []

    async def fetch(self, payload: Payload, progress: Progress | None = None) -> None:
        self.asked += 1
        if self.failures:
            raise self.failures.pop()
        await self.go.wait()
        await self.inner.fetch(payload, progress)


def held(gateway: Gateway) -> HeldFetcher:
    made = HeldFetcher(gateway.supply.fetcher)
    gateway.supply.fetcher = cast("Fetcher", made)
    return made


async def test_a_key_that_is_revoked_while_its_payload_is_fetched_makes_nothing_ready(
    gateway: Gateway, publisher: Publisher
) -> None:
    fetcher = held(gateway)
    await gateway.issue(gateway.document())
    await gateway.until(lambda: fetcher.asked)
    entry = publisher.manufacturer.manufacturer("ACME", ["lorawan:00000007"], time.time() - 10, time.time() + 1000)
    publisher.repository.set_manufacturers([entry.model_copy(update={"revoked": True})])
    await gateway.authority.refresh()
    fetcher.go.set()
    await gateway.until(lambda: gateway.supply.forbidden(*gateway.supplied()))
    assert Want.DELIVER not in gateway.radio.wants()
    assert fetcher.asked == 2


def revoke(publisher: Publisher, *, revoked: bool = True) -> None:
    keys = publisher.repository.manufacturers().keys
    publisher.repository.set_manufacturers([key.model_copy(update={"revoked": revoked}) for key in keys])


async def test_a_revoked_key_counts_for_nothing_from_the_moment_it_is_known(
    gateway: Gateway, publisher: Publisher
) -> None:
    """What runs is held without waiting for the file to be read again, and goes on when the key is listed again."""
    await gateway.issue(gateway.document())
    await gateway.until_told(Want.DELIVER)
    await gateway.fact(Fact.PROGRESS, confirmed=1000)
    reports = len(await gateway.reports())
    fetcher = held(gateway)  # from here on nothing can be fetched, nor checked again
    revoke(publisher)
    await gateway.authority.refresh()
    assert gateway.supply.blocked(*gateway.supplied()) == (
        "key_revoked",
        gateway.supply.blocked(*gateway.supplied())[1],
    )
    await gateway.until_told(Want.HOLD)
    await gateway.until_state("waiting")
    assert (await gateway.row()).code == "key_revoked"
    revoke(publisher, revoked=False)
    await gateway.authority.refresh()
    await gateway.until(lambda: gateway.radio.wants() == [Want.DELIVER, Want.HOLD, Want.DELIVER])
    assert fetcher.asked == 0
    assert {r.kind for r in (await gateway.reports())[reports:]} == {ReportKind.CAMPAIGN}, "no node is told of"


async def test_metadata_that_change_nothing_for_a_payload_cost_nothing(gateway: Gateway, publisher: Publisher) -> None:
    await gateway.issue(gateway.document())
    await gateway.until_told(Want.DELIVER)
    await gateway.until_state("running")
    reports = len(await gateway.reports())
    fetcher = held(gateway)
    publisher.add(spec("1.3.0", sequence=4))  # a new targets, snapshot and timestamp
    await gateway.authority.refresh()
    assert gateway.supply.blocked(*gateway.supplied()) is None
    await gateway.issue(gateway.document("other", desired=Desired.PAUSED))
    await gateway.until_state("paused", "other")  # so that a round has passed
    assert gateway.radio.wants() == [Want.DELIVER]
    assert fetcher.asked == 0
    assert {r.campaign for r in (await gateway.reports())[reports:]} == {"other"}


async def test_a_judgement_by_older_metadata_is_none_even_within_one_turn_of_the_loop(
    gateway: Gateway, publisher: Publisher
) -> None:
    """Asked for by the old keys, judged after the new ones were taken, by a task that had not begun."""
    await gateway.issue(gateway.document(desired=Desired.PAUSED))
    await gateway.until(lambda: gateway.release in gateway.authority.releases)
    await gateway.until(lambda: gateway.supply.blocked(*gateway.supplied()) is None)
    release, payload = gateway.supplied()
    other = VerifiedRelease("releases/meter/9.9.9.json", release.document, b"", 0.0, release.expires, SEAL)
    revoke(publisher)
    newer = await gateway.trust.refresh()
    async with asyncio.TaskGroup() as group:
        gateway.supply.require(group, other, payload)
        gateway.authority.view = newer
        gateway.supply.judge_again()
    why = gateway.supply.blocked(other, payload)
    assert why is not None
    assert why[0] == "key_revoked"


async def test_a_release_that_says_something_else_of_its_payload_is_checked_again_and_holds_meanwhile(
    gateway: Gateway, publisher: Publisher
) -> None:
    await gateway.issue(gateway.document())
    await gateway.until_told(Want.DELIVER)
    fetcher = held(gateway)
    publisher.repository.withdraw_release(gateway.release)
    await gateway.authority.refresh()
    await gateway.until_told(Want.HOLD)
    publisher.add(replace(spec(), self_test_s=5))  # the same path and the same bytes
    await gateway.authority.refresh()
    gateway.authority.soon()
    await gateway.until(lambda: fetcher.asked)
    assert gateway.supply.doubted(*gateway.supplied())
    assert gateway.supply.blocked(*gateway.supplied()) is not None
    assert gateway.radio.wants() == [Want.DELIVER, Want.HOLD]
    fetcher.go.set()
    await gateway.until(lambda: gateway.radio.wants() == [Want.DELIVER, Want.HOLD, Want.DELIVER])


async def test_a_payload_that_cannot_be_read_is_tried_again_and_ends_nothing(gateway: Gateway) -> None:
    fetcher = held(gateway)
    fetcher.failures.append(ImageError("evicted meanwhile"))
    await gateway.issue(gateway.document())
    await gateway.until(lambda: fetcher.asked)
    await gateway.until(
        lambda: gateway.supply.blocked(*gateway.supplied()) == ("payload_unreadable", "evicted meanwhile")
    )
    assert await gateway.coordinator.hold("meters", True)  # the loop still turns
    await gateway.until_state("held")


async def test_what_was_checked_for_one_release_says_nothing_of_another(gateway: Gateway) -> None:
    """The same bytes under a release that says something else of them."""
    await gateway.issue(gateway.document())
    await gateway.until_told(Want.DELIVER)
    release, payload = gateway.supplied()
    document = release.document.model_copy(update={"version": "9.9.9", "container": "mcuboot"})
    path = "releases/meter/9.9.9.json"
    other = VerifiedRelease(path, document, b"", release.verified_at, release.expires, SEAL)
    assert gateway.supply.blocked(other, payload) is not None
    async with asyncio.TaskGroup() as group:
        gateway.supply.require(group, other, payload)
    assert gateway.supply.forbidden(other, payload)
    assert gateway.supply.blocked(release, payload) is None


async def test_rot_that_a_read_meets_is_mended_by_fetching_the_bad_chunk_only(gateway: Gateway, site: Site) -> None:
    await gateway.issue(gateway.document())
    await gateway.until_told(Want.DELIVER)
    payload, cache = gateway.payload(), gateway.cache
    file = cache.path(payload.sha256)
    good = file.read_bytes()
    with file.open("r+b") as opened:
        opened.seek(payload.chunk_size + 9)
        opened.write(bytes([good[payload.chunk_size + 9] ^ 1]))
    asked = len(site.asked)
    with pytest.raises(ImageError, match="chunk 1 has rotted"):
        cache.read(payload.sha256, payload.chunk_size, 50)
    assert gateway.supply.blocked(*gateway.supplied()) is not None  # not a byte of it meanwhile
    await gateway.until(lambda: gateway.supply.blocked(*gateway.supplied()) is None)
    assert file.read_bytes() == good
    ranges = [site.ranges[at] for at in range(asked, len(site.asked)) if payload.sha256 in site.asked[at]]
    assert ranges == [f"bytes={payload.chunk_size}-{2 * payload.chunk_size - 1}"]
    assert cache.read(payload.sha256, payload.chunk_size, 50) == good[payload.chunk_size : payload.chunk_size + 50]


async def test_what_is_fetched_and_what_is_wrong_is_shown(gateway: Gateway) -> None:
    fetcher = held(gateway)
    fetcher.failures.append(ImageError("evicted meanwhile"))
    await gateway.issue(gateway.document())
    await gateway.until(gateway.supply.status)
    payload = gateway.payload()
    assert gateway.supply.status() == {
        payload.sha256: {"release": gateway.release, "problem": "payload_unreadable", "detail": "evicted meanwhile"}
    }
    seen: list[Json] = []
    gateway.supply.changed = lambda: None

    class Watched(HeldFetcher):
        async def fetch(self, payload: Payload, progress: Progress | None = None) -> None:
            def watch(have: int, size: int) -> None:
                assert progress is not None
                progress(have, size)
                seen.append(gateway.supply.status())

            await self.inner.fetch(payload, watch)

    gateway.supply.fetcher = cast("Fetcher", Watched(fetcher.inner))
    gateway.supply.judge_again()
    release, _ = gateway.supplied()
    other = VerifiedRelease(
        "releases/meter/0.0.1.json", release.document, b"", release.verified_at, release.expires, SEAL
    )
    async with asyncio.TaskGroup() as group:
        gateway.supply.require(group, other, payload)
    assert cast("dict[str, Json]", seen[-2])[payload.sha256] == {"held": 131072, "size": payload.size}
    assert gateway.supply.progress == {}


async def test_what_a_later_tier_will_need_is_here_before_it_opens(gateway: Gateway) -> None:
    """Paused, and in a tier that the cloud has not opened: the payload is fetched all the same, and nobody is touched."""
    tiers = (Tier(name="canary", nodes=("lorawan:00000000000000ff",)), Tier(name="all", percent=100.0))
    rollout = Rollout(tiers=tiers, gate=Gate(kind="cloud"), open_tiers=1)
    await gateway.issue(gateway.document(rollout=rollout, desired=Desired.PAUSED))
    await gateway.until(lambda: gateway.release in gateway.authority.releases)
    await gateway.until(lambda: gateway.supply.blocked(*gateway.supplied()) is None)
    assert gateway.radio.told == []
    await gateway.issue(gateway.document(rollout=rollout.model_copy(update={"open_tiers": 2}), revision=2))
    await gateway.until_told(Want.DELIVER)
