"""A campaign's progress in a terminal, or as JSON lines."""

import json
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from gatewayd.publisher.progress import FAILED, UPDATED, WAITING, NodeProgress, Outcome, Progress

NODES_SHOWN = 12  # with bars of their own: those under way
_IDLE = UPDATED | FAILED | {WAITING, "pending"}


class Screen:
    """A bar for every tier and for the nodes under way, or one JSON object per change."""

    def __init__(self, console: Console, as_json: bool) -> None:
        self._console = console
        self._as_json = as_json
        self._tiers: dict[str, TaskID] = {}
        self._nodes: dict[tuple[str, str], TaskID] = {}
        self._said = ""
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"))
        self._bars = Bars(*columns, console=console, disable=as_json)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def update(self, progress: Progress) -> None:
        """Show what has changed."""
        if self._as_json:
            self._line(
                {
                    "campaign": progress.campaign,
                    "nodes": progress.counts(),
                    "tiers": progress.tiers(),
                    "gateways": len(progress.gateways),
                    "waiting_for": progress.view_problem(),
                }
            )
            return
        if (problem := progress.view_problem()) != self._said:
            self._said = problem
            if problem:
                self._console.print(problem, markup=False)
        for tier, states in progress.tiers().items():
            if tier not in self._tiers:
                self._tiers[tier] = self._bars.add_task(f"tier {tier}", total=None, state="")
            done = sum(count for state, count in states.items() if state in UPDATED)
            self._bars.update(
                self._tiers[tier], completed=done, total=sum(states.values()) or None, state=_told(states)
            )
        self._show_nodes(progress)

    def _show_nodes(self, progress: Progress) -> None:
        moving = {key: node for key, node in progress.nodes.items() if node.state not in _IDLE}
        shown = dict(list(moving.items())[:NODES_SHOWN])
        for key in [key for key in self._nodes if key not in shown]:
            self._bars.remove_task(self._nodes.pop(key))
        for key, node in shown.items():
            if key not in self._nodes:
                self._nodes[key] = self._bars.add_task(f"{key[0]} {key[1]}", total=None, state="")
            self._bars.update(self._nodes[key], completed=node.confirmed, total=node.size or None, state=_of_node(node))

    def end(self, progress: Progress, outcome: Outcome) -> None:
        """The last word: also who has failed, as far as it was reported, and who is still waited for."""
        name = outcome.name.lower()
        failed = {key: node for key, node in sorted(progress.nodes.items()) if node.state in FAILED}
        if self._as_json:
            self._line(
                {
                    "campaign": progress.campaign,
                    "outcome": name,
                    "nodes": progress.counts(),
                    "tiers": progress.tiers(),
                    "refused": progress.refused,
                    "missing": progress.missing(),
                    "failed": [
                        {"gateway": gateway, "node": node, "state": told.state, "code": told.code}
                        for (gateway, node), told in failed.items()
                    ],
                }
            )
            return
        for gateway, reason in progress.refused.items():
            self._console.print(f"{gateway} refused it: {reason}", markup=False)
        for (gateway, node), told in failed.items():
            self._console.print(f"{gateway} {node}: {_of_node(told)} {told.detail}".rstrip(), markup=False)
        if outcome is Outcome.TIMEOUT and (problem := progress.view_problem()):
            self._console.print(problem, markup=False)
        counts = _told(progress.counts())
        self._console.print(f"{progress.campaign}: {name} ({counts or 'no gateway has spoken'})", markup=False)

    def _line(self, fields: dict[str, object]) -> None:
        self._console.file.write(json.dumps(fields) + "\n")
        self._console.file.flush()


def _told(states: dict[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted(states.items()))


def _of_node(node: NodeProgress) -> str:
    return f"{node.state} {node.code}".strip()
