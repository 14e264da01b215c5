"""What is tried again by itself, what only when asked for, what a gate tells of a breach, and why a node rolled back."""

from dataclasses import replace
from datetime import timedelta

import pytest

from gatewayd.campaign.gates import EVIDENCE_NODES
from gatewayd.campaign.node_steps import LISTENING_S, RESET_FIRST_TOLD_S, RESET_TOLD_S
from gatewayd.campaign.node_update import Input, State, advance
from gatewayd.campaign.rows import CampaignState
from gatewayd.cloud.campaign_policy import Retriable, Retry
from gatewayd.cloud.messages import Desired, Gate, Policy, Rollout, Tier
from radios.radio import Want
from tests.gatewayd.campaign.test_planner import CANARY, Site
from tests.support.documents import NEW, OLD, START, campaign, node

ONCE = Policy(max_attempts=1, retry_after_s=1)
LENIENT = Rollout(tiers=(Tier(name="all", percent=100.0),), gate=Gate(failure_ratio=1.0))
BOTH = Retry(outcomes=(Retriable.FAILED, Retriable.ROLLED_BACK))


def rolled_back(site: Site, number: int) -> None:
    """From the start of the node to its old version, dropped by the radio."""
    site.step()
    site.fact(number, Input.DATA, Input.COMPLETE, Input.READY)
    site.step()
    site.fact(number, Input.INSTALL)
    site.now += 30
    site.fact(number, Input.OLD_VERSION)
    site.updates[site.of(number).node] = replace(site.of(number), version=OLD)
    site.step()
    site.dropped(number)


def failed(site: Site, number: int) -> None:
    site.fact(number, Input.FAIL)
    site.step()
    site.dropped(number)


# -- asked for ---------------------------------------------------------------------------------------------------------


def test_a_node_that_rolled_back_is_not_tried_again_by_itself_nor_by_any_revision() -> None:
    site = Site(campaign(rollout=LENIENT, policy=Policy(max_attempts=20, retry_after_s=1)), node(1))
    rolled_back(site, 1)
    for _ in range(3):
        site.revise()
        site.step(1000)
        site.step()
    site.revise(retry=Retry())  # of those that failed
    site.step(1000)
    assert (site.of(1).state, site.of(1).want, site.of(1).attempt) == (State.ROLLED_BACK, "", 1)


def test_a_revision_can_ask_for_those_that_failed_and_rolled_back_and_each_is_tried_once() -> None:
    site = Site(campaign(rollout=LENIENT, policy=ONCE), node(1), node(2))
    rolled_back(site, 1)
    failed(site, 2)
    site.revise(retry=BOTH)
    for _ in range(3):
        site.step()
    for number in (1, 2):
        assert (site.of(number).attempt, site.of(number).want) == (2, Want.DELIVER)
        assert site.of(number).transfer.endswith(".2")
    failed(site, 2)
    site.fact(1, Input.DATA, Input.COMPLETE, Input.READY)
    site.step()
    site.fact(1, Input.INSTALL, Input.OLD_VERSION)
    site.step()
    site.dropped(1)
    for _ in range(5):
        site.step(10)
    assert (site.of(1).state, site.of(2).state) == (State.ROLLED_BACK, State.FAILED)  # asked once, tried once


def test_the_limit_of_attempts_counts_anew_when_a_retry_is_asked_for() -> None:
    site = Site(campaign(rollout=LENIENT, policy=Policy(max_attempts=2, retry_after_s=1)), node(1))
    site.step()
    for _ in range(2):
        failed(site, 1)
        site.step(10)
        site.step()
    assert (site.of(1).state, site.of(1).attempt) == (State.FAILED, 2)
    site.revise(retry=Retry())
    for _ in range(4):
        site.step(10)
    assert site.of(1).attempt == 3
    failed(site, 1)
    site.step(10)
    site.step()
    assert (site.of(1).attempt, site.of(1).want) == (4, Want.DELIVER)


