"""What a campaign decides when the cloud changes its mind, when nodes come, go and fall silent, and when radios do."""

from dataclasses import replace
from datetime import timedelta

import pytest

from gatewayd.campaign.node_steps import DROP_MAX_S, INSTALLING_MAX_S
from gatewayd.campaign.node_update import Input, NodeUpdate, State
from gatewayd.campaign.rows import CampaignState
from gatewayd.cloud.messages import Gate, Policy, Rollout, Selection, StageBy, Tier
from radios.radio import Power, Want
from tests.gatewayd.campaign.test_planner import CANARY, Site
from tests.support.documents import NEW, OLD, START, START_S, campaign, node

ALL = Rollout(tiers=(Tier(name="all", percent=100.0),))
CLOUD = CANARY.model_copy(update={"gate": Gate(kind="cloud", failure_ratio=1.0), "open_tiers": 2})


def only(*numbers: int) -> Selection:
    return Selection(nodes=tuple(node(n).id for n in numbers))


def installing(site: Site, number: int) -> None:
    site.step()
    site.fact(number, Input.DATA, Input.COMPLETE, Input.READY)
    site.step()
    site.fact(number, Input.INSTALL)


def test_fewer_tiers_in_a_revision_place_every_node_anew() -> None:
    site = Site(campaign(rollout=CANARY), node(1), node(2))
    site.step()
    assert (site.of(1).tier, site.of(2).tier, site.of(2).want) == (0, 1, "")
    site.document = campaign(rollout=ALL)
    site.step()
    assert (site.of(1).tier, site.of(2).tier, site.of(2).want) == (0, 0, Want.DELIVER)


def test_who_is_not_meant_any_more_is_called_off_unless_under_way_and_may_come_back() -> None:
    site = Site(campaign(), node(1), node(2))
    site.step()
    site.fact(2, Input.DATA)
    site.document = campaign(selection=only(3))
    site.step()
    assert (site.of(1).state, site.of(1).code, site.of(1).want) == (State.CANCELLED, "not_selected", Want.DROP)
    assert (site.of(2).state, site.of(2).want) == (State.TRANSFERRING, Want.DELIVER)
    before = site.of(1)
    site.document = campaign(selection=only(1, 3))
    site.step()
    assert site.of(1).state is State.CANCELLED  # the radio has not dropped it yet
    site.dropped(1)
    site.step()
    assert (site.of(1).state, site.of(1).want) == (State.PENDING, Want.DELIVER)
    assert site.of(1).transfer != before.transfer
    assert site.of(1).generation > before.generation


def test_a_node_that_a_revision_adds_wakes_a_completed_campaign() -> None:
    site = Site(campaign(selection=only(1)), node(1), node(2))
    site.step()
    site.finish(1)
    assert site.row.state is CampaignState.COMPLETED
    site.document = campaign()
    site.step()
    assert (site.row.state, site.of(2).want) == (CampaignState.RUNNING, Want.DELIVER)


def test_an_extended_campaign_takes_the_expired_nodes_up_again() -> None:
    site = Site(campaign(policy=Policy(concurrency=1), expires=START + timedelta(days=1)), node(1), node(2))
    site.step()
    site.step(2 * 86400)
    assert (site.row.state, site.of(2).code) == (CampaignState.EXPIRED, "expired")
    site.document = campaign(expires=START + timedelta(days=20))
    site.step()
    assert (site.row.state, site.of(2).state) == (CampaignState.RUNNING, State.PENDING)


def test_a_clock_that_cannot_be_believed_expires_nothing() -> None:
    site = Site(campaign(), node(1))
    site.blocked = ("clock_untrusted", "x")
    site.step(10 * 365 * 86400)
    assert (site.row.state, site.row.code, site.of(1).state) == (
        CampaignState.WAITING,
        "clock_untrusted",
        State.PENDING,
    )


