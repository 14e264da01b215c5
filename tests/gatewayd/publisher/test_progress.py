"""When a campaign has ended, and how."""

from datetime import UTC, datetime

import pytest

from gatewayd.cloud.messages import CampaignSummary, GatewayState, Report, ReportKind
from gatewayd.publisher.progress import Outcome, Progress

AT = datetime(2026, 11, 1, tzinfo=UTC)


def report(state: str, campaign: str = "lamps", code: str = "") -> Report:
    return Report(kind=ReportKind.CAMPAIGN, at=AT, state=state, code=code, campaign=campaign)


_WHOM = {"expected", "at_least", "fleet"}


def summary(revision: int = 1, state: str = "running", campaign: str = "lamps", **nodes: int) -> CampaignSummary:
    return CampaignSummary(
        campaign=campaign, revision=revision, state=state, open_tiers=1, gate="", nodes=nodes, tiers={}, updated=AT
    )


def told(*summaries: CampaignSummary, **options: object) -> Progress:
    """Said by gw-0, gw-1 ..., who are waited for where nothing else is said."""
    named = {"expected": frozenset(f"gw-{number}" for number in range(len(summaries)))}
    progress = Progress("lamps", **(options if _WHOM & options.keys() else named | options))  # type: ignore[arg-type]
    for number, each in enumerate(summaries):
        progress.summary(f"gw-{number}", each)
    return progress


@pytest.mark.parametrize(
    ("nodes", "outcome"),
    [
        ({"updated": 3}, Outcome.UPDATED),
        ({"updated": 2, "skipped": 1, "superseded": 1}, Outcome.UPDATED),
        ({"updated": 2, "transferring": 1}, None),
        ({"updated": 2, "deferred": 1}, None),
        ({"updated": 2, "failed": 1}, Outcome.FAILED),
        ({"updated": 2, "rolled_back": 1}, Outcome.FAILED),
        ({"failed": 1, "pending": 1}, None),  # the others may still go on
        ({"cancelled": 1}, Outcome.FAILED),
        ({}, None),
    ],
)
def test_outcomes(nodes: dict[str, int], outcome: Outcome | None) -> None:
    assert told(summary(**nodes)).outcome() is outcome


def test_nobody_has_spoken() -> None:
    assert told().outcome() is None


def test_every_gateway_counts() -> None:
    assert told(summary(updated=1), summary(updated=1, pending=1)).outcome() is None
    assert told(summary(updated=1), summary(failed=1)).outcome() is Outcome.FAILED


def test_expected_gateways_are_waited_for() -> None:
    assert told(summary(updated=1), expected=frozenset({"gw-0", "gw-1"})).outcome() is None
    assert (
        told(summary(updated=1), summary(updated=1), expected=frozenset({"gw-0", "gw-1"})).outcome() is Outcome.UPDATED
    )


def member(fleet: str = "north") -> GatewayState:
    return GatewayState(state="offline", connection="", gateway="", fleets=(fleet,))


def test_a_fleet_whose_gateways_nobody_names_never_ends_well() -> None:
    """The first gateway is done before the others have said a word: that is not the end."""
    progress = told(summary(updated=1), fleet="north")
    assert progress.outcome() is None
    assert "--gateway" in progress.view_problem()
    progress.history([("gw-0", report("updated"))])  # who has reported is no list of all
    assert progress.outcome() is None
    assert told(summary(updated=1), summary(failed=1), fleet="north").outcome() is Outcome.FAILED


def test_the_members_of_a_fleet_are_waited_for_also_while_they_are_offline() -> None:
    progress = told(summary(updated=1), fleet="north")
    progress.state("gw-0", member())
    progress.state("gw-1", member())
    progress.state("gw-2", member("south"))
    assert progress.outcome() is None
    assert progress.missing() == ["gw-1"]
    progress.summary("gw-1", summary(updated=2))
    assert progress.outcome() is Outcome.UPDATED


def test_a_member_that_is_gone_for_good_is_not_waited_for() -> None:
    progress = told(summary(updated=1), fleet="north")
    progress.state("gw-0", member())
    progress.state("gw-1", member())
    progress.state("gw-1", None)
    assert progress.outcome() is Outcome.UPDATED


def test_who_has_reported_of_the_campaign_is_waited_for_too() -> None:
    progress = told(summary(updated=1), fleet="north")
    progress.state("gw-0", member())
    progress.history([("gw-7", report("transferring")), ("gw-8", report("updated", campaign="others"))])
    assert progress.missing() == ["gw-7"]
    assert progress.outcome() is None