def test_a_gateway_that_was_away_when_a_retry_was_asked_for_hears_of_it_with_a_later_revision() -> None:
    site = Site(campaign(rollout=LENIENT, policy=ONCE), node(1))
    site.step()
    failed(site, 1)
    site.document = site.document.model_copy(update={"revision": 4})
    site.revise(retry=Retry(revision=3))
    for _ in range(3):
        site.step()
    assert (site.of(1).attempt, site.of(1).want) == (2, Want.DELIVER)
    failed(site, 1)
    site.revise(retry=Retry(revision=3))
    for _ in range(3):
        site.step(10)
    assert (site.of(1).state, site.of(1).attempt) == (State.FAILED, 2)  # it was done already


def test_a_rollback_after_a_retry_was_asked_for_is_not_what_it_meant() -> None:
    site = Site(campaign(rollout=LENIENT), node(1))
    site.step()
    site.finish(1)
    site.dropped(1)
    site.revise(retry=BOTH)
    site.step()
    site.nodes[node(1).id] = node(1, version=OLD, version_at=site.now + 5)
    for _ in range(3):
        site.step(10)
    assert (site.of(1).state, site.of(1).want) == (State.ROLLED_BACK, "")


def test_a_retry_may_name_nodes() -> None:
    site = Site(campaign(rollout=LENIENT, policy=ONCE), node(1), node(2))
    site.step()
    failed(site, 1)
    failed(site, 2)
    site.revise(retry=Retry(nodes=(node(2).id,)))
    for _ in range(3):
        site.step()
    assert (site.of(1).state, site.of(2).want) == (State.FAILED, Want.DELIVER)


def test_a_retry_waits_while_the_campaign_is_paused_and_never_follows_a_cancel() -> None:
    site = Site(campaign(rollout=LENIENT, policy=ONCE), node(1), node(2))
    site.step()
    failed(site, 1)
    site.revise(retry=Retry(), desired=Desired.PAUSED)
    site.step()
    assert site.of(1).state is State.FAILED
    site.revise(retry=Retry(), desired=Desired.CANCELLED)
    site.step()
    site.step()
    assert site.of(1).state is State.FAILED


def test_a_node_that_a_revision_takes_back_has_all_its_attempts() -> None:
    short = campaign(rollout=LENIENT, policy=ONCE, expires=START + timedelta(hours=1))
    site = Site(short, node(1))
    site.step()
    site.step(7200)
    assert site.of(1).code == "expired"
    site.dropped(1)
    site.revise(expires=START + timedelta(days=9), policy=Policy(max_attempts=2, retry_after_s=1))
    site.step()
    assert site.of(1).attempt == 2
    site.step()
    failed(site, 1)
    site.step(10)
    assert site.of(1).state is State.PENDING


# -- breaches ----------------------------------------------------------------------------------------------------------


def test_a_breach_pauses_the_campaign_and_says_what_the_gate_has_seen() -> None:
    two = Rollout(
        tiers=(Tier(name="first", nodes=tuple(node(n).id for n in (1, 2, 3))), Tier(name="all", percent=100.0)),
        gate=Gate(minimum_executed=2, failure_ratio=0.4, success_ratio=0.6),
    )
    site = Site(campaign(rollout=two, policy=ONCE), *(node(n) for n in range(1, 6)))
    rolled_back(site, 1)
    site.fact(2, Input.FAIL)
    site.updates[site.of(2).node] = replace(site.of(2), code="no_space")
    decision = site.step()
    assert site.row.state is CampaignState.BREACHED
    seen = decision.evidence
    assert seen is not None
    assert (seen.open_tiers, seen.executed, seen.updated, seen.failed, seen.rolled_back) == (1, 2, 0, 1, 1)
    assert (seen.failure_ratio, seen.failure_ratio_limit, seen.minimum_executed) == (1.0, 0.4, 2)
    assert [(n.node, n.state, n.code, n.version) for n in seen.nodes] == [
        (node(1).id, "rolled_back", "", OLD),
        (node(2).id, "failed", "no_space", OLD),
    ]
    assert (site.of(3).want, site.of(4).want) == (Want.HOLD, "")
    assert site.step().evidence is None  # said once


