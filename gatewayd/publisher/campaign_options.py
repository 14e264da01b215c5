"""What a campaign is made of, as options of `start` and `plan`."""

import json
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

import click
from pydantic import ValidationError

from gatewayd.cloud import messages
from gatewayd.publisher import campaigns
from gatewayd.publisher.metadata import DAY_S
from gatewayd.publisher.options import FILE, Number

P = ParamSpec("P")
R = TypeVar("R")

audience_option = click.option("--audience", required=True, help="gateway:<id> or fleet:<id>.")


def document_options(command: Callable[..., R]) -> Callable[..., R]:
    """A new campaign's options as one argument `document: Campaign`; the command's first argument is its name."""

    @audience_option
    @click.option("--release", required=True, help="releases/<name>/<version>.json")
    @click.option("--node", "nodes", multiple=True, help="Only these nodes. Default: all of the release's hardware.")
    @click.option("--tier", "tiers", multiple=True, help="<name>=<percent>, rising. Default: all=100.")
    @click.option(
        "--gate", type=click.Choice(["local", "cloud"]), help="Who opens the next tier. Default: cloud for fleets."
    )
    @click.option(
        "--soak-s", type=Number(), default=0, help="How long a tier must have been fine before the next opens."
    )
    @click.option("--stage-by", type=click.Choice(["transfer", "install"]), help="What the tiers hold back.")
    @click.option(
        "--rollout", type=FILE, help="JSON file with a campaign's `rollout`, instead of the four options above."
    )
    @click.option("--days", type=float, default=7.0, show_default=True, help="Lifetime; at most 30.")
    @click.option("--policy", type=FILE, help="JSON file with a campaign's `policy`.")
    @wraps(command)
    def wrapped(
        *args: object,
        name: str,
        audience: str,
        release: str,
        nodes: tuple[str, ...],
        tiers: tuple[str, ...],
        gate: str | None,
        soak_s: int,
        stage_by: str | None,
        rollout: Path | None,
        days: float,
        policy: Path | None,
        **kwargs: object,
    ) -> R:
        document = campaigns.new_campaign(
            name,
            release,
            audience,
            time.time(),
            lifetime_s=days * DAY_S,
            selection=checked(messages.Selection, {"nodes": list(nodes) or None}, "selection"),
            rollout=_from_file(messages.Rollout, rollout) or _rollout(audience, tiers, gate, soak_s, stage_by),
            policy=_from_file(messages.Policy, policy),
        )
        return command(*args, document=document, **kwargs)

    return wrapped


def checked(kind: type[messages.D], values: dict[str, object], what: str) -> messages.D:
    """The document, or a wrong usage with every field that is out of range."""
    try:
        return kind.model_validate_json(json.dumps(values))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or what}: {e['msg']}" for e in error.errors())
        raise click.UsageError(f"{what}: {faults}") from error


def _rollout(
    audience: str, tiers: tuple[str, ...], gate: str | None, soak_s: int, stage_by: str | None
) -> messages.Rollout:
    parsed = []
    for text in tiers:
        name, _, percent = text.partition("=")
        try:
            parsed.append({"name": name, "percent": float(percent)})
        except ValueError:
            raise click.UsageError(f"--tier {text!r}: <name>=<percent>") from None
    kind = gate or ("cloud" if audience.startswith("fleet:") else "local")
    values: dict[str, object] = {"gate": {"kind": kind, "soak_s": soak_s}}
    if parsed:
        values["tiers"] = parsed
    if stage_by:
        values["stage_by"] = stage_by
    return checked(messages.Rollout, values, "rollout")


def _from_file(kind: type[messages.D], file: Path | None) -> messages.D | None:
    return messages.parse(kind, file.read_bytes(), str(file)) if file else None
