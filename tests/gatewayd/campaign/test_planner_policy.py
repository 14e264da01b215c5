"""What the hour, the link and the model of a node make a campaign do, and nodes that other hands have moved."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from gatewayd.campaign.node_update import Input, State
from gatewayd.campaign.rows import CampaignState
from gatewayd.campaign.situation import Site as Place
from gatewayd.campaign.versions import Versions
from gatewayd.cloud.campaign_policy import ModelLimits, Retriable, Retry, Window
from gatewayd.cloud.messages import Desired, Gate, Policy, Rollout, StageBy, Tier
from radios.radio import Power, Want
from tests.gatewayd.campaign.test_planner import Site
from tests.support.documents import HARDWARE, NEW, OLD, START, START_S, campaign, node, release

NIGHT = (Window(start="22:00", end="06:00"),)
HOUR_S = 3600.0
OTHER = 0x00018000
LENIENT = Rollout(tiers=(Tier(name="all", percent=100.0),), gate=Gate(failure_ratio=1.0))


def at(site: Site, hour: float) -> None:
    """One round at that hour (UTC) of the day after the start."""
    site.now = START_S + 86400 + hour * HOUR_S
    site.step(0)


# -- hours -------------------------------------------------------------------------------------------------------------


def test_nobody_starts_in_quiet_hours_and_the_campaign_says_so() -> None:
    site = Site(campaign(policy=Policy(quiet_hours=NIGHT)), node(1), node(2))
    at(site, 3)
    assert (site.row.state, site.row.code) == (CampaignState.RUNNING, "quiet_hours")
    assert {(u.state, u.want) for u in site.updates.values()} == {(State.PENDING, "")}  # not told of one by one
    at(site, 7)
    assert (site.row.code, site.of(1).want) == ("", Want.DELIVER)


def test_who_is_under_way_is_held_in_quiet_hours_keeps_its_progress_and_goes_on() -> None:
    site = Site(campaign(policy=Policy(quiet_hours=NIGHT)), node(1))
    at(site, 21)
    site.fact(1, Input.DATA)
    site.updates[site.of(1).node] = replace(site.of(1), confirmed=1234)
    at(site, 22)
    assert (site.of(1).state, site.of(1).resume, site.of(1).code) == (
        State.DEFERRED,
        State.TRANSFERRING,
        "quiet_hours",
    )
    assert (site.of(1).want, site.of(1).confirmed) == (Want.HOLD, 1234)
    at(site, 30)
    assert (site.of(1).state, site.of(1).want, site.of(1).confirmed) == (State.TRANSFERRING, Want.DELIVER, 1234)


def test_a_node_is_installed_only_within_a_window_and_delivered_at_any_time() -> None:
    site = Site(campaign(policy=Policy(install_windows=NIGHT)), node(1))
    at(site, 12)
    assert site.of(1).want == Want.DELIVER
    site.fact(1, Input.DATA, Input.COMPLETE, Input.READY)
    at(site, 13)
    assert (site.of(1).state, site.of(1).code, site.of(1).want) == (State.DEFERRED, "outside_window", Want.HOLD)
    at(site, 22)
    assert (site.of(1).state, site.of(1).want) == (State.READY, Want.INSTALL)


def test_an_order_to_install_that_was_not_carried_out_in_its_window_is_taken_back() -> None:
    site = Site(campaign(policy=Policy(install_windows=NIGHT)), node(1))
    at(site, 5)
    site.fact(1, Input.DATA, Input.COMPLETE, Input.READY)
    at(site, 5.5)
    assert site.of(1).want == Want.INSTALL
    at(site, 6)
    assert site.of(1).want == Want.HOLD


def ready_at(hour: float, *, then: Policy | None = None, **known: object) -> Site:
    """A node that is ready at that hour, ten minutes before the window at the most."""
    site = Site(campaign(policy=then or Policy(install_windows=NIGHT)), node(1, **known))
    at(site, 20)
    site.fact(1, Input.DATA, Input.COMPLETE, Input.READY)
    at(site, hour)
    return site


def test_ten_minutes_before_the_window_the_radio_is_told_when_it_opens() -> None:
    site = ready_at(21 + 49 / 60)
    assert (site.of(1).code, site.of(1).want, site.of(1).install_at) == ("outside_window", Want.HOLD, 0.0)
    at(site, 21 + 51 / 60)
    opens = START_S + 86400 + 22 * HOUR_S
    assert (site.of(1).state, site.of(1).want, site.of(1).install_at) == (State.READY, Want.INSTALL, opens)
    told = site.of(1).generation
    for hour in (21.9, 22.0, 22.5):
        at(site, hour)
        assert site.of(1).generation == told, "the same directive holds"
    at(site, 30)
    assert (site.of(1).want, site.of(1).install_at) == (Want.HOLD, 0.0), "nobody carried it out in the window"
    at(site, 30.5)
    at(site, 48)
    assert (site.of(1).want, site.of(1).install_at) == (Want.INSTALL, 0.0)


@pytest.mark.parametrize("why", ["hold", "pause", "breach", "battery", "window", "clock", "forbidden", "revoked tier"])
def test_until_the_node_is_told_everything_takes_an_installation_back(why: str) -> None:
    battery = {"power": Power.BATTERY, "battery_percent": 80.0, "battery_at": START_S + 86400 + 20 * HOUR_S}
    site = ready_at(21.9, **battery)
    assert site.of(1).want == Want.INSTALL
    told = site.of(1).generation
    match why:
        case "hold":
            site.row = replace(site.row, hold=True)
        case "pause":
            site.revise(desired=Desired.PAUSED)
        case "breach":
            site.row = replace(site.row, state=CampaignState.BREACHED, code="gate")
        case "battery":
            site.nodes[node(1).id] = replace(site.nodes[node(1).id], battery_percent=20.0)
        case "window":
            site.revise(policy=Policy(install_windows=(Window(start="23:00", end="06:00"),)))
        case "clock":
            site.blocked = ("clock_untrusted", "nobody knows the time")
        case "forbidden":
            site.forbidden = True
        case _:
            closed = Rollout(
                tiers=(Tier(name="first", nodes=(node(2).id,)), Tier(name="all", percent=100.0)),
                gate=Gate(kind="cloud"), stage_by=StageBy.INSTALL,
            )  # fmt: skip
            site.revise(rollout=closed)
    at(site, 21.95)
    assert site.of(1).want in (Want.HOLD, Want.DELIVER)
    assert site.of(1).install_at == 0.0
    assert site.of(1).generation > told


def test_no_time_is_given_ahead_in_quiet_hours_or_to_a_radio_that_counts_another_time() -> None:
    quiet = (Window(start="21:00", end="22:05"),)
    site = ready_at(21.99, then=Policy(install_windows=NIGHT, quiet_hours=quiet))
    assert (site.of(1).code, site.of(1).want) == ("quiet_hours", Want.HOLD)
    at(site, 22.1)
    assert (site.of(1).want, site.of(1).install_at) == (Want.INSTALL, 0.0)
    site = ready_at(21.5)
    site.radio_ahead_s = 3600.0
    at(site, 21.9)
    assert (site.of(1).code, site.of(1).want) == ("outside_window", Want.HOLD)


def test_a_node_that_was_told_ahead_is_not_told_again_when_the_window_opens() -> None:
    site = ready_at(21.9)
    site.fact(1, Input.INSTALL)  # a sleeping one, which is told how many seconds are left
    before = site.of(1)
    for hour in (21.95, 22.0, 22.1):
        at(site, hour)
    assert site.of(1) == before


def test_the_hours_are_the_sites() -> None:
    site = Site(campaign(policy=Policy(quiet_hours=(Window(start="22:00", end="23:00"),))), node(1))
    site.place = Place(zone=ZoneInfo("America/New_York"))
    at(site, 22.5)
    assert site.of(1).want == Want.DELIVER
    away = Site(campaign(policy=Policy(quiet_hours=(Window(start="18:00", end="19:00"),))), node(1))
    away.place = Place(zone=ZoneInfo("America/New_York"))
    at(away, 22.5)  # 17:30
    assert away.of(1).want == Want.DELIVER
    at(away, 23.5)
    assert away.row.code == "quiet_hours"


def test_a_clock_that_cannot_be_believed_defers_where_the_hour_matters() -> None:
    site = Site(campaign(policy=Policy(quiet_hours=NIGHT)), node(1))
    plain = Site(campaign(), node(1))
    for one in (site, plain):
        at(one, 12)
        one.fact(1, Input.DATA)
        one.blocked = ("clock_untrusted", "the clock says 1970")
        one.step()
    assert (site.of(1).code, site.of(1).want) == ("clock_untrusted", Want.HOLD)
    assert (plain.of(1).code, plain.of(1).want) == ("", Want.DELIVER)


def test_what_is_installing_finishes_in_quiet_hours() -> None:
    site = Site(campaign(policy=Policy(quiet_hours=NIGHT)), node(1))
    at(site, 21)
    site.fact(1, Input.DATA, Input.COMPLETE, Input.READY)
    at(site, 21.5)
    site.fact(1, Input.INSTALL)
    at(site, 22)
    assert (site.of(1).state, site.of(1).want) == (State.INSTALLING, Want.INSTALL)
    site.fact(1, Input.NEW_VERSION)
    at(site, 22.5)
    assert site.of(1).state is State.UPDATED


# -- link and battery --------------------------------------------------------------------------------------------------


def test_a_weak_link_keeps_a_node_from_starting_and_does_not_stop_one_under_way() -> None:
    site = Site(campaign(policy=Policy(minimum_lqi=100)), node(1, lqi=50), node(2, lqi=200))
    site.step()
    assert (site.of(1).state, site.of(1).code, site.of(1).want) == (State.DEFERRED, "link_weak", "")
    assert site.of(2).want == Want.DELIVER
    site.nodes[node(2).id] = node(2, lqi=20)
    site.step()
    site.fact(2, Input.DATA)
    site.step()
    assert (site.of(2).state, site.of(2).want) == (State.TRANSFERRING, Want.DELIVER)
    site.nodes[node(1).id] = node(1, lqi=120)
    site.step()
    assert site.of(1).want == Want.DELIVER


def test_a_battery_that_falls_silent_in_mid_transfer_holds_and_keeps_the_progress() -> None:
    fresh = {"power": Power.BATTERY, "battery_percent": 80.0, "battery_at": START_S}
    site = Site(campaign(policy=Policy(battery_max_age_s=3600)), node(1, **fresh))
    site.step()
    site.fact(1, Input.DATA)
    site.updates[site.of(1).node] = replace(site.of(1), confirmed=1234)
    site.step(3700)
    assert (site.of(1).code, site.of(1).want, site.of(1).confirmed) == ("battery_stale", Want.HOLD, 1234)
    assert "3600 s" in site.of(1).detail
    site.nodes[node(1).id] = node(1, **{**fresh, "battery_at": site.now})
    site.step()
    assert (site.of(1).state, site.of(1).want, site.of(1).confirmed) == (State.TRANSFERRING, Want.DELIVER, 1234)


# -- attempts ----------------------------------------------------------------------------------------------------------


def failed(site: Site, number: int) -> None:
    site.fact(number, Input.FAIL)
    site.step()
    site.dropped(number)


def until_started(site: Site, number: int, most_s: float) -> float:
    """Seconds until the next attempt starts, in minutes."""
    began = site.now
    while site.of(number).want != Want.DELIVER:
        site.step(60)
        assert site.now - began <= most_s
    return site.now - began


def test_the_pause_doubles_after_each_attempt_up_to_the_longest() -> None:
    policy = Policy(max_attempts=6, retry_after_s=600, retry_most_s=3600)
    site = Site(campaign(rollout=LENIENT, policy=policy), node(1))
    site.step()
    pauses = []
    for _ in range(5):
        failed(site, 1)
        pauses.append(until_started(site, 1, 4000))
    assert [600 <= pauses[0] < 800, 1200 <= pauses[1] < 1400, 2400 <= pauses[2] < 2600] == [True] * 3
    assert all(3600 <= pause < 3800 for pause in pauses[3:])
    failed(site, 1)
    site.step(86400)
    assert (site.of(1).state, site.of(1).attempt) == (State.FAILED, 6)


@pytest.mark.parametrize(
    ("limits", "attempts"),
    [
        ((ModelLimits(hardware=HARDWARE, max_attempts=1),), 1),
        ((ModelLimits(model="lamp.*", max_attempts=2),), 2),
        ((ModelLimits(model="lamp", max_attempts=2),), 3),
        ((ModelLimits(hardware="zigbee:0000-0000", model="lamp.*", max_attempts=2),), 3),
        ((ModelLimits(model="*", retry_after_s=60), ModelLimits(model="lamp.*", max_attempts=1)), 3),  # the first
    ],
)
def test_attempts_are_limited_by_model(limits: tuple[ModelLimits, ...], attempts: int) -> None:
    policy = Policy(max_attempts=3, retry_after_s=60, models=limits)
    site = Site(campaign(rollout=LENIENT, policy=policy), node(1, model="lamp.a1"))
    site.step()
    for _ in range(attempts):
        assert site.of(1).want == Want.DELIVER
        failed(site, 1)
        for _ in range(10):
            site.step(60)
    assert (site.of(1).state, site.of(1).attempt) == (State.FAILED, attempts)


def test_a_model_may_have_a_longer_pause() -> None:
    slow = ModelLimits(model="slow", retry_after_s=7200)
    site = Site(campaign(rollout=LENIENT, policy=Policy(retry_after_s=60, models=(slow,))), node(1, model="slow"))
    site.step()
    failed(site, 1)
    assert 7200 <= until_started(site, 1, 8000) < 7400


# -- other hands -------------------------------------------------------------------------------------------------------


def test_a_node_that_other_hands_move_while_it_waits_is_left_out_and_said() -> None:
    site = Site(campaign(policy=Policy(concurrency=1)), node(1), node(2))
    site.step()
    site.nodes[node(2).id] = node(2, version=OTHER, version_at=site.now)
    site.step()
    assert (site.of(2).state, site.of(2).code, site.of(2).want) == (State.SKIPPED, "moved", "")
    assert site.of(2).detail == "by other hands the node went from 0x00010000 to 0x00018000"


def test_a_node_that_other_hands_move_under_way_is_dropped_and_not_overwritten() -> None:
    site = Site(campaign(), node(1))
    site.step()
    site.fact(1, Input.DATA, Input.COMPLETE, Input.READY)
    site.nodes[node(1).id] = node(1, version=OTHER, version_at=site.now)
    site.step()
    assert (site.of(1).state, site.of(1).code, site.of(1).want) == (State.SKIPPED, "moved", Want.DROP)


def test_a_moved_node_is_taken_up_when_a_revision_asks_for_it() -> None:
    site = Site(campaign(policy=Policy(concurrency=1)), node(1), node(2))
    site.step()
    site.nodes[node(2).id] = node(2, version=OTHER, version_at=site.now)
    site.step()
    site.revise()
    site.step()
    assert site.of(2).state is State.SKIPPED
    site.revise(policy=Policy(), retry=Retry(outcomes=(Retriable.MOVED,)))
    site.step()
    assert (site.of(2).state, site.of(2).version_before, site.of(2).want) == (State.PENDING, OTHER, Want.DELIVER)


def test_what_another_campaign_of_ours_brought_is_no_other_hand() -> None:
    site = Site(campaign(policy=Policy(concurrency=1)), node(1), node(2))
    site.step()
    site.nodes[node(2).id] = node(2, version=OTHER, version_at=site.now)
    site.own_versions = {node(2).id: frozenset({OTHER})}
    site.step()
    assert (site.of(2).state, site.of(2).version_before) == (State.PENDING, OTHER)


def test_a_version_that_was_not_known_at_first_is_no_move() -> None:
    site = Site(campaign(), node(1, version=None))
    site.step()
    site.nodes[node(1).id] = node(1, version=OLD, version_at=site.now)
    site.step()
    assert (site.of(1).want, site.of(1).version_before) == (Want.DELIVER, OLD)


def test_an_updated_node_that_other_hands_bring_further_stays_updated_and_is_told_of_once() -> None:
    site = Site(campaign(), node(1))
    site.step()
    site.finish(1)
    site.dropped(1)
    site.versions = Versions([release(version="3.1.0", node_version=NEW + 1).document, site.release.document])  # type: ignore[union-attr]
    site.nodes[node(1).id] = node(1, version=NEW + 1, version_at=site.now + 5)
    site.step(10)
    assert (site.of(1).state, site.of(1).code, site.row.state) == (State.UPDATED, "moved", CampaignState.COMPLETED)
    assert site.of(1).detail == "by other hands the node went from 2.0.0 to 3.1.0"
    assert site.step().updates == ()


def test_an_updated_node_that_a_later_campaign_of_ours_brings_further_is_nothing_to_tell() -> None:
    site = Site(campaign(), node(1))
    site.step()
    site.finish(1)
    site.dropped(1)
    site.own_versions = {node(1).id: frozenset({NEW + 1})}
    site.nodes[node(1).id] = node(1, version=NEW + 1, version_at=site.now + 5)
    assert site.step(10).updates == ()


# -- the order of versions ---------------------------------------------------------------------------------------------


def test_a_release_is_newer_by_its_sequence_whatever_numbers_nodes_report() -> None:
    site = Site(campaign(expires=START + timedelta(days=20)), node(1, version=NEW + 9))
    older = release(version="1.9.0", node_version=NEW + 9).document.model_copy(update={"sequence": 1})
    assert site.release is not None
    site.versions = Versions([older, site.release.document])
    site.step()
    assert site.of(1).want == Want.DELIVER
    site.finish(1)
    assert site.of(1).state is State.UPDATED
    site.nodes[node(1).id] = node(1, version=NEW + 9, version_at=site.now + 5)
    site.step(10)
    assert site.of(1).state is State.ROLLED_BACK


def test_tiers_by_tag_and_region() -> None:
    tiers = (Tier(name="pilot", tags={"site": "plant-3"}), Tier(name="near", regions=("north",)))
    rollout = Rollout(tiers=(*tiers, Tier(name="all", percent=100.0)), gate=Gate(kind="cloud"), open_tiers=2)
    site = Site(campaign(rollout=rollout), node(1, tags={"site": "plant-3"}), node(2))
    site.step()
    assert [(u.tier, u.want) for u in (site.of(1), site.of(2))] == [(0, Want.DELIVER), (2, "")]
    site.place = Place(region="north")
    site.step()
    assert (site.of(2).tier, site.of(2).want) == (1, Want.DELIVER)


def test_a_node_that_has_not_told_its_hardware_again_is_not_called_off() -> None:
    site = Site(campaign(policy=Policy(concurrency=1)), node(1), node(2))
    site.step()
    site.nodes[node(2).id] = node(2, hardware=None, version=None)
    site.step()
    assert (site.of(2).state, site.of(2).code) == (State.DEFERRED, "version_unknown")
    site.nodes[node(2).id] = node(2, hardware="zigbee:1111-0001")
    site.step()
    assert (site.of(2).state, site.of(2).code) == (State.CANCELLED, "not_selected")


def test_the_start_of_these_tests_is_midnight() -> None:
    assert datetime.fromtimestamp(START_S, UTC).hour == 0
