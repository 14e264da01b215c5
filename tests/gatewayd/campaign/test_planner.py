"""What a campaign decides: who starts, who is held and why, when tiers open, when a node counts as updated."""

from dataclasses import replace
from datetime import timedelta

import pytest

from gatewayd.campaign.node_update import Input, NodeUpdate, State, advance
from gatewayd.campaign.payloads import full_image
from gatewayd.campaign.planner import Decision, Situation, decide
from gatewayd.campaign.reports import news_of
from gatewayd.campaign.rows import CampaignRow, CampaignState
from gatewayd.campaign.situation import Site as Place
from gatewayd.campaign.versions import Versions
from gatewayd.cloud.messages import (
    Campaign,
    Desired,
    Floor,
    Gate,
    Manufacturers,
    Policy,
    Rollout,
    Selection,
    StageBy,
    Tier,
)
from gatewayd.nodes.node import Node
from gatewayd.trust.release import VerifiedRelease
from radios.radio import Power, Want
from tests.support.documents import HARDWARE, NEW, OLD, START, START_S, campaign, node, release

CANARY = Rollout(tiers=(Tier(name="canary", nodes=("zigbee:0000000000000001",)), Tier(name="all", percent=100.0)))


class Site:
    """A campaign and its nodes, stepped through time; plays the radio by `fact`."""

    def __init__(self, document: Campaign, *nodes: Node, image: VerifiedRelease | None = None) -> None:
        self.document = document
        self.release: VerifiedRelease | None = image or release()
        self.manufacturers = Manufacturers(keys=())
        self.nodes = {n.id: n for n in nodes}
        self.updates: dict[str, NodeUpdate] = {}
        self.elsewhere: dict[str, NodeUpdate] = {}
        self.now = START_S
        self.blocked: tuple[str, str] | None = None
        self.forbidden = False
        self.yielding: frozenset[str] = frozenset()
        self.place = Place()
        self.versions = Versions()
        self.own_versions: dict[str, frozenset[int]] = {}
        self.unusable: frozenset[str] = frozenset()
        self.refused: frozenset[str] = frozenset()
        self.doubted: frozenset[str] = frozenset()
        self.radio_ahead_s = 0.0
        self.cohorts: dict[str, str] = {}
        self.listens_since = 0.0
        self.row = CampaignRow(
            "lamps", "t", "gateway:gw-1", document.revision, "d", b"", document.release, CampaignState.WAITING, "", "",
            False, 1, "", START_S, START_S,
        )  # fmt: skip

    def step(self, seconds: float = 1.0) -> Decision:
        self.now += seconds
        decision = decide(
            Situation(
                self.document, self.row, self.release, self.manufacturers, self.blocked, self.forbidden, self.nodes, self.updates, self.elsewhere, self.now,
                dict.fromkeys(("zigbee", "lorawan"), self.now + self.radio_ahead_s), self.yielding, self.unusable, self.refused,
                self.place, self.versions, self.own_versions, self.doubted, self.cohorts,
                dict.fromkeys(("zigbee", "lorawan"), self.listens_since),
            )
        )  # fmt: skip
        self.row = decision.row
        self.updates.update({u.node: u for u in decision.updates})
        return decision

    def fact(self, number: int, *inputs: Input) -> None:
        key = f"zigbee:{number:016x}"
        for what in inputs:
            self.updates[key] = advance(self.updates[key], what, now=self.now, radio_now=self.now)
            if what is Input.COMPLETE:
                self.updates[key] = replace(self.updates[key], confirmed=self.updates[key].size)

    def revise(self, **changes: object) -> None:
        """The next revision, adopted as intake does it."""
        values = {name: getattr(self.document, name) for name in Campaign.model_fields}
        self.document = campaign(**{**values, "revision": self.document.revision + 1, "retry": None, **changes})
        self.row = replace(self.row, revision=self.document.revision, state=CampaignState.WAITING, code="", detail="")

    def of(self, number: int) -> NodeUpdate:
        return self.updates[f"zigbee:{number:016x}"]

    def dropped(self, number: int) -> None:
        self.updates[self.of(number).node] = replace(self.of(number), want="")

    def finish(self, number: int) -> None:
        self.fact(number, Input.DATA, Input.COMPLETE, Input.READY)
        self.step()
        self.fact(number, Input.INSTALL, Input.NEW_VERSION)
        self.step(61)
        self.step()


