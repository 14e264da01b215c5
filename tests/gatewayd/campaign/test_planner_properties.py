"""The planner under random facts, revisions, restarts and clocks: what must never happen, whatever comes together."""

import sqlite3
from dataclasses import replace
from datetime import timedelta
from importlib import resources

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gatewayd.campaign import rows
from gatewayd.campaign.node_steps import CLOCK_CORRECTION_S
from gatewayd.campaign.node_update import (
    COMMITTED,
    ENDED,
    Input,
    NodeUpdate,
    State,
    UnknownTransition,
    advance,
)
from gatewayd.campaign.planner import Decision, Situation, decide
from gatewayd.campaign.policy import INSTALL_LEAD_S, right_hour
from gatewayd.campaign.rows import CampaignRow, CampaignState
from gatewayd.cloud.campaign_policy import Retriable, Retry, Window
from gatewayd.cloud.messages import Campaign, Desired, Gate, Manufacturers, Policy, Rollout, StageBy, Tier
from gatewayd.nodes.node import Node
from radios.radio import Power, Want, radio_of
from tests.support.documents import NEW, OLD, START, START_S, campaign, node, release

NAMES = tuple(f"{kind}:{number:016x}" for number in range(1, 4) for kind in ("zigbee", "lorawan"))
STOPPING = {CampaignState.PAUSED, CampaignState.HELD, CampaignState.BREACHED, CampaignState.CANCELLED}
GIVEN = (Want.DELIVER, Want.INSTALL)

names = st.sampled_from(NAMES)
rollouts = st.builds(
    Rollout,
    tiers=st.sampled_from(
        [
            (Tier(name="all", percent=100.0),),
            (Tier(name="lab", nodes=NAMES[:2]), Tier(name="all", percent=100.0)),
            (Tier(name="lab", nodes=NAMES[:1]), Tier(name="half", percent=50.0), Tier(name="all", percent=100.0)),
            (Tier(name="tagged", tags={"floor": "2"}), Tier(name="all", percent=100.0)),
        ]
    ),
    stage_by=st.sampled_from([None, StageBy.TRANSFER, StageBy.INSTALL]),
    gate=st.builds(
        Gate,
        kind=st.sampled_from(["local", "cloud"]),
        minimum_executed=st.integers(1, 3),
        success_ratio=st.sampled_from([0.0, 0.5, 1.0]),
        failure_ratio=st.sampled_from([0.0, 0.5, 1.0]),
        soak_s=st.sampled_from([0, 3600]),
    ),
    open_tiers=st.sampled_from([1, 1, 1, 2]),
)
policies = st.builds(
    Policy,
    max_attempts=st.integers(1, 3),
    retry_after_s=st.sampled_from([1, 3600]),
    concurrency=st.sampled_from([None, 1, 2]),
    quiet_hours=st.sampled_from([(), (Window(start="22:00", end="06:00"),)]),
    install_windows=st.sampled_from([(), (Window(start="01:00", end="13:00"),)]),
)
retries = st.sampled_from([None, None, Retry(), Retry(outcomes=tuple(Retriable))])


