"""Rollouts through the loop and the store: breaches, cancels, rivals, pauses between attempts, moved nodes, rollbacks."""

import time
from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest

from gatewayd.campaign.node_update import State, UnknownTransition
from gatewayd.campaign.situation import Site as Place
from gatewayd.cloud.campaign_policy import Retriable, Retry, Window
from gatewayd.cloud.messages import Campaign, Desired, Gate, Policy, Report, Rollout, Tier, utc
from gatewayd.publisher.campaigns import revise
from gatewayd.publisher.firmware import ReleaseSpec
from radios.radio import Fact, NodeObservation, Power, Want
from tests.gatewayd.campaign.conftest import METER, NEW, Gateway
from tests.gatewayd.trust.site import HARDWARE, Publisher

pytestmark = pytest.mark.timeout(60)

STRICT = Rollout(tiers=(Tier(name="all", percent=100.0),), gate=Gate(failure_ratio=0.0))


async def deliver(gateway: Gateway, document: Campaign) -> None:
    await gateway.issue(document)
    await gateway.until_told(Want.DELIVER)
    await gateway.fact(Fact.PROGRESS, confirmed=1000)


async def install(gateway: Gateway, document: Campaign) -> None:
    await deliver(gateway, document)
    size = (await gateway.update()).size
    await gateway.fact(Fact.COMPLETE, confirmed=size)
    await gateway.fact(Fact.READY, confirmed=size)
    await gateway.until_told(Want.INSTALL)
    await gateway.fact(Fact.INSTALLING)


async def a_round(gateway: Gateway) -> None:
    """One whole look at every campaign that was there before."""
    name = f"mark-{time.monotonic_ns()}"
    await gateway.issue(gateway.document(name, desired=Desired.PAUSED))
    await gateway.until_state("paused", name)


async def seen(gateway: Gateway, **what: object) -> None:
    await gateway.inventory.observe(NodeObservation(METER, time.time(), **what))  # type: ignore[arg-type]


async def reports_of(gateway: Gateway, state: str) -> list[Report]:
    return [report for report in await gateway.reports() if report.campaign == "meters" and report.state == state]


async def test_a_breach_pauses_with_its_evidence_in_the_report_and_a_retry_goes_on(gateway: Gateway) -> None:
    document = gateway.document(rollout=STRICT)
    await install(gateway, document)
    await seen(gateway, reset_cause="watchdog")
    await gateway.fact(Fact.RUNNING, version=1)
    await gateway.until_state("breached")
    (report,) = await reports_of(gateway, "breached")
    assert report.code == "gate"
    assert report.evidence is not None
    assert (report.evidence.executed, report.evidence.rolled_back, report.evidence.failure_ratio) == (1, 1, 1.0)
    (failed,) = report.evidence.nodes
    assert (failed.node, failed.state, failed.version) == (METER, "rolled_back", 1)
    await gateway.fact(Fact.DROPPED)
    told = len(gateway.radio.told)

    await gateway.issue(revise(document, time.time()))
    await gateway.until_state("breached")
    await a_round(gateway)
    assert Want.DELIVER not in [d.want for d in gateway.radio.told[told:]]

    asked = revise(document, time.time(), retry=Retry(outcomes=(Retriable.ROLLED_BACK,)))
    await gateway.issue(asked.model_copy(update={"revision": 3}))
    await gateway.until(lambda: Want.DELIVER in [d.want for d in gateway.radio.told[told:]])
    assert (await gateway.update()).attempt == 2


async def test_a_rollback_is_reported_with_the_cause_that_the_node_tells(gateway: Gateway) -> None:
    await install(gateway, gateway.document())
    await gateway.fact(Fact.RUNNING, version=1)
    assert [report.reset_cause for report in await reports_of(gateway, "rolled_back")] == [None]
    await seen(gateway, reset_cause="watchdog")
    await gateway.until_told(Want.DROP)
    await a_round(gateway)
    assert [report.reset_cause for report in await reports_of(gateway, "rolled_back")] == [None, "watchdog"]


