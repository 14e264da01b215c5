"""How a campaign stands, put together from what gateways report. PURE.

A gateway's summary says how many of its nodes are in which state; reports say which node. Outcomes are judged from
summaries alone: they are retained, so whoever begins to watch late sees the same.
"""

from dataclasses import dataclass, field
from enum import IntEnum

from gatewayd.cloud.messages import CampaignSummary, Report, ReportKind

UPDATED = frozenset({"updated", "skipped", "superseded"})
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
    """One campaign. `expected` gateways must all have spoken before it can end; empty: those that have spoken count."""

    campaign: str
    revision: int = 0  # summaries of earlier revisions are old news
    expected: frozenset[str] = frozenset()
    accept_deferred: bool = False  # nodes that wait for something (a battery, say) do not keep it open
    gateways: dict[str, CampaignSummary] = field(default_factory=dict)
    nodes: dict[tuple[str, str], NodeProgress] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)  # gateway -> why

    def summary(self, gateway: str, summary: CampaignSummary) -> None:
        """Take in a retained summary."""
        if summary.campaign == self.campaign and summary.revision >= self.revision:
            self.gateways[gateway] = summary

    def report(self, gateway: str, report: Report) -> None:
        """Take in a report; those of other campaigns are passed over."""
        if report.campaign != self.campaign:
            return
        if report.kind is ReportKind.CAMPAIGN:
            if report.state == "refused" and (report.revision is None or report.revision >= self.revision):
                self.refused[gateway] = f"{report.code}: {report.detail}"
        elif report.node is not None:
            node = self.nodes.setdefault((gateway, report.node), NodeProgress())
            node.state, node.code, node.detail = report.state, report.code, report.detail
            node.confirmed = node.confirmed if report.confirmed is None else report.confirmed
            node.size = node.size if report.size is None else report.size

    def counts(self) -> dict[str, int]:
        """Nodes by state over all gateways."""
        total: dict[str, int] = {}
        for summary in self.gateways.values():
            for state, count in summary.nodes.items():
                total[state] = total.get(state, 0) + count
        return total

    def outcome(self) -> Outcome | None:
        """How it ended; None while it goes on. A refusal and a breached gate end it at once."""
        if self.refused or any(summary.state == "breached" for summary in self.gateways.values()):
            return Outcome.FAILED
        if not self.gateways or not self.expected <= self.gateways.keys():
            return None
        if not all(self._ended(summary) for summary in self.gateways.values()):
            return None
        return Outcome.FAILED if any(self.counts().get(state) for state in FAILED) else Outcome.UPDATED

    def _ended(self, summary: CampaignSummary) -> bool:
        done = UPDATED | FAILED | ({WAITING} if self.accept_deferred else set())
        open_nodes = sum(count for state, count in summary.nodes.items() if state not in done)
        return open_nodes == 0 and (bool(summary.nodes) or summary.state in ("completed", "cancelled", "expired"))