class Planner(RuleBasedStateMachine):
    """A campaign over six nodes on two radios; the rows live in SQLite, as the daemon's do."""

    @initialize(rollout=rollouts, policy=policies, rivals=st.sets(names, max_size=2))
    def adopt(self, rollout: Rollout, policy: Policy, rivals: set[str]) -> None:
        self.db = sqlite3.connect(":memory:", isolation_level=None)
        self.db.row_factory = sqlite3.Row
        for file in sorted(resources.files("gatewayd.store").joinpath("schema").iterdir(), key=lambda f: f.name):
            self.db.executescript(file.read_text())
        self.document = campaign(rollout=rollout, policy=policy)
        self.release = release()
        self.now = START_S + 12 * 3600  # on the wall, which may leap
        self.radio_now = self.now  # steady: what is stored of the radios' times follows every step of their clocks
        self.leapt: tuple[float, tuple[str, str] | None] | None = None  # the wall's time and what was wrong before it
        self.blocked: tuple[str, str] | None = None
        self.forbidden = False
        self.elsewhere: dict[str, NodeUpdate] = {}
        self.nodes = {n: node(1, id=n, tags={"floor": n[-1]}) for n in NAMES}
        self.asked: dict[str, int] = {}  # of those that rolled back: the revision in which they did
        row = CampaignRow(
            "lamps", "t", "gateway:g", 1, "d", b"", "r", CampaignState.WAITING, "", "", False, 1, "", 0, 0
        )
        rows.put_campaign(self.db, row)
        self.last: Decision | None = None
        for name in rivals:
            self.rival(name, NEW + 1, has=True)

    # -- what comes from outside ---------------------------------------------------------------------------------------

    @rule(name=names, what=st.sampled_from(Input))
    def fact(self, name: str, what: Input) -> None:
        """Any fact of a radio, in any order: as the journal takes it, what has no meaning changes nothing."""
        update = self.updates().get(name)
        if update is None or what in (Input.PROVEN, Input.RETRY, Input.DEFER, Input.RESUME, Input.CANCEL, Input.SKIP):
            return  # those are the planner's own
        if what is Input.SUPERSEDE or (what is Input.INSTALL and update.want != Want.INSTALL):
            return
        try:
            after = advance(update, what, now=self.now, radio_now=self.radio_now)
        except UnknownTransition:
            return
        if what is Input.COMPLETE:
            after = replace(after, confirmed=after.size)
        if after.state is State.ROLLED_BACK and update.state is not State.ROLLED_BACK:
            self.asked[name] = self.document.revision
        self.put(after)

    @rule(name=names)
    def the_straight_way(self, name: str) -> None:
        self.look()
        for what in (Input.DATA, Input.COMPLETE, Input.READY):
            self.fact(name, what)
        self.look()
        self.fact(name, Input.INSTALL)

    @rule(name=names, comes_back_as=st.sampled_from([Input.OLD_VERSION, Input.NEW_VERSION]))
    def to_the_end(self, name: str, comes_back_as: Input) -> None:
        self.the_straight_way(name)
        self.fact(name, comes_back_as)
        self.wait(61)
        self.look()
        self.dropped(name)
        self.look()

    @rule(name=names)
    def dropped(self, name: str) -> None:
        update = self.updates().get(name)
        if update is not None and update.want == Want.DROP:
            self.put(replace(update, want=""))

    @rule(name=names, version=st.sampled_from([OLD, NEW, OLD + 1, NEW + 1]))
    def seen(self, name: str, version: int) -> None:
        self.nodes[name] = replace(self.nodes[name], version=version, version_at=self.radio_now)

    @rule(name=names, percent=st.sampled_from([None, 10.0, 90.0]))
    def battery(self, name: str, percent: float | None) -> None:
        power = Power.MAINS if percent is None else Power.BATTERY
        self.nodes[name] = replace(self.nodes[name], power=power, battery_percent=percent, battery_at=self.radio_now)

    @rule(name=names, joined=st.booleans())
    def membership(self, name: str, joined: bool) -> None:
        self.nodes[name] = replace(self.nodes[name], joined=joined)

    @rule(name=names, version=st.sampled_from([OLD + 1, NEW, NEW + 1]), has=st.booleans())
    def rival(self, name: str, version: int, has: bool) -> None:
        self.elsewhere.pop(name, None)
        if has:
            state = State.TRANSFERRING
            self.elsewhere[name] = NodeUpdate("other", name, "r", "t", 0, version, state, state, want="deliver")

    @rule(
        rollout=st.none() | rollouts,
        policy=st.none() | policies,
        desired=st.sampled_from([Desired.RUNNING, Desired.RUNNING, Desired.PAUSED]),
        retry=retries,
        days=st.sampled_from([1, 10, 30]),
    )
    def revise(
        self, rollout: Rollout | None, policy: Policy | None, desired: Desired, retry: Retry | None, days: int
    ) -> None:
        held = self.document
        values = {name: getattr(held, name) for name in Campaign.model_fields} | {
            "revision": held.revision + 1,
            "rollout": rollout or held.rollout,
            "policy": policy or held.policy,
            "desired": desired,
            "retry": retry,
            "expires": START + timedelta(days=days),
        }
        self.document = campaign(**values)
        row = replace(self.row(), revision=self.document.revision, state=CampaignState.WAITING, code="", detail="")
        rows.put_campaign(self.db, row)

    @precondition(lambda self: self.document.revision > 8)
    @rule()
    def cancel(self) -> None:
        self.revise(None, None, Desired.RUNNING, None, 30)
        self.document = self.document.model_copy(update={"desired": Desired.CANCELLED})

    @rule(hold=st.booleans())
    def operator(self, hold: bool) -> None:
        rows.set_hold(self.db, "lamps", hold)

    @precondition(lambda self: self.leapt is None)
    @rule(
        why=st.sampled_from([None, None, ("clock_untrusted", "x"), ("trust_expired", "x"), ("payload_fetching", "x")]),
        forbidden=st.sampled_from([False, False, True]),
    )
    def trouble(self, why: tuple[str, str] | None, forbidden: bool) -> None:
        self.blocked, self.forbidden = why, forbidden

    @rule(seconds=st.sampled_from([1.0, 61.0, 3600.0, 86400.0, 4 * 86400.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.radio_now += seconds
        if self.leapt is not None:
            self.leapt = self.leapt[0] + seconds, self.leapt[1]

    @precondition(lambda self: self.leapt is None)
    @rule(leap=st.sampled_from([(-1, "clock_untrusted"), (10, "clock_untrusted"), (10, "trust_expired")]))
    def leap(self, leap: tuple[int, str]) -> None:
        """A wrong clock; one that is synchronised all the same makes the metadata look old too. Life goes on meanwhile."""
        years, why = leap
        self.leapt = self.now, self.blocked
        self.now, self.blocked = self.now + years * 365 * 86400, (why, "x")
        self.look()

    @precondition(lambda self: self.leapt is not None)
    @rule()
    def leap_back(self) -> None:
        assert self.leapt is not None
        (self.now, self.blocked), self.leapt = self.leapt, None
        self.look()

    # -- the planner ---------------------------------------------------------------------------------------------------

    @rule()
    def look(self) -> None:
        """One round, from what is stored: every round is one after a restart."""
        before = self.updates()
        it = self.situation()
        decision = decide(it)
        after = {**before, **{u.node: u for u in decision.updates}}
        self.check(it, decision, after)
        for one in decision.superseded:
            self.elsewhere.pop(one.node)
        for name, update in after.items():
            old = before.get(name)
            if update.state is State.ROLLED_BACK and (old is None or old.state is not State.ROLLED_BACK):
                self.asked[name] = self.document.revision
        rows.put_campaign(self.db, decision.row)
        rows.put_updates(self.db, decision.updates, self.now)
        self.last = decision

    @invariant()
    def settles(self) -> None:
        """With nothing new, a few rounds lead to one that changes nothing."""
        if self.last is None:
            return
        it = self.situation()
        for _ in range(8):
            decision = decide(it)
            after = {**it.updates, **{u.node: u for u in decision.updates}}
            elsewhere = {n: u for n, u in it.elsewhere.items() if n not in {s.node for s in decision.superseded}}
            if (decision.row, after, elsewhere) == (it.row, it.updates, it.elsewhere):
                return
            it = replace(it, row=decision.row, updates=after, elsewhere=elsewhere)
        raise AssertionError("the planner goes round in circles")

    def check(self, it: Situation, decision: Decision, after: dict[str, NodeUpdate]) -> None:
        row = decision.row
        assert row.state is not CampaignState.EXPIRED or it.dates_believed or it.row.state is CampaignState.EXPIRED
        assert it.updates.keys() <= after.keys()
        for name, update in after.items():
            old = it.updates.get(name)
            given = update.want in GIVEN and update.state not in COMMITTED
            started = given and (old is None or old.want == "")
            said = (name, old, update, row)
            if not it.dates_believed and (old is None or old.code != "expired"):
                assert update.code != "expired", said
            if it.dates_believed:
                assert update.since <= it.now + CLOCK_CORRECTION_S, said
            if started:
                self.check_start(it, row, update)
            if row.state in STOPPING or it.forbidden:
                assert not given, said
            if update.want == Want.INSTALL and update.state not in COMMITTED:
                assert update.state is State.READY, said
                assert self.staged_by_transfer(name) or update.tier < row.open_tiers, said
                soon = 0 < update.install_at - it.now <= INSTALL_LEAD_S
                assert right_hour(it.campaign.policy, State.READY, it.local) is None or soon, said
            if update.state in COMMITTED and old is not None and old.state is State.INSTALLING:
                assert update.want == Want.INSTALL, said
            if old is not None:
                assert (update.want == old.want) or update.generation > old.generation or update.want == "", said
                self.check_outcome(it, old, update)
            # Taken up in one revision, it may be given in the next, which need not ask for it again.
            taken_up = old is not None and old.state is State.ROLLED_BACK and update.effective is State.PENDING
            if name in self.asked and (given or taken_up):
                retry = it.campaign.retry
                asked = retry is not None and Retriable.ROLLED_BACK in retry.outcomes
                if asked and it.campaign.revision > self.asked[name]:
                    del self.asked[name]
                else:
                    raise AssertionError(f"rolled back, and taken up again unasked: {said}")
        for name in decision.proven:
            assert after[name].state is State.UPDATED
            assert after[name].confirmed >= after[name].size
            assert self.radio_now - it.updates[name].radio_since >= self.release.document.self_test_s

    def check_start(self, it: Situation, row: CampaignRow, update: NodeUpdate) -> None:
        known = it.nodes[update.node]
        assert row.state is CampaignState.RUNNING
        assert it.blocked is None
        assert not it.past_expiry
        assert it.campaign.desired is Desired.RUNNING
        assert not it.row.hold
        assert update.tier < row.open_tiers or not self.staged_by_transfer(update.node)
        assert update.node not in it.elsewhere
        assert known.joined
        assert known.power is Power.MAINS or (known.battery_percent or 0) >= 35
        assert known.version is not None
        assert known.version < NEW

    def check_outcome(self, it: Situation, old: NodeUpdate, update: NodeUpdate) -> None:
        if old.state not in ENDED or update.state is old.state:
            return
        again = update.attempt == old.attempt + 1 and update.effective in (State.PENDING, State.SKIPPED)
        retry = it.campaign.retry
        asked = retry is not None and old.revision < it.campaign.revision
        allowed = {
            State.UPDATED: update.state is State.ROLLED_BACK,
            State.FAILED: again or update.state in (State.CONFIRMING, State.UPDATED),
            State.ROLLED_BACK: (again and asked) or update.state in (State.CONFIRMING, State.UPDATED),
            State.CANCELLED: again and old.code in ("expired", "not_selected"),
            State.SKIPPED: again and asked and old.code == "moved",
        }
        assert allowed.get(old.state, False), (old, update)

    # -- helpers -------------------------------------------------------------------------------------------------------

    def staged_by_transfer(self, name: str) -> bool:
        stage_by = self.document.rollout.stage_by
        return stage_by is StageBy.TRANSFER or (stage_by is None and radio_of(name) == "zigbee")

    def situation(self) -> Situation:
        nodes: dict[str, Node] = dict(self.nodes)
        return Situation(
            self.document, self.row(), self.release, Manufacturers(keys=()), self.blocked, self.forbidden, nodes,
            self.updates(), dict(self.elsewhere), self.now, {"zigbee": self.radio_now, "lorawan": self.radio_now},
        )  # fmt: skip

    def row(self) -> CampaignRow:
        found = rows.campaign(self.db, "lamps")
        assert found is not None
        return found

    def updates(self) -> dict[str, NodeUpdate]:
        return rows.updates_of_campaign(self.db, "lamps")

    def put(self, update: NodeUpdate) -> None:
        rows.put_updates(self.db, [update], self.now)

    def teardown(self) -> None:
        if hasattr(self, "db"):
            self.db.close()


TestPlanner = Planner.TestCase
TestPlanner.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
