"""Runs the campaigns: gathers what is known, lets the planner decide, stores it, then tells the radios and the cloud.

The order is always the same: decide inside one store transaction, commit, act. Acting (put, direct) is idempotent and is
repeated in full after a restart, so a crash between commit and action loses nothing. SHELL. Not responsible for what is
written of a decision (`decided.py`), nor for what the radios have heard of it (`orders.py`).
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import replace

import structlog

from gatewayd.campaign import decided, rows
from gatewayd.campaign.authority import Authority
from gatewayd.campaign.decided import REVOKED
from gatewayd.campaign.intake import Intake
from gatewayd.campaign.moves import unexplained
from gatewayd.campaign.node_update import EXECUTED, NodeUpdate
from gatewayd.campaign.orders import Orders
from gatewayd.campaign.payloads import as_stated, deltas_for, full_image
from gatewayd.campaign.planner import Decision, Situation, decide
from gatewayd.campaign.plans import Plans
from gatewayd.campaign.radio_time import RadioTime
from gatewayd.campaign.reports import summary
from gatewayd.campaign.rows import CampaignRow, CampaignState
from gatewayd.campaign.situation import Site
from gatewayd.campaign.supply import FETCHING, Supply
from gatewayd.campaign.versions import Versions
from gatewayd.cloud import outbox
from gatewayd.cloud.link import CloudLink
from gatewayd.cloud.messages import Campaign, Desired, Payload, Report, Rollout
from gatewayd.errors import StoreError, Unavailable
from gatewayd.nodes.inventory import Inventory
from gatewayd.nodes.node import Node
from gatewayd.service.wall_clock import WallClock
from gatewayd.store import witness
from gatewayd.store.database import Database
from gatewayd.store.witness import Witness
from gatewayd.trust.release import VerifiedRelease
from radios.clock import Clock
from radios.radio import Radio

TICK_S = 1.0
SUMMARY_MIN_S = 2.0
TURN_MIN_S = 0.05  # a storm of wakes is one look
ALIVE_LIMIT_S = 120.0  # a round waits for the disk and for the radios' memory, never for the network

_OVER = frozenset({CampaignState.COMPLETED, CampaignState.CANCELLED, CampaignState.EXPIRED})

log = structlog.get_logger()


class Coordinator:
    """One per daemon. `wake` may be called from anywhere in the loop's thread."""

    def __init__(
        self,
        database: Database,
        authority: Authority,
        intake: Intake,
        supply: Supply,
        inventory: Inventory,
        link: CloudLink,
        reports: outbox.Outbox,
        radios: Mapping[str, tuple[Radio, Clock]],
        wall: WallClock,
        models: Mapping[str, Mapping[str, str]] | None = None,
        site: Site | None = None,
        times: RadioTime | None = None,
        guard: Witness | None = None,
    ) -> None:
        self._witness = guard
        self._site = site or Site()
        self._times = times
        self._turn = times.turn if times is not None else asyncio.Lock()
        self._models = models or {}  # tags by hardware, for nodes that have none
        self._database = database
        self._authority = authority
        self._intake = intake
        self._supply = supply
        self._inventory = inventory
        self._link = link
        self._outbox = reports
        self._radios = radios
        self._wall = wall
        self._plans = Plans(database, {kind: radio for kind, (radio, _) in radios.items()}, wall.now)
        self._orders = Orders(authority, supply, self._radio)
        self._wake = asyncio.Event()
        self._judging: asyncio.Task[None] | None = None
        self._not_judged = ""  # why, as it was logged last
        self._begun: dict[str, float] = {}  # by kind of radio, on its clock: the first look
        self._summaries: dict[str, tuple[object, float]] = {}
        self._logged: dict[str, tuple[str, str]] = {}
        self._turned_at = time.monotonic()
        self.rounds = 0  # complete looks at all campaigns
        self.store_problem = ""  # why the last round could not be made durable

    def wake(self) -> None:
        """Something changed; look again soon."""
        self._wake.set()

    def alive(self) -> bool:
        """Whether the loop still turns; for the service manager's watchdog."""
        return time.monotonic() - self._turned_at < ALIVE_LIMIT_S

    async def campaign_message(self, topic: str, raw: bytes) -> None:
        """The link's handler for campaign topics."""
        if await self._intake.take(topic, raw):
            self.wake()

    async def hold(self, campaign: str, hold: bool) -> bool:
        """The local operator's hold or its end; False when there is no such campaign."""
        done = await self._database.write(lambda db: rows.set_hold(db, campaign, hold))
        self.wake()
        return done

    async def run(self) -> None:
        """Until cancelled. A store that cannot be written stops all action and is tried again."""
        async with asyncio.TaskGroup() as fetches:
            while True:
                self._wake.clear()
                self._turned_at = time.monotonic()
                try:
                    if self._judging is None or self._judging.done():
                        self._judging = fetches.create_task(self._judge_waiting(), name="campaigns-waiting")
                    await self._round(fetches)
                    self.rounds += 1
                    self.store_problem = ""
                except StoreError as error:
                    if not self.store_problem:
                        log.error("store_failed", error=str(error))
                    self.store_problem = str(error)
                await asyncio.sleep(TURN_MIN_S)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TICK_S):
                        await self._wake.wait()

    async def _judge_waiting(self) -> None:
        """Envelopes that could not be judged before, beside the rounds: a key may have to be looked for in the network."""
        try:
            if await self._intake.retry():
                self.wake()
            self._not_judged = ""
        except (StoreError, Unavailable) as error:
            if str(error) != self._not_judged:  # it is tried again every second
                log.warning("campaigns_not_judged", error=str(error))
            self._not_judged = str(error)

    async def _round(self, fetches: asyncio.TaskGroup) -> None:
        needed: set[str] = set()
        stored, under_way, awaited = await self._database.read(
            lambda db: (rows.campaigns(db), rows.under_way(db), witness.awaited(db))
        )
        in_the_dark = bool(awaited)  # whether a campaign may want what we do not know of
        now = self._wall.now()
        yielding = frozenset(
            row.id
            for row in stored
            if row.id in self._authority.revoked
            or row.revision < awaited.get(row.id, (0, ""))[0]
            or ((known := self._authority.campaigns.get(row.id)) is not None and known.expired(now))
        )
        for row in stored:
            verified = self._authority.campaigns.get(row.id)
            at_work = row.state not in _OVER or row.id in under_way
            if verified is None:
                if row.id in self._authority.revoked:
                    await self._freeze(row, REVOKED, "its key may not sign any more")
                else:  # it is being adopted, or nothing can be verified yet
                    in_the_dark |= at_work
                continue
            if row.revision < (newer := awaited.get(row.id, (0, ""))[0]):
                await self._freeze(
                    row, witness.ROLLED_BACK, f"revision {newer} was adopted before the database was lost"
                )
                continue
            release = self._authority.releases.get(row.release)
            if release is None and verified.document.desired is not Desired.CANCELLED:
                release = self._authority.require_release(fetches, row.release)
            wanted = self._wanted(release) if at_work else {}
            if self._times is not None:
                await self._times.follow()  # by a time that has just come nothing has soaked or waited long enough
            now = self._wall.now()
            blocked = self._blocked(row, release, fetches, wanted, now)
            needed |= wanted.keys()
            withdrawn = release is None and self._authority.release_refused(row.release)
            in_the_dark |= at_work and release is None and not withdrawn
            forbidden = self._authority.view is not None and (
                withdrawn if release is None else self._supply.forbidden(release, full_image(release))
            )
            cohorts = await self._plans.cohorts(verified.document, release, self._nodes()) if len(wanted) > 1 else {}
            async with self._turn:
                decided = await self._decide(
                    verified.document, row, release, blocked, forbidden, yielding, wanted, now, cohorts
                )
            if decided is not None:
                await self._act(verified.document, release, now, *decided)
        transfers = frozenset().union(*under_way.values())
        await self._supply.keep(frozenset(needed), transfers, complete=not in_the_dark)

    def _radio(self, kind: str) -> Radio | None:
        found = self._radios.get(kind)
        return None if found is None else found[0]

    def _nodes(self) -> list[Node]:
        nodes = (as_stated(node, self._models) for node in self._inventory.all())
        tags = self._site.tags
        return [replace(node, tags={**tags, **node.tags}) for node in nodes] if tags else list(nodes)

    def _wanted(self, release: VerifiedRelease | None) -> dict[str, Payload]:
        """By digest: the full image, and the deltas that a node here could be sent."""
        if release is None:
            return {}
        nodes = [node for node in self._nodes() if node.hardware in release.document.hardware]
        full = full_image(release)
        return {full.sha256: full, **deltas_for(nodes, release)}

    def _blocked(
        self,
        row: CampaignRow,
        release: VerifiedRelease | None,
        fetches: asyncio.TaskGroup,
        wanted: Mapping[str, Payload],
        now: float,
    ) -> tuple[str, str] | None:
        if release is not None and self._authority.view is not None:
            for payload in wanted.values():
                self._supply.require(fetches, release, payload)
        if (why := self._authority.blocked(now)) is not None:
            return why
        if release is None:
            return self._authority.release_problem(row.release)
        if (why := self._supply.blocked(release, full_image(release))) is not None:
            return why
        # A delta that cannot be had is done without; one that is on its way is waited for.
        return next(
            (why for p in wanted.values() if (why := self._supply.blocked(release, p)) and why[0] == FETCHING), None
        )

    async def _decide(
        self,
        document: Campaign,
        row: CampaignRow,
        release: VerifiedRelease | None,
        blocked: tuple[str, str] | None,
        forbidden: bool,
        yielding: frozenset[str],
        wanted: Mapping[str, Payload],
        now: float,
        cohorts: Mapping[str, str],
    ) -> tuple[Decision, dict[str, NodeUpdate], list[Report]] | None:
        """Stored on return: the decision, all updates, the reports. None: look again at once, a newer revision was adopted."""
        floor = self._authority.security_version(
            document.release
        )  # also of one withdrawn while its nodes were confirming
        unusable, refused, doubted = self._judged(release, wanted)
        radio_now = {kind: clock.wall.unix(clock.now()) for kind, (_, clock) in self._radios.items()}
        listens_since = {
            kind: clock.wall.unix(self._begun.setdefault(kind, clock.now()))
            for kind, (_, clock) in self._radios.items()
        }
        manufacturers = self._authority.manufacturers()
        nodes = {node.id: node for node in self._nodes() if node.radio in self._radios}
        versions = Versions(self._authority.known())

        def transaction(db: sqlite3.Connection) -> tuple[Decision, dict[str, NodeUpdate], list[Report]] | None:
            current = rows.campaign(db, document.id)
            if current is None or current.revision != document.revision:
                return None
            before = rows.updates_of_campaign(db, document.id)
            situation = Situation(
                campaign=document,
                row=current,
                release=release,
                manufacturers=manufacturers,
                blocked=blocked,
                forbidden=forbidden,
                nodes=nodes,
                updates=before,
                elsewhere=rows.active_elsewhere(db, document.id),
                now=now,
                radio_now=radio_now,
                unusable=unusable,
                refused=refused,
                doubted=doubted,
                cohorts=cohorts,
                listens_since=listens_since,
                yielding=yielding - {document.id},
                site=self._site,
                versions=versions,
                own_versions=rows.own_versions(db, document.id, unexplained(before.values(), nodes)),
            )
            decision = decide(situation)
            reported = decided.store(db, current, before, decision, now)
            if floor is not None:
                for node in decision.proven:
                    self._inventory.raise_floor(db, node, floor)
            return decision, {**before, **{u.node: u for u in decision.updates}}, reported

        return await self._database.write(transaction)

    async def _act(
        self,
        document: Campaign,
        release: VerifiedRelease | None,
        now: float,
        decision: Decision,
        updates: Mapping[str, NodeUpdate],
        reported: list[Report],
    ) -> None:
        self._log(decision.row)
        for told in reported:
            if told.node is not None and told.state in EXECUTED:
                log.info("node_update", node=told.node, campaign=told.campaign, state=told.state, code=told.code)
        if (floor := self._authority.security_version(document.release)) is not None:
            for node in decision.proven:
                self._inventory.floor_raised(node, floor)
            if decision.proven and self._witness is not None:
                await self._witness.write()
        await self._plans.make(document, release, updates)
        await self._orders.give(document, release, updates)
        await self._summarise(document.rollout, decision.row, updates, now)
        if reported:
            self._outbox.notify()

    def _judged(
        self, release: VerifiedRelease | None, wanted: Mapping[str, Payload]
    ) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
        """Digests of deltas that are not to be had, of those that may not be had, and of payloads in doubt."""
        if release is None:
            return frozenset(), frozenset(), frozenset()
        deltas = [payload for payload in wanted.values() if payload.kind == "delta"]
        missing = frozenset(p.sha256 for p in deltas if self._supply.blocked(release, p) is not None)
        refused = frozenset(p.sha256 for p in deltas if self._supply.forbidden(release, p))
        return missing, refused, frozenset(d for d, p in wanted.items() if self._supply.doubted(release, p))

    async def _freeze(self, row: CampaignRow, code: str, detail: str) -> None:
        """A campaign that cannot be believed (any more): nothing is done in its name, what runs is held."""
        now = self._wall.now()
        result = await self._database.write(lambda db: decided.freeze(db, row, code, detail, now))
        if result is not None:
            await self._orders.hold_and_drop(result[1])
            await self._summarise(None, *result, now)
            self._outbox.notify()

    async def _summarise(
        self, rollout: Rollout | None, row: CampaignRow, updates: Mapping[str, NodeUpdate], now: float
    ) -> None:
        made = summary(row, rollout, updates.values(), now, self._plans.of(row.id))
        content = made.model_copy(update={"updated": None})
        last, at = self._summaries.get(row.id, (None, float("-inf")))
        if content != last and time.monotonic() - at >= SUMMARY_MIN_S:  # the wall clock may leap back
            self._summaries[row.id] = (content, time.monotonic())
            await self._link.publish_retained(f"summary/{row.id}", made)

    def _log(self, row: CampaignRow) -> None:
        told = (row.state.value, row.code)
        if self._logged.get(row.id) != told:
            self._logged[row.id] = told
            log.info("campaign", campaign=row.id, state=row.state, code=row.code, detail=row.detail)
