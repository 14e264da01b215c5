"""The loop against a real repository: what it tells the radio, through restarts, troubles and changes of mind."""

import asyncio

import pytest

from gatewayd.campaign.node_steps import UNKNOWN_SELF_TEST_S
from gatewayd.campaign.node_update import State
from gatewayd.cloud.messages import Desired, ReportKind, Rollout, Tier, campaign_topic
from gatewayd.errors import Unavailable
from gatewayd.nodes.inventory import Inventory
from gatewayd.publisher.campaigns import sign_campaign
from gatewayd.publisher.firmware import ReleaseSpec
from gatewayd.publisher.keys import Role, campaign_key
from radios.radio import Fact, NodeObservation, Power, Want
from tests.gatewayd.campaign.conftest import AUDIENCE, METER, NEW, Gateway
from tests.gatewayd.trust.site import HARDWARE, RELEASE, Publisher, Site, spec

pytestmark = pytest.mark.timeout(60)


async def install(gateway: Gateway, **changes: object) -> None:
    """As far as INSTALLING."""
    await gateway.issue(gateway.document(**changes))
    await gateway.until_told(Want.DELIVER)
    size = (await gateway.update()).size
    await gateway.fact(Fact.PROGRESS, confirmed=1000)
    await gateway.fact(Fact.COMPLETE, confirmed=size)
    await gateway.fact(Fact.READY, confirmed=size)
    await gateway.until_told(Want.INSTALL)
    await gateway.fact(Fact.INSTALLING)


async def test_an_installation_is_told_again_after_a_restart_of_a_cancelled_campaign(gateway: Gateway) -> None:
    await install(gateway)
    await gateway.issue(gateway.document(revision=2, desired=Desired.CANCELLED))
    await gateway.until_state("cancelled")
    await gateway.stop()
    await gateway.start(refresh=False)
    await gateway.until_told(Want.INSTALL)
    assert (await gateway.update()).state is State.INSTALLING


async def test_an_installation_is_told_again_when_its_release_was_withdrawn(
    gateway: Gateway, publisher: Publisher
) -> None:
    await install(gateway)
    publisher.repository.withdraw_release(RELEASE)
    await gateway.authority.refresh()
    await gateway.stop()
    await gateway.start()
    await gateway.until_told(Want.INSTALL)
    assert Want.DELIVER not in gateway.radio.wants()


async def test_a_completed_campaign_stays_so_and_is_silent_after_a_restart(gateway: Gateway) -> None:
    await install(gateway)
    await gateway.fact(Fact.FAILED, code="invalid_image")
    await gateway.until_told(Want.DROP)
    await gateway.fact(Fact.DROPPED)
    await gateway.until_state("completed")
    told = len(await gateway.reports())
    await gateway.stop()
    await gateway.start()
    await gateway.issue(gateway.document("other", desired=Desired.PAUSED))
    await gateway.until_state("paused", "other")  # it comes after the first in every round
    assert [r for r in (await gateway.reports())[told:] if r.campaign == "meters"] == []
    assert (await gateway.row()).state == "completed"


async def test_a_cancel_gets_through_while_the_release_of_another_campaign_hangs(
    gateway: Gateway, publisher: Publisher, site: Site
) -> None:
    await gateway.issue(gateway.document())
    await gateway.until_told(Want.DELIVER)
    publisher.add(spec("1.3.0", sequence=4))
    await gateway.authority.refresh()
    later = next(path for path in (publisher.repository.path / "targets" / "releases").rglob("*1.3.0.json"))
    site.lies[str(later.relative_to(publisher.repository.path))] = "hang"
    await gateway.issue(gateway.document("other", release="releases/meter/1.3.0.json"))
    await gateway.until_state("waiting", "other")
    assert (await gateway.row("other")).code in ("", "release_fetching")
    await gateway.issue(gateway.document(revision=2, desired=Desired.CANCELLED))
    await gateway.until_told(Want.DROP)