def test_nothing_ends_well_before_what_is_retained_has_come() -> None:
    progress = told(summary(updated=1), fleet="north", settled=False)
    progress.state("gw-0", member())
    assert progress.outcome() is None
    progress.settled = True
    assert progress.outcome() is Outcome.UPDATED
    assert told(summary(failed=1), fleet="north", settled=False).outcome() is None  # others may go on


def test_a_number_of_gateways_can_be_waited_for() -> None:
    assert told(summary(updated=1), at_least=2).outcome() is None
    assert told(summary(updated=1), summary(updated=1), at_least=2).outcome() is Outcome.UPDATED
    assert told(summary(updated=1), summary(pending=1), summary(updated=1), at_least=2).outcome() is None


def test_what_a_later_revision_has_left_out_is_no_failure_and_what_has_expired_is() -> None:
    assert told(summary(updated=1, cancelled=2)).outcome() is Outcome.FAILED
    left_out = summary(updated=1, cancelled=2).model_copy(update={"left_out": 2})
    assert told(left_out).outcome() is Outcome.UPDATED
    assert told(left_out.model_copy(update={"left_out": 1})).outcome() is Outcome.FAILED


def test_a_gateway_of_the_fleet_without_such_nodes_does_not_keep_it_open() -> None:
    assert told(summary(updated=1), summary()).outcome() is Outcome.UPDATED
    assert told(summary(updated=1), summary(state="waiting")).outcome() is None  # it does not know its nodes yet
    assert told(summary(), summary()).outcome() is None


def test_a_refusal_that_was_overcome_is_forgotten() -> None:
    progress = told(summary(updated=1))
    progress.report("gw-0", report("refused", code="unknown_key"))
    assert progress.outcome() is Outcome.FAILED
    progress.report("gw-0", report("waiting"))
    assert progress.outcome() is Outcome.UPDATED


def test_stored_reports_tell_who_failed_to_whoever_comes_late() -> None:
    node = "zigbee:0000000000000001"
    progress = told(summary(failed=1))
    told_of = Report(kind=ReportKind.NODE, at=AT, state="failed", code="lost", campaign="lamps", node=node)
    progress.history([("gw-0", told_of), ("gw-0", report("refused", code="expired"))])
    assert progress.nodes["gw-0", node].code == "lost"
    assert progress.refused == {"gw-0": "expired: "}
    later = told(summary(updated=1), revision=1)
    later.history([("gw-0", report("refused", code="expired"))])
    assert later.outcome() is Outcome.UPDATED  # an earlier revision may have been refused


def test_tiers_are_added_up_over_gateways() -> None:
    one = summary(updated=1, pending=2).model_copy(update={"tiers": {"lab": {"updated": 1}, "all": {"pending": 2}}})
    two = summary(pending=1).model_copy(update={"tiers": {"lab": {}, "all": {"pending": 1}}})
    assert list(told(one, two).tiers().items()) == [("lab", {"updated": 1}), ("all", {"pending": 3})]


def test_a_gateway_without_such_nodes_is_done_when_it_says_so() -> None:
    assert told(summary(updated=1), summary(state="completed")).outcome() is Outcome.UPDATED


def test_deferred_nodes_can_be_accepted() -> None:
    assert told(summary(updated=1, deferred=1), accept_deferred=True).outcome() is Outcome.UPDATED


def test_a_breached_gate_ends_it() -> None:
    assert told(summary(state="breached", failed=1, pending=9)).outcome() is Outcome.FAILED


def test_older_revisions_and_other_campaigns_are_passed_over() -> None:
    assert told(summary(updated=1), revision=2).outcome() is None
    assert told(summary(campaign="others", updated=1)).outcome() is None


def test_a_refusal_ends_it() -> None:
    progress = told(summary(updated=1, pending=1))
    progress.report("gw-1", Report(kind=ReportKind.CAMPAIGN, at=AT, state="refused", code="expired", campaign="lamps"))
    assert progress.outcome() is Outcome.FAILED
    assert progress.refused == {"gw-1": "expired: "}


def test_the_last_report_of_a_node_is_kept() -> None:
    progress = Progress("lamps")
    node = "zigbee:0000000000000001"
    for state, confirmed in (("transferring", 100), ("transferring", 300), ("verifying", None)):
        progress.report(
            "gw",
            Report(
                kind=ReportKind.PROGRESS, at=AT, state=state, campaign="lamps", node=node, confirmed=confirmed, size=400
            ),
        )
    progress.report("gw", Report(kind=ReportKind.NODE, at=AT, state="failed", campaign="others", node=node))
    kept = progress.nodes["gw", node]
    assert (kept.state, kept.confirmed, kept.size) == ("verifying", 300, 400)
