"""What each transfer will take, asked of the radios before its first byte is on air, and kept. SHELL.

Nothing depends on a plan: one that cannot be made, or not be stored, is said and holds up nobody. It is made anew while
nobody has begun, for a radio gets to know its nodes better, and when a node comes that it did not count; what was planned
for nodes that have begun stays, so that it can be compared with what came of it.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

import structlog

from gatewayd.campaign import plan_rows
from gatewayd.campaign.node_update import NodeUpdate, State
from gatewayd.campaign.payloads import full_image, order_for, payload_of, transfer_id
from gatewayd.campaign.plan_rows import PlanRow
from gatewayd.cloud.messages import Campaign
from gatewayd.errors import StoreError
from gatewayd.nodes.node import Node
from gatewayd.store.database import Database
from gatewayd.trust.release import VerifiedRelease
from radios.radio import NodeId, Radio, radio_of

AGAIN_S: Final = 60.0  # between two plans of the same nodes
SOON_S: Final = 5.0  # ... while the radio has not heard of all of them
LIMIT_S: Final = 2.0  # that a radio may take: planning is arithmetic
_PROBLEM_MOST: Final = 200

_LEFT_OUT = frozenset({State.SKIPPED, State.SUPERSEDED, State.CANCELLED})
_NOT_BEGUN = frozenset({State.PENDING, State.PREPARING})

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Group:
    """Nodes of one tier that get the same payload over the same radio."""

    tier: int
    radio: str
    transfer: str
    nodes: frozenset[str]
    begun: bool  # some of them hold bytes of it

    @property
    def key(self) -> tuple[int, str, str]:
        return self.tier, self.radio, self.transfer


def groups(updates: Mapping[str, NodeUpdate]) -> list[Group]:
    """All that the nodes of a campaign are sent, and were, in the order of tiers. PURE."""
    found: dict[tuple[int, str, str], list[NodeUpdate]] = {}
    for update in updates.values():
        if update.state not in _LEFT_OUT:
            found.setdefault((update.tier, radio_of(update.node), update.transfer), []).append(update)
    return [
        Group(*key, frozenset(u.node for u in members), any(u.effective not in _NOT_BEGUN for u in members))
        for key, members in sorted(found.items())
    ]


def is_due(group: Group, plan: PlanRow | None, asked_s: float | None) -> bool:
    """Whether the radio is to be asked (again); `asked_s`: so long ago it was asked last in this process. PURE."""
    if plan is None:
        return True
    if (not group.begun and group.nodes != plan.nodes) or group.nodes - plan.nodes:
        return True
    return (not group.begun or bool(plan.problem)) and (asked_s is None or asked_s >= AGAIN_S)


class Plans:
    """`radios` by kind; `now` is the wall clock's, `monotonic` measures between two questions (default: the loop's time)."""

    def __init__(
        self,
        database: Database,
        radios: Mapping[str, Radio],
        now: Callable[[], float],
        monotonic: Callable[[], float] | None = None,
    ) -> None:
        self._database = database
        self._radios = radios
        self._now = now
        self._monotonic = monotonic or (lambda: asyncio.get_running_loop().time())
        self._kept: dict[str, dict[tuple[int, str, str], PlanRow]] = {}
        self._asked_at: dict[tuple[str, int, str, str], float] = {}
        # By campaign: of what it was asked, until when it holds, and what was found.
        self._cohorts: dict[str, tuple[tuple[str, frozenset[str]], float, dict[str, str]]] = {}

    def of(self, campaign: str) -> list[PlanRow]:
        """In the order of tiers."""
        return [plan for _, plan in sorted(self._kept.get(campaign, {}).items())]

    async def make(
        self, document: Campaign, release: VerifiedRelease | None, updates: Mapping[str, NodeUpdate]
    ) -> None:
        """Before any of it starts: see to it that there is a plan for all that the campaign's nodes are sent."""
        try:
            kept = self._kept.get(document.id)
            if kept is None:
                stored = await self._database.read(lambda db: plan_rows.plans(db, document.id))
                kept = {plan.key: plan for plan in stored}
            if release is None:
                self._kept[document.id] = kept
                return
            wanted = groups(updates)
            made = {group.key: kept[group.key] for group in wanted if group.key in kept}
            for group in wanted:
                if (plan := await self._renewed(document, release, group, kept.get(group.key))) is not None:
                    made[group.key] = plan
            self._kept[document.id] = made
            if made != kept:
                await self._database.write(
                    lambda db: plan_rows.replace_plans(db, document.id, [plan for _, plan in sorted(made.items())])
                )
        except StoreError as error:
            log.warning("plan_not_stored", campaign=document.id, error=str(error))

    async def cohorts(
        self, document: Campaign, release: VerifiedRelease | None, nodes: Collection[Node]
    ) -> Mapping[str, str]:
        """By node: with whom it would share one multicast, as the radios plan the full image; asked now and then."""
        if release is None:
            return {}
        meant = sorted(n.id for n in nodes if n.hardware in release.document.hardware)
        question, now = (release.path, frozenset(meant)), self._monotonic()
        known = self._cohorts.get(document.id)
        if known is not None and known[0] == question and now < known[1]:
            return known[2]
        payload, found, complete = full_image(release), dict[str, str](), True
        for kind, radio in self._radios.items():
            order = order_for(document, release, payload, transfer_id(document.id, payload, 1))
            if mine := [NodeId(node) for node in meant if radio_of(node) == kind]:
                try:
                    async with asyncio.timeout(LIMIT_S):
                        plan = await radio.plan(order, mine)
                except Exception as error:  # noqa: BLE001 - as above: then each node gets the smallest
                    log.warning("plan_failed", campaign=document.id, radio=kind, error=str(error) or repr(error))
                else:
                    complete &= not plan.skipped  # after a start the radio has yet to hear of some
                    shared = [part for part in plan.parts if part.multicast]
                    found |= {node: f"{kind} {n}" for n, part in enumerate(shared) for node in part.members}
        self._cohorts[document.id] = question, now + (AGAIN_S if complete else SOON_S), found
        return found

    async def _renewed(
        self, document: Campaign, release: VerifiedRelease, group: Group, before: PlanRow | None
    ) -> PlanRow | None:
        """A plan that says something else than the one before; None: that one still holds."""
        key = (document.id, *group.key)
        now, asked_at = self._monotonic(), self._asked_at.get(key)
        if not is_due(group, before, None if asked_at is None else now - asked_at):
            return None
        payload, radio = payload_of(group.transfer, release), self._radios.get(group.radio)
        if payload is None or radio is None:
            return None
        self._asked_at[key] = now
        row = PlanRow(document.id, *group.key, payload.kind, payload.size, group.nodes, self._now())
        try:
            async with asyncio.timeout(LIMIT_S):
                order = order_for(document, release, payload, group.transfer)
                row = row.with_numbers(await radio.plan(order, [NodeId(node) for node in sorted(group.nodes)]))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a plan, the transfer does not depend on it
            said = str(error) or type(error).__name__
            log.warning("plan_failed", campaign=document.id, transfer=group.transfer, radio=group.radio, error=said)
            row = replace(row, problem=said[:_PROBLEM_MOST])
            if before is not None and not before.problem and before.nodes == row.nodes:
                return None  # what was planned is better than nothing
        # The same of a radio that has just started: it knows no node until its network server has named them.
        if before is not None and before.frames and not row.frames and before.nodes == row.nodes:
            return None
        same = before is not None and replace(row, made_at=before.made_at) == before
        return None if same else row
