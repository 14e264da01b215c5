"""A plan in a terminal, or as one JSON object."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from gatewayd.cloud.messages import Campaign
from gatewayd.publisher.forecast import Air, GatewayForecast

ESTIMATES = (
    "nodes and bytes to fetch: as the gateways' own planner decides on what their inventories say now; "
    "bytes on the air, airtime and duration: estimates"
)


def show_plan(console: Console, campaign: Campaign, told: Sequence[GatewayForecast], as_json: bool) -> None:
    """All gateways, then the sum."""
    if as_json:
        fields = {
            "campaign": campaign.id,
            "audience": campaign.audience,
            "release": campaign.release,
            "gateways": [asdict(one) for one in told],
            "nodes": sum(tier.nodes for one in told for tier in one.tiers),
            "fetched_bytes": sum(one.fetched_bytes for one in told),
            "estimates": ESTIMATES,
        }
        console.file.write(json.dumps(fields) + "\n")
        return
    table = Table(title=f"{campaign.id}: {campaign.release} for {campaign.audience}")
    for heading in ("gateway", "tier", "nodes", "left out", "not now", "on the air (estimated)"):
        table.add_column(heading)
    assumptions = set()
    for one in told:
        for tier in one.tiers:
            table.add_row(
                one.gateway,
                tier.name,
                str(tier.nodes),
                _counts(tier.skipped),
                _counts(tier.deferred),
                "\n".join(_air(kind, air) for kind, air in tier.air.items()),
            )
            assumptions |= {f"{k}: {a.estimated.assumptions}" for k, a in tier.air.items() if a.estimated is not None}
        table.add_section()
    console.print(table)
    for one in told:
        text = f"{one.gateway} fetches {_bytes(one.fetched_bytes)} once"
        text += f"; nobody would begin now: {one.waits}" if one.waits else ""
        text += f"; less is known than there is: {one.problem}" if one.problem else ""
        console.print(text, markup=False)
    for line in (ESTIMATES, *sorted(assumptions)):
        console.print(line, markup=False, style="dim")


def _counts(counts: Mapping[str, int]) -> str:
    return "\n".join(f"{count} {code}" for code, count in sorted(counts.items()))


def _air(kind: str, air: Air) -> str:
    if air.estimated is None:
        return f"{kind}: cannot be told: {air.problem}"
    it = air.estimated
    return (
        f"{kind}: {air.nodes} nodes, {_bytes(it.bytes_on_air)}, {_span(it.fastest_s)} to {_span(it.slowest_s)}"
        f" ({_span(it.airtime_s)} of air)"
    )


def _bytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def _span(seconds: float) -> str:
    if seconds >= 2 * 86400:
        return f"{seconds / 86400:.1f} days"
    if seconds >= 2 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