def test_a_node_is_delivered_then_installed_then_proven() -> None:
    site = Site(campaign(), node(1))
    site.step()
    assert (site.of(1).want, site.of(1).state, site.row.state) == (Want.DELIVER, State.PENDING, CampaignState.RUNNING)
    site.fact(1, Input.PREPARE, Input.DATA, Input.COMPLETE, Input.READY)
    site.step()
    assert site.of(1).want == Want.INSTALL
    site.fact(1, Input.INSTALL, Input.NEW_VERSION)
    assert site.step(59).proven == ()
    assert site.of(1).state is State.CONFIRMING
    assert site.step(2).proven == (site.of(1).node,)
    assert (site.of(1).state, site.of(1).want, site.row.state) == (State.UPDATED, Want.DROP, CampaignState.COMPLETED)


def test_deciding_again_changes_nothing() -> None:
    site = Site(campaign(), node(1), node(2, power=Power.BATTERY))
    site.step()
    assert site.step().updates == ()


def test_nodes_of_other_hardware_are_not_meant_unless_named() -> None:
    site = Site(campaign(), node(1, hardware="zigbee:1111-0001"))
    site.step()
    assert site.updates == {}
    named = Site(campaign(selection=Selection(nodes=(node(1).id,))), node(1, hardware="zigbee:1111-0001"), node(2))
    named.step()
    assert (named.of(1).state, named.of(1).code) == (State.SKIPPED, "wrong_hardware")
    assert len(named.updates) == 1


@pytest.mark.parametrize(
    ("changes", "state", "code"),
    [
        ({"version": NEW}, State.SKIPPED, "already"),
        ({"version": NEW + 1}, State.SKIPPED, "newer"),
        ({"security_version": 3}, State.SKIPPED, "downgrade"),
        ({"version": None}, State.DEFERRED, "version_unknown"),
        ({"power": Power.BATTERY}, State.DEFERRED, "battery_unknown"),
        ({"power": None}, State.DEFERRED, "battery_unknown"),
        ({"power": Power.BATTERY, "battery_percent": 34.5, "battery_at": START_S}, State.DEFERRED, "battery_low"),
        ({"power": Power.BATTERY, "battery_percent": 90.0, "battery_at": 0.0}, State.DEFERRED, "battery_stale"),
        ({"power": Power.BATTERY, "battery_percent": 35.0, "battery_at": START_S}, State.PENDING, ""),
        ({"joined": False}, State.DEFERRED, "not_joined"),
    ],
)
def test_who_is_left_alone_and_why(changes: dict[str, object], state: State, code: str) -> None:
    site = Site(campaign(), node(1, **changes))
    site.step()
    assert (site.of(1).state, site.of(1).code) == (state, code)
    assert (site.of(1).want == Want.DELIVER) == (state is State.PENDING)


def test_nothing_below_the_fleets_floor_is_delivered() -> None:
    site = Site(campaign(), node(1))
    site.manufacturers = Manufacturers(keys=(), floors=(Floor(hardware=HARDWARE, minimum_security_version=3),))
    site.step()
    assert (site.of(1).state, site.of(1).code) == (State.SKIPPED, "below_floor")


@pytest.mark.parametrize(
    "facts",
    [
        (),
        (Input.PREPARE,),
        (Input.DATA,),
        (Input.DATA, Input.COMPLETE),
        (Input.DATA, Input.COMPLETE, Input.READY),
    ],
)
@pytest.mark.parametrize("deferred", [False, True])
def test_a_floor_that_rises_stops_who_is_under_way(facts: tuple[Input, ...], deferred: bool) -> None:
    site = Site(campaign(), node(1))
    site.step()
    site.fact(1, *facts)
    site.step()
    if deferred:
        site.nodes[node(1).id] = node(1, joined=False)
        site.step()
    site.manufacturers = Manufacturers(keys=(), floors=(Floor(hardware=HARDWARE, minimum_security_version=3),))
    site.step()
    assert (site.of(1).state, site.of(1).code, site.of(1).want) == (State.SKIPPED, "below_floor", Want.DROP)