async def test_the_operators_hold_survives_a_restart_and_a_new_revision(gateway: Gateway) -> None:
    await gateway.issue(gateway.document())
    await gateway.until_told(Want.DELIVER)
    assert await gateway.coordinator.hold("meters", True)
    await gateway.until_told(Want.HOLD)
    await gateway.stop()
    await gateway.start()
    await gateway.until_told(Want.HOLD)
    await gateway.issue(gateway.document(revision=2))
    await gateway.until_state("held")
    assert (await gateway.row()).revision == 2
    assert gateway.radio.wants() == [Want.HOLD]
    assert await gateway.coordinator.hold("meters", False)
    await gateway.until_told(Want.DELIVER)
    assert not await gateway.coordinator.hold("unknown", True)


async def test_a_topic_without_end_is_refused_as_any_other(gateway: Gateway) -> None:
    await gateway.campaign("ota/v1/gateways/gw-1/campaigns/" + "x" * 60_000, b"{")
    (told,) = await gateway.reports()
    assert (told.state, told.code, told.campaign) == ("refused", "bad_document", "x" * 64)


async def test_a_revoked_campaign_is_held_and_goes_on_when_its_key_is_listed_again(
    gateway: Gateway, publisher: Publisher
) -> None:
    await gateway.issue(gateway.document())
    await gateway.until_told(Want.DELIVER)
    publisher.repository.set_campaign_keys([])
    await gateway.authority.refresh()
    await gateway.until_told(Want.HOLD)
    assert (await gateway.row()).code == "revoked"
    publisher.repository.set_campaign_keys([campaign_key(publisher.keys.signer(Role.CAMPAIGN), ["gateway:*"])])
    await gateway.authority.refresh()
    await gateway.until_state("running")
    await gateway.until(lambda: gateway.radio.wants() == [Want.DELIVER, Want.HOLD, Want.DELIVER])


@pytest.mark.parametrize("how", ["completed", "cancelled", "breached"])
async def test_what_is_over_stays_so_when_its_key_is_revoked(gateway: Gateway, publisher: Publisher, how: str) -> None:
    """Keys change in the course of time: what was completed long ago does not wait for anything then."""
    strict = {"rollout": Rollout(tiers=(Tier(name="all", percent=100.0),))}
    await install(gateway, **(strict if how == "breached" else {}))
    await gateway.fact(Fact.FAILED, code="invalid_image")
    if how == "cancelled":
        await gateway.issue(gateway.document(revision=2, desired=Desired.CANCELLED))
    await gateway.until_state(how)
    told = len(await gateway.reports())
    publisher.repository.set_campaign_keys([])
    await gateway.authority.refresh()
    assert "meters" in gateway.authority.revoked
    rounds = gateway.coordinator.rounds
    await gateway.until(lambda: gateway.coordinator.rounds > rounds + 1)
    assert (await gateway.row()).state == how
    assert [r for r in (await gateway.reports())[told:] if r.kind is ReportKind.CAMPAIGN] == []


async def test_a_campaign_by_a_key_that_is_listed_later_is_adopted_without_coming_again(
    gateway: Gateway, publisher: Publisher
) -> None:
    publisher.repository.set_campaign_keys([])
    await gateway.authority.refresh()
    for _ in range(3):
        await gateway.issue(gateway.document(issued=gateway.document().issued))
    refused = [r for r in await gateway.reports() if r.kind is ReportKind.CAMPAIGN]
    assert {(r.state, r.code) for r in refused} == {("refused", "unknown_key")}
    publisher.repository.set_campaign_keys([campaign_key(publisher.keys.signer(Role.CAMPAIGN), ["gateway:*"])])
    await gateway.authority.refresh()
    await gateway.until_told(Want.DELIVER)