async def test_an_installation_ordered_ahead_of_its_window_can_be_taken_back_until_it_is_told(gateway: Gateway) -> None:
    opens = (time.time() // 60 + 5) * 60
    start, end = (utc(at).strftime("%H:%M") for at in (opens, opens + 7200))
    windows = Policy(retry_after_s=1, max_attempts=1, install_windows=(Window(start=start, end=end),))
    await deliver(gateway, gateway.document(policy=windows))
    await gateway.fact(Fact.READY, confirmed=(await gateway.update()).size)
    await gateway.until_told(Want.INSTALL)
    assert gateway.radio.told[-1].install_at == utc(opens)
    late = await gateway.event(Fact.INSTALLING)
    assert await gateway.coordinator.hold("meters", True)
    await gateway.until_told(Want.HOLD)
    assert gateway.radio.told[-1].install_at is None
    with pytest.raises(UnknownTransition):
        await gateway.journal.commit([], [late])

    assert await gateway.coordinator.hold("meters", False)
    await gateway.until(lambda: gateway.radio.wants()[-1] == Want.INSTALL)
    await gateway.stop()
    await gateway.start()
    await gateway.until_told(Want.INSTALL)
    assert gateway.radio.told[-1].install_at == utc(opens), "after a restart too"
    await gateway.fact(Fact.INSTALLING)
    assert (await gateway.update()).state is State.INSTALLING


async def test_a_cancel_in_mid_transfer_ends_it_on_both_sides(gateway: Gateway) -> None:
    await deliver(gateway, gateway.document())
    await gateway.issue(gateway.document(revision=2, desired=Desired.CANCELLED))
    await gateway.until_told(Want.DROP)
    assert (await gateway.update()).state is State.CANCELLED
    await gateway.fact(Fact.PROGRESS, confirmed=2000)  # it was on its way
    await gateway.fact(Fact.DROPPED)
    update = await gateway.update()
    assert (update.state, update.confirmed, update.want) == (State.CANCELLED, 1000, "")
    await gateway.stop()
    await gateway.start()
    await a_round(gateway)
    assert gateway.radio.told == []


async def test_a_newer_campaign_takes_a_node_over_once_the_radio_has_let_it_go(
    gateway: Gateway, publisher: Publisher
) -> None:
    await deliver(gateway, gateway.document())
    newer = ReleaseSpec("meter", "1.10.0", 4, 2, NEW + 1, (HARDWARE,), "opaque")
    publisher.add(newer)
    await gateway.authority.refresh()
    await gateway.issue(gateway.document("newer", release=newer.path))
    await gateway.until_told(Want.DROP)
    old = await gateway.update()
    assert (old.state, old.detail) == (State.SUPERSEDED, "by campaign newer")
    await a_round(gateway)
    assert (await gateway.update("newer")).code == "busy"
    await gateway.fact(Fact.DROPPED)
    await gateway.until(lambda: gateway.radio.wants()[-1] is Want.DELIVER)
    assert (await gateway.update("newer")).target_version == NEW + 1


async def test_the_sequence_decides_which_campaign_is_the_newer(gateway: Gateway, publisher: Publisher) -> None:
    """1.10.0 has the higher sequence, though its nodes report a lower number."""
    newer = ReleaseSpec("meter", "1.10.0", 4, 2, 5, (HARDWARE,), "opaque")
    running = ReleaseSpec("meter", "1.0.0", 1, 1, 1, (HARDWARE,), "opaque")
    for spec in (newer, running):
        publisher.add(spec)
    await gateway.authority.refresh()
    await deliver(gateway, gateway.document())
    await gateway.issue(gateway.document("newer", release=newer.path))
    # The numbers do not rise, so of what the node runs nobody knows whether it is older, until its release is known here.
    await gateway.until_update(State.DEFERRED, "version_unordered", "newer")
    await gateway.issue(gateway.document("known", release=running.path, desired=Desired.PAUSED))
    await gateway.until_told(Want.DROP)
    assert (await gateway.update()).state is State.SUPERSEDED


async def test_the_pause_between_attempts_survives_a_restart(gateway: Gateway) -> None:
    policy = Policy(max_attempts=3, retry_after_s=1800)
    await deliver(gateway, gateway.document(policy=policy))
    await gateway.fact(Fact.FAILED, code="refused")
    await gateway.until_told(Want.DROP)
    await gateway.fact(Fact.DROPPED)
    await gateway.stop()
    gateway.times.passed_s = 1700
    await gateway.start()
    await a_round(gateway)
    assert (await gateway.update()).state is State.FAILED
    await gateway.stop()
    gateway.times.passed_s = 1900
    await gateway.start()
    await gateway.until_told(Want.DELIVER)
    assert (await gateway.update()).attempt == 2


async def test_a_node_that_other_hands_moved_is_dropped_and_reported(gateway: Gateway) -> None:
    await deliver(gateway, gateway.document())
    await seen(gateway, version=3)
    await gateway.until_told(Want.DROP)
    assert (await gateway.update()).state is State.SKIPPED
    (report,) = await reports_of(gateway, "skipped")
    assert (report.node, report.code) == (METER, "moved")
    assert report.detail == "by other hands the node went from 0x00000001 to 0x00000003"


async def test_what_a_campaign_of_ours_installed_is_no_other_hand_to_the_next(
    gateway: Gateway, publisher: Publisher
) -> None:
    middle = ReleaseSpec("meter", "1.1.0", 2, 2, 7, (HARDWARE,), "opaque", self_test_s=0)
    publisher.add(middle)
    await gateway.authority.refresh()
    await install(gateway, gateway.document(release=middle.path))
    await gateway.issue(gateway.document("next"))
    await gateway.until_state("running", "next")
    assert (await gateway.update("next")).code == "busy"
    await seen(gateway, version=7)
    await gateway.fact(Fact.RUNNING, version=7)
    await gateway.until_told(Want.DROP)
    await gateway.fact(Fact.DROPPED)
    await gateway.until(lambda: gateway.radio.wants()[-1] is Want.DELIVER)
    update = await gateway.update("next")
    assert (update.state, update.version_before) == (State.PENDING, 7)


async def test_quiet_hours_are_said_by_the_campaign_and_nobody_starts(gateway: Gateway) -> None:
    now = utc(time.time())
    hours = (Window(start=f"{now - timedelta(hours=2):%H:%M}", end=f"{now + timedelta(hours=2):%H:%M}"),)
    await gateway.issue(gateway.document(policy=Policy(quiet_hours=hours)))
    await gateway.until_state("running")
    await a_round(gateway)
    assert ((await gateway.row()).code, (await gateway.update()).state) == ("quiet_hours", State.PENDING)
    assert [report.code for report in await reports_of(gateway, "running")] == ["quiet_hours"]
    assert gateway.radio.told == []


async def test_hours_regions_and_tags_are_those_of_the_configured_site(gateway: Gateway) -> None:
    await gateway.stop()
    zone = ZoneInfo("Pacific/Kiritimati")  # fourteen hours ahead
    gateway.place = Place(region="north", tags={"site": "plant-3"}, zone=zone)
    await gateway.start()
    now = utc(time.time()).astimezone(zone)
    hours = (Window(start=f"{now - timedelta(hours=1):%H:%M}", end=f"{now + timedelta(hours=1):%H:%M}"),)
    none = Tier(name="lab", nodes=("lorawan:00000000000000ff",))
    tagged, near = Tier(name="tagged", tags={"site": "plant-3"}), Tier(name="near", regions=("north",))
    cloud = Gate(kind="cloud")
    await gateway.issue(
        gateway.document("tagged", rollout=Rollout(tiers=(none, tagged), gate=cloud), policy=Policy(quiet_hours=hours))
    )
    await gateway.until_state("running", "tagged")
    assert ((await gateway.row("tagged")).code, (await gateway.update("tagged")).tier) == ("quiet_hours", 1)
    await gateway.issue(gateway.document("near", rollout=Rollout(tiers=(none, near), gate=cloud, open_tiers=2)))
    await gateway.until_told(Want.DELIVER)
    assert (await gateway.update("near")).tier == 1


async def test_a_battery_that_sinks_in_mid_transfer_is_held_said_and_keeps_its_bytes(gateway: Gateway) -> None:
    await seen(gateway, power=Power.BATTERY, battery_percent=60.0)
    await deliver(gateway, gateway.document())
    await seen(gateway, battery_percent=20.0)
    await gateway.until_told(Want.HOLD)
    update = await gateway.update()
    assert (update.state, update.confirmed) == (State.DEFERRED, 1000)
    (report,) = await reports_of(gateway, "deferred")
    assert (report.code, report.confirmed) == ("battery_low", 1000)
    assert report.detail == "battery 20 %, at least 35 % needed (was transferring)"
    await seen(gateway, battery_percent=50.0)
    await gateway.until(lambda: gateway.radio.wants()[-1] is Want.DELIVER)
    assert (await gateway.update()).confirmed == 1000
