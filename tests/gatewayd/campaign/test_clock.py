"""A gateway whose clock is wrong, leaps, comes late, or whose trust grows old: what goes on, what waits, what comes back."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog

from gatewayd.campaign import rows
from gatewayd.campaign.node_update import State
from gatewayd.cloud.messages import Desired, Gate, Policy, Report, Rollout, StageBy, Tier
from gatewayd.publisher.firmware import ReleaseSpec
from gatewayd.publisher.repository import Repository
from radios.radio import Fact, NodeId, NodeObservation, Power, Want
from tests.gatewayd.campaign.conftest import METER, NEW, Gateway
from tests.gatewayd.trust.site import HARDWARE, Gateways, Publisher, Site

pytestmark = pytest.mark.timeout(60)

DAY_S = 86400.0
YEAR_S = 365 * DAY_S
SELF_TEST_S = 60.0
SECOND = NodeId("lorawan:0000000000000002")


@pytest.fixture
async def without_rtc(gateways: Gateways, tmp_path: Path) -> AsyncIterator[Gateway]:
    """Not started; its clock says 1970 and nobody stands behind it."""
    made = Gateway(gateways, tmp_path / "gateway")
    into_1970(made)
    yield made
    if made.running:
        await made.stop()


def into_1970(gateway: Gateway) -> None:
    gateway.times.ahead_s, gateway.times.synchronised = 60.0 - time.time() - gateway.times.passed_s, False


def time_comes(gateway: Gateway) -> None:
    gateway.times.ahead_s, gateway.times.synchronised = 0.0, True


async def leap(gateway: Gateway) -> None:
    """To 2036, synchronised all the same, and believed long enough to be stored."""
    gateway.times.ahead_s = datetime(2036, 2, 7, tzinfo=UTC).timestamp() - time.time()
    await gateway.radio_time.follow()
    assert await gateway.wall.store(gateway.database)
    gateway.coordinator.wake()


async def leap_back(gateway: Gateway) -> None:
    gateway.times.ahead_s = 0.0
    await gateway.radio_time.follow()
    gateway.coordinator.wake()


async def a_round(gateway: Gateway) -> None:
    """Every campaign is looked at, from the beginning to the end, at least once."""
    for _ in range(2):  # one may be half through
        rounds = gateway.coordinator.rounds
        gateway.coordinator.wake()
        await gateway.until(lambda rounds=rounds: gateway.coordinator.rounds > rounds)


async def deliver(gateway: Gateway, **changes: object) -> None:
    await gateway.issue(gateway.document(**changes))  # type: ignore[arg-type]
    await gateway.until_told(Want.DELIVER)
    await gateway.fact(Fact.PROGRESS, confirmed=1000)


async def install(gateway: Gateway, **changes: object) -> None:
    await deliver(gateway, **changes)
    await ready(gateway)
    await gateway.fact(Fact.INSTALLING)


async def ready(gateway: Gateway) -> None:
    size = (await gateway.update()).size
    await gateway.fact(Fact.COMPLETE, confirmed=size)
    await gateway.fact(Fact.READY, confirmed=size)
    await gateway.until_told(Want.INSTALL)


async def reported(gateway: Gateway) -> list[Report]:
    return [report for report in await gateway.reports() if report.campaign == "meters"]


def floor(gateway: Gateway) -> int:
    known = gateway.inventory.get(METER)
    assert known is not None
    return known.security_version


# -- no battery-backed clock ---------------------------------------------------------------------------------------------


async def test_before_time_has_come_nothing_new_is_adopted_and_nothing_is_lost(without_rtc: Gateway) -> None:
    gateway = without_rtc
    await gateway.start()
    await gateway.issue(gateway.document())
    await a_round(gateway)
    assert await gateway.database.read(rows.campaigns) == []
    time_comes(gateway)
    await gateway.radio_time.follow()
    await gateway.until_told(Want.DELIVER)


async def test_before_time_has_come_what_was_verified_goes_on_and_nothing_else_starts(gateway: Gateway) -> None:
    """Also after a restart, when every payload is checked again."""
    await deliver(gateway, rollout=Rollout(tiers=(Tier(name="lab", nodes=(METER,)), Tier(name="all", percent=100.0)),
                                           gate=Gate(failure_ratio=1.0), open_tiers=1))  # fmt: skip
    await gateway.wall.store(gateway.database)
    await gateway.stop()
    into_1970(gateway)
    gateway.times.boot = "boot-2"
    await gateway.start(refresh=False)
    await gateway.until_told(Want.DELIVER)
    assert (await gateway.row()).code == "clock_untrusted"
    await ready(gateway)


async def confirm_in_1970(gateway: Gateway) -> None:
    """A node was told to install before the power cut, and confirms while the gateway has no time."""
    assert await gateway.wall.store(gateway.database)
    await gateway.stop()
    into_1970(gateway)
    gateway.times.boot = "boot-2"
    await gateway.start(refresh=False)
    await gateway.fact(Fact.RUNNING, version=NEW)
    gateway.node_version = NEW
    await a_round(gateway)
    assert (await gateway.update()).state is State.CONFIRMING


async def proven_in_its_time(gateway: Gateway) -> None:
    await a_round(gateway)
    assert (await gateway.update()).state is State.CONFIRMING
    assert floor(gateway) == 0
    gateway.times.passed_s += SELF_TEST_S + 1
    await a_round(gateway)
    assert (await gateway.update()).state is State.UPDATED
    assert floor(gateway) == 2


async def test_when_time_comes_no_node_has_run_its_self_test_for_half_a_century(gateway: Gateway) -> None:
    await install(gateway)
    await confirm_in_1970(gateway)
    time_comes(gateway)
    await gateway.radio_time.follow()
    await proven_in_its_time(gateway)


async def test_nor_when_the_daemon_ends_between_the_step_and_what_follows_it(gateway: Gateway) -> None:
    await install(gateway)
    await confirm_in_1970(gateway)
    time_comes(gateway)
    await gateway.stop()
    await gateway.start()
    await proven_in_its_time(gateway)


async def test_nor_when_the_power_fails_before_time_has_come(gateway: Gateway) -> None:
    await install(gateway)
    await confirm_in_1970(gateway)
    await gateway.stop()
    time_comes(gateway)
    gateway.times.boot = "boot-3"
    await gateway.start()
    await proven_in_its_time(gateway)


async def test_a_fact_that_was_on_its_way_while_time_came_is_of_its_own_time(gateway: Gateway) -> None:
    await install(gateway)
    assert await gateway.wall.store(gateway.database)
    await gateway.stop()
    into_1970(gateway)
    gateway.times.boot = "boot-2"
    await gateway.start(refresh=False)
    on_its_way = await gateway.event(Fact.RUNNING, version=NEW)
    time_comes(gateway)
    await gateway.radio_time.follow()
    await gateway.journal.commit([], [on_its_way])
    await proven_in_its_time(gateway)


@pytest.mark.parametrize("followed", [True, False])
async def test_when_time_comes_no_tier_has_soaked_for_half_a_century(gateway: Gateway, followed: bool) -> None:
    """Also in the rounds before anybody looks at the clocks."""
    tiers = (Tier(name="lab", nodes=(METER,)), Tier(name="all", percent=100.0))
    gate = Gate(kind="local", minimum_executed=1, success_ratio=1.0, failure_ratio=0.0, soak_s=3600)
    await install(gateway, rollout=Rollout(tiers=tiers, gate=gate, stage_by=StageBy.TRANSFER))
    await confirm_in_1970(gateway)
    second = NodeObservation(SECOND, gateway.radio_now(), hardware=HARDWARE, version=1, power=Power.MAINS, joined=True)
    await gateway.inventory.observe(second)
    gateway.times.passed_s += SELF_TEST_S + 1
    await a_round(gateway)
    assert (await gateway.update()).state is State.UPDATED
    time_comes(gateway)
    if followed:
        await gateway.radio_time.follow()
    await a_round(gateway)
    await a_round(gateway)
    assert (await gateway.row()).gate == "soak"
    assert SECOND not in {directive.node for directive in gateway.radio.told}
    gateway.times.passed_s += 3600
    await gateway.until(lambda: SECOND in {directive.node for directive in gateway.radio.told})


async def test_when_time_comes_no_installation_is_lost(gateway: Gateway) -> None:
    await deliver(gateway)
    assert await gateway.wall.store(gateway.database)
    await gateway.stop()
    into_1970(gateway)
    gateway.times.boot = "boot-2"
    await gateway.start(refresh=False)
    await ready(gateway)
    await gateway.fact(Fact.INSTALLING)
    time_comes(gateway)
    await gateway.radio_time.follow()
    await a_round(gateway)
    update = await gateway.update()
    assert (update.state, update.want) == (State.INSTALLING, Want.INSTALL)
    assert 0 <= gateway.radio_now() - update.installing_at < 60
    gateway.times.passed_s += 3 * DAY_S + 1
    await a_round(gateway)
    assert ((await gateway.update()).state, (await gateway.update()).code) == (State.FAILED, "lost")


async def test_a_radios_own_clock_goes_on_through_steps_and_restarts(gateway: Gateway) -> None:
    """Whatever it keeps by its clock stays true, and the daemon stores what it says by the wall clock."""
    begun = gateway.clock.now()
    await leap(gateway)
    assert 0 <= gateway.clock.now() - begun < 60
    assert gateway.radio_now() == pytest.approx(gateway.times.wall(), abs=5)
    await gateway.stop()
    gateway.times.ahead_s -= 3600
    await gateway.start()
    assert -1 < gateway.clock.now() - begun < 60
    assert gateway.radio_now() == pytest.approx(gateway.times.wall(), abs=5)
    await leap_back(gateway)
    gateway.times.passed_s += 100
    assert 100 <= gateway.clock.now() - begun < 160
    assert gateway.radio_now() == pytest.approx(gateway.times.wall(), abs=5)


async def test_nor_do_power_cuts_make_it_leap(without_rtc: Gateway) -> None:
    gateway = without_rtc
    await gateway.start()
    begun = gateway.clock.now()
    await gateway.stop()
    time_comes(gateway)
    gateway.times.boot = "boot-2"
    await gateway.start()
    assert -1 < gateway.clock.now() - begun < 60
    assert gateway.radio_now() == pytest.approx(gateway.times.wall(), abs=5)


# -- a synchronised leap -------------------------------------------------------------------------------------------------


async def test_a_leap_to_2036_and_back_ends_nothing_and_refuses_nothing(gateway: Gateway) -> None:
    await deliver(gateway)
    await leap(gateway)
    await gateway.until_state("waiting")
    assert (await gateway.row()).code == "trust_expired"
    second = NodeObservation(SECOND, gateway.radio_now(), hardware=HARDWARE, version=1, power=Power.MAINS, joined=True)
    await gateway.inventory.observe(second)
    await gateway.issue(gateway.document("other"))
    await a_round(gateway)
    assert gateway.radio.wants() == [Want.DELIVER]
    await leap_back(gateway)
    await gateway.until(lambda: [d.node for d in gateway.radio.told] == [METER, SECOND])
    await gateway.until_state("running")
    await gateway.until_state("running", "other")
    said = {(report.state, report.code) for report in await gateway.reports()}
    assert not {("refused", "expired"), ("expired", "expired"), ("cancelled", "expired")} & said
    await ready(gateway)


async def test_a_restart_within_the_leap_changes_nothing_of_it(gateway: Gateway) -> None:
    await deliver(gateway)
    await leap(gateway)
    await gateway.stop()
    await gateway.start()
    await gateway.until_told(Want.DELIVER)
    await gateway.stop()
    gateway.times.ahead_s = 0.0
    gateway.times.boot = "boot-2"
    await gateway.start()
    await gateway.until_state("running")
    await ready(gateway)
    await gateway.fact(Fact.INSTALLING)
    await gateway.fact(Fact.RUNNING, version=NEW)
    await proven_in_its_time(gateway)


async def test_a_cancel_is_taken_within_the_leap(gateway: Gateway) -> None:
    await deliver(gateway)
    await leap(gateway)
    far = datetime.fromtimestamp(gateway.times.wall(), UTC)
    cancelled = gateway.document(revision=2, desired=Desired.CANCELLED, issued=far, expires=far.replace(month=3))
    await gateway.issue(cancelled)
    await gateway.until_told(Want.DROP)


async def test_a_gateway_without_campaigns_believes_the_clock_again_when_one_comes(gateway: Gateway) -> None:
    await leap(gateway)
    await leap_back(gateway)
    assert not gateway.wall.trusted()  # 2036 was stored
    await gateway.issue(gateway.document())
    await gateway.until_told(Want.DELIVER)


async def test_a_campaign_that_did_expire_is_said_to_be_once_metadata_are_fresh(
    gateway: Gateway, publisher: Publisher
) -> None:
    await gateway.issue(gateway.document(expires=datetime.fromtimestamp(time.time() + DAY_S / 2, UTC)))
    await gateway.until_told(Want.DELIVER)
    raw = gateway.signed(gateway.document("late", expires=datetime.fromtimestamp(time.time() + DAY_S / 2, UTC)))
    gateway.times.passed_s = 2 * DAY_S
    await gateway.campaign("ota/v1/gateways/gw-1/campaigns/late", raw)
    await gateway.until_state("waiting")
    renewed(publisher, gateway)
    await gateway.authority.refresh()
    gateway.coordinator.wake()
    await gateway.until_state("expired")
    assert ("late", "refused", "expired") in [(r.campaign, r.state, r.code) for r in await gateway.reports()]


async def test_a_pause_between_attempts_that_began_in_2036_begins_anew(gateway: Gateway) -> None:
    await leap(gateway)
    await leap_back(gateway)
    await deliver(gateway, policy=Policy(max_attempts=2, retry_after_s=600))
    await leap(gateway)
    await gateway.fact(Fact.FAILED, code="refused")
    await gateway.until_told(Want.DROP)
    await gateway.fact(Fact.DROPPED)
    gateway.times.boot = "boot-2"  # and the clock is right again only after the power was cut
    await gateway.stop()
    gateway.times.ahead_s = 0.0
    await gateway.start()
    await a_round(gateway)
    assert (await gateway.update()).state is State.FAILED
    gateway.times.passed_s += 601
    await gateway.until_told(Want.DELIVER)
    assert (await gateway.update()).attempt == 2


# -- trust that grows old ------------------------------------------------------------------------------------------------


def renewed(publisher: Publisher, gateway: Gateway) -> None:
    """What the publisher's timer does, at the gateway's time."""
    Repository(publisher.repository.path, publisher.keys, clock=gateway.times.wall).refresh()


async def test_metadata_that_expire_in_mid_transfer_start_nobody_and_stop_nobody(
    gateway: Gateway, publisher: Publisher
) -> None:
    await deliver(gateway)
    gateway.times.passed_s = 2 * DAY_S
    second = NodeObservation(SECOND, gateway.radio_now(), hardware=HARDWARE, version=1, power=Power.MAINS, joined=True)
    await gateway.inventory.observe(second)
    await gateway.authority.refresh()
    gateway.coordinator.wake()
    await gateway.until_state("waiting")
    await a_round(gateway)
    assert {d.node for d in gateway.radio.told} == {METER}
    (said,) = [r for r in await reported(gateway) if (r.state, r.code) == ("waiting", "trust_expired")]
    assert "metadata has expired" in said.detail
    await ready(gateway)
    await gateway.fact(Fact.INSTALLING)
    await gateway.fact(Fact.RUNNING, version=NEW)
    await proven_in_its_time(gateway)
    renewed(publisher, gateway)
    await gateway.authority.refresh()
    gateway.coordinator.wake()
    await gateway.until(lambda: Want.DELIVER in [d.want for d in gateway.radio.told if d.node == SECOND])


async def test_a_gateway_that_was_off_for_weeks_recovers_by_itself(gateway: Gateway, publisher: Publisher) -> None:
    publisher.add(ReleaseSpec("meter", "1.3.0", 4, 2, NEW + 1, (HARDWARE,), "opaque"))
    await deliver(gateway)
    await gateway.wall.store(gateway.database)
    await gateway.stop()
    gateway.times.passed_s = 21 * DAY_S
    gateway.times.boot = "boot-2"
    await gateway.start(refresh=False)
    await gateway.until_told(Want.DELIVER)  # what was under way goes on
    assert (await gateway.row()).code == "trust_expired"
    document = gateway.document("newer", release="releases/meter/1.3.0.json")
    await gateway.issue(document)
    checks = asyncio.create_task(gateway.authority.run())
    try:
        await gateway.until(lambda: gateway.authority.problem is not None and gateway.authority.problem[0] == "expired")
        await a_round(gateway)
        assert (await gateway.row("newer")).code == "trust_expired"
        renewed(publisher, gateway)
        gateway.authority.soon()
        await gateway.until_state("running", "newer")
    finally:
        checks.cancel()
        await asyncio.wait({checks})


# -- offline, and what is held was tampered with -------------------------------------------------------------------------


async def start_offline(gateway: Gateway, site: Site) -> list[str]:
    """Started without a network; the events that were logged as errors."""
    site.folder = Path("/nonexistent")
    with structlog.testing.capture_logs() as logs:
        await gateway.start(refresh=False)
        await gateway.authority.refresh()
        await a_round(gateway)
    return [line["event"] for line in logs if line["log_level"] == "error"]


async def stopped_in_mid_transfer(gateway: Gateway) -> None:
    await deliver(gateway)
    await gateway.wall.store(gateway.database)
    await gateway.stop()


async def test_offline_what_is_held_is_verified_again_and_goes_on(gateway: Gateway, site: Site) -> None:
    await stopped_in_mid_transfer(gateway)
    assert await start_offline(gateway, site) == []
    await gateway.until_told(Want.DELIVER)
    await ready(gateway)


@pytest.mark.parametrize(
    ("table", "column", "change", "event", "code"),
    [
        ("campaign", "envelope", (b'"sig":"M', b'"sig":"N'), "campaign_revoked", "revoked"),
        ("release", "body", (b"meter", b"motor"), "release_refused", "release_unavailable"),  # it is asked for again
    ],
)
async def test_offline_a_document_that_was_tampered_with_is_left_aside_and_said_so(
    gateway: Gateway, site: Site, table: str, column: str, change: tuple[bytes, bytes], event: str, code: str
) -> None:
    await stopped_in_mid_transfer(gateway)
    gateway.tamper(table, column, *change)
    assert event in await start_offline(gateway, site)
    row = await gateway.row()
    assert (row.state, row.code) == ("waiting", code)
    assert Want.DELIVER not in gateway.radio.wants()
    assert ("waiting", code) in [(r.state, r.code) for r in await reported(gateway)]


async def test_offline_a_bundle_that_was_tampered_with_vouches_for_nothing(gateway: Gateway, site: Site) -> None:
    await stopped_in_mid_transfer(gateway)
    bundle = gateway.trust_folder / "trusted.json"
    text = bundle.read_text()
    assert "targets.json" in text
    bundle.write_text(text.replace("targets.json", "torgets.json"))
    site_folder = site.folder
    assert "trust_restore_refused" in await start_offline(gateway, site)
    assert gateway.authority.view is None
    assert gateway.radio.told == []
    site.folder = site_folder
    await gateway.authority.refresh()
    await gateway.until_told(Want.DELIVER)


async def test_offline_a_payload_that_was_tampered_with_does_not_go_on_air(gateway: Gateway, site: Site) -> None:
    await stopped_in_mid_transfer(gateway)
    (path,) = [p for p in gateway.payload_folder.rglob("*") if p.is_file() and p.stat().st_size == 179200]
    data = bytearray(path.read_bytes())
    data[100_000] ^= 1
    path.write_bytes(data)
    await start_offline(gateway, site)
    assert Want.DELIVER not in gateway.radio.wants()