def test_evidence_names_a_bounded_number_of_nodes() -> None:
    site = Site(campaign(policy=ONCE), *(node(n) for n in range(1, 2 * EVIDENCE_NODES)))
    site.step()
    for number in range(1, 2 * EVIDENCE_NODES):
        site.fact(number, Input.FAIL)
    seen = site.step().evidence
    assert seen is not None
    assert (seen.failed, len(seen.nodes)) == (2 * EVIDENCE_NODES - 1, EVIDENCE_NODES)


def test_a_revision_as_before_stays_breached_a_looser_gate_or_a_retry_goes_on() -> None:
    def breached() -> Site:
        site = Site(campaign(rollout=CANARY, policy=ONCE), node(1), node(2))
        site.step()
        failed(site, 1)
        assert site.row.state is CampaignState.BREACHED
        return site

    same, looser, again = breached(), breached(), breached()
    same.revise()
    looser.revise(rollout=CANARY.model_copy(update={"gate": Gate(failure_ratio=1.0, success_ratio=0.0)}))
    again.revise(retry=Retry())
    for site in (same, looser, again):
        for _ in range(3):
            site.step()
    assert (same.row.state, same.of(2).want) == (CampaignState.BREACHED, "")
    assert (looser.row.state, looser.of(2).want) == (CampaignState.RUNNING, Want.DELIVER)
    assert (again.row.state, again.of(1).want, again.of(2).want) == (CampaignState.RUNNING, Want.DELIVER, "")


def test_no_tier_opens_while_the_clock_cannot_be_believed() -> None:
    soak = CANARY.model_copy(update={"gate": Gate(soak_s=86400)})
    site = Site(campaign(rollout=soak), node(1), node(2))
    site.step()
    site.finish(1)
    assert site.row.gate == "soak"
    site.blocked = ("clock_untrusted", "a leap to 2036")
    site.step(9 * 365 * 86400)
    site.now -= 9 * 365 * 86400
    site.blocked = None
    site.step()
    assert (site.row.open_tiers, site.row.gate, site.of(2).want) == (1, "soak", "")


# -- rollbacks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cause", ["watchdog", "soft"])
def test_a_rollback_has_the_cause_of_the_reset_where_the_node_tells(cause: str) -> None:
    site = Site(campaign(rollout=LENIENT), node(1))
    rolled_back(site, 1)
    assert site.of(1).reset_cause == ""
    site.nodes[node(1).id] = node(1, reset_cause=cause, reset_cause_at=site.now + 5)
    site.step(10)
    assert (site.of(1).state, site.of(1).reset_cause) == (State.ROLLED_BACK, cause)


def test_a_node_that_speaks_seldom_tells_the_cause_hours_later_and_once() -> None:
    site = Site(campaign(rollout=LENIENT), node(1))
    rolled_back(site, 1)
    assert RESET_TOLD_S < 6 * 3600.0 < RESET_FIRST_TOLD_S
    site.step(6 * 3600.0)
    site.nodes[node(1).id] = node(1, reset_cause="watchdog", reset_cause_at=site.now)
    site.step(10)
    assert site.of(1).reset_cause == "watchdog"
    site.nodes[node(1).id] = node(1, reset_cause="power_on", reset_cause_at=site.now)
    site.step(10)
    assert site.of(1).reset_cause == "watchdog", "a later reset of another cause is not the rollback's"


def test_what_is_told_soon_after_the_rollback_takes_the_place_of_the_restart_into_the_image() -> None:
    site = Site(campaign(rollout=LENIENT), node(1))
    rolled_back(site, 1)
    for cause in ("soft", "watchdog"):
        site.nodes[node(1).id] = node(1, reset_cause=cause, reset_cause_at=site.now + 5)
        site.step(10)
        assert site.of(1).reset_cause == cause


