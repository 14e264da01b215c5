"""When a campaign has ended, and how."""

from datetime import UTC, datetime

import pytest

from gatewayd.cloud.messages import CampaignSummary, Report, ReportKind
from gatewayd.publisher.progress import Outcome, Progress

AT = datetime(2026, 11, 1, tzinfo=UTC)


def summary(revision: int = 1, state: str = "running", campaign: str = "lamps", **nodes: int) -> CampaignSummary:
    return CampaignSummary(
        campaign=campaign, revision=revision, state=state, open_tiers=1, gate="", nodes=nodes, tiers={}, updated=AT
    )


def told(*summaries: CampaignSummary, **options: object) -> Progress:
    progress = Progress("lamps", **options)  # type: ignore[arg-type]
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