def test_a_tier_that_the_cloud_closes_again_starts_nobody_and_stops_nobody() -> None:
    site = Site(campaign(rollout=CLOUD, policy=Policy(concurrency=2)), node(1), node(2), node(3))
    site.step()
    assert (site.of(2).want, site.of(3).want) == (Want.DELIVER, "")
    site.fact(2, Input.DATA, Input.COMPLETE, Input.READY)
    site.document = campaign(rollout=CLOUD.model_copy(update={"open_tiers": 1}))
    site.step()
    assert (site.row.open_tiers, site.of(2).want, site.of(3).want) == (1, Want.INSTALL, "")


def test_a_failure_in_a_tier_that_was_closed_again_still_counts() -> None:
    strict = CLOUD.model_copy(update={"gate": Gate(kind="cloud")})
    site = Site(campaign(rollout=strict), node(1), node(2))
    installing(site, 2)
    site.document = campaign(rollout=strict.model_copy(update={"open_tiers": 1}))
    site.fact(2, Input.OLD_VERSION)
    site.step()
    assert site.row.state is CampaignState.BREACHED


def test_with_stage_by_install_a_closed_tier_does_not_install() -> None:
    site = Site(campaign(rollout=CLOUD.model_copy(update={"stage_by": StageBy.INSTALL})), node(2))
    site.step()
    site.fact(2, Input.DATA, Input.COMPLETE, Input.READY)
    site.document = campaign(rollout=CLOUD.model_copy(update={"stage_by": StageBy.INSTALL, "open_tiers": 1}))
    site.step()
    assert site.of(2).want == Want.DELIVER


def test_an_installation_of_which_nothing_is_ever_heard_fails_in_the_end() -> None:
    site = Site(campaign(policy=Policy(max_attempts=1)), node(1))
    installing(site, 1)
    site.step(INSTALLING_MAX_S - 1)
    assert site.of(1).state is State.INSTALLING
    site.step(2)
    assert (site.of(1).state, site.of(1).code, site.of(1).want) == (State.FAILED, "lost", Want.DROP)


def test_a_node_given_up_as_lost_that_comes_back_with_the_new_version_is_updated() -> None:
    site = Site(campaign(policy=Policy(max_attempts=1)), node(1))
    installing(site, 1)
    site.fact(1, Input.FAIL)
    site.step()
    site.dropped(1)
    site.nodes[node(1).id] = node(1, version=NEW, version_at=site.now + 10)
    site.step(20)
    assert (site.of(1).state, site.of(1).want) == (State.CONFIRMING, "")
    decision = site.step(61)
    assert (site.of(1).state, decision.proven) == (State.UPDATED, (node(1).id,))


def test_a_node_called_rolled_back_too_early_is_updated_once_it_runs_the_new_version() -> None:
    site = Site(campaign(policy=Policy(max_attempts=1)), node(1))
    installing(site, 1)
    site.fact(1, Input.OLD_VERSION)
    site.step()
    site.dropped(1)
    assert site.of(1).state is State.ROLLED_BACK
    site.nodes[node(1).id] = node(1, version=NEW, version_at=site.now + 10)
    site.step(20)
    assert (site.of(1).state, site.of(1).want) == (State.CONFIRMING, "")
    site.step(61)
    assert site.of(1).state is State.UPDATED


def test_a_rollback_that_only_an_observation_tells_counts() -> None:
    site = Site(campaign(), node(1))
    site.step()
    site.finish(1)
    assert site.of(1).state is State.UPDATED
    site.nodes[node(1).id] = node(1, version=OLD, version_at=site.of(1).radio_since - 5)
    site.step()
    assert site.of(1).state is State.UPDATED  # that was before
    site.nodes[node(1).id] = node(1, version=OLD, version_at=site.now + 5)
    site.step(10)
    assert (site.of(1).state, site.row.state) == (State.ROLLED_BACK, CampaignState.COMPLETED)
    site.step()
    assert site.row.state is CampaignState.BREACHED


def test_a_node_that_left_is_not_proven_until_it_is_back() -> None:
    site = Site(campaign(), node(1))
    installing(site, 1)
    site.fact(1, Input.NEW_VERSION)
    site.nodes[node(1).id] = node(1, joined=False)
    assert site.step(3600).proven == ()
    site.nodes[node(1).id] = node(1, version=NEW)
    assert site.step().proven == (node(1).id,)


