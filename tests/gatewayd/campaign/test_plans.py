"""What a transfer will take: asked before it starts, kept, told; and nothing depends on it."""

import asyncio
from dataclasses import replace

import pytest

from gatewayd.campaign import plan_rows, plans
from gatewayd.campaign.node_update import NodeUpdate, State
from gatewayd.campaign.plan_rows import PlanRow
from gatewayd.campaign.plans import AGAIN_S, Group, groups, is_due
from gatewayd.campaign.reports import summary
from gatewayd.campaign.rows import CampaignRow, CampaignState
from gatewayd.cloud import messages
from gatewayd.cloud.messages import DOCUMENT_MAX_BYTES, CampaignSummary, Rollout, Tier
from gatewayd.cloud.plan import PLANS_MOST
from radios.errors import Unsupported
from radios.radio import Fact, NodeId, PlanPart, TransferPlan, Want
from tests.gatewayd.campaign.conftest import METER, Gateway, PlayedRadio

pytestmark = pytest.mark.timeout(60)
ROW = CampaignRow("c", "t", "gateway:g", 2, "d", b"e", "r", CampaignState.RUNNING, "", "", False, 1, "", 0, 0)
PLAN = TransferPlan(300, 120.5, 4000.0, parts=(PlanPart("DR5", 2, 300, 120.5, 4000.0, 3.5),), assumptions="dry air")


class PlanningRadio(PlayedRadio):
    """Plans as it is told; `asked` holds the nodes of each question, and what the radio had been told by then."""

    def __init__(self, answer: TransferPlan | Exception | None = PLAN) -> None:
        super().__init__()
        self.answer = answer
        self.asked: list[tuple[list[str], int, int]] = []

    async def plan(self, order: object, nodes: object) -> TransferPlan:
        self.asked.append((list(nodes), len(self.orders), len(self.told)))  # type: ignore[call-overload]
        if self.answer is None:
            await asyncio.Event().wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        assert self.answer is not None
        return self.answer


def played(gateway: Gateway, radio: PlanningRadio) -> PlanningRadio:
    gateway.radio = radio
    gateway.coordinator._radios = {"lorawan": (radio, gateway.clock)}
    gateway.coordinator._plans._radios = {"lorawan": radio}
    return radio


def update(
    number: int, tier: int = 0, transfer: str = "c.aa.1", state: State = State.PENDING, **more: object
) -> NodeUpdate:
    return NodeUpdate(
        campaign="c",
        node=f"lorawan:{number:016x}",
        release="r",
        transfer=transfer,
        tier=tier,
        target_version=2,
        state=state,
        **more,  # type: ignore[arg-type]
    )


def grouped(*updates: NodeUpdate) -> list[tuple[int, str, int, bool]]:
    return [(g.tier, g.transfer, len(g.nodes), g.begun) for g in groups({u.node: u for u in updates})]


def test_transfers_are_apart_by_tier_and_payload_and_outcomes_that_never_began_are_left_out() -> None:
    found = grouped(
        update(1),
        update(2, state=State.TRANSFERRING),
        update(3, transfer="c.bb.1"),
        update(4, tier=1, state=State.PREPARING),
        update(5, tier=1, state=State.SKIPPED),
        update(6, tier=1, state=State.DEFERRED, resume=State.TRANSFERRING, transfer="c.cc.1"),
        update(7, state=State.UPDATED),
    )
    assert found == [(0, "c.aa.1", 3, True), (0, "c.bb.1", 1, False), (1, "c.aa.1", 1, False), (1, "c.cc.1", 1, True)]


ONE, TWO = frozenset({"a"}), frozenset({"a", "b"})


@pytest.mark.parametrize(
    ("nodes", "begun", "planned", "problem", "asked_s", "due"),
    [
        (ONE, False, None, "", None, True),
        (ONE, True, None, "", None, True),  # a start between two rounds: late, but better than none
        (ONE, False, ONE, "", 1.0, False),
        (ONE, False, ONE, "", AGAIN_S, True),  # the radio may know more of them by now
        (ONE, False, ONE, "", None, True),
        (ONE, True, ONE, "", None, False),  # kept, to be compared
        (TWO, True, ONE, "", 1.0, True),
        (ONE, True, TWO, "", 1.0, False),
        (ONE, False, TWO, "", 1.0, True),
        (ONE, True, ONE, "no link", 1.0, False),
        (ONE, True, ONE, "no link", AGAIN_S, True),
    ],
)
def test_when_a_plan_is_made_anew(
    nodes: frozenset[str],
    begun: bool,
    planned: frozenset[str] | None,
    problem: str,
    asked_s: float | None,
    due: bool,
) -> None:
    plan = None if planned is None else PlanRow("c", 0, "lorawan", "t", "full", 1, planned, 0.0, problem=problem)
    assert is_due(Group(0, "lorawan", "t", nodes, begun), plan, asked_s) is due


async def test_the_plan_comes_before_the_radio_is_told_and_is_kept_over_a_restart(gateway: Gateway) -> None:
    radio = played(gateway, PlanningRadio())
    await gateway.issue(gateway.document())
    await gateway.until_told(Want.DELIVER)
    assert radio.asked[0] == ([METER], 0, 0)
    [kept] = await gateway.database.read(plan_rows.plans)
    assert (kept.frames, kept.airtime_s, kept.eta_s, kept.node_energy_j) == (300, 120.5, 4000.0, 3.5)
    assert (kept.nodes, kept.kind, kept.size) == ({METER}, "full", gateway.payload().size)
    await gateway.fact(Fact.PROGRESS, confirmed=1000)
    await gateway.fact(Fact.COMPLETE, confirmed=kept.size)
    await gateway.stop()
    await gateway.start()
    again = played(gateway, PlanningRadio(replace(PLAN, frames=1)))
    await gateway.until(lambda: gateway.coordinator._plans.of("meters"))
    assert gateway.coordinator._plans.of("meters") == [kept]
    assert again.asked == []
    content = gateway.coordinator._summaries["meters"][0]
    assert isinstance(content, CampaignSummary)
    [planned] = content.plan
    assert (planned.tier, planned.radio, planned.frames, planned.eta_s) == ("all", "lorawan", 300, 4000.0)


