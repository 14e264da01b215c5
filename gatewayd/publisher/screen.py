"""A campaign's progress in a terminal, or as JSON lines."""

import json
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from gatewayd.publisher.progress import Outcome, Progress


class Screen:
    """One bar per node of which something was reported, or one JSON object per change."""

    def __init__(self, console: Console, as_json: bool) -> None:
        self._console = console
        self._as_json = as_json
        self._tasks: dict[tuple[str, str], TaskID] = {}
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TextColumn("{task.fields[state]}"))
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
            self._line({"campaign": progress.campaign, "nodes": progress.counts(), "gateways": len(progress.gateways)})
            return
        for key, node in progress.nodes.items():
            if key not in self._tasks:
                self._tasks[key] = self._bars.add_task(f"{key[0]} {key[1]}", total=None, state="")
            state = f"{node.state} {node.code}".strip()
            self._bars.update(self._tasks[key], completed=node.confirmed, total=node.size or None, state=state)

    def end(self, progress: Progress, outcome: Outcome) -> None:
        """The last word."""
        name = outcome.name.lower()
        if self._as_json:
            self._line(
                {
                    "campaign": progress.campaign,
                    "outcome": name,
                    "nodes": progress.counts(),
                    "refused": progress.refused,
                }
            )
            return
        for gateway, reason in progress.refused.items():
            self._console.print(f"{gateway} refused it: {reason}", markup=False)
        counts = ", ".join(f"{count} {state}" for state, count in sorted(progress.counts().items()))
        self._console.print(f"{progress.campaign}: {name} ({counts or 'no gateway has spoken'})", markup=False)

    def _line(self, fields: dict[str, object]) -> None:
        self._console.file.write(json.dumps(fields) + "\n")
        self._console.file.flush()
