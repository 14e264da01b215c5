"""The demo in a terminal: every node with its progress, from what the nodes hold and what the cloud was told.

As a table that fits 80 columns and 24 lines, or as a line now and then where there is no terminal.
"""

from collections.abc import Mapping
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gatewayd.demo.progress import Snapshot, share
from gatewayd.demo.verdict import ALL_NODES, Told, counts

_COLOURS = {"updated": "green", "rolled_back": "red", "failed": "red", "deferred": "yellow", "skipped": "dim"}
_IDS_FROM_COLUMNS = 105
LINE_EVERY_S = 5.0


class Screen:
    """Entered once; `show` at every beat, `say` for what happens in between."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._line_due_s = 0.0
        self._last_line = ""

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.__exit__(None, None, None)

    def say(self, text: str) -> None:
        """One line that stays."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def show(self, nodes: Mapping[str, Snapshot], told: Mapping[str, Told], elapsed_s: float) -> None:
        if self._live is not None:
            self._live.update(render(nodes, told, elapsed_s, self._console.width), refresh=True)
            return
        line = summary(nodes, told)
        if elapsed_s >= self._line_due_s and line != self._last_line:
            self._line_due_s, self._last_line = elapsed_s + LINE_EVERY_S, line
            self.say(f"{elapsed_s:5.1f} s  {line}")


def summary(nodes: Mapping[str, Snapshot], told: Mapping[str, Told]) -> str:
    """Where all are, in a line: counts of states, and the mean share of the nodes that download."""
    parts = [_states(told)]
    for radio in ("zigbee", "lorawan"):
        shares = [now for name, node in nodes.items() if name.startswith(radio) and (now := share(node)) is not None]
        if shares:
            parts.append(f"{radio} images {100 * sum(shares) / len(shares):.0f} % (of {len(shares)})")
    return ", ".join(parts)


def render(nodes: Mapping[str, Snapshot], told: Mapping[str, Told], elapsed_s: float, columns: int) -> RenderableType:
    """One frame, `columns` wide at most."""
    with_ids = columns >= _IDS_FROM_COLUMNS
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)  # there is no line left for one
    table.add_column("node", no_wrap=True)
    if with_ids:
        table.add_column("id", style="dim", no_wrap=True)
    table.add_column("runs", no_wrap=True)
    table.add_column("holds of the new image", no_wrap=True)
    table.add_column("told to the cloud", no_wrap=True)
    for node in ALL_NODES:
        now, said = nodes.get(node.id), told.get(node.id)
        ids = [node.id] if with_ids else []
        table.add_row(node.name, *ids, _version(now), _bar(now, said), _told(said))
    return Group(Text(f"{elapsed_s:5.1f} s  {_states(told)}", style="bold", no_wrap=True, overflow="ellipsis"), table)


def _states(told: Mapping[str, Told]) -> str:
    return ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in counts(told).items())


def _version(now: Snapshot | None) -> str:
    version = now.get("version") if now else None
    return f"{version:#010x}" if isinstance(version, int) else "?"


def _bar(now: Snapshot | None, said: Told | None) -> RenderableType:
    done = 1.0 if said is not None and said.state == "updated" else share(now)
    if done is None:
        return Text("-", style="dim")
    grid = Table.grid(padding=(0, 1))
    grid.add_row(ProgressBar(total=1.0, completed=done, width=18), f"{100 * done:3.0f} %")
    return grid


def _told(said: Told | None) -> Text:
    if said is None:
        return Text("")
    words = ": ".join(part.replace("_", " ") for part in (said.state, said.code) if part)
    return Text(words, style=_COLOURS.get(said.state, ""))
