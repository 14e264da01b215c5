"""The demo in a terminal: every node with its progress, from what the nodes hold and what the cloud was told."""

from collections.abc import Mapping

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gatewayd.demo.verdict import ALL_NODES, Told

_COLOURS = {"updated": "green", "rolled_back": "red", "failed": "red", "deferred": "yellow", "skipped": "dim"}


def share(node: Mapping[str, object] | None) -> float | None:
    """How much of the image a node holds, 0..1, as its own simulator says; None when it is not downloading."""
    if not node:
        return None
    for held, whole in (("offset", "size"), ("received", "total")):
        if whole in node:
            total = float(str(node[whole]))
            return min(1.0, float(str(node[held])) / total) if total else None
    return None


def render(
    headline: str, nodes: Mapping[str, Mapping[str, object]], told: Mapping[str, Told], elapsed_s: float
) -> Group:
    """One frame."""
    table = Table(expand=True, show_edge=False)
    table.add_column("node")
    table.add_column("id", style="dim")
    table.add_column("runs", justify="right")
    table.add_column("image held", width=30)
    table.add_column("reported to the cloud")
    for node in ALL_NODES:
        now = nodes.get(node.id, {})
        said = told.get(node.id)
        held = share(now)
        state = said.state if said else ""
        if state == "updated":
            held = 1.0
        bar = ProgressBar(total=1.0, completed=held, width=28) if held is not None else Text("-", style="dim")
        version = now.get("version")
        table.add_row(
            node.name,
            node.id,
            f"{version:#010x}" if isinstance(version, int) else "?",
            bar,
            Text(f"{state} {said.code}".strip() if said else "", style=_COLOURS.get(state, "")),
        )
    return Group(Text(f"{headline}   {elapsed_s:5.1f} s", style="bold"), table)