@pytest.mark.parametrize("late_s", [-100.0, RESET_FIRST_TOLD_S + 10])
def test_a_reset_before_the_installation_or_long_after_the_rollback_is_not_its_cause(late_s: float) -> None:
    site = Site(campaign(rollout=LENIENT), node(1))
    rolled_back(site, 1)
    site.nodes[node(1).id] = node(1, reset_cause="watchdog", reset_cause_at=site.of(1).radio_since + late_s)
    site.step(RESET_FIRST_TOLD_S + 100)
    assert site.of(1).reset_cause == ""


def test_a_rollback_counts_against_the_gate_and_is_in_its_evidence_with_the_cause() -> None:
    site = Site(campaign(rollout=CANARY), node(1), node(2))
    site.step()
    site.fact(1, Input.DATA, Input.COMPLETE, Input.READY)
    site.step()
    site.fact(1, Input.INSTALL)
    site.nodes[node(1).id] = node(1, reset_cause="watchdog", reset_cause_at=site.now + 5)
    site.now += 10
    site.fact(1, Input.OLD_VERSION)
    seen = site.step().evidence
    assert (site.row.state, site.of(2).want) == (CampaignState.BREACHED, "")
    assert seen is not None
    assert [(n.state, n.reset_cause) for n in seen.nodes] == [("rolled_back", "watchdog")]


def test_the_old_version_within_the_self_test_time_is_a_rollback() -> None:
    site = Site(campaign(), node(1))
    site.step()
    site.fact(1, Input.DATA, Input.COMPLETE, Input.READY)
    site.step()
    site.fact(1, Input.INSTALL, Input.NEW_VERSION)
    site.step(59)
    assert site.of(1).state is State.CONFIRMING
    site.nodes[node(1).id] = node(1, version=OLD, version_at=site.now)
    assert site.step(10).proven == ()
    assert (site.of(1).state, site.of(1).version, site.of(1).target_version) == (State.ROLLED_BACK, OLD, NEW)


def test_who_is_silent_since_its_installation_is_an_outcome_and_not_tried_again_until_it_is_heard() -> None:
    """A bricked node answers no further attempt: what waits for one would never be counted."""
    site = Site(campaign(rollout=CANARY, policy=Policy(max_attempts=3)), node(1), node(2))
    site.step()
    site.fact(1, Input.DATA, Input.COMPLETE, Input.READY)
    site.step()
    site.fact(1, Input.INSTALL)
    site.updates[node(1).id] = advance(site.of(1), Input.FAIL, now=site.now, radio_now=site.now, code="lost")
    site.step()
    site.dropped(1)
    site.step(30 * 3600)
    assert (site.of(1).state, site.of(1).attempt, site.row.state) == (State.FAILED, 1, CampaignState.BREACHED)
    site.revise(rollout=CANARY.model_copy(update={"gate": Gate(failure_ratio=1.0)}))
    site.nodes[node(1).id] = node(1, last_seen=site.now + 5)
    site.step(10)
    site.step()
    assert (site.of(1).state, site.of(1).attempt, site.row.open_tiers) == (State.PENDING, 2, 1)


def test_a_gateway_that_was_off_for_days_listens_before_it_gives_up_an_installation() -> None:
    site = Site(campaign(policy=Policy(max_attempts=1)), node(1))
    site.step()
    site.fact(1, Input.DATA, Input.COMPLETE, Input.READY)
    site.step()
    site.fact(1, Input.INSTALL)
    site.listens_since = site.now + 10 * 86400
    site.step(10 * 86400 + 1)
    assert site.of(1).state is State.INSTALLING
    site.step(LISTENING_S)
    assert (site.of(1).state, site.of(1).code) == (State.FAILED, "lost")