def test_a_floor_that_rises_does_not_call_back_what_is_being_installed() -> None:
    site = Site(campaign(), node(1))
    site.step()
    site.fact(1, Input.DATA, Input.COMPLETE, Input.READY)
    site.step()
    site.fact(1, Input.INSTALL)
    site.manufacturers = Manufacturers(keys=(), floors=(Floor(hardware=HARDWARE, minimum_security_version=3),))
    site.step()
    assert (site.of(1).state, site.of(1).want) == (State.INSTALLING, Want.INSTALL)


def test_a_battery_that_sinks_holds_and_a_charged_one_goes_on() -> None:
    good = {"power": Power.BATTERY, "battery_percent": 80.0, "battery_at": START_S}
    site = Site(campaign(), node(1, **good))
    site.step()
    site.fact(1, Input.DATA)
    site.nodes[node(1).id] = node(1, **{**good, "battery_percent": 20.0})
    site.step()
    assert (site.of(1).state, site.of(1).resume, site.of(1).want) == (State.DEFERRED, State.TRANSFERRING, Want.HOLD)
    site.nodes[node(1).id] = node(1, **good)
    site.step()
    assert (site.of(1).state, site.of(1).want) == (State.TRANSFERRING, Want.DELIVER)


def test_the_battery_is_asked_again_before_the_installation() -> None:
    good = {"power": Power.BATTERY, "battery_percent": 80.0, "battery_at": START_S}
    site = Site(campaign(), node(1, **good))
    site.step()
    site.fact(1, Input.DATA, Input.COMPLETE, Input.READY)
    site.nodes[node(1).id] = node(1, **{**good, "battery_percent": 20.0})
    site.step()
    assert (site.of(1).state, site.of(1).want) == (State.DEFERRED, Want.HOLD)


def test_the_second_tier_waits_for_the_canary_and_its_gate() -> None:
    site = Site(campaign(rollout=CANARY.model_copy(update={"gate": Gate(soak_s=100)})), node(1), node(2))
    site.step()
    assert (site.of(1).want, site.of(2).want) == (Want.DELIVER, "")
    site.finish(1)
    assert (site.of(1).state, site.row.gate, site.of(2).want) == (State.UPDATED, "soak", "")
    site.step(100)
    assert (site.row.open_tiers, site.of(2).want) == (2, Want.DELIVER)


def test_the_third_tier_waits_for_the_second_and_soaks_again() -> None:
    names = [node(number).id for number in (1, 2)]
    tiers = (Tier(name="lab", nodes=(names[0],)), Tier(name="few", nodes=(names[1],)), Tier(name="all", percent=100.0))
    site = Site(campaign(rollout=Rollout(tiers=tiers, gate=Gate(soak_s=100))), node(1), node(2), node(3))
    site.step()
    site.finish(1)
    site.step(100)
    assert (site.row.open_tiers, site.row.gate) == (2, "wait")
    site.step(100)
    assert (site.row.open_tiers, site.of(2).want, site.of(3).want) == (2, Want.DELIVER, "")
    site.finish(2)
    assert (site.row.open_tiers, site.row.gate) == (2, "soak")
    site.step(100)
    assert (site.row.open_tiers, site.of(3).want) == (3, Want.DELIVER)


def test_the_cloud_opens_a_local_gate_that_can_never_open_here() -> None:
    nobody = Rollout(tiers=(Tier(name="canary", nodes=("zigbee:00000000000000ff",)), Tier(name="all", percent=100.0)))
    site = Site(campaign(rollout=nobody), node(1))
    site.step()
    assert (site.row.gate, site.of(1).want) == ("needs_cloud", "")
    assert "campaign advance" in site.row.detail
    site.document = campaign(revision=2, rollout=nobody.model_copy(update={"open_tiers": 2}))
    site.step()
    assert site.of(1).want == Want.DELIVER


def test_with_stage_by_install_all_are_delivered_and_only_the_canary_installs() -> None:
    site = Site(campaign(rollout=CANARY.model_copy(update={"stage_by": StageBy.INSTALL})), node(1), node(2))
    site.step()
    assert (site.of(1).want, site.of(2).want) == (Want.DELIVER, Want.DELIVER)
    for number in (1, 2):
        site.fact(number, Input.DATA, Input.COMPLETE, Input.READY)
    site.step()
    assert (site.of(1).want, site.of(2).want) == (Want.INSTALL, Want.DELIVER)


