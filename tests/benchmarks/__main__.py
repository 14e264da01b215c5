"""`python -m tests.benchmarks [--only zigbee|lorawan|payload|status] [--quick]`: a table for people, build/bench/<name>.json for machines.

Each module of this package named like a choice has BENCHES, functions that return results. A module that is not there yet
is said to be missing. The exit status is 0 when everything was measured, whether or not the targets hold.
"""

import argparse
import importlib
import importlib.util
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import structlog
from rich.console import Console
from rich.table import Table

from tests.benchmarks.result import QUICK, Bench, Result

NAMES = ("zigbee", "lorawan", "payload", "status")
OUTPUT = Path("build/bench")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Measure against the targets.")
    parser.add_argument("--only", choices=NAMES, help="run the benches of one part")
    parser.add_argument("--quick", action="store_true", help="measure less, to try the benches")
    arguments = parser.parse_args()
    only = arguments.only
    if arguments.quick:
        os.environ[QUICK] = "1"
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    console = Console()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    for name in (only,) if only else NAMES:
        module = f"tests.benchmarks.{name}"
        if importlib.util.find_spec(module) is None:
            console.print(f"{name}: no benches yet")
            continue
        benches: Sequence[Bench] = importlib.import_module(module).BENCHES
        results = [result for bench in benches for result in bench()]
        path = OUTPUT / f"{name}.json"
        path.write_text(json.dumps([result.as_json() for result in results], indent=2) + "\n", encoding="utf-8")
        console.print(table(name, results))
        console.print(f"written to {path}")


def table(title: str, results: Sequence[Result]) -> Table:
    """The results as people read them."""
    made = Table(title=title)
    for heading, justify in (("what", "left"), ("value", "right"), ("target", "right"), ("holds", "left")):
        made.add_column(heading, justify=justify)  # type: ignore[arg-type]  # literals, widened by the tuple
    made.add_column("peers")
    for result in results:
        peers = ", ".join(
            f"{name} {'not here' if value is None else f'{value:.3g}'}" for name, value in result.peers.items()
        )
        made.add_row(
            result.name,
            f"{result.value:.3g} {result.unit}",
            "" if result.target is None else str(result.target),
            {None: "", True: "yes", False: "NO"}[result.holds],
            peers,
        )
    return made


if __name__ == "__main__":
    main()
