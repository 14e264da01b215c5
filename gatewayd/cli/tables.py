"""The API's answers as tables for a terminal. Every text from elsewhere is shown as text, never as markup."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_STYLES = {
    **dict.fromkeys(("updated", "completed", "ready", "up"), "green"),
    **dict.fromkeys(("preparing", "transferring", "verifying", "installing", "confirming", "running"), "blue"),
    **dict.fromkeys(("deferred", "paused", "held", "waiting", "needs_cloud"), "yellow"),
    **dict.fromkeys(("failed", "rolled_back", "breached", "expired", "not ready"), "red"),
}
BAR_WIDTH = 16

Row = Mapping[str, Any]


def show(*parts: RenderableType) -> None:
    """Print to standard output, one empty line between parts, wide enough for a pipe to lose nothing."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    for n, part in enumerate(parts):
        if n:
            console.print()
        console.print(part)


def gateway(answer: Row) -> RenderableType:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("gateway", Text(str(answer.get("id", "")), style="bold"), f"version {answer['version']}")
    table.add_row("state", _state("ready" if answer["ready"] else "not ready"), Text("; ".join(answer["reasons"])))
    table.add_row("cloud", Text("connected" if answer["cloud"].get("connected") else "not connected"), _outbox(answer))
    for kind, status in answer["radios"].items():
        table.add_row(kind, Text(f"{answer['nodes'].get(kind, 0)} nodes"), Text(_flat(status)))
    for key, value in answer.items():
        if isinstance(value, dict) and key not in {"cloud", "radios", "outbox", "nodes", "store"}:
            table.add_row(Text(key), "", Text(_flat(value)))
    if answer["store"]["corrupt_file_set_aside"]:
        table.add_row("store", Text("a corrupt file was set aside", style="red"), "")
    return table


def campaigns(answer: Iterable[Row]) -> RenderableType:
    table = Table("campaign", "state", "release", "tiers", "nodes", "confirmed", "why", title_justify="left")
    for campaign in answer:
        state = _state(campaign["state"])
        if campaign["held"] and campaign["state"] != "held":
            state = Text.assemble(state, " ", _state("held"))
        counts = ", ".join(f"{count} {_words(name)}" for name, count in campaign["nodes"].items())
        table.add_row(
            Text(campaign["id"]),
            state,
            Text(campaign["version"] or campaign["release"]),
            f"{campaign['open_tiers']} of {len(campaign['tiers'])} open",
            Text(counts or "none"),
            _bar(campaign["confirmed_bytes"], campaign["size_bytes"]),
            Text(_why(campaign)),
        )
    return table if table.row_count else Text("no campaign")


def plans(answer: Iterable[Row]) -> list[RenderableType]:
    """A table, then what the numbers rest on."""
    table = Table("tier", "radio", "payload", "nodes", "frames", "on air", "done after", "energy at a node", "why not")
    assumptions: dict[str, None] = {}
    for plan in answer:
        table.add_row(
            Text(plan["tier"]),
            Text(plan["radio"]),
            f"{plan['payload']}, {plan['size']} bytes",
            str(plan["nodes"]),
            *_numbers(plan),
            Text(plan["problem"] or (f"{plan['skipped']} skipped: {_reasons(plan)}" if plan["skipped"] else "")),
        )
        for part in plan["parts"] if len(plan["parts"]) > 1 else ():
            table.add_row("", "", Text(f"  {part['name']}"), str(part["nodes"]), *_numbers(part), "")
        if plan["assumptions"]:
            assumptions[f"{plan['radio']}: {plan['assumptions']}"] = None
    if not table.row_count:
        return [Text("no plan yet")]
    return [table, *(Text(text, style="dim") for text in assumptions)]


def _numbers(plan: Row) -> tuple[str, str, str, str]:
    if plan.get("problem"):
        return "", "", "", ""
    energy = plan["node_energy_j"]
    return (
        str(plan["frames"]),
        _lasting(plan["airtime_s"]),
        _lasting(plan["eta_s"]),
        "?" if energy is None else f"{energy:.1f} J",
    )


def _reasons(plan: Row) -> str:
    return "; ".join(sorted(set(plan["reasons"].values())))


def _lasting(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def nodes(answer: Iterable[Row]) -> RenderableType:
    table = Table("node", "name", "state", "image on the node", "version", "battery", "seen", "why")
    for node in answer:
        update = node.get("update")
        table.add_row(
            Text(node["id"]),
            Text(node["name"] or node["model"] or ""),
            _state(update["state"]) if update else Text("no campaign", style="dim"),
            _progress(update),
            _versions(node, update),
            _battery(node),
            Text((node["last_seen"] or "never").partition(".")[0].replace("T", " ")),
            Text(_why(update) if update else ""),
        )
    return table if table.row_count else Text("no nodes")


def _state(name: str) -> Text:
    return Text(_words(name), style=_STYLES.get(name, ""))


def _outbox(answer: Row) -> Text:
    return Text(f"{answer['outbox']['reports']} reports waiting")


def _progress(update: Row | None) -> RenderableType:
    if update is None or update["state"] == "skipped":
        return ""
    return _bar(update["size"] if update["state"] == "updated" else update["confirmed"], update["size"])


def _bar(done: int, whole: int) -> RenderableType:
    if not whole:
        return ""
    grid = Table.grid(padding=(0, 1))
    grid.add_row(ProgressBar(total=whole, completed=min(done, whole), width=BAR_WIDTH), f"{100 * done / whole:.0f} %")
    return grid


def _versions(node: Row, update: Row | None) -> str:
    version = node["version"]
    text = node["firmware"] or ("?" if version is None else f"{version:#010x}")
    if update and update["state"] != "skipped" and version != update["target_version"]:
        return f"{text} → {update['target_firmware'] or format(update['target_version'], '#010x')}"
    return str(text)


def _battery(node: Row) -> str:
    if node["power"] == "mains":
        return "mains"
    return "?" if node["battery_percent"] is None else f"{node['battery_percent']:.0f} %"


def _why(row: Row) -> str:
    return ": ".join(part for part in (_words(row["code"]), row["detail"]) if part)


def _flat(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{_words(k)} {_flat(v)}" for k, v in value.items() if v not in ("", None))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(_flat(item) for item in value) or "none"
    return str(value)


def _words(name: object) -> str:
    return str(name).replace("_", " ")