def test_a_rolled_back_canary_breaches_and_none_starts_until_a_new_revision() -> None:
    site = Site(campaign(rollout=CANARY), node(1), node(2))
    site.step()
    site.fact(1, Input.DATA, Input.COMPLETE, Input.READY)
    site.step()
    site.fact(1, Input.INSTALL, Input.OLD_VERSION)
    site.step()
    assert (site.row.state, site.of(1).state, site.of(2).want) == (CampaignState.BREACHED, State.ROLLED_BACK, "")
    assert "100.0% failed" in site.row.detail
    site.step(86400)
    assert (site.row.state, site.of(2).want) == (CampaignState.BREACHED, "")


@pytest.mark.parametrize("how", ["cloud", "operator"])
def test_a_pause_holds_what_runs_and_starts_nothing(how: str) -> None:
    site = Site(campaign(policy=Policy(concurrency=1)), node(1), node(2))
    site.step()
    site.fact(1, Input.DATA)
    if how == "cloud":
        site.document = campaign(desired=Desired.PAUSED)
    else:
        site.row = replace(site.row, hold=True)
    site.step()
    assert site.row.state is (CampaignState.PAUSED if how == "cloud" else CampaignState.HELD)
    assert (site.of(1).want, site.of(1).state, site.of(2).want) == (Want.HOLD, State.TRANSFERRING, "")
    site.document, site.row = campaign(), replace(site.row, hold=False)
    site.step()
    assert site.of(1).want == Want.DELIVER


def test_the_operators_hold_outlives_the_clouds_resume() -> None:
    site = Site(campaign(desired=Desired.PAUSED), node(1))
    site.row = replace(site.row, hold=True)
    site.step()
    site.document = campaign(desired=Desired.RUNNING)
    site.step()
    assert site.row.state is CampaignState.HELD


def test_cancel_ends_the_unfinished_and_leaves_installing_ones_to_finish() -> None:
    site = Site(campaign(), node(1), node(2), node(3))
    site.step()
    site.fact(1, Input.DATA)
    site.fact(2, Input.DATA, Input.COMPLETE, Input.READY)
    site.step()
    site.fact(2, Input.INSTALL)
    site.document = campaign(desired=Desired.CANCELLED)
    site.step()
    assert (site.of(1).state, site.of(1).want) == (State.CANCELLED, Want.DROP)
    assert (site.of(2).state, site.of(2).want) == (State.INSTALLING, Want.INSTALL)
    assert site.of(3).state is State.CANCELLED


def test_after_expiry_nothing_starts_and_what_runs_finishes() -> None:
    site = Site(campaign(policy=Policy(concurrency=1), expires=START + timedelta(days=1)), node(1), node(2))
    site.step()
    site.fact(1, Input.DATA)
    site.step(2 * 86400)
    assert (site.of(1).state, site.of(1).want) == (State.TRANSFERRING, Want.DELIVER)
    assert (site.of(2).state, site.of(2).code) == (State.CANCELLED, "expired")


def test_whom_its_radio_lets_begin_no_more_is_let_go_when_the_campaign_has_expired() -> None:
    """The radio goes by its clock alone, and gives no verdict."""
    site = Site(campaign(expires=START + timedelta(days=1)), node(1), node(2))
    site.step()
    for number in (1, 2):
        site.fact(number, Input.PREPARE)
    site.updates[site.of(1).node] = replace(site.of(1), code="expired")
    site.step()
    assert (site.of(1).state, site.of(1).want) == (State.PREPARING, Want.DELIVER)
    site.step(2 * 86400)
    assert (site.of(1).state, site.of(1).code, site.of(1).want) == (State.CANCELLED, "expired", Want.DROP)
    assert (site.of(2).state, site.of(2).want) == (State.PREPARING, Want.DELIVER)


def test_nothing_starts_while_trust_is_stale_and_what_runs_goes_on() -> None:
    site = Site(campaign(policy=Policy(concurrency=1)), node(1), node(2))
    site.step()
    site.fact(1, Input.DATA, Input.COMPLETE, Input.READY)
    site.blocked = ("trust_expired", "x")
    site.step()
    assert (site.row.state, site.row.code) == (CampaignState.WAITING, "trust_expired")
    assert (site.of(1).want, site.of(2).want) == (Want.INSTALL, "")


