"""Runs the campaigns: gathers what is known, lets the planner decide, stores it, then tells the radios and the cloud.

The order is always the same: decide inside one store transaction, commit, act. Acting (put, direct) is idempotent and is
repeated in full after a restart, so a crash between commit and action loses nothing.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import replace

import structlog

from gatewayd.campaign import rows
from gatewayd.campaign.authority import Authority
from gatewayd.campaign.intake import Intake
from gatewayd.campaign.node_update import COMMITTED, NodeUpdate
from gatewayd.campaign.planner import Decision, Situation, decide, wishes
from gatewayd.campaign.reports import campaign_report, node_report, summary
from gatewayd.campaign.rows import CampaignRow, CampaignState
from gatewayd.campaign.selection import full_image
from gatewayd.campaign.supply import Supply
from gatewayd.cloud import outbox
from gatewayd.cloud.link import CloudLink
from gatewayd.cloud.messages import Campaign, Desired, Manufacturers
from gatewayd.errors import StoreError
from gatewayd.nodes.inventory import Inventory
from gatewayd.service.wall_clock import WallClock
from gatewayd.store.database import Database
from gatewayd.trust.release import VerifiedRelease
from radios.clock import Clock
from radios.radio import ImageRef, NodeDirective, NodeId, Radio, TransferOrder, Want, radio_of

TICK_S = 1.0
SUMMARY_MIN_S = 2.0
ALIVE_LIMIT_S = 300.0  # a round may wait for the network, once for every release

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
    ) -> None:
        self._database = database
        self._authority = authority
        self._intake = intake
        self._supply = supply
        self._inventory = inventory
        self._link = link
        self._outbox = reports
        self._radios = radios
        self._wall = wall
        self._wake = asyncio.Event()
        self._orders: dict[tuple[str, str], TransferOrder] = {}  # by transfer and radio
        self._directed: dict[tuple[str, str], int] = {}
        self._summaries: dict[str, tuple[object, float]] = {}
        self._logged: dict[str, tuple[str, str]] = {}
        self._turned_at = time.monotonic()

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
                    await self._intake.retry()
                    await self._round(fetches)
                except StoreError as error:
                    log.error("store_failed", error=str(error))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TICK_S):
                        await self._wake.wait()

    async def _round(self, fetches: asyncio.TaskGroup) -> None:
        needed: set[str] = set()
        for row in await self._database.read(rows.campaigns):
            verified = self._authority.campaigns.get(row.id)
            if verified is None:
                if self._authority.view is not None:
                    await self._freeze(row)
                continue
            release = self._authority.releases.get(row.release)
            if release is None and verified.document.desired is not Desired.CANCELLED:
                release = await self._authority.require_release(row.release)
            blocked = self._blocked(row, release, fetches)
            if release is not None and row.state not in (CampaignState.CANCELLED, CampaignState.COMPLETED):
                needed.add(full_image(release).sha256)
            forbidden = self._authority.view is not None and (
                self._authority.release_refused(row.release)
                if release is None
                else self._supply.forbidden(full_image(release))
            )
            await self._campaign(verified.document, row, release, blocked, forbidden)
        self._supply.needed = frozenset(needed)

    def _blocked(
        self, row: CampaignRow, release: VerifiedRelease | None, fetches: asyncio.TaskGroup
    ) -> tuple[str, str] | None:
        if (why := self._authority.blocked()) is not None:
            return why
        if release is None:
            return self._authority.release_problem(row.release)
        assert self._authority.view is not None  # noqa: S101 - blocked() said so
        payload = full_image(release)
        if row.state not in (CampaignState.COMPLETED, CampaignState.CANCELLED):
            self._supply.require(fetches, release, payload, self._authority.view.manufacturers)
        return self._supply.blocked(payload)

    async def _campaign(
        self,
        document: Campaign,
        row: CampaignRow,
        release: VerifiedRelease | None,
        blocked: tuple[str, str] | None,
        forbidden: bool,
    ) -> None:
        now = self._wall.now()
        radio_now = {kind: clock.now() for kind, (_, clock) in self._radios.items()}
        view = self._authority.view
        manufacturers = view.manufacturers if view is not None else Manufacturers(keys=())
        nodes = {node.id: node for node in self._inventory.all() if node.radio in self._radios}

        def transaction(db: sqlite3.Connection) -> tuple[Decision, dict[str, NodeUpdate], bool] | None:
            current = rows.campaign(db, document.id)
            if current is None or current.revision != document.revision:
                return None  # a newer revision was adopted meanwhile; the next round has it
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
            )
            decision = decide(situation)
            reported = self._store(db, current, before, decision, release, now)
            return decision, {**before, **{u.node: u for u in decision.updates}}, reported

        result = await self._database.write(transaction)
        if result is None:
            return
        decision, updates, reported = result
        self._log(decision.row)
        for node in decision.proven:
            await self._inventory.reload_floor(node)
        await self._direct(document, release, updates)
        await self._summarise(document, decision.row, updates, now)
        if reported:
            self._outbox.notify()

    def _store(
        self,
        db: sqlite3.Connection,
        current: CampaignRow,
        before: Mapping[str, NodeUpdate],
        decision: Decision,
        release: VerifiedRelease | None,
        now: float,
    ) -> bool:
        """Inside the transaction: the rows and the reports about them, together or not at all; whether there are any."""
        reports = []
        told = (decision.row.state, decision.row.code, decision.row.open_tiers)
        if told != (current.state, current.code, current.open_tiers):
            reports.append(campaign_report(decision.row, now))
        if replace(decision.row, updated_at=current.updated_at) != current:
            rows.put_campaign(db, replace(decision.row, updated_at=now))
        for update in decision.updates:
            old = before.get(update.node)
            if old is None or (old.state, old.code) != (update.state, update.code):
                reports.append(node_report(update, now))
        reports.extend(node_report(update, now) for update in decision.superseded)
        rows.put_updates(db, (*decision.updates, *decision.superseded), now)
        if release is not None:
            for node in decision.proven:
                self._inventory.raise_floor(db, node, release.document.security_version)
        if reports:
            outbox.append(db, reports)
        return bool(reports)

    async def _freeze(self, row: CampaignRow) -> None:
        """A campaign that does not verify (any more): nothing is done in its name, what runs is held."""
        now = self._wall.now()

        def transaction(db: sqlite3.Connection) -> dict[str, NodeUpdate]:
            updates = rows.updates_of_campaign(db, row.id)
            held = {
                node: replace(update, want=Want.HOLD, generation=update.generation + 1)
                for node, update in updates.items()
                if update.want == Want.DELIVER or (update.want == Want.INSTALL and update.state not in COMMITTED)
            }
            rows.put_updates(db, held.values(), now)
            if row.code != "revoked":
                frozen = replace(
                    row, state=CampaignState.WAITING, code="revoked", detail="its key may not sign any more"
                )
                rows.put_campaign(db, replace(frozen, updated_at=now))
                outbox.append(db, [campaign_report(frozen, now)])
            return updates | held

        await self._tell(await self._database.write(transaction))

    async def _direct(
        self, document: Campaign, release: VerifiedRelease | None, updates: Mapping[str, NodeUpdate]
    ) -> None:
        """Order and direct, where the radios have not heard it from this process. Without a release only hold and drop."""
        if release is not None and self._supply.blocked(full_image(release)) is None:
            await self._order(document, release, {(u.transfer, radio_of(u.node)) for u in wishes(updates)})
            await self._tell(updates)
        else:
            # Not a byte on air before the payload is verified in this process.
            await self._tell({n: u for n, u in updates.items() if u.want in (Want.HOLD, Want.DROP)})

    async def _order(self, document: Campaign, release: VerifiedRelease, transfers: set[tuple[str, str]]) -> None:
        payload = full_image(release)
        for transfer, kind in sorted(transfers):
            order = TransferOrder(
                transfer=transfer,
                image=ImageRef(payload.sha256, payload.size, release.document.node_version),
                priority=document.policy.priority,
                air_share=document.policy.air_share,
                expires=document.expires,
            )
            if kind in self._radios and self._orders.get((transfer, kind)) != order:
                await self._radios[kind][0].put(order)
                self._orders[transfer, kind] = order

    async def _tell(self, updates: Mapping[str, NodeUpdate]) -> None:
        by_radio: dict[str, list[NodeDirective]] = {}
        for update in wishes(updates):
            key = (update.transfer, update.node)
            if self._directed.get(key) != update.generation and radio_of(update.node) in self._radios:
                directive = NodeDirective(update.transfer, NodeId(update.node), update.generation, Want(update.want))
                by_radio.setdefault(radio_of(update.node), []).append(directive)
        for kind, directives in by_radio.items():
            await self._radios[kind][0].direct(directives)
            for directive in directives:
                self._directed[directive.transfer, directive.node] = directive.generation

    async def _summarise(
        self, document: Campaign, row: CampaignRow, updates: Mapping[str, NodeUpdate], now: float
    ) -> None:
        made = summary(row, document.rollout, updates.values(), now)
        content = made.model_copy(update={"updated": None})
        last, at = self._summaries.get(row.id, (None, 0.0))
        if content != last and now - at >= SUMMARY_MIN_S:
            self._summaries[row.id] = (content, now)
            await self._link.publish_retained(f"summary/{row.id}", made)

    def _log(self, row: CampaignRow) -> None:
        told = (row.state.value, row.code)
        if self._logged.get(row.id) != told:
            self._logged[row.id] = told
            log.info("campaign", campaign=row.id, state=row.state, code=row.code, detail=row.detail)