def test_a_rollback_while_it_confirms_counts_after_the_expiry_too() -> None:
    site = Site(campaign(expires=START + timedelta(days=1)), node(1))
    installing(site, 1)
    site.step(86400)
    site.fact(1, Input.NEW_VERSION)
    site.nodes[node(1).id] = node(1, version=OLD, version_at=site.now + 5)
    assert site.step(61).proven == ()
    assert (site.row.state, site.of(1).state) == (CampaignState.EXPIRED, State.ROLLED_BACK)


def test_a_node_that_left_and_never_comes_back_fails_in_the_end() -> None:
    """What it was brought to may be why it is gone: the gate has to count it."""
    site = Site(campaign(policy=Policy(max_attempts=1)), node(1))
    installing(site, 1)
    site.fact(1, Input.NEW_VERSION)
    site.nodes[node(1).id] = node(1, joined=False)
    site.step(INSTALLING_MAX_S - 1)
    assert site.of(1).state is State.CONFIRMING
    site.step(2)
    assert (site.of(1).state, site.of(1).code, site.of(1).want) == (State.FAILED, "lost", Want.DROP)
    site.step()
    assert site.row.state is CampaignState.BREACHED


def test_a_node_given_up_as_lost_that_is_heard_in_its_next_attempt_is_updated() -> None:
    """Whether it comes back before that attempt begins, or after, is chance."""
    site = Site(campaign(policy=Policy(max_attempts=2)), node(1))
    installing(site, 1)
    site.fact(1, Input.FAIL)
    site.step()
    site.dropped(1)
    site.step(3600)
    assert (site.of(1).state, site.of(1).attempt, site.of(1).confirmed) == (State.PENDING, 2, 0)
    site.nodes[node(1).id] = node(1, version=NEW, version_at=site.now + 10)
    site.step(20)
    assert site.of(1).state is State.CONFIRMING
    decision = site.step(61)
    assert (site.of(1).state, decision.proven) == (State.UPDATED, (node(1).id,))


def test_a_claim_of_a_node_that_was_delivered_nothing_raises_no_floor() -> None:
    site = Site(campaign(), node(1))
    site.step()
    site.fact(1, Input.NEW_VERSION)
    assert site.step(100).proven == ()
    assert site.of(1).state is State.UPDATED


def test_a_proof_does_not_wait_for_a_release_that_was_withdrawn_for_ever() -> None:
    site = Site(campaign(), node(1))
    installing(site, 1)
    site.fact(1, Input.NEW_VERSION)
    site.release, site.blocked = None, ("unknown_release", "x")
    site.step(3600)
    assert site.of(1).state is State.CONFIRMING
    site.step(86400)
    assert site.of(1).state is State.UPDATED


def test_a_drop_that_the_radio_never_finishes_frees_the_node() -> None:
    site = Site(campaign(policy=Policy(max_attempts=1)), node(1))
    site.step()
    site.fact(1, Input.FAIL)
    site.step(DROP_MAX_S - 1)
    assert site.of(1).want == Want.DROP
    site.step(2)
    assert site.of(1).want == ""
    assert site.step().updates == ()


@pytest.mark.parametrize(("version", "yields", "taken"), [(NEW, True, 1), (NEW, False, 0), (NEW + 1, True, 0)])
def test_a_campaign_that_may_start_nothing_yields_its_nodes(version: int, yields: bool, taken: int) -> None:
    site = Site(campaign(), node(1))
    other = NodeUpdate("old", node(1).id, "r", "t-old", 0, version, State.TRANSFERRING, State.TRANSFERRING, want="hold")
    site.elsewhere = {node(1).id: other}
    site.yielding = frozenset({"old"}) if yields else frozenset()
    assert len(site.step().superseded) == taken


@pytest.mark.parametrize("state", [State.INSTALLING, State.CONFIRMING])
def test_a_frozen_campaign_does_not_keep_a_node_for_ever_that_was_past_recall(state: State) -> None:
    """Nobody gives it up or proves it there: its key may not sign any more."""
    site = Site(campaign(), node(1))
    other = NodeUpdate("old", node(1).id, "r", "t-old", 0, NEW - 1, state, state, want="install", radio_since=START_S)
    site.elsewhere, site.yielding = {node(1).id: other}, frozenset({"old"})
    assert site.step(INSTALLING_MAX_S - 1).superseded == ()
    (let_go,) = site.step(1).superseded
    assert (let_go.state, let_go.want, let_go.generation) == (state, Want.DROP, other.generation + 1)
    site.elsewhere = {node(1).id: let_go}
    assert site.step().superseded == ()
    site.elsewhere = {}
    site.step()
    assert site.of(1).want == Want.DELIVER