def test_a_refused_payload_holds_what_runs_but_not_what_installs() -> None:
    site = Site(campaign(), node(1), node(2))
    site.step()
    site.fact(1, Input.DATA)
    site.fact(2, Input.DATA, Input.COMPLETE, Input.READY)
    site.step()
    site.fact(2, Input.INSTALL)
    site.blocked, site.forbidden = ("key_revoked", "x"), True
    site.step()
    assert (site.row.code, site.of(1).want, site.of(2).want) == ("key_revoked", Want.HOLD, Want.INSTALL)


def test_a_payload_in_doubt_holds_what_runs_and_no_node_is_told_of() -> None:
    site = Site(campaign(), node(1), node(2))
    site.step()
    site.fact(1, Input.DATA)
    site.fact(2, Input.DATA, Input.COMPLETE, Input.READY)
    site.step()
    site.fact(2, Input.INSTALL)
    before = [news_of(site.of(number)) for number in (1, 2)]
    site.blocked, site.doubted = ("payload_fetching", "x"), frozenset({full_image(release()).sha256})
    site.step()
    assert (site.of(1).want, site.of(2).want) == (Want.HOLD, Want.INSTALL)
    site.blocked, site.doubted = None, frozenset()
    site.step()
    assert (site.of(1).want, site.of(2).want) == (Want.DELIVER, Want.INSTALL)
    assert [news_of(site.of(number)) for number in (1, 2)] == before


def test_without_its_release_a_campaign_touches_nobody() -> None:
    site = Site(campaign(), node(1))
    site.release, site.blocked = None, ("unknown_release", "x")
    site.step()
    assert (site.row.state, site.row.code, site.updates) == (CampaignState.WAITING, "unknown_release", {})


def test_a_failed_node_is_tried_again_in_a_new_transfer_after_its_pause() -> None:
    site = Site(campaign(policy=Policy(max_attempts=2, retry_after_s=100)), node(1))
    site.step()
    first = site.of(1).transfer
    site.fact(1, Input.DATA, Input.FAIL)
    site.step()
    assert (site.of(1).want, site.row.state) == (Want.DROP, CampaignState.RUNNING)
    site.step(200)
    assert site.of(1).state is State.FAILED  # the radio has not dropped the first attempt yet
    site.dropped(1)
    site.step()
    site.step()
    assert (site.of(1).attempt, site.of(1).want) == (2, Want.DELIVER)
    assert site.of(1).transfer != first
    site.fact(1, Input.FAIL)
    site.step(1000)
    assert (site.of(1).state, site.row.state) == (State.FAILED, CampaignState.BREACHED)


def test_a_newer_release_takes_the_node_over_an_older_one_waits() -> None:
    site = Site(campaign(), node(1))
    other = NodeUpdate(
        "old", node(1).id, "r", "t-old", 0, NEW - 1, State.TRANSFERRING, State.TRANSFERRING, want="deliver"
    )
    site.elsewhere = {node(1).id: other}
    decision = site.step()
    assert [(u.campaign, u.state, u.want) for u in decision.superseded] == [("old", State.SUPERSEDED, Want.DROP)]
    assert (site.of(1).state, site.of(1).code, site.of(1).want) == (State.DEFERRED, "busy", "")
    site.elsewhere = {}
    site.step()
    assert site.of(1).want == Want.DELIVER

    stuck = Site(campaign(), node(1))
    stuck.elsewhere, stuck.blocked = {node(1).id: other}, ("tampered", "x")
    assert stuck.step().superseded == ()

    waiting = Site(campaign(), node(1))
    waiting.elsewhere = {node(1).id: replace(other, target_version=NEW + 1)}
    assert waiting.step().superseded == ()
    assert waiting.of(1).code == "busy"


def test_concurrency_limits_how_many_start() -> None:
    site = Site(campaign(policy=Policy(concurrency=2)), *(node(n) for n in range(1, 6)))
    site.step()
    assert sum(u.want == Want.DELIVER for u in site.updates.values()) == 2
    site.finish(1)
    site.step()
    assert sum(u.want == Want.DELIVER for u in site.updates.values()) == 2


def test_versions_before_and_target_are_kept() -> None:
    site = Site(campaign(), node(1))
    site.step()
    assert (site.of(1).version_before, site.of(1).target_version) == (OLD, NEW)