async def test_a_radio_that_knows_no_node_yet_does_not_replace_what_was_planned(gateway: Gateway) -> None:
    """As after a restart while nodes are being prepared: they begin, and what was planned for them would be lost for good."""
    played(gateway, PlanningRadio())
    await gateway.issue(gateway.document())
    await gateway.until_told(Want.DELIVER)
    [kept] = await gateway.database.read(plan_rows.plans)
    await gateway.stop()
    await gateway.start()
    nothing = TransferPlan(0, 0.0, 0.0, skipped={NodeId(METER): "unknown to the network server"})
    again = played(gateway, PlanningRadio(nothing))
    await gateway.until(lambda: again.asked and gateway.coordinator._plans.of("meters"))
    assert gateway.coordinator._plans.of("meters") == [kept]


@pytest.mark.parametrize("answer", [Unsupported("too much"), RuntimeError("a fault"), None])
async def test_a_plan_that_cannot_be_made_stops_nothing(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, answer: Exception | None
) -> None:
    monkeypatch.setattr(plans, "LIMIT_S", 0.05)
    radio = played(gateway, PlanningRadio(answer))
    await gateway.issue(gateway.document())
    await gateway.until_told(Want.DELIVER)
    assert radio.asked
    [kept] = await gateway.database.read(plan_rows.plans)
    assert kept.problem == (str(answer) if answer else "TimeoutError")
    assert kept.frames == 0


async def test_a_plan_that_cannot_be_stored_stops_nothing(gateway: Gateway) -> None:
    played(gateway, PlanningRadio())
    await gateway.database.write(
        lambda db: db.execute(
            "CREATE TRIGGER full BEFORE INSERT ON transfer_plan BEGIN SELECT RAISE(ABORT, 'disk full'); END"
        )
    )
    await gateway.issue(gateway.document())
    await gateway.until_told(Want.DELIVER)
    assert [plan.frames for plan in gateway.coordinator._plans.of("meters")] == [300]
    assert gateway.coordinator.store_problem == ""


def test_a_summary_with_all_that_can_be_planned_fits_a_document() -> None:
    tiers = tuple(Tier(name=f"{n:064x}", percent=n + 1.0) for n in range(16))
    updates = [update(100 * n + m, n, state=state) for n in range(16) for m, state in enumerate(State)]
    plan = PlanRow("c", 15, "lorawan", "t", "delta", 2**26, frozenset({"a"}), 1.7e9, problem="\\" * 200)
    many = [replace(plan, airtime_s=1e9 / 3, eta_s=1e9 / 3, node_energy_j=1e9 / 3)] * (PLANS_MOST + 50)
    made = summary(ROW, Rollout(tiers=tiers), updates, 1.7e9, many)
    assert len(made.plan) == PLANS_MOST
    assert len(messages.dump(made)) < DOCUMENT_MAX_BYTES
    gone = replace(plan, tier=16)  # of a revision with more tiers
    assert summary(ROW, Rollout(tiers=tiers), updates, 1.7e9, [gone]).plan[0].tier == ""


def test_what_is_skipped_is_told_with_its_reasons() -> None:
    skipped = {NodeId(f"lorawan:{n:016x}"): "another gateway owns it" for n in range(100)}
    row = PlanRow("c", 0, "lorawan", "t", "full", 1, frozenset(skipped), 0.0).with_numbers(
        replace(PLAN, skipped=skipped)
    )
    assert row.skipped == 100
    assert len(row.reasons) == plan_rows.SKIPPED_MOST


async def test_who_shares_a_multicast_is_asked_of_the_radio_and_again_while_it_does_not_know_all(
    gateway: Gateway,
) -> None:
    other = NodeId("lorawan:0000000000000002")
    parts = (
        PlanPart("DR5", 1, 1, 1.0, 1.0, members=(METER,), multicast=True),
        PlanPart("DR0 unicast", 1, 1, 1.0, 1.0, members=(other,)),
    )
    radio = PlanningRadio(replace(PLAN, parts=parts, skipped={other: "not heard yet"}))
    await gateway.issue(gateway.document())
    await gateway.until_told(Want.DELIVER)
    now = [0.0]
    asking = plans.Plans(gateway.database, {"lorawan": radio}, gateway.wall.now, lambda: now[0])
    release, _ = gateway.supplied()
    asked = gateway.document(), release, gateway.inventory.all()
    for _ in range(3):
        assert await asking.cohorts(*asked) == {METER: "lorawan 0"}
    assert len(radio.asked) == 1  # not in every round
    now[0] += plans.SOON_S
    assert await asking.cohorts(*asked) == {METER: "lorawan 0"}
    assert len(radio.asked) == 2
    radio.answer = replace(PLAN, parts=parts)
    for _ in range(3):
        now[0] += plans.SOON_S
        await asking.cohorts(*asked)
    assert len(radio.asked) == 3  # what is whole holds for longer
    radio.answer = RuntimeError("a fault")
    assert await plans.Plans(gateway.database, {"lorawan": radio}, gateway.wall.now).cohorts(*asked) == {}
    assert await asking.cohorts(gateway.document(), None, gateway.inventory.all()) == {}