def test_who_was_let_go_by_a_frozen_campaign_is_not_installed_again_when_it_goes_on() -> None:
    site = Site(campaign(), node(1))
    installing(site, 1)
    site.updates[node(1).id] = replace(site.of(1), want="")  # dropped
    site.listens_since = site.now
    site.step()
    assert (site.of(1).state, site.of(1).want) == (State.INSTALLING, "")


def test_a_drop_that_never_ends_in_a_frozen_campaign_frees_the_node() -> None:
    site = Site(campaign(), node(1))
    done = State.CANCELLED
    other = NodeUpdate("old", node(1).id, "r", "t-old", 0, NEW, done, done, want="drop", radio_since=START_S)
    site.elsewhere, site.yielding = {node(1).id: other}, frozenset({"old"})
    site.step(DROP_MAX_S - 1)
    assert site.of(1).want == ""
    site.step(1)
    assert site.of(1).want == Want.DELIVER


def test_who_is_deferred_or_silent_takes_nobodys_place() -> None:
    weak = {"power": Power.BATTERY, "battery_percent": 80.0, "battery_at": START_S}
    site = Site(campaign(policy=Policy(concurrency=1)), node(1, **weak), node(2), node(3))
    site.step()
    site.fact(1, Input.DATA)
    site.nodes[node(1).id] = node(1, **{**weak, "battery_percent": 10.0})
    site.step()
    site.step()
    assert (site.of(1).want, site.of(2).want, site.of(3).want) == (Want.HOLD, Want.DELIVER, "")
    site.fact(2, Input.DATA)
    site.updates[node(2).id] = replace(site.of(2), code="silent")
    site.step()
    assert site.of(3).want == Want.DELIVER


def test_who_is_ready_and_waits_for_its_tier_takes_nobodys_place() -> None:
    """Else the later tiers' nodes would keep a canary from ever starting that could not start first."""
    low = {"power": Power.BATTERY, "battery_percent": 10.0, "battery_at": START_S}
    staged = CANARY.model_copy(update={"stage_by": StageBy.INSTALL})
    site = Site(campaign(rollout=staged, policy=Policy(concurrency=1)), node(1, **low), node(2), node(3))
    site.step()
    assert (site.of(1).want, site.of(2).want) == ("", Want.DELIVER)
    site.nodes[node(1).id] = node(1, **{**low, "battery_percent": 90.0})
    site.step()
    assert (site.of(1).state, site.of(1).want) == (State.PENDING, "")  # the place is taken
    site.fact(2, Input.DATA, Input.COMPLETE, Input.READY)
    site.step()
    assert (site.of(1).want, site.of(2).want, site.of(3).want) == (Want.DELIVER, Want.DELIVER, "")


def test_reasons_that_name_the_time_are_not_written_every_second() -> None:
    stale = {"power": Power.BATTERY, "battery_percent": 80.0, "battery_at": 0.0}
    site = Site(campaign(), node(1, **stale))
    site.step()
    assert site.of(1).code == "battery_stale"
    assert site.step().updates == ()
    site.blocked = ("clock_untrusted", "the clock says 10:00:00")
    site.step()
    row = site.row = replace(site.row, updated_at=site.now)
    site.blocked = ("clock_untrusted", "the clock says 10:00:01")
    assert site.step().row == row
    assert site.step(61).row.detail == "the clock says 10:00:01"


def test_a_completed_campaign_does_not_care_for_what_blocks_others() -> None:
    site = Site(campaign(), node(1))
    site.step()
    site.finish(1)
    site.release, site.blocked = None, ("trust_expired", "x")
    site.step(100 * 86400)
    assert site.row.state is CampaignState.COMPLETED
