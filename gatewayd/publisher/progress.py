"""How a campaign stands, put together from what gateways report. PURE.

A gateway's summary says how many of its nodes are in which state; reports say which node. Outcomes are judged from
summaries alone: they are retained, so whoever begins to watch late sees the same.

Nobody has a list of all gateways. So a good end needs to know whom to wait for, by one of three ways: gateways by name,
how many there are, or the gateways whose retained `state` says that they are in the fleet. Without any of them the end is
never called good, whatever has been said: others may not have spoken yet.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum

from gatewayd.cloud.messages import CampaignSummary, GatewayState, Report, ReportKind

UPDATED = frozenset({"updated", "skipped", "superseded"})
# A node that was meant and is not updated is no success, whoever cancelled it: an expired campaign counts as failed. Those
# that a later revision has left out (`left_out`) are not meant any more.
FAILED = frozenset({"failed", "rolled_back", "cancelled"})
WAITING = "deferred"


class Outcome(IntEnum):
    """Also the exit status of `watch`."""

    UPDATED = 0
    FAILED = 1
    TIMEOUT = 2


@dataclass(slots=True)
class NodeProgress:
    """The last that was reported of a node."""

    state: str = "pending"
    confirmed: int = 0
    size: int = 0
    code: str = ""
    detail: str = ""


@dataclass(slots=True)
class Progress:
    """One campaign. Whom to wait for: `expected` by name, else `at_least` so many, else the members of `fleet`."""

    campaign: str
    revision: int = 0  # summaries of earlier revisions are old news
    expected: frozenset[str] = frozenset()
    accept_deferred: bool = False  # nodes that wait for something (a battery, say) do not keep it open
    at_least: int = 0
    fleet: str = ""  # id
    members: set[str] = field(default_factory=set)  # that say they are in the fleet, or have reported of the campaign
    said_fleet: bool = False  # at least one has said so: the members are known by more than by chance
    settled: bool = True  # all that was retained has come; members are not judged before
    gateways: dict[str, CampaignSummary] = field(default_factory=dict)
    nodes: dict[tuple[str, str], NodeProgress] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)  # gateway -> why

    def summary(self, gateway: str, summary: CampaignSummary) -> None:
        """Take in a retained summary."""
        if summary.campaign == self.campaign and summary.revision >= self.revision:
            self.gateways[gateway] = summary

    def state(self, gateway: str, state: GatewayState | None) -> None:
        """Take in a retained `state`; None: the topic was emptied, the gateway is gone for good."""
        if state is None:
            self.members.discard(gateway)
        elif self.fleet and self.fleet in state.fleets:
            self.members.add(gateway)
            self.said_fleet = True

    def report(self, gateway: str, report: Report) -> None:
        """Take in a report; those of other campaigns are passed over."""
        if report.campaign != self.campaign:
            return
        if report.kind is ReportKind.CAMPAIGN:
            if report.state == "refused":
                if report.revision is None or report.revision >= self.revision:
                    self.refused[gateway] = f"{report.code}: {report.detail}"
            else:
                self.refused.pop(gateway, None)  # it has taken one since
        elif report.node is not None:
            node = self.nodes.setdefault((gateway, report.node), NodeProgress())
            node.state, node.code, node.detail = report.state, report.code, report.detail
            node.confirmed = node.confirmed if report.confirmed is None else report.confirmed
            node.size = node.size if report.size is None else report.size

    def history(self, told: Iterable[tuple[str, Report]]) -> None:
        """Take in what a collector has stored, oldest first; who has reported of the campaign is waited for.

        A refusal does not say of which revision it was: where earlier ones are old news, so are stored refusals.
        """
        for gateway, report in told:
            if report.campaign != self.campaign:
                continue
            self.members.add(gateway)
            if not (self.revision and report.state == "refused"):
                self.report(gateway, report)

    def counts(self) -> dict[str, int]:
        """Nodes by state over all gateways."""
        total: dict[str, int] = {}
        for summary in self.gateways.values():
            _add(total, summary.nodes)
        return total

    def tiers(self) -> dict[str, dict[str, int]]:
        """Nodes by tier and state over all gateways; the tiers in their order."""
        total: dict[str, dict[str, int]] = {}
        for summary in sorted(self.gateways.values(), key=lambda s: -s.revision):
            for tier, states in summary.tiers.items():
                _add(total.setdefault(tier, {}), states)
        return total

    def missing(self) -> list[str]:
        """Those who are waited for and have not spoken of the campaign (in this revision)."""
        awaited = self.expected or (frozenset() if self.at_least else self.members)
        return sorted(awaited - self.gateways.keys())

    def view_problem(self) -> str:
        """Why a good end could not be believed yet, for people; empty when all who are waited for have spoken."""
        if missing := self.missing():
            return f"waiting for {len(missing)} gateways that have not spoken of it: {', '.join(missing[:10])}"
        if self.expected:
            return ""
        if self.at_least:
            short = self.at_least - len(self.gateways)
            return f"waiting for {short} more gateways" if short > 0 else ""
        if not self.said_fleet:
            return (
                "nobody says which gateways there are: name them (--gateway) or say how many (--expect);"
                " without that no end is called good"
            )
        return "" if self.settled else "listening for which gateways there are"

    def outcome(self) -> Outcome | None:
        """How it ended; None while it goes on. A refusal and a breached gate end it at once."""
        if self.refused or any(summary.state == "breached" for summary in self.gateways.values()):
            return Outcome.FAILED
        if not self.gateways or self.missing() or not self.settled:
            return None
        if not all(self._ended(summary) for summary in self.gateways.values()):
            return None
        if self.failures():
            return Outcome.FAILED  # nobody who has not spoken yet can mend that
        return None if self.view_problem() else Outcome.UPDATED

    def failures(self) -> int:
        """Nodes that were meant, and will not be updated by this campaign."""
        counts = self.counts()
        left_out = sum(summary.left_out for summary in self.gateways.values())
        return sum(counts.get(state, 0) for state in FAILED) - left_out

    def _ended(self, summary: CampaignSummary) -> bool:
        if not summary.nodes:
            # Its inventory has none that are meant. Where others have some, it is not what is waited for.
            over = summary.state in ("completed", "cancelled", "expired")
            return over or (summary.state == "running" and bool(self.counts()))
        done = UPDATED | FAILED | ({WAITING} if self.accept_deferred else set())
        return not sum(count for state, count in summary.nodes.items() if state not in done)


def _add(total: dict[str, int], more: dict[str, int]) -> None:
    for state, count in more.items():
        total[state] = total.get(state, 0) + count