async def test_campaigns_go_on_while_too_many_others_wait_for_a_date(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    await gateway.issue(gateway.document())
    await gateway.until_told(Want.DELIVER)

    async def full() -> bool:
        raise Unavailable("64 campaigns wait for a date that can be believed")

    monkeypatch.setattr(gateway.intake, "retry", full)
    assert await gateway.coordinator.hold("meters", True)
    await gateway.until_told(Want.HOLD)


async def test_a_hold_gets_through_while_the_key_of_an_envelope_that_waited_is_looked_for(
    gateway: Gateway, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    await gateway.issue(gateway.document())
    await gateway.until_told(Want.DELIVER)
    asked = asyncio.Event()

    async def hang() -> None:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(gateway.authority, "refresh", hang)
    stranger = sign_campaign(gateway.document("other"), publisher.keys.signer(Role.RELEASES))
    with monkeypatch.context() as no_clock:
        no_clock.setattr(gateway.intake, "_can_judge", lambda: False)
        await gateway.campaign(campaign_topic(AUDIENCE, "other"), stranger)
    await asyncio.wait_for(asked.wait(), 20)
    assert await gateway.coordinator.hold("meters", True)
    await gateway.until_told(Want.HOLD)


async def test_the_same_refused_bytes_are_reported_once(gateway: Gateway) -> None:
    for _ in range(3):
        await gateway.campaign("ota/v1/gateways/gw-1/campaigns/bad", b"{")
    assert [(r.state, r.code) for r in await gateway.reports()] == [("refused", "bad_document")]


async def test_campaigns_that_were_stored_are_known_again_once_there_is_metadata(gateway: Gateway) -> None:
    await gateway.issue(gateway.document())
    await gateway.until_told(Want.DELIVER)
    await gateway.stop()
    (gateway.trust_folder / "trusted.json").unlink()  # lost: nothing can be verified at the start
    await gateway.start(refresh=False)
    assert gateway.authority.view is None
    assert gateway.authority.campaigns == {}
    await gateway.authority.refresh()
    await gateway.until_told(Want.DELIVER)
    assert all(r.code != "revoked" for r in await gateway.reports())


async def test_trust_that_cannot_be_stored_is_a_problem_and_not_the_end(gateway: Gateway) -> None:
    await gateway.issue(gateway.document())
    await gateway.until_told(Want.DELIVER)
    before = gateway.authority.view
    folder = gateway.trust_folder
    folder.rename(folder.with_name("aside"))
    folder.write_text("a disk that cannot be written")
    await gateway.authority.refresh()
    assert gateway.authority.problem is not None
    assert gateway.authority.problem[0] == "trust_not_stored"
    assert gateway.authority.view is before


async def test_metadata_that_a_new_release_brings_along_judge_everything(
    gateway: Gateway, publisher: Publisher
) -> None:
    """Found in an end-to-end test: a release asked for between two checks was believed by a revoked manufacturer's key."""
    await gateway.issue(gateway.document())
    await gateway.until_told(Want.DELIVER)
    publisher.add(spec("1.3.0", sequence=4))
    keys = publisher.repository.manufacturers().keys
    publisher.repository.set_manufacturers([key.model_copy(update={"revoked": True}) for key in keys])
    gateway.release = "releases/meter/1.3.0.json"  # which the metadata held do not list yet: no regular check is near
    await gateway.issue(gateway.document("newer"))
    async with asyncio.timeout(20):
        while (await gateway.row("newer")).code in ("", "release_fetching", "payload_fetching"):
            await asyncio.sleep(0.02)
    assert (await gateway.row("newer")).code == "key_revoked"
    assert {order.transfer.split(".")[0] for order in gateway.radio.orders} == {"meters"}
    await gateway.until_told(Want.HOLD)  # and what ran by that key stops
    assert (await gateway.row("meters")).code == "key_revoked"


async def test_the_floor_rises_with_what_was_delivered_and_proven(gateway: Gateway, publisher: Publisher) -> None:
    publisher.repository.withdraw_release(RELEASE)
    quick = spec("1.2.1", sequence=5)
    publisher.add(type(quick)(**{**{f: getattr(quick, f) for f in quick.__dataclass_fields__}, "self_test_s": 0}))
    await gateway.authority.refresh()
    gateway.release = "releases/meter/1.2.1.json"
    await install(gateway)
    await gateway.fact(Fact.RUNNING, version=NEW)
    await gateway.until_told(Want.DROP)
    assert (await gateway.update()).state is State.UPDATED
    known = gateway.inventory.get(METER)
    assert known is not None
    assert known.security_version == 2


async def test_a_withdrawn_release_stops_what_runs(gateway: Gateway, publisher: Publisher) -> None:
    await gateway.issue(gateway.document())
    await gateway.until_told(Want.DELIVER)
    await gateway.fact(Fact.PROGRESS, confirmed=1000)
    publisher.repository.withdraw_release(RELEASE)
    await gateway.authority.refresh()
    await gateway.until_told(Want.HOLD)
    assert gateway.radio.wants() == [Want.DELIVER, Want.HOLD]
    assert (await gateway.row()).code == "unknown_release"


async def test_a_fleet_floor_that_rises_stops_what_runs(gateway: Gateway, publisher: Publisher) -> None:
    await gateway.issue(gateway.document())
    await gateway.until_told(Want.DELIVER)
    size = (await gateway.update()).size
    await gateway.fact(Fact.PROGRESS, confirmed=1000)
    publisher.repository.set_floor(HARDWARE, 3)
    await gateway.authority.refresh()
    await gateway.until_told(Want.DROP)
    await gateway.fact(Fact.READY, confirmed=size)  # which was on its way
    assert ((await gateway.update()).state, (await gateway.update()).code) == (State.SKIPPED, "below_floor")
    assert Want.INSTALL not in gateway.radio.wants()


@pytest.mark.parametrize("restart", [False, True])
async def test_a_release_withdrawn_while_its_nodes_confirm_raises_their_floor(
    gateway: Gateway, publisher: Publisher, restart: bool
) -> None:
    await install(gateway)
    await gateway.fact(Fact.RUNNING, version=NEW)
    publisher.repository.withdraw_release(RELEASE)
    await gateway.authority.refresh()
    if restart:
        gateway.node_version = NEW
        await gateway.stop()
        await gateway.start(refresh=False)
    gateway.times.passed_s += UNKNOWN_SELF_TEST_S + 1
    gateway.coordinator.wake()
    await gateway.until_told(Want.DROP)
    assert (await gateway.update()).state is State.UPDATED
    known = gateway.inventory.get(METER)
    assert known is not None
    assert known.security_version == 2
    again = await Inventory.load(gateway.database)
    assert [node.security_version for node in again.all()] == [2]


async def test_a_withdrawn_release_still_orders_versions(gateway: Gateway, publisher: Publisher) -> None:
    """Its successor's number is the smaller one: only the sequences say which is newer."""
    await install(gateway)
    await gateway.fact(Fact.RUNNING, version=NEW)
    await seen(gateway, NEW)
    await gateway.issue(gateway.document(revision=2, desired=Desired.CANCELLED))
    publisher.repository.withdraw_release(RELEASE)
    publisher.add(ReleaseSpec("meter", "1.2.1", 5, 2, NEW - 1, (HARDWARE,), "opaque"))
    await gateway.authority.refresh()
    gateway.times.passed_s += UNKNOWN_SELF_TEST_S + 1
    await gateway.until_told(Want.DROP)
    await gateway.fact(Fact.DROPPED)
    gateway.times.passed_s = 0.0
    await gateway.issue(gateway.document("mended", release="releases/meter/1.2.1.json"))
    await gateway.until(lambda: gateway.radio.told[-1].transfer.startswith("mended."))
    assert gateway.radio.told[-1].want is Want.DELIVER


async def seen(gateway: Gateway, version: int) -> None:
    at = gateway.clock.now()
    await gateway.inventory.observe(
        NodeObservation(METER, at, hardware=HARDWARE, version=version, power=Power.MAINS, joined=True)
    )
