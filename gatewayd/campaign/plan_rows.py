"""The `transfer_plan` table: what transfers were planned to take. Rows in and out, nothing decided here."""

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from radios.radio import Json, TransferPlan

PARTS_MOST = 20
SKIPPED_MOST = 20


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One transfer to the nodes of one tier over one radio; `problem`: why there are no numbers."""

    campaign: str
    tier: int
    radio: str
    transfer: str
    kind: str  # of the payload: full, delta
    size: int
    nodes: frozenset[str]
    made_at: float
    frames: int = 0
    airtime_s: float = 0.0
    eta_s: float = 0.0
    node_energy_j: float | None = None
    skipped: int = 0
    reasons: dict[str, str] = field(default_factory=dict)  # of the first that are skipped
    parts: tuple[dict[str, Json], ...] = ()  # the first of them
    assumptions: str = ""
    problem: str = ""

    @property
    def key(self) -> tuple[int, str, str]:
        return self.tier, self.radio, self.transfer

    def with_numbers(self, plan: TransferPlan) -> "PlanRow":
        """What the radio says of it."""
        energies = [part.node_energy_j for part in plan.parts if part.node_energy_j is not None]
        return replace(
            self,
            frames=plan.frames,
            airtime_s=round(plan.airtime_s, 3),
            eta_s=round(plan.eta_s, 1),
            node_energy_j=_joule(max(energies, default=None)),
            skipped=len(plan.skipped),
            reasons={str(node): plan.skipped[node] for node in sorted(plan.skipped)[:SKIPPED_MOST]},
            parts=tuple(
                {
                    "name": part.name,
                    "nodes": part.nodes,
                    "frames": part.frames,
                    "airtime_s": round(part.airtime_s, 3),
                    "eta_s": round(part.eta_s, 1),
                    "node_energy_j": _joule(part.node_energy_j),
                }
                for part in plan.parts[:PARTS_MOST]
            ),
            assumptions=plan.assumptions,
            problem="",
        )


def _joule(exact: float | None) -> float | None:
    return None if exact is None else round(exact, 3)


def plans(db: sqlite3.Connection, campaign: str | None = None) -> list[PlanRow]:
    """In the order of tiers; of all campaigns, or of one."""
    found = db.execute(
        "SELECT * FROM transfer_plan WHERE ?1 IS NULL OR campaign = ?1 ORDER BY campaign, tier, radio, transfer",
        (campaign,),
    )
    return [_plan(row) for row in found]


def replace_plans(db: sqlite3.Connection, campaign: str, made: Iterable[PlanRow]) -> None:
    """These are the campaign's plans from now on."""
    db.execute("DELETE FROM transfer_plan WHERE campaign = ?", (campaign,))
    db.executemany(
        "INSERT INTO transfer_plan (campaign, tier, radio, transfer, nodes, body, made_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (campaign, *plan.key, json.dumps(sorted(plan.nodes)), json.dumps(_body(plan), sort_keys=True), plan.made_at)
            for plan in made
        ],
    )


_COLUMNS = frozenset({"campaign", "tier", "radio", "transfer", "nodes", "made_at"})


def _body(plan: PlanRow) -> dict[str, Any]:
    return {name: value for name, value in asdict(plan).items() if name not in _COLUMNS}


def _plan(row: sqlite3.Row) -> PlanRow:
    body = json.loads(row["body"])
    columns = {name: row[name] for name in _COLUMNS - {"nodes"}}
    return PlanRow(**columns, nodes=frozenset(json.loads(row["nodes"])), **body | {"parts": tuple(body["parts"])})
